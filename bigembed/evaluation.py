"""A model's figures on rows of a data part."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.batch import collate
from bigembed.config.schema import RankingHead
from bigembed.loader import Ahead
from bigembed.metrics import Classification, Ranking
from bigembed.prepare import Part
from bigembed.retrieving import evaluate_lists
from bigembed.runtime import Runtime


def evaluate(
    model: DistributedModelParallel,
    part: Part,
    batch_size: int,
    runtime: Runtime,
    check: Callable[[], None] = lambda: None,
    ranking: Ranking | None = None,
) -> dict[str, float]:
    """Return the head's figures on a part and its number of samples, the same on every rank.

    ``check`` is called every step. ``ranking``, for ranking heads, is a fresh one that the caller wants to ask for more.
    """
    if part.cases is not None:
        return evaluate_lists(model, part, batch_size, runtime, check)
    examples, rows = part.examples, part.rows

    def shares() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:  # every rank makes the same number of steps
        for start in range(0, len(rows), batch_size):
            yield share(rows[start : start + batch_size], runtime)

    head = model.module.head
    head = getattr(head, "module", head)  # several ranks wrap it
    config, groups = examples.job.head, examples.groups
    figures = (ranking or Ranking(config)) if isinstance(config, RankingHead) else Classification()
    model.eval()
    try:
        for batch in Ahead(partial(collate, examples), shares()):
            check()
            batch = batch.to(runtime.device, non_blocking=True)
            with torch.no_grad():
                _, (losses, scores) = model(batch)
            answers = losses, head.probabilities(scores), batch.labels[: batch.samples]
            if isinstance(figures, Ranking):
                figures.update(*answers, None if groups is None else groups[batch.rows])
            else:
                figures.update(*answers)
    finally:
        model.train()
    return figures.result()


def share(rows: np.ndarray, runtime: Runtime) -> tuple[np.ndarray, np.ndarray, int]:
    """Return this rank's rows of a global batch, for each the next one of that batch, and the most rows that any rank has.

    A rank's rows are contiguous and in order; the next one of the last row is the first. Neither depends on the ranks.
    """
    own = runtime.share(len(rows))
    return rows[own], np.roll(rows, -1)[own], -(-len(rows) // runtime.world)
