"""DLRM with 26 tables of 1M rows × 64 beside the same model on torch's nn.EmbeddingBag: samples a second, in one run.

    python benchmarks/dlrm.py                      (up to 13 GiB for the dense gradients and for torch's Adagrad; --rows for fewer)
    python benchmarks/dlrm.py --plain              (the peers' products of pairs as torch's own indexing has them)

A sample has an id (--ids for more) for each table, by Zipf's law (exponent 1.05) scattered over the rows, and 13 numbers. The head is
``heads/dlrm.py`` for all, so that the dense part is the same: numbers through a layer of 64, a deep layer of 64; torch's SGD trains it.
The peers have a nn.EmbeddingBag for every table (sums), with dense gradients under SGD, with sparse ones under SGD and Adagrad;
bigembed's tables are fused, rowwise Adagrad or SGD. Batches are made beforehand for all. Each measurement is a process of its own, in
turn, and takes the median of its steps; the load of the machine is told beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for all: threads that spin stall each other on shared cores
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from bigembed import heads
from bigembed.batch import Batch
from bigembed.build import build, fill_rows
from bigembed.config.schema import (
    DenseOptimConfig,
    DenseOptimizer,
    DLRMHead,
    FeatureConfig,
    IdsTable,
    Job,
    NumberConfig,
    Of,
    OptimConfig,
    Pooling,
    RuntimeConfig,
    Schedule,
    TableOptimConfig,
    TableOptimizer,
)
from bigembed.heads import dlrm
from bigembed.layout import Layout
from bigembed.optim import Optimizers
from bigembed.runtime import Runtime, start

TABLES, DIM, NUMBERS, EXPONENT, LR = 26, 64, 13, 1.05, 0.01
BATCHES, WARM = 8, 2
HEAD = DLRMHead(bottom=[64], hidden=[64])
NAMES = [f"id{number}" for number in range(TABLES)]
DENSE_NAMES = [f"number{number}" for number in range(NUMBERS)]
PEERS = {"dense SGD": (False, torch.optim.SGD), "sparse SGD": (True, torch.optim.SGD)}
PEERS["sparse Adagrad"] = (True, torch.optim.Adagrad)
OURS = {"bigembed rowwise Adagrad": TableOptimizer.rowwise_adagrad, "bigembed SGD": TableOptimizer.sgd}
ASKED = {"dense SGD": 10, "sparse SGD": 3, "sparse Adagrad": 3}
Step = Callable[[int], None]


class Peer(nn.Module):
    """The same model on nn.EmbeddingBag."""

    def __init__(self, rows: int, sparse: bool) -> None:
        super().__init__()
        first = (torch.empty(rows, DIM).uniform_(-1 / DIM, 1 / DIM) for _ in NAMES)
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(rows, DIM, mode="sum", sparse=sparse, _weight=each) for each in first
        )
        columns = {name: slice(DIM * place, DIM * (place + 1)) for place, name in enumerate(NAMES)}
        dense = {name: slice(DIM * TABLES + place, DIM * TABLES + place + 1) for place, name in enumerate(DENSE_NAMES)}
        of, number_of = dict.fromkeys(NAMES, Of.sample), dict.fromkeys(DENSE_NAMES, Of.sample)
        self.head = heads.build(HEAD, Layout(columns, dense, of, number_of, {}))

    def forward(self, ids: torch.Tensor, numbers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        sums = [table(own) for table, own in zip(self.tables, ids, strict=True)]
        scores = self.head(torch.cat([*sums, numbers], 1), {}, labels)  # without dropout no seeds are read
        return self.head.losses(scores, labels).mean()


def plain_products(vectors: torch.Tensor) -> torch.Tensor:
    """Return what ``heads.dlrm.pair_products`` does, as DLRM's own code has it."""
    row, column = torch.tril_indices(vectors.shape[1], vectors.shape[1], -1)
    return torch.bmm(vectors, vectors.transpose(1, 2))[:, row, column]


