"""Alternating least squares: as a dense solver has it, on any threads and ranks; and as the beginning, or the whole, of a run."""

import json
import threading
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interactions import ITEMS, USERS, towers, write
from ranks import run_commands
from running import bigembed, tables_of

from bigembed.least_squares import both_sides, improve
from bigembed.ragged import Ragged

WEIGHT, L2 = 0.2, 0.01


def matrix(users: int = 50, items: int = 30, seed: int = 0) -> np.ndarray:
    """Who has what, shape (users, items), bool; the last user and the last item have nothing."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(users, 3)) @ rng.normal(size=(3, items))
    has = taste + rng.normal(size=taste.shape) > 1.5
    has[-1], has[:, -1] = False, False
    return has


def ragged(has: np.ndarray) -> Ragged:
    return Ragged(np.nonzero(has)[1], np.concatenate([[0], np.cumsum(has.sum(1))]))


def start(has: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """First vectors of users and items, zeros of those who have nothing."""
    rng = np.random.default_rng(1)
    first = [rng.uniform(-0.1, 0.1, (count, dim)).astype(np.float32) for count in has.shape]
    return first[0] * has.any(1)[:, None], first[1] * has.any(0)[:, None]


def strengths(has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    users, items = (np.count_nonzero(has.any(axis)) for axis in (1, 0))
    return L2 * (has.sum(1) + WEIGHT * items), L2 * (has.sum(0) + WEIGHT * users)


def loss(has: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    """The loss of the module, pair by pair."""
    x, y = users.astype(np.float64), items.astype(np.float64)
    scores, (of_users, of_items) = x @ y.T, strengths(has)
    pairs = ((scores - 1) ** 2)[has].sum() + WEIGHT * (scores**2).sum()
    return float(pairs + of_users @ (x**2).sum(1) + of_items @ (y**2).sum(1))


def solved(has: np.ndarray, others: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The best vector of each row of ``has``, one after the other."""
    y = others.astype(np.float64)
    found = []
    for row, own in zip(has, strength, strict=True):
        left = WEIGHT * y.T @ y + y[row].T @ y[row] + own * np.eye(y.shape[1])
        found.append(np.linalg.solve(left, y[row].sum(0)) if row.any() else np.zeros(y.shape[1]))
    return np.array(found)


@pytest.mark.parametrize("dim", [1, 8, 19])
def test_a_side_comes_to_what_a_dense_solver_finds(dim: int) -> None:
    has = matrix()
    users, items = start(has, dim)
    sides = both_sides(ragged(has), has.shape[1], WEIGHT, L2)
    fixed = np.random.default_rng(2).normal(0, 0.3, items.shape).astype(np.float32) * has.any(0)[:, None]
    for _ in range(100):
        improve(users, fixed, sides[0], WEIGHT, 2)
    np.testing.assert_allclose(users, solved(has, fixed, strengths(has)[0]), rtol=0, atol=2e-5)
    fixed = np.random.default_rng(3).normal(0, 0.3, users.shape).astype(np.float32) * has.any(1)[:, None]
    for _ in range(100):
        improve(items, fixed, sides[1], WEIGHT, 1)
    np.testing.assert_allclose(items, solved(has.T, fixed, strengths(has)[1]), rtol=0, atol=2e-5)


def test_every_half_sweep_lowers_the_loss_and_rows_without_anything_are_zeros() -> None:
    has = matrix()
    users, items = start(has, 8)
    users[-1] = items[-1] = 0
    sides = both_sides(ragged(has), has.shape[1], WEIGHT, L2)
    losses = [loss(has, users, items)]
    for _ in range(8):
        improve(users, items, sides[0], WEIGHT, 2)
        losses.append(loss(has, users, items))
        improve(items, users, sides[1], WEIGHT, 2)
        losses.append(loss(has, users, items))
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.5 * losses[0]
    users[-1] = 1  # whatever stood there
    improve(users, items, sides[0], WEIGHT, 2)
    assert not users[-1].any()


