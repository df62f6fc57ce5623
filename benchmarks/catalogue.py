"""What a training step costs as the catalogue grows: two towers with sampled losses over 100k, 1M and 10M items, in one run.

    python benchmarks/catalogue.py                  (up to 3 GiB; --items for others)

A million interactions of 100,000 users, items drawn alike (the worst for caches), vectors of 32 numbers; softmax with 1,024 shared
negatives, and BPR with one negative of each sample's own. What is timed is the command's steps: drawing,
encoding, losses, the updates; what is done once, before them, is told beside it with the peak of memory. Each run is a process of its
own, in turn; ten times the items should cost at most 1.2 times a step.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, INTERACTIONS, DIM, REPORT, ASKED = 100_000, 1_000_000, 32, 20, 1.2
LOSSES = {
    "softmax": ["head.loss=softmax", "head.negatives=1024"],
    "bpr": ["head.loss=bpr", "head.shared=false", "head.in_batch=false", "head.negatives=1"],
}


def write(folder: Path, items: int) -> None:
    """Write train.parquet and items.parquet."""
    rng = np.random.default_rng(0)
    drawn = {"user": rng.integers(0, USERS, INTERACTIONS), "item": rng.integers(0, items, INTERACTIONS)}
    pq.write_table(pa.table(drawn), folder / "train.parquet")
    pq.write_table(pa.table({"item": np.arange(items)}), folder / "items.parquet")


def options(folder: Path, items: int, batch: int, steps: int, loss: str) -> list[str]:
    """Return the options of a job on them."""
    chosen = ["data=files", f"data.path={folder}", "data.items=items", "data.test=null", "data.validation_fraction=0"]
    chosen += [
        "data.in_memory_mib=4096",
        "~table@tables.text",
        "~feature@features.text",
        "head=two_tower",
        *LOSSES[loss],
    ]
    for name, rows in (("user", USERS), ("item", items)):
        chosen += [f"+table@tables.{name}=ids", f"tables.{name}.rows={rows}", f"tables.{name}.dim={DIM}"]
        chosen += [
            f"+feature@features.{name}=column",
            *(f"features.{name}.{key}={name}" for key in ("table", "column", "of")),
        ]
    chosen += [f"trainer.batch_size={batch}", f"trainer.steps={steps}", f"trainer.report_every={REPORT}"]
    return [*chosen, "runtime.tensorboard=false", f"hydra.run.dir={folder}/run"]


def measured(a: argparse.Namespace) -> dict[str, float]:
    """Return the median milliseconds of a step, the seconds of all that is not steps, and the peak of memory (GiB)."""
    from bigembed.cli import main

    items, batch, loss = a.items[0], a.batch, a.one
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), items)
        began = time.perf_counter()
        assert main(["train", *options(Path(folder), items, batch, a.steps, loss), f"runtime.threads={a.threads}"]) == 0
        whole = time.perf_counter() - began
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["part"] == "train"]
    return {
        "step_ms": statistics.median(1000 * batch / line["samples_per_s"] for line in told[1:]),
        "rest_s": whole - sum(line["train_s"] for line in told),
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "load": os.getloadavg()[0],
    }


def child(loss: str, items: int, a: argparse.Namespace) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    own = [
        "--one",
        loss,
        "--items",
        str(items),
        "--batch",
        str(a.batch),
        "--steps",
        str(a.steps),
        "--threads",
        str(a.threads),
    ]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}  # as the command sets them
    done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=list(LOSSES), help="one measurement, for this program's own use")
    a = parser.parse_args()
    if a.one:
        print(json.dumps(measured(a)))
        return
    for loss in a.losses:
        steps: dict[int, list[float]] = {}
        for _ in range(a.repeats):  # in turn: the machine's speed drifts
            for items in a.items:
                run = child(loss, items, a)
                steps.setdefault(items, []).append(run["step_ms"])
                print(
                    f"{loss}, {items:,} items: {run['step_ms']:.1f} ms a step, {run['rest_s']:.1f} s besides, "
                    f"{run['gib']:.1f} GiB, load {run['load']:.1f}",
                    flush=True,
                )
        middle = {items: statistics.median(each) for items, each in steps.items()}
        for fewer, more in zip(a.items, a.items[1:], strict=False):
            ratio = middle[more] / middle[fewer]
            print(
                f"{loss}: {more:,} items cost {ratio:.2f} × a step of {fewer:,} (asked: at most {ASKED} for ten times as many)"
            )


if __name__ == "__main__":
    main()
