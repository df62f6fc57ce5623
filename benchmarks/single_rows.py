"""A step of a table whose rows are looked up one by one (quotient-remainder, multiplied), with FBGEMM's own way back and as bags of one id.

    python benchmarks/single_rows.py

A plain table of as many ids stands beside it.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torchrec import KeyedJaggedTensor

from bigembed.batch import Batch
from bigembed.build import build, fill_rows
from bigembed.config.physical import physical
from bigembed.config.schema import (
    BagHead,
    CompositionalTable,
    FeatureConfig,
    HashedTable,
    Job,
    RuntimeConfig,
    TableConfig,
)
from bigembed.optim import Optimizers
from bigembed.runtime import start
from bigembed.sharding import place

SAMPLES, IDS, ROWS, STEPS = 512, 400, 65_536, 20


def milliseconds(table: TableConfig) -> float:
    """Return the median time of a step of ``SAMPLES`` bags of ``IDS`` elements."""
    job = Job(
        tables={"t": table},
        features={"f": FeatureConfig("t")},
        head=BagHead(),
        runtime=RuntimeConfig(threads=torch.get_num_threads()),
    )
    there = physical(job)
    with start(job.runtime) as runtime:
        model = build(job, dict.fromkeys(there.tables, ROWS), runtime)
        fill_rows(model, job)
        optimizers, times = Optimizers(model, job, STEPS), []
        keys = list(there.features)
        ids = torch.randint(0, ROWS, (len(keys) * SAMPLES * IDS,))
        features = KeyedJaggedTensor(keys, ids, lengths=torch.full((len(keys) * SAMPLES,), IDS))
        labels, seeds = torch.randint(0, 2, (SAMPLES,)), torch.arange(SAMPLES)
        batch = Batch(features, None, None, torch.empty(SAMPLES, 0), labels, seeds, 1 / SAMPLES, np.arange(SAMPLES), 0)
        for step in range(STEPS):
            began = time.perf_counter()
            optimizers.schedule(step)
            optimizers.zero_grad()
            loss, _ = model(batch)
            loss.backward()
            optimizers.step()
            times.append(time.perf_counter() - began)
        del model, optimizers, loss
    return 1000 * float(np.median(times[3:]))


def main() -> None:
    as_they_are: Callable[[Any], None] = lambda model: None  # noqa: E731
    product = CompositionalTable(dim=16, partitions=[ROWS, ROWS])
    print(f"{SAMPLES * IDS:,} elements a step, dim 16, {torch.get_num_threads()} threads")
    print(f"a plain table: {milliseconds(HashedTable(dim=16, buckets=ROWS)):.1f} ms a step")
    found = {}
    for name, way in (
        ("FBGEMM's own way", patch.object(place, "look_up_as_bags", as_they_are)),
        ("bags of one id", nullcontext()),
    ):
        with way:
            found[name] = milliseconds(product)
        print(f"quotient-remainder, {name}: {found[name]:.1f} ms a step")
    own, bags = found.values()
    print(f"{own / bags:.1f} × as fast as bags of one id")


if __name__ == "__main__":
    main()
