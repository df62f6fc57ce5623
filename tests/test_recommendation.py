"""Retrieval end to end: what a batch holds, figures equal to a computation by hand, the same on any ranks and after a stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interactions import ITEMS, USERS, sequences, towers, write
from ranks import run_commands
from running import bigembed

from bigembed import load
from bigembed.config.schema import RetrievalLoss, Sampling, SASRecHead, TwoTowerHead
from bigembed.interactions import Sampler, catalogue_of, known
from bigembed.pairs import Pairs, needed, of_users


def train(folder: Path, *options: str) -> Path:
    assert bigembed("train", *options, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def factors(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "run", *towers(data))


@pytest.fixture(scope="module")
def sequence_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "run", *sequences(data))


def figures(run: Path, part: str = "test") -> dict[str, float]:
    return dict(json.loads((run / "metrics.json").read_text())[part])


# ---------------------------------------------------------------- what a batch needs


@st.composite
def batches(draw: st.DrawFn) -> tuple[Pairs, Any, np.ndarray, int]:
    """Interactions, a head, the rows of a batch, and a seed."""
    users, items = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    count = draw(st.integers(4, 30))
    user = np.array(draw(st.lists(st.integers(0, users - 1), min_size=count, max_size=count)))
    item = np.array(draw(st.lists(st.integers(0, items - 1), min_size=count, max_size=count)))
    own = draw(st.booleans())
    options: dict[str, Any] = {
        "negatives": draw(st.integers(1, 5)),
        "shared": not own,
        "in_batch": draw(st.booleans()),
        "leave_known": draw(st.booleans()),
        "sampling": draw(st.sampled_from([Sampling.uniform, Sampling.popularity])),
    }
    if not own and not options["in_batch"] and draw(st.booleans()):
        options["sampling"] = Sampling.all
    sequence = draw(st.booleans())
    head = SASRecHead(**options, max_length=draw(st.integers(1, 6))) if sequence else TwoTowerHead(**options)
    everything = known(user, item, None, users, items)
    sampler = Sampler(head.sampling, head.power, everything.counts, everything.items if head.leave_known else None)
    catalogues = [
        catalogue_of(pa.chunked_array([np.arange(size)]), what, what)
        for what, size in (("user", users), ("item", items))
    ]
    samples = np.flatnonzero(everything.histories.lengths > 1) if sequence else None
    pairs = Pairs(*catalogues, user, item, everything, samples, sampler, 0.5)
    rows = np.array(draw(st.lists(st.integers(0, pairs.samples - 1), min_size=1, max_size=6))) if pairs.samples else []
    return pairs, head, np.asarray(rows, np.int64), draw(st.integers(0, 2**40))


@given(batches())
def test_a_batch_names_every_item_once_and_each_of_them_by_its_place(batch: tuple[Pairs, Any, np.ndarray, int]) -> None:
    pairs, head, rows, seed = batch
    if not len(rows):
        return
    seeds = np.arange(len(rows)) + seed
    found = needed(head, pairs, rows, seeds, rows, seed)
    extras, codes = found.extras, found.codes
    assert len(set(codes.tolist())) == len(codes)
    if pairs.sequences is None:
        own, whose = codes[extras["item"]], found.users
        assert own.tolist() == pairs.item[rows].tolist() and whose.tolist() == pairs.user[rows].tolist()
    else:
        own, whose = _check_positions(pairs, head, rows, found)
    sets = [set(pairs.item[pairs.user == user].tolist()) for user in whose.tolist()]
    if not head.shared and head.sampling is not Sampling.all:
        negatives = codes[extras["own"]]
        assert negatives.shape == (len(own), head.negatives)
        counted = ~extras["own_out"]
        assert not (counted & (negatives == own[:, None])).any()
        if head.leave_known:
            assert not any(code in have for row, have in enumerate(sets) for code in negatives[row][counted[row]])
    if head.shared or head.in_batch:
        shared = codes[extras["shared"]]
        assert len(set(shared.tolist())) == len(shared) == len(extras["logq"])
        if head.sampling is Sampling.all:
            assert shared.tolist() == list(range(len(pairs.items)))
        if head.in_batch:
            assert set(own.tolist()) <= set(shared.tolist())
        if head.leave_known:
            wanted = [[code in have for code in shared.tolist()] for have in sets]
            assert extras["out"].tolist() == wanted


def _check_positions(pairs: Pairs, head: Any, rows: np.ndarray, found: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check what is read and told of histories; return the items to be told and whose they are."""
    extras, start = found.extras, 0
    assert pairs.sequences is not None
    for row, length in zip(rows, extras["lengths"].tolist(), strict=True):
        history = pairs.item[pairs.user == pairs.sequences[row]][-head.max_length - 1 :].tolist()
        stop = start + length
        assert found.codes[extras["history"][start:stop]].tolist() == history[:-1]
        assert found.codes[extras["item"][start:stop]].tolist() == history[1:]
        assert extras["places"][start:stop].tolist() == list(range(length - 1, -1, -1))
        start = stop
    return found.codes[extras["item"]], np.repeat(found.users, extras["lengths"])