def test_threads_and_processes_change_no_bit() -> None:
    has = matrix(200, 80)
    sides = both_sides(ragged(has), has.shape[1], WEIGHT, L2)
    alone = start(has, 12)
    for _ in range(2):
        improve(alone[0], alone[1], sides[0], WEIGHT, 1)
        improve(alone[1], alone[0], sides[1], WEIGHT, 1)
    for world in (1, 2, 5, 70):  # more than there are pieces of the products, too
        for users, items in together(has, world):
            np.testing.assert_array_equal(users, alone[0])
            np.testing.assert_array_equal(items, alone[1])


def together(has: np.ndarray, world: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each of ``world`` processes (threads, here) ends with."""
    sides = both_sides(ragged(has), has.shape[1], WEIGHT, L2)
    barrier, arrays, results = threading.Barrier(world), [np.empty(0)] * world, [start(has, 12) for _ in range(world)]

    def work(rank: int) -> None:
        def exchange(array: np.ndarray, borders: list[int]) -> None:
            arrays[rank] = array
            barrier.wait()
            for other in range(world):
                own = slice(borders[other], borders[other + 1])
                if other != rank:
                    array[own] = arrays[other][own]
            barrier.wait()

        users, items = results[rank]
        for _ in range(2):
            improve(users, items, sides[0], WEIGHT, 3, rank, world, exchange)
            improve(items, users, sides[1], WEIGHT, 3, rank, world, exchange)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_both_sides_are_one_matrix(users: int, items: int, seed: int) -> None:
    has = np.random.default_rng(seed).random((users, items)) < 0.3
    of_users, of_items = both_sides(ragged(has), items, WEIGHT, L2)
    for side, matrix, strength in zip((of_users, of_items), (has, has.T), strengths(has), strict=True):
        rows = [side.seen.values[a:b].tolist() for a, b in zip(side.seen.offsets, side.seen.offsets[1:], strict=False)]
        assert rows == [np.flatnonzero(row).tolist() for row in matrix]
        np.testing.assert_allclose(side.strengths, strength, rtol=1e-6)


# ---- runs


def options_of(folder: Path, run: Path, *more: str) -> list[str]:
    return [*towers(folder), "head.als_sweeps=30", f"head.als_l2={L2}", *more, f"hydra.run.dir={run}"]


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def vectors_of(run: Path, table: str, keys: range) -> np.ndarray:
    """The rows of whole numbers in a table of the last checkpoint; zeros of those that have none."""
    from bigembed.config import saved
    from bigembed.prepare import load_encoders

    (path,) = (run / "checkpoints").glob(f"step-*/tables/{table}.weight.npy")
    rows, words = np.load(path), load_encoders(saved.load(run), run / "encoders")[table].words()
    assert words is not None
    found = np.zeros((len(keys), rows.shape[1]))
    found[[int(word) for word in words.to_pylist()]] = rows[1:]
    assert not rows[0].any()  # whoever is not in training
    return found


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and a run of nothing but sweeps."""
    folder = tmp_path_factory.mktemp("fitted")
    data = write(folder / "data")
    assert bigembed("train", *options_of(data, folder / "run", "trainer.epochs=0")) == 0
    return data, folder / "run"


def test_a_run_of_sweeps_alone_ends_with_the_best_tables(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = fitted
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["train"] == {"steps": 0}
    assert (figures["checkpoint"], figures["test"]["samples"]) == ("step-000000000", USERS)
    assert [(line["part"], line["step"]) for line in lines_of(run)] == [("validation", 0), ("test", 0)]
    whole = ["trainer.epochs=0", "data.validation_fraction=0", "head.als_sweeps=300"]
    assert bigembed("train", *options_of(data, tmp_path / "all", *whole)) == 0
    train = pq.read_table(data / "train.parquet")
    has = np.zeros((USERS, ITEMS), bool)
    has[train["user"].to_numpy(), train["item"].to_numpy()] = True
    users, items = (
        vectors_of(tmp_path / "all", "text", range(USERS)),
        vectors_of(tmp_path / "all", "item", range(ITEMS)),
    )
    assert has.any(1).all()
    np.testing.assert_allclose(items, solved(has.T, users, strengths(has)[1]), rtol=0, atol=1e-3)
    np.testing.assert_allclose(users, solved(has, items, strengths(has)[0]), rtol=0, atol=1e-3)


def test_a_run_that_goes_on_makes_no_sweep_again(
    fitted: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, run = fitted
    tables, figures = tables_of(run), json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    capfd.readouterr()
    assert bigembed("train", f"resume={run}") == 0
    told = capfd.readouterr()
    assert "continuing at step 0 of 0" in told.err and "sweeps" not in told.err
    assert "words/s" not in told.out
    again = json.loads((run / "metrics.json").read_text())
    assert tables_of(run) == tables
    assert again["test"] == figures["test"] and again["validation"] == figures["validation"]


def test_steps_after_the_sweeps_are_compared_with_them(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    assert bigembed("train", *options_of(data, tmp_path / "run", "trainer.epochs=2", "trainer.keep=9")) == 0
    lines, tables = lines_of(tmp_path / "run"), tables_of(tmp_path / "run")
    judged = [line["step"] for line in lines if line["part"] == "validation"]
    assert judged[0] == 0 and len(judged) == 3
    (tmp_path / "run" / "metrics.json").unlink()
    for later in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[1:]:
        rmtree(later)
    assert bigembed("train", f"resume={tmp_path / 'run'}") == 0
    figures = [{key: line[key] for key in ("part", "step", "ndcg@5")} for line in lines if "ndcg@5" in line]
    again = [
        {key: line[key] for key in ("part", "step", "ndcg@5")}
        for line in lines_of(tmp_path / "run")
        if "ndcg@5" in line
    ]
    assert again == figures
    assert tables_of(tmp_path / "run") == tables


def test_two_ranks_end_with_the_same_bits(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = fitted
    options = [*options_of(data, tmp_path / "run", "trainer.epochs=0"), "sharding.kind=row_wise"]
    codes, told = run_commands([["train", *options]] * 2, tmp_path / "log")
    assert codes == [0, 0], told
    assert tables_of(tmp_path / "run") == tables_of(run)
    one, two = (json.loads((each / "metrics.json").read_text()) for each in (run, tmp_path / "run"))
    assert one["test"] == pytest.approx(two["test"]) and one["validation"] == pytest.approx(two["validation"])


REFUSED = {
    "no epochs": (["head.als_sweeps=0", "trainer.epochs=0"], "trainer.epochs is 0, so that nothing is trained"),
    "no L2": (["head.als_l2=0"], "head.als_l2 is 0.0; it must be at least 1e-05"),
    "n-grams": (["tables.item.ngrams=2"], "make tables.item of kind vocab"),
    "layers": (["head.user_hidden=[8]"], "without layers"),
    "cosine": (["head.similarity=cosine"], "head.similarity=dot"),
    "vectors": (["tables.item.pretrained.path=nowhere.vec"], "tables.item.pretrained.path and head.als_sweeps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_sweep_can_fill_is_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options, sentence = REFUSED[name]
    sweeps = [*towers(tmp_path), "head.als_sweeps=2"]
    assert bigembed("train", *sweeps, *options, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert sentence in capfd.readouterr().err


def test_rows_that_another_run_brings_are_not_filled(
    fitted: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bigembed("train", f"grow={fitted[1]}", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "set head.als_sweeps=0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["tables.text.tokens=words"], "'user 0' has 2 in table 'text'; set tables.text.tokens=whole"),
        (["tables.text.max_size=59"], "1 of 60 have none in table 'text'"),
        (["tables.text.max_size=10"], "50 of 60 have none in table 'text'"),
    ],
)
def test_a_user_without_a_row_of_its_own_is_named(
    options: list[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data")
    for part in ("train", "test"):
        table = pq.read_table(data / f"{part}.parquet")
        users = pa.array([f"user {user}" for user in table["user"].to_pylist()])
        pq.write_table(table.set_column(0, "user", users), data / f"{part}.parquet")
    assert bigembed("train", *options_of(data, tmp_path / "run"), *options) == 2
    assert sentence in capfd.readouterr().err
