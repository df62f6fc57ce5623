"""The step time of a large table against a small one, and the largest table that trains here.

python benchmarks/table_size.py               30M rows × 64 against 1M, same batches: the ratio of their step times
python benchmarks/table_size.py --largest 18  a table of that many GiB: does it train, save and end?
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bags import BATCH, bags, options

ALLOWED = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[1_000_000, 30_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=float, help="GiB")
    a = parser.parse_args()
    if a.largest is not None:
        rows = int(a.largest * 2**30 / (4 * a.dim))
        began = time.perf_counter()
        milliseconds = step(rows, a.dim, BATCH * 40)
        took = time.perf_counter() - began
        print(
            f"{rows:,} rows × {a.dim} ({a.largest} GiB): {milliseconds:.1f} ms a step, {took:.0f} s from start to checkpoint"
        )
        return
    small, large = [], []
    for _ in range(a.repeats):
        small.append(step(a.rows[0], a.dim, a.samples))
        large.append(step(a.rows[1], a.dim, a.samples))
        print(f"{a.rows[0]:,} rows {small[-1]:.2f} ms, {a.rows[1]:,} rows {large[-1]:.2f} ms", flush=True)
    ratio = statistics.median(large) / statistics.median(small)
    print(f"{a.rows[1]:,} rows cost {ratio:.2f} × the step of {a.rows[0]:,} (asked: at most {ALLOWED})")


def step(rows: int, dim: int, samples: int) -> float:
    """Return the milliseconds of a step on a table of ``rows`` rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags(folder, samples, rows)
        command = [
            sys.executable,
            "-m",
            "bigembed",
            "train",
            *options(folder, rows, dim),
            f"hydra.run.dir={folder}/run",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        speed = json.loads((folder / "run" / "metrics.json").read_text())["speed"]
        return 1000 * speed["train_s"] / -(-samples // BATCH)


if __name__ == "__main__":
    main()