@given(batches())
def test_negatives_depend_on_the_sample_and_not_on_its_neighbours(batch: tuple[Pairs, Any, np.ndarray, int]) -> None:
    pairs, head, rows, seed = batch
    if not len(rows) or head.loss is RetrievalLoss.warp:
        return
    seeds = np.arange(len(rows)) + seed
    whole, last = needed(head, pairs, rows, seeds, rows, seed), needed(head, pairs, rows[-1:], seeds[-1:], rows, seed)
    for name in ("own", "item"):
        if name in last.extras:
            here = last.codes[last.extras[name]]
            assert whole.codes[whole.extras[name]][len(whole.extras[name]) - len(here) :].tolist() == here.tolist()
    if "shared" in last.extras:
        assert last.codes[last.extras["shared"]].tolist() == whole.codes[whole.extras["shared"]].tolist()


def test_a_user_is_asked_for_with_the_latest_of_the_history() -> None:
    user, item = np.array([0, 0, 0, 1]), np.array([3, 1, 2, 0])
    before = known(user, item, np.array([30.0, 10.0, 20.0, 5.0]), 3, 4)
    pairs: Any = type("P", (), {"items": range(4)})()
    found = of_users(SASRecHead(max_length=2), pairs, np.array([0, 2, 1]), before)
    assert found.extras["lengths"].tolist() == [2, 0, 1]
    assert found.codes[found.extras["history"]].tolist() == [2, 3, 0]  # by time: 1, 2, 3


# ---------------------------------------------------------------- runs


def by_hand(run: Path, data: Path, k: int) -> dict[str, float]:
    """The figures of a matrix factorisation from its tables, with a matrix of all scores."""
    model = load(run)
    train, test = (pq.read_table(data / f"{part}.parquet").to_pydict() for part in ("train", "test"))
    vectors = {
        name: np.stack([model.vector(str(code), table) for code in range(size)])
        for name, table, size in (("user", "text", USERS), ("item", "item", ITEMS))
    }
    scores = vectors["user"] @ vectors["item"].T
    scores[train["user"], train["item"]] = -np.inf
    hits, gains = [], []
    for user, item in zip(test["user"], test["item"], strict=True):
        place = int((scores[user] > scores[user, item]).sum())
        found = place < k and scores[user, item] > -np.inf
        hits.append(found)
        gains.append(1 / np.log2(place + 2) if found else 0.0)
    return {f"hr@{k}": float(np.mean(hits)), f"ndcg@{k}": float(np.mean(gains))}


def test_the_figures_are_those_of_a_matrix_of_all_scores(factors: Path, data: Path) -> None:
    told = figures(factors)
    assert {name: told[name] for name in ("hr@5", "ndcg@5")} == pytest.approx(by_hand(factors, data, 5), abs=1e-6)
    assert told["hr@5"] == told["recall@5"] > 0.35  # by chance it is 5 / 31