def drawn(rows: int, batch: int, bag: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return batches: ids, int64 (tables, samples, bag), numbers and labels, float32."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(np.arange(1, rows + 1) ** -EXPONENT)
    found = []
    for _ in range(BATCHES):
        ranks = np.searchsorted(ends, rng.random((TABLES, batch, bag)) * ends[-1])
        ids = ranks * 0x9E3779B1 % rows  # a prime: every rank has a row of its own
        numbers, labels = rng.normal(size=(batch, NUMBERS)), rng.integers(0, 2, (batch, 1))
        found.append((torch.from_numpy(ids), torch.from_numpy(numbers).float(), torch.from_numpy(labels).float()))
    return found


def rate(step: Step, batch: int, seconds: float) -> float:
    """Return the samples a second by the median step of so many seconds of them, of three at least."""
    taken: list[float] = []
    for number in cycle(range(BATCHES)):
        began = time.perf_counter()
        step(number)
        taken.append(time.perf_counter() - began)
        if len(taken) >= WARM + 3 and sum(taken[WARM:]) > seconds:
            return batch / statistics.median(taken[WARM:])
    raise AssertionError("a cycle has no end")


def peer(kind: str, batch: int, a: argparse.Namespace) -> float:
    """Return the samples a second of a peer."""
    if a.plain:
        dlrm.pair_products = plain_products
    sparse, optimizer = PEERS[kind]
    model, batches = Peer(a.rows, sparse), drawn(a.rows, batch, a.ids)
    of_tables = optimizer(model.tables.parameters(), lr=LR)
    of_head = torch.optim.SGD(model.head.parameters(), lr=LR)

    def step(number: int) -> None:
        of_tables.zero_grad()
        of_head.zero_grad()
        model(*batches[number]).backward()
        of_tables.step()
        of_head.step()

    return rate(step, batch, a.seconds)


def ours(kind: str, batch: int, a: argparse.Namespace) -> float:
    """Return the samples a second of bigembed."""
    job = Job(
        tables={name: IdsTable(dim=DIM, rows=a.rows) for name in NAMES},
        features={name: FeatureConfig(table=name, column=name, pooling=Pooling.sum) for name in NAMES},
        numbers={name: NumberConfig(column=name) for name in DENSE_NAMES},
        head=HEAD,
        optim=OptimConfig(
            tables=TableOptimConfig(kind=OURS[kind], lr=LR),
            dense=DenseOptimConfig(kind=DenseOptimizer.sgd, lr=LR),
            schedule=Schedule.constant,
        ),
        runtime=RuntimeConfig(threads=a.threads),
    )
    with start(job.runtime) as runtime:
        return _trained(job, runtime, batch, a)  # what holds the process group is gone by then


def _trained(job: Job, runtime: Runtime, batch: int, a: argparse.Namespace) -> float:
    model = build(job, dict.fromkeys(NAMES, a.rows), runtime)
    fill_rows(model, job)
    optimizers = Optimizers(model, job, 1)
    batches = [_batch(*each) for each in drawn(a.rows, batch, a.ids)]

    def step(number: int) -> None:
        optimizers.zero_grad()
        loss, _ = model(batches[number])
        loss.backward()
        optimizers.step()

    return rate(step, batch, a.seconds)


def _batch(ids: torch.Tensor, numbers: torch.Tensor, labels: torch.Tensor) -> Batch:
    samples = len(labels)
    features = KeyedJaggedTensor(NAMES, ids.flatten(), lengths=torch.full((TABLES * samples,), ids.shape[2]))
    seeds = torch.zeros(samples, dtype=torch.int64)
    return Batch(features, None, None, numbers, labels, seeds, 1 / samples, np.arange(samples), ids.numel())


def child(kind: str, batch: int, a: argparse.Namespace) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    own = ["--one", kind, "--batches", str(batch), "--rows", str(a.rows), "--ids", str(a.ids)]
    own += ["--seconds", str(a.seconds), "--threads", str(a.threads), *(["--plain"] if a.plain else [])]
    done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr[-2000:] or done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=1, help="of a sample, for each table")
    parser.add_argument("--plain", action="store_true", help="the peers' products of pairs by torch's indexing")
    parser.add_argument("--batches", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--kinds", nargs="+", choices=[*PEERS, *OURS], default=[*PEERS, *OURS])
    parser.add_argument("--seconds", type=float, default=10, help="of steps, a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=[*PEERS, *OURS], help="one measurement, for this program's own use")
    a = parser.parse_args()
    if a.one:
        torch.set_num_threads(a.threads)
        measured = peer if a.one in PEERS else ours
        print(json.dumps({"rate": measured(a.one, a.batches[0], a), "load": os.getloadavg()[0]}))
        return
    for batch in a.batches:
        rates: dict[str, list[float]] = {kind: [] for kind in a.kinds}
        for kind in islice(cycle(a.kinds), a.repeats * len(a.kinds)):  # in turn: the machine's speed drifts
            run = child(kind, batch, a)
            rates[kind].append(run["rate"])
            print(f"{kind}, batches of {batch}: {run['rate']:,.0f} samples/s, load {run['load']:.1f}", flush=True)
        middle = {kind: statistics.median(each) for kind, each in rates.items()}
        for mine in OURS.keys() & middle.keys():
            for kind in PEERS.keys() & middle.keys():
                ratio = middle[mine] / middle[kind]
                print(f"batches of {batch}: {mine} has {ratio:.1f} × the samples/s of {kind} (asked: {ASKED[kind]})")


if __name__ == "__main__":
    main()
