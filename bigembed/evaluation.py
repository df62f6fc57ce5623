"""A model's figures on rows of a data part."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.batch import collate
from bigembed.examples import Examples
from bigembed.loader import Ahead
from bigembed.metrics import Classification
from bigembed.runtime import Runtime


def evaluate(
    model: DistributedModelParallel,
    examples: Examples,
    rows: np.ndarray,
    batch_size: int,
    runtime: Runtime,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return loss, accuracy and number of samples over ``rows`` (int64), the same on every rank; ``check`` is called every step."""

    def shares() -> Iterator[tuple[np.ndarray, float]]:  # every rank makes the same number of steps
        for start in range(0, len(rows), batch_size):
            yield share(rows[start : start + batch_size], runtime), 1.0

    head = model.module.head
    head = getattr(head, "module", head)  # several ranks wrap it
    figures = Classification()
    model.eval()
    try:
        for batch in Ahead(partial(collate, examples), shares()):
            check()
            batch = batch.to(runtime.device, non_blocking=True)
            with torch.no_grad():
                _, losses, scores = model(batch)
            figures.update(losses, head.probabilities(scores), batch.labels)
    finally:
        model.train()
    return figures.result()


def share(rows: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Return the rows of a global batch that belong to this rank: contiguous, in order, as even as can be."""
    return rows[len(rows) * runtime.rank // runtime.world : len(rows) * (runtime.rank + 1) // runtime.world]