def test_given_negatives_and_slices_are_judged(data: Path, tmp_path: Path) -> None:
    options = ["data.negatives=negatives", "protocol.candidates=given", "data.users=users", "data.items=items"]
    options += ["protocol.slices=[taste,activity,popularity]", "protocol.remove_seen=false"]
    told = figures(train(tmp_path / "run", *towers(data), *options))
    assert told["samples"] == USERS and told["hr@5"] > 0.7  # by chance it is 0.5
    tastes = [told[f"users/taste={taste}"] for taste in range(4)]
    assert sum(tastes) == USERS
    mean = sum(told[f"hr@5/taste={taste}"] * count for taste, count in enumerate(tastes)) / USERS
    assert mean == pytest.approx(told["hr@5"])
    assert any(name.startswith("ndcg@5/popularity=") for name in told)


def test_towers_of_several_features_and_numbers_find_the_taste(data: Path, tmp_path: Path) -> None:
    options = ["data.users=users", "data.items=items", "head.user_hidden=[8]", "head.item_hidden=[16,8]"]
    options += ["+table@tables.genre=hashed", "tables.genre.dim=4", "tables.genre.buckets=50", "tables.genre.ngrams=1"]
    options += ["+feature@features.genre=column", "features.genre.table=genre", "features.genre.column=genres"]
    options += ["features.genre.of=item", "+number@numbers.age=column", "numbers.age.column=age", "numbers.age.of=user"]
    options += ["+number@numbers.price=column", "numbers.price.column=price", "numbers.price.of=item"]
    options += ["head.similarity=cosine", "head.temperature=0.2", "head.dropout=0.1", "head.in_batch=true"]
    options += [*(f"tables.{name}.init_range=0.3" for name in ("text", "item", "genre")), "trainer.epochs=12"]
    told = figures(train(tmp_path / "run", *towers(data), *options, "optim.dense.kind=adam", "optim.dense.lr=0.01"))
    assert told["hr@5"] > 0.35


@pytest.mark.parametrize("head", ["towers", "sequences"])
def test_two_ranks_find_what_one_finds(
    head: str, factors: Path, sequence_run: Path, data: Path, tmp_path: Path
) -> None:
    one, options = (factors, towers(data)) if head == "towers" else (sequence_run, sequences(data))
    command = ["train", *options, f"hydra.run.dir={tmp_path / 'run'}"]
    codes, said = run_commands([command] * 2, tmp_path / "log")
    assert codes == [0, 0], said
    for first, second in zip(*(_lines(run) for run in (one, tmp_path / "run")), strict=True):
        assert second["step"] == first["step"]
        for name in ("loss", "hr@5", "ndcg@5"):
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=2e-3, abs=0.02)
    assert figures(tmp_path / "run")["coverage@5"] == pytest.approx(figures(one)["coverage@5"], abs=0.05)


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("head", ["gru4rec", "history"])
def test_every_sequence_head_trains_and_is_judged_again(head: str, data: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", *sequences(data, head), "head.time_buckets=8", "trainer.epochs=2")
    assert bigembed("evaluate", f"run={run}", f"output={tmp_path / 'again.json'}") == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["test"] == pytest.approx(figures(run))


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({"item": pa.array([None] * 540, pa.int64())}, [], ["item", "null"]),
        ({"user": pa.array([0.5] * 540)}, [], ["user", "double"]),
        ({"time": pa.array([None] * 540, pa.int64())}, ["interactions.split=last", "interactions.time=time"], ["540"]),
        ({}, ["data.items=users"], ["item"]),
        ({"item": pa.array([99] * 540)}, ["data.items=items"], ["99", "data.items"]),
        ({"rating": pa.array([1] * 540)}, ["interactions.rating=rating", "interactions.min_rating=3"], ["no inter"]),
    ],
)
def test_bad_interactions_are_one_sentence(
    change: dict[str, pa.Array], options: list[str], parts: list[str], data: Path, tmp_path: Path, capfd: Any
) -> None:
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(tmp_path / "train.parquet")
    for name, column in change.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "train.parquet")
    assert bigembed("train", *towers(tmp_path), *options, f"hydra.run.dir={tmp_path / 'run'}") == 2
    said = capfd.readouterr().err
    assert said.count("bigembed:") == 1 and "Traceback" not in said
    assert all(part in said.splitlines()[-1] for part in parts), said
