"""What rank 0 reads, told to the other ranks: one small header and a few arrays at a time."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bigembed.checkpoint import Group
from bigembed.errors import UserError
from bigembed.pretrained.steps import Step


def shared(steps: Iterator[Step], group: Group) -> Iterator[Step]:
    """Yield, on every rank, the steps that the chief makes; the others' ``steps`` are not looked at.

    Raises
    ------
    UserError, RuntimeError
        The chief's error, on all ranks.
    """
    if group.group is None:
        yield from steps
        return
    while True:
        step, header = None, None
        if group.chief:
            step, header = _next(steps)
        header = group.from_chief(header)
        if header is None:
            return
        if isinstance(header, Exception):
            raise header
        kind, plain, arrays = header
        values = dict(plain)
        for name, dtype, shape in arrays:
            array = np.ascontiguousarray(getattr(step, name)) if group.chief else np.empty(shape, dtype)
            if array.size:
                dist.broadcast(torch.from_numpy(array), src=0, group=group.group)
            values[name] = array
        yield kind(**values)


def _next(steps: Iterator[Step]) -> tuple[Step | None, Any]:
    """Return the next step and what the others must know to receive it: its kind, plain values and shapes; or its error."""
    try:
        step = next(steps, None)
    except UserError as error:
        return None, error
    except Exception as error:
        return None, RuntimeError(f"rank 0: {type(error).__name__}: {error}")
    if step is None:
        return None, None
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    return step, (type(step), plain, [(name, each.dtype.str, each.shape) for name, each in arrays.items()])
