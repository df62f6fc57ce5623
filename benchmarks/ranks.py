"""Several gloo ranks against one process on the same cores: samples/s of the whole job, on a table of 5M rows × 64.

    python benchmarks/ranks.py                                                  bags of 200 ids, as of texts
    python benchmarks/ranks.py --bag 20 --batch 4096 --samples 400000           bags of 20, as of clicks

Both run in turn, several times, with all cores between them; the figures are medians, the samples/s those of metrics.json
(`speed`: reading, encoding, steps and reports, without the start of the processes).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bags import bags, options

ALLOWED = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--bag", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="further options of the job, e.g. trainer.batch_size=16384")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags(folder, a.samples, a.rows, a.bag)
        common = [*options(folder, a.rows, a.dim, a.batch), *a.overrides]
        alone, together = [], []
        for repeat in range(a.repeats):
            alone.append(speed([sys.executable, "-m", "bigembed"], common, folder / f"alone{repeat}"))
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={a.ranks}"]
            together.append(speed([*torchrun, "-m", "bigembed"], common, folder / f"together{repeat}"))
            print(f"one process {alone[-1]:,.0f} samples/s, {a.ranks} ranks {together[-1]:,.0f}", flush=True)
    ratio = statistics.median(together) / statistics.median(alone)
    print(f"{a.ranks} ranks: {ratio:.2f} × one process (asked: at least {ALLOWED})")


def speed(command: list[str], common: list[str], run: Path) -> float:
    """Return the samples/s of a job."""
    subprocess.run(
        [*command, "train", *common, f"hydra.run.dir={run}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return json.loads((run / "metrics.json").read_text())["speed"]["samples_per_s"]


if __name__ == "__main__":
    main()
