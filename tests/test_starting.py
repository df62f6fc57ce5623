"""Rows that start from vectors: what rank 0 reads comes to whoever holds the rows, and stays, thaws or is pulled back as asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from running import SMALL, bigembed

KINDS = ["table_wise", "row_wise", "column_wise", "data_parallel", "table_row_wise", "table_column_wise", "grid"]
ROWS, DIM = 37, 16


def steps() -> list[Any]:
    """Puts that overlap, sums, and lengths of 1, all from one generator."""
    from bigembed.pretrained.steps import Add, Normalise, Put

    rng = np.random.default_rng(3)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rows = rng.permutation(ROWS)[:20].astype(np.int64)
    return [
        Put(np.r_[rows, rows[:3]], numbers(23, DIM)),
        Put(np.arange(30, ROWS), numbers(1, 6), column=5, given=False),
        Put(rows[:5], np.zeros((1, DIM), np.float32)),
        Add(rng.choice(rows[:5], 50), rng.integers(0, 9, 50).astype(np.int32), numbers(50), numbers(9, DIM)),
        Put(np.empty(0, np.int64), np.empty((0, DIM), np.float32)),
        Normalise(rows[:9], 0, DIM),
        Normalise(rows[9:12], 4, 8),
    ]


def expected(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the steps make of a table, and which of its rows a file gave; one row after the other."""
    table, given = table.astype(np.float64), np.zeros(len(table), bool)
    for step in steps():
        kind = type(step).__name__
        if kind == "Put":
            width = step.vectors.shape[1]
            for number, row in enumerate(step.rows):
                table[row, step.column : step.column + width] = step.vectors[number if len(step.vectors) > 1 else 0]
                given[row] |= step.given
        elif kind == "Add":
            for row, source, weight in zip(step.rows, step.sources, step.weights, strict=True):
                table[row] += weight * step.vectors[source].astype(np.float64)
        else:
            part = table[step.rows, step.column : step.column + step.width]
            length = np.linalg.norm(part, axis=1, keepdims=True)
            table[step.rows, step.column : step.column + step.width] = np.divide(
                part, length, out=part, where=length > 0
            )
    return table, given


def fill(options: list[str], kinds: list[str]) -> list[Any]:
    """On one rank: fill a table of every kind with the steps of rank 0; return what this rank holds before and after."""
    import os

    import torch.distributed as dist

    from bigembed.build import build, fill_rows
    from bigembed.checkpoint import Group
    from bigembed.config import compose
    from bigembed.optim import Optimizers
    from bigembed.runtime import start
    from bigembed.sharding.rows import states, weights
    from bigembed.starting.held import Held
    from bigembed.starting.sharing import shared

    store = next(dist.rendezvous("env://"))[0] if "WORLD_SIZE" in os.environ else None
    results = []
    for number, kind in enumerate(kinds):
        jobs: list[Any] = []
        compose.run([*options, f"sharding.kind={kind}"], lambda job, folder, jobs=jobs: jobs.append(job))
        with start(jobs[0].runtime, dist.PrefixStore(str(number), store) if store else None) as runtime:
            model, group = build(jobs[0], {"text": ROWS}, runtime), Group(runtime.control)
            fill_rows(model, jobs[0])
            optimizers = Optimizers(model, jobs[0], 10)
            own, kept = weights(model)["text"], list(states(model, optimizers).get("text", {}).values())
            before = [shard.read().copy() for shard in own]
            held = Held(own, kept, group)
            for step in shared(iter(steps() if group.chief else []), group):
                held.take(step)
            held.settle()
            frozen = [np.isinf(shard.read()).copy() for shard in (kept[0] if kept else [])]
            windows = [shard.window for shard in own]
            results.append((windows, before, [shard.read().copy() for shard in own], frozen))
            del model, optimizers, own, kept, held
    return results


@pytest.mark.parametrize(("world", "hosts", "kinds"), [(1, 1, ["table_wise"]), (2, 1, KINDS[:4]), (4, 2, KINDS)])
def test_steps_of_rank_0_reach_the_rows_wherever_they_lie(
    tmp_path: Path, world: int, hosts: int, kinds: list[str]
) -> None:
    options = [
        "tables.text.ngrams=1",
        f"tables.text.dim={DIM}",
        "sharding.min_partition=4",
        f"hydra.run.dir={tmp_path}",
        "optim.tables.kind=adagrad",
    ]
    results = run_ranks(fill, world, options, kinds, hosts=hosts)
    for number, kind in enumerate(kinds):
        before, after = np.full((ROWS, DIM), np.nan), np.full((ROWS, DIM), np.nan)
        frozen = np.zeros((ROWS, DIM), bool)
        for windows, *parts in (result[number] for result in results):
            for window, first, last, stays in zip(windows, *parts, strict=True):
                before[window], after[window], frozen[window] = first, last, stays
        wanted, given = expected(before)
        np.testing.assert_allclose(after, wanted, rtol=1e-6, atol=1e-6, err_msg=kind)
        np.testing.assert_array_equal(frozen, np.repeat(given[:, None], DIM, 1), err_msg=kind)
        untouched = ~np.isin(np.arange(ROWS), [*steps()[0].rows, *steps()[1].rows])
        np.testing.assert_array_equal(after[untouched], before[untouched])
