"""Generated clicks: ids by Zipf's law, each with an effect of its own, and labels drawn from a probability that is known.

    python benchmarks/clicks.py DIR --rows 1000000    writes DIR/train.parquet and DIR/test.parquet, prints the best figures

A logit is the sum of the effects of the user, the item, the site and the price, so a linear model of the ids can reach the best
figures printed, but for ids that the training rows have too seldom.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IDS = {"user": 1_000_000, "item": 300_000, "site": 2_000}  # different ids that there are
EFFECTS = {"user": 0.8, "item": 1.2, "site": 0.6}  # standard deviations of their parts of the logit
EXPONENT, SHIFT = 1.05, 3.0  # rank r comes in proportion to (r + SHIFT) ** -EXPONENT
SCATTER = 0x9E3779B97F4A7C15  # odd: makes ids of ranks, all of 63 bits and all different


def clicks(folder: Path, rows: int, test_rows: int, seed: int = 0) -> dict[str, float]:
    """Write both parts; return the best accuracy, loss and area under the curve on the test part."""
    folder.mkdir(parents=True, exist_ok=True)
    effects = np.random.default_rng(seed)
    own = {name: effects.normal(0, EFFECTS[name], size) for name, size in IDS.items()}
    best = {}
    for part, count in (("train", rows), ("test", test_rows)):
        columns, probability = _rows(np.random.default_rng([seed, len(part)]), own, count)
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
        best = figures(columns["label"], probability)
    return best


def figures(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Return accuracy, loss and area under the curve of probabilities of a click."""
    right = np.where(labels == 1, probability, 1 - probability)
    order = np.argsort(probability, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    clicked = labels == 1
    pairs = clicked.sum() * (~clicked).sum()
    area = (ranks[clicked].sum() - clicked.sum() * (clicked.sum() + 1) / 2) / pairs
    return {"accuracy": float((right > 0.5).mean()), "loss": float(-np.log(right).mean()), "auc": float(area)}


def options(folder: Path, kind: str = "hashed") -> list[str]:
    """Return the options of a job on them: a table for the ids of each column, and one for the price."""
    added = [f"table@tables.text={kind}", "features.text.column=user", "tables.text.ngrams=1"]
    for name in ("item", "site"):
        added += [f"+table@tables.{name}={kind}", f"tables.{name}.ngrams=1", f"+feature@features.{name}=column"]
        added += [f"features.{name}.column={name}", f"features.{name}.table={name}"]
    added += ["+table@tables.price=bucketized", "+feature@features.price=column"]
    added += ["features.price.column=price", "features.price.table=price"]
    return ["data=files", f"data.path={folder}", *added]


def _rows(rng: np.random.Generator, own: dict[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    columns, logit = {}, np.full(count, -1.0)
    for name, size in IDS.items():
        weights = (np.arange(size) + SHIFT) ** -EXPONENT
        ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count)).clip(max=size - 1)
        columns[name] = (ranks.astype(np.uint64) * np.uint64(SCATTER) >> np.uint64(1)).astype(np.int64)
        logit += own[name][ranks]
    columns["price"] = np.exp(rng.normal(2, 1, count))
    logit += np.sin(np.log(columns["price"]))
    probability = 1 / (1 + np.exp(-logit))
    columns["label"] = (rng.random(count) < probability).astype(np.int64)
    return columns, probability


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--test-rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    best = clicks(a.folder, a.rows, a.test_rows, a.seed)
    print(f"best on the test part: {json.dumps(best)}")
    print(" ".join(["bigembed train", *options(a.folder)]))


if __name__ == "__main__":
    main()
