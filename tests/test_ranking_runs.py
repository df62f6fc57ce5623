"""Ranking from end to end: every head trained, judged, asked, continued after a kill and exported; labels, groups, users and items."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from ranks import run_commands
from running import bigembed, start, tables_of, wait_until

from bigembed import load, metrics

USERS, ITEMS, ROWS, TEST_ROWS = 40, 25, 600, 200


def columns(rows: int, seed: int) -> dict[str, list]:
    """Return rows whose click hangs on whether the user's town is the item's, on the price, and on the item."""
    rng = np.random.default_rng(seed)
    user, item, price = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows), rng.random(rows)
    liking = 2.5 * (user % 4 == item % 4) - 1.5 * price + (item % 5) / 5 - 0.8
    click = (rng.random(rows) < 1 / (1 + np.exp(-liking))).astype(int)
    return {
        "user": user.tolist(),
        "item": [f"item {each}" for each in item],
        "price": [None if row % 11 == 0 else each for row, each in enumerate(price.tolist())],
        "click": click.tolist(),
        "buy": (click & (rng.random(rows) < 0.5)).tolist(),
        "stars": (3 + liking + 0.2 * rng.standard_normal(rows)).tolist(),
    }


def write(folder: Path) -> Path:
    """Write train, test, users and items as Parquet; return the folder."""
    folder.mkdir(parents=True)
    for name, rows, seed in (("train", ROWS, 0), ("test", TEST_ROWS, 1)):
        pq.write_table(pa.table(columns(rows, seed)), folder / f"{name}.parquet")
    users = list(range(USERS))
    town = [f"town {user % 4}" for user in users]
    age = [None if user == 7 else 20.0 + user for user in users]
    pq.write_table(pa.table({"user": users, "town": town, "age": age}).take(users[::-1]), folder / "users.parquet")
    items = [f"item {item}" for item in range(ITEMS)]
    tags = [[f"of town {item % 4}", f"other {item % 3}"] for item in range(ITEMS)]
    pq.write_table(pa.table({"item": items, "tags": tags}), folder / "items.parquet")
    return folder


def feature(name: str, column: str, of: str, dim: int = 8) -> list[str]:
    """Return the options of a feature with a table of its own."""
    return [
        f"+table@tables.{name}=vocab",
        f"tables.{name}.dim={dim}",
        f"tables.{name}.tokens=whole",
        f"tables.{name}.ngrams=1",
        f"+feature@features.{name}=column",
        f"features.{name}.table={name}",
        f"features.{name}.column={column}",
        f"features.{name}.of={of}",
    ]


LOOP = [
    "optim.tables.kind=adagrad",
    "optim.tables.lr=0.05",
    "optim.dense.kind=adam",
    "optim.dense.lr=0.01",
    "trainer.batch_size=64",
    "trainer.epochs=4",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]
NUMBERS = ["+number@numbers.price=column", "numbers.price.column=price"]


def options(data: Path, *more: str) -> list[str]:
    """Return the options of a small job on rows, users and items."""
    of_users = ["+number@numbers.age=column", "numbers.age.column=age", "numbers.age.of=user"]
    files = ["data=files", f"data.path={data}", "data.users=users", "data.items=items"]
    none = ["~table@tables.text", "~feature@features.text"]
    features = [*feature("user", "user", "user"), *feature("town", "town", "user")]
    features += [*feature("item", "item", "sample"), *feature("tags", "tags", "item")]
    head = ["head=dlrm", "head.labels=[click]", "head.hidden=[16]"]
    return [*files, *none, *features, *NUMBERS, *of_users, *head, *LOOP, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "parts")


HEADS = {
    "dlrm": [],
    "dcnv2": ["head=dcnv2", "head.rank=4"],
    "deepfm": ["head=deepfm"],
    "wide_deep": ["head=wide_deep", "head.wide=[item,town]"],
}


def figures_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("head", HEADS)
def test_a_head(data, tmp_path, head):
    run = tmp_path / "run"
    assert bigembed("train", *options(data, *HEADS[head], "head.labels=[click]"), f"hydra.run.dir={run}") == 0
    print(figures_of(run))
