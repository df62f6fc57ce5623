"""Small interactions for tests: users of a few tastes, who mostly have items of theirs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, ITEMS, TASTES = 60, 40, 4


def interactions(seed: int = 0, each: int = 9) -> dict[str, np.ndarray]:
    """Return users, items, times and ratings of ``each`` interactions of every user, in no order."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(USERS), each)
    tastes = users % TASTES
    own = rng.integers(0, ITEMS // TASTES, len(users)) * TASTES + tastes
    items = np.where(rng.random(len(users)) < 0.9, own, rng.integers(0, ITEMS, len(users)))
    order = rng.permutation(len(users))
    columns = {
        "user": users,
        "item": items,
        "time": rng.integers(0, 1 << 30, len(users)),
        "rating": rng.integers(1, 6, len(users)),
    }
    return {name: values[order] for name, values in columns.items()}


def write(folder: Path, seed: int = 0) -> Path:
    """Write train, test (one row a user), users, items and negatives as Parquet; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(interactions(seed)), folder / "train.parquet")
    rng = np.random.default_rng([seed, 1])
    users = np.arange(USERS)
    items = rng.integers(0, ITEMS // TASTES, USERS) * TASTES + users % TASTES
    test = {"user": users, "item": items, "time": np.full(USERS, 1 << 31), "rating": np.full(USERS, 5)}
    pq.write_table(pa.table(test), folder / "test.parquet")
    lists = [rng.choice(np.setdiff1d(np.arange(ITEMS), [item]), 9, replace=False).tolist() for item in items]
    pq.write_table(pa.table({"user": users, "item": items, "negatives": lists}), folder / "negatives.parquet")
    table = {"user": users, "taste": users % TASTES, "age": (20 + users).astype(float)}
    pq.write_table(pa.table(table), folder / "users.parquet")
    items = np.arange(ITEMS)
    genres = [[f"genre {item % TASTES}", f"other {item % 3}"] for item in items]
    pq.write_table(pa.table({"item": items, "genres": genres, "price": items * 1.5}), folder / "items.parquet")
    return folder


def towers(folder: Path) -> list[str]:
    """Return the options of a small matrix factorisation."""
    return [
        "data=files",
        f"data.path={folder}",
        "table@tables.text=vocab",
        "tables.text.dim=8",
        "tables.text.tokens=whole",
        "tables.text.ngrams=1",
        "features.text.column=user",
        "features.text.of=user",
        "+table@tables.item=vocab",
        "tables.item.dim=8",
        "tables.item.tokens=whole",
        "tables.item.ngrams=1",
        "+feature@features.item=column",
        "features.item.table=item",
        "features.item.column=item",
        "features.item.of=item",
        "head=two_tower",
        "head.negatives=16",
        "interactions.split=one",
        "optim.tables.kind=adagrad",
        "optim.tables.lr=0.3",
        "trainer.batch_size=64",
        "trainer.epochs=4",
        "protocol.at=[5]",
        "runtime.tensorboard=false",
    ]


def sequences(folder: Path, head: str = "sasrec") -> list[str]:
    """Return the options of a small sequence model."""
    return [
        "data=files",
        f"data.path={folder}",
        "table@tables.text=vocab",
        "tables.text.dim=8",
        "tables.text.tokens=whole",
        "tables.text.ngrams=1",
        "features.text.column=item",
        "features.text.of=item",
        f"head={head}",
        "head.max_length=6",
        "head.negatives=16",
        "interactions.time=time",
        "interactions.split=last",
        "optim.tables.kind=adagrad",
        "optim.tables.lr=0.1",
        "optim.dense.kind=adam",
        "optim.dense.lr=0.005",
        "trainer.batch_size=16",
        "trainer.epochs=4",
        "protocol.at=[5]",
        "runtime.tensorboard=false",
    ]
