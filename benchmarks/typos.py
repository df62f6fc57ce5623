"""Reviews with typing errors: what the word vocabulary loses by them, and what the subword table loses.

    python benchmarks/typos.py --data DIR/imdb --seeds 3

Both are trained on the reviews as they are. In the test part then each word, with a probability of 20 %, has one character
inserted, left out, exchanged with the next, or replaced, by a seeded generator; both are judged on both.
"""

import argparse
import json
import random
import re
import statistics
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHARE, ALLOWED = 0.2, 0.5
EXPERIMENTS = {"words": "imdb_words", "subword": "imdb_subword"}


def with_typos(text: str, rng: random.Random, share: float = SHARE) -> str:
    """Return a text in which each word, with the probability ``share``, has one typing error."""
    return re.sub(r"\w+", lambda found: typo(found[0], rng) if rng.random() < share else found[0], text)


def typo(word: str, rng: random.Random) -> str:
    """Return a word with one error that leaves a word, and another one."""
    while True:
        at, letter = rng.randrange(len(word)), rng.choice(string.ascii_lowercase)
        kind = rng.choice(["insert", "replace"] if len(word) == 1 else ["insert", "delete", "swap", "replace"])
        if kind == "insert":
            return word[:at] + letter + word[at:]
        if kind == "delete":
            return word[:at] + word[at + 1 :]
        swapped = word[at + 1 : at + 2] + word[at] + word[at + 2 :]
        other = word[:at] + (swapped if kind == "swap" else letter + word[at + 1 :])
        if other != word:
            return other


def write_noisy(source: Path, target: Path, seed: int = 0) -> None:
    """Write reviews with typing errors; the labels stay."""
    table, rng = pq.read_table(source, columns=["text", "label"]), random.Random(seed)
    texts = [with_typos(text, rng) for text in table["text"].to_pylist()]
    pq.write_table(pa.table({"text": texts, "label": table["label"]}), target)


def accuracies(data: Path, noisy: Path, experiment: str, seed: int, more: list[str]) -> tuple[float, float]:
    """Train once; return the accuracies on the test part as it is, and with typing errors."""
    with tempfile.TemporaryDirectory() as name:
        run, figures = Path(name) / "run", Path(name) / "figures.json"
        job = [f"experiment={experiment}", f"data.path={data}", f"seed={seed}", "runtime.tensorboard=false", *more]
        call("train", *job, f"hydra.run.dir={run}")
        found = []
        for path in (data / "test.parquet", noisy):
            call("evaluate", f"run={run}", f"data.path={path}", f"output={figures}")
            found.append(json.loads(figures.read_text())["test"]["accuracy"])
    return found[0], found[1]


def call(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bigembed", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bigembed {' '.join(arguments)}\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--experiments", nargs=2, default=list(EXPERIMENTS.values()), help="of words, then of subwords")
    parser.add_argument("more", nargs="*", help="more options of both jobs, e.g. trainer.epochs=1")
    a = parser.parse_args()
    lost = {}
    with tempfile.TemporaryDirectory() as folder:
        noisy = Path(folder) / "test.parquet"
        write_noisy(a.data / "test.parquet", noisy)
        for experiment in a.experiments:
            runs = [accuracies(a.data.resolve(), noisy, experiment, seed, a.more) for seed in range(a.seeds)]
            clean, dirty = (statistics.mean(run[which] for run in runs) for which in (0, 1))
            lost[experiment] = clean - dirty
            print(
                f"{experiment:<16} {clean:.4f}, with typing errors {dirty:.4f}: loses {100 * (clean - dirty):.2f} points",
                flush=True,
            )
    words, subword = (lost[experiment] for experiment in a.experiments)
    print(f"{a.experiments[1]} loses {subword / words:.2f} of what {a.experiments[0]} loses (asked: at most {ALLOWED})")


if __name__ == "__main__":
    main()
