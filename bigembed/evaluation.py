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

    def shares() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:  # every rank makes the same number of steps
        for start in range(0, len(rows), batch_size):
            yield share(rows[start : start + batch_size], runtime)

    head = model.module.head
    head = getattr(head, "module", head)  # several ranks wrap it
    figures = Classification()
    model.eval()
    try:
        for batch in Ahead(partial(collate, examples), shares()):
            check()
            batch = batch.to(runtime.device, non_blocking=True)
            with torch.no_grad():
                _, (losses, scores) = model(batch)
            figures.update(losses, head.probabilities(scores), batch.labels[: batch.samples])
    finally:
        model.train()
    return figures.result()


def share(rows: np.ndarray, runtime: Runtime) -> tuple[np.ndarray, np.ndarray, int]:
    """Return this rank's rows of a global batch, for each the next one of that batch, and the most rows that any rank has.

    A rank's rows are contiguous and in order; the next one of the last row is the first. Neither depends on the ranks.
    """
    world, rank, size = runtime.world, runtime.rank, len(rows)
    own = slice(size * rank // world, size * (rank + 1) // world)
    return rows[own], np.roll(rows, -1)[own], -(-size // world)
