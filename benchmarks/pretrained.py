"""What vectors that gensim trained on unlabelled reviews are worth: IMDB with 1,000 labelled reviews, and with all 25,000.

    python benchmarks/pretrained.py --data DIR/imdb [--vectors FILE] [--seeds 3]      (needs the extra "peers")

The vectors are gensim's CBOW of 100 numbers from the reviews of unsupervised.parquet, of bigembed's own tokens, with windows of 50 words to
either side: what a review is about, and not only what stands beside a word. Both
jobs are a bag of words of that width, through a linear layer; the one draws its rows, the other starts from the vectors. Epochs,
learning rates and whether rows train were chosen for each by the loss on the validation part (a fifth of the 1,000, a twentieth of
the 25,000), with ``--choose``; the test part is looked at once a run. Each seed draws another 1,000 reviews.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

COMMON = [
    "experiment=imdb_words",
    "tables.text.dim=100",
    "tables.text.distinct=true",
    "runtime.tensorboard=false",
    "trainer.test_with=best",
]
FEW = ["data.validation_fraction=0.2", "trainer.batch_size=64"]
ALL = ["data.validation_fraction=0.05"]
CHOSEN: dict[tuple[str, str], list[str]] = {
    ("1,000", "scratch"): ["optim.tables.lr=0.02", "optim.dense.lr=0.5", "trainer.epochs=30"],
    ("1,000", "pretrained"): [
        "tables.text.pretrained.vocabulary=file",
        "optim.tables.lr=0.02",
        "optim.dense.lr=0.2",
        "trainer.epochs=30",
    ],
    ("25,000", "scratch"): ["optim.tables.lr=0.05", "optim.dense.lr=0.2", "trainer.epochs=5"],
    ("25,000", "pretrained"): ["optim.tables.lr=0.4", "optim.dense.lr=0.2", "trainer.epochs=5"],
}


def train_vectors(data: Path, out: Path, skip_grams: bool) -> None:
    """Train vectors with gensim and write them as text."""
    from gensim.models import Word2Vec

    from bigembed.encoders import tokenize

    texts = pq.read_table(data / "unsupervised.parquet", columns=["text"])["text"].to_pylist()
    began = time.perf_counter()
    sentences = [[word.lower() for word in tokenize(text)] for text in texts]
    options = {"window": 5, "sg": 1} if skip_grams else {"window": 50, "sg": 0, "sample": 1e-4}
    model = Word2Vec(sentences, vector_size=100, negative=5, min_count=5, epochs=5, workers=2, seed=1, **options)
    model.wv.save_word2vec_format(str(out))
    print(f"gensim: {len(model.wv):,} vectors in {time.perf_counter() - began:.0f} s", flush=True)


def figures(options: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Train in ``folder`` and return the run's figures."""
    command = [sys.executable, "-m", "bigembed", "train", *options, f"hydra.run.dir={folder}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads((folder / "metrics.json").read_text())


def few(data: Path, folder: Path, seed: int) -> Path:
    """Write a folder with 1,000 of the labelled reviews, drawn by the seed, and the test part."""
    table = pq.read_table(data / "train.parquet")
    rows = np.random.default_rng(seed).permutation(table.num_rows)[:1000]
    part = folder / f"few-{seed}"
    part.mkdir()
    pq.write_table(table.take(rows), part / "train.parquet")
    (part / "test.parquet").symlink_to((data / "test.parquet").resolve())
    return part


def choose(data: Path, vectors: Path, folder: Path) -> None:
    """Print validation losses of what could be chosen; no test part is there to be looked at."""
    part, start = few(data, folder, 1000), f"tables.text.pretrained.path={vectors}"
    of_file, centred = "tables.text.pretrained.vocabulary=file", "tables.text.pretrained.centre=true"
    grids = {
        "scratch": list(product([[]], (0.02, 0.05, 0.1, 0.2), (0.2, 0.5), (10, 30))),
        "pretrained": list(product([[], [of_file], [of_file, centred]], (0.02, 0.05, 0.2, 0.4), (0.2, 0.5), (10, 30))),
    }
    for size, path, common in (("1,000", part, FEW), ("25,000", data, ALL)):
        for name, grid in grids.items():
            for extra, lr, dense, epochs in grid:
                if size == "25,000":
                    epochs //= 2
                options = [*extra, f"optim.tables.lr={lr}", f"optim.dense.lr={dense}", f"trainer.epochs={epochs}"]
                given = [start] if name == "pretrained" else []
                run = folder / "choice"
                found = figures([*COMMON, *common, f"data.path={path}", "data.test=null", *given, *options], run)
                told = " ".join(f"{figure} {found['validation'][figure]:.4f}" for figure in ("loss", "accuracy"))
                print(f"{size:<8}{name:<12}{told}  {' '.join(options)}", flush=True)
                subprocess.run(["rm", "-r", str(run)], check=True)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="use these, or write them here; default: made anew")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--skip-grams", action="store_true", help="of 5 words to either side, instead of CBOW of 50")
    parser.add_argument("--choose", action="store_true")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vectors = (a.vectors or folder / "vectors.txt").resolve()
        if not vectors.exists():
            train_vectors(a.data, vectors, a.skip_grams)
        if a.choose:
            choose(a.data, vectors, folder)
            return
        for size, common in (("1,000", FEW), ("25,000", ALL)):
            means = {}
            for name in ("scratch", "pretrained"):
                start = [f"tables.text.pretrained.path={vectors}"] if name == "pretrained" else []
                found = []
                for seed in range(a.seeds):
                    part = a.data
                    if size == "1,000":
                        part = folder / f"few-{seed}"
                        part = part if part.exists() else few(a.data, folder, seed)
                    options = [*COMMON, *common, f"data.path={part}", f"seed={seed}", *CHOSEN[size, name], *start]
                    run = folder / f"{size.replace(',', '')}-{name}-{seed}"
                    found.append(figures(options, run)["test"]["accuracy"])
                means[name] = statistics.mean(found)
                told = ", ".join(f"{each:.4f}" for each in found)
                print(f"{size:<8}{name:<12}test accuracy {means[name]:.4f}  ({told})", flush=True)
            print(f"{size:<8}pretrained gains {100 * (means['pretrained'] - means['scratch']):.2f} points", flush=True)


if __name__ == "__main__":
    main()
