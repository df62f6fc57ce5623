"""Reviews as words and pairs of words: what is lost against the full vocabulary by tables of 2^17 rows, or of as many bytes.

    python benchmarks/tables.py --data DIR/imdb --seeds 3 --lr 0.2 0.4 0.8

Every kind is trained at every learning rate of the tables with every seed, in processes of their own. The learning rate is
chosen by the loss on the validation part (5 % of the training rows, another with every seed), kind by kind; then the
accuracy on the test part is told. A part's bytes are those of its rows and of their optimizer's state.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ALLOWED = 0.005  # of the accuracy of the full vocabulary, for hashing into 2^17 rows
ROW, HALF, NARROW = 68, 36, 20  # bytes of rows of 16, 8 and 4 numbers, with rowwise Adagrad's one


def variants(rows: int) -> dict[str, list[str]]:
    """Return the options of every kind; all but ``full`` and ``imdb_hashed`` take the bytes of ``rows`` rows of 16 numbers."""
    wide = min(20_000, rows // 4)  # words with wide rows in the mixed table
    words = 3 * wide  # that have narrow ones
    weighed = rows * ROW // (ROW + NARROW)  # rows that leave room for as many weights
    hashed, pairs = ["experiment=imdb_hashed", "tables.text.importance=null"], "experiment=imdb_quotient_remainder"
    side = rows * ROW // (2 * HALF)
    half = f"tables.text.partitions=[{rows // 2},{rows // 2}]"
    return {
        "full": ["experiment=imdb"],
        "hashed": [*hashed, f"tables.text.buckets={rows}"],
        "hashed, 2 functions": [*hashed, f"tables.text.buckets={rows}", "tables.text.functions=2"],
        "hashed, signs": [*hashed, f"tables.text.buckets={rows}", "tables.text.sign=true"],
        "hashed, importance": [
            "experiment=imdb_hashed",
            f"tables.text.buckets={weighed}",
            f"tables.text.importance={weighed}",
        ],
        "imdb_hashed": ["experiment=imdb_hashed"],
        "quotient-remainder, mult": [pairs, half],
        "quotient-remainder, add": [pairs, half, "tables.text.combine=add"],
        "quotient-remainder, concat": [pairs, f"tables.text.partitions=[{side},{side}]", "tables.text.combine=concat"],
        "words and buckets": [
            "experiment=imdb",
            f"tables.text.max_size={wide}",
            f"tables.text.buckets={rows - wide - 1}",
        ],
        "mixed": [
            "table@tables.text=mixed",
            "data=imdb",
            "data.validation_fraction=0.05",
            "tables.text.distinct=true",
            "optim.dense.lr=0.4",
            "trainer.monitor=loss",
            "tables.text.widths=[16,4]",
            f"tables.text.blocks=[{wide}]",
            f"tables.text.max_size={wide + words}",
            f"tables.text.buckets={(rows - wide) * ROW // NARROW - words - 1}",
        ],
    }


def figures(options: list[str]) -> dict[str, float]:
    """Train once; return validation loss and accuracy, test accuracy, and the rows' bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bigembed", "train", *options, f"hydra.run.dir={folder}/run"]
        done = subprocess.run([*command, "runtime.tensorboard=false"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(options)}\n{done.stderr[-2000:]}")
        told = json.loads((Path(folder) / "run" / "metrics.json").read_text())
        tables = sorted(Path(folder).glob("run/checkpoints/step-*/tables/*.npy"))
        size = sum(path.stat().st_size for path in {path.name: path for path in tables}.values())
    return {
        "loss": told["validation"]["loss"],
        "validation": told["validation"]["accuracy"],
        "test": told["test"]["accuracy"],
        "bytes": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--rows", type=int, default=2**17)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.2, 0.4, 0.8])
    parser.add_argument("--only", nargs="+", help="kinds to measure; by default all")
    parser.add_argument("--out", type=Path, help="JSON file for every run's figures")
    parser.add_argument("more", nargs="*", help="more options of the job, e.g. trainer.epochs=1")
    a = parser.parse_args()
    chosen: dict[str, tuple[float, list[dict[str, float]]]] = {}
    every = {}
    for name, options in variants(a.rows).items():
        if a.only and name not in a.only:
            continue
        tried = {}
        for lr in a.lr:
            fixed = [*options, f"data.path={a.data.resolve()}", f"optim.tables.lr={lr}", *a.more]
            tried[lr] = [figures([*fixed, f"seed={seed}"]) for seed in range(a.seeds)]
        best = min(tried, key=lambda lr: statistics.mean(run["loss"] for run in tried[lr]))
        chosen[name], every[name] = (best, tried[best]), {str(lr): runs for lr, runs in tried.items()}
        print(line(name, *chosen[name]), flush=True)
        if a.out:
            a.out.write_text(json.dumps(every, indent=1))
    tell(chosen, a.rows)


def line(name: str, lr: float, runs: list[dict[str, float]]) -> str:
    """Return the figures of a kind at its learning rate."""
    tests = [run["test"] for run in runs]
    spread = statistics.stdev(tests) if len(tests) > 1 else 0.0
    validation = statistics.mean(run["validation"] for run in runs)
    size = runs[0]["bytes"] / 2**20
    return f"{name:<27} {size:7.2f} MiB  lr {lr:<5g} validation {validation:.4f}  test {statistics.mean(tests):.4f} ± {spread:.4f}"


def tell(chosen: dict[str, tuple[float, list[dict[str, float]]]], rows: int) -> None:
    """Print what was asked for."""
    mean = {name: statistics.mean(run["test"] for run in runs) for name, (_, runs) in chosen.items()}
    for name in ("hashed", "imdb_hashed"):
        if {"full", name} <= set(mean):
            lost = mean["full"] - mean[name]
            print(f"{name}, {rows:,} rows, loses {100 * lost:.2f} points (asked: at most {100 * ALLOWED})")
    for name in mean:
        if "hashed" in mean and name not in ("full", "hashed"):
            print(f"{name} beats plain hashing by {100 * (mean[name] - mean['hashed']):+.2f} points")


if __name__ == "__main__":
    main()
