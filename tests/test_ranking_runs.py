"""Ranking from end to end: every head trained, judged, asked and exported; labels, groups, users and items; what is refused."""

import json
import os
import re
import signal
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ranks import run_commands
from running import bigembed, start, tables_of, wait_until

from bigembed import load, metrics
from bigembed.config import compose, saved
from bigembed.config.schema import Job
from bigembed.errors import UserError
from bigembed.prepare import prepare

USERS, ITEMS, ROWS, TEST_ROWS = 40, 25, 600, 200
Change = Callable[[pa.Table], pa.Table]


# ---------------------------------------------------------------- data and options


def columns(rows: int, seed: int) -> dict[str, list]:
    """Return rows whose click hangs on the item, on whether it is of the user's town, and on the price."""
    rng = np.random.default_rng(seed)
    user, item, price = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows), rng.random(rows)
    liking = 1.5 * (item % 5) - 3.5 + 2 * (user % 4 == item % 4) - price
    click = (rng.random(rows) < 1 / (1 + np.exp(-liking))).astype(int)
    return {
        "user": user.tolist(),
        "item": [f"item {each}" for each in item],
        "price": [None if row % 11 == 0 else each for row, each in enumerate(price.tolist())],
        "click": click.tolist(),
        "buy": (click & (rng.random(rows) < 0.5)).tolist(),
        "stars": (3 + liking / 4 + 0.2 * rng.standard_normal(rows)).tolist(),
    }


def write(folder: Path) -> Path:
    """Write train, test, users and items as Parquet; return the folder."""
    folder.mkdir(parents=True)
    for name, rows, seed in (("train", ROWS, 0), ("test", TEST_ROWS, 1)):
        pq.write_table(pa.table(columns(rows, seed)), folder / f"{name}.parquet")
    users = list(range(USERS))[::-1]
    town, age = [f"town {user % 4}" for user in users], [None if user == 7 else 20.0 + user for user in users]
    pq.write_table(pa.table({"user": users, "town": town, "age": age}), folder / "users.parquet")
    items = [f"item {item}" for item in range(ITEMS)]
    tags = [[f"of town {item % 4}", f"other {item % 3}"] for item in range(ITEMS)]
    pq.write_table(pa.table({"item": items, "tags": tags}), folder / "items.parquet")
    return folder


def feature(name: str, of: str) -> list[str]:
    """Return the options of a feature with a table of its own, both named as the column."""
    table = [f"+table@tables.{name}=vocab", f"tables.{name}.dim=8", f"tables.{name}.tokens=whole"]
    own = [f"+feature@features.{name}=column", f"features.{name}.table={name}", f"features.{name}.column={name}"]
    return [*table, f"tables.{name}.ngrams=1", *own, f"features.{name}.of={of}"]


def number(name: str, of: str) -> list[str]:
    return [f"+number@numbers.{name}=column", f"numbers.{name}.column={name}", f"numbers.{name}.of={of}"]


LOOP = [
    "optim.tables.kind=adagrad",
    "optim.tables.lr=0.2",
    "optim.dense.kind=adam",
    "optim.dense.lr=0.01",
    "trainer.batch_size=64",
    "trainer.epochs=4",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]
FILES = ["~table@tables.text", "~feature@features.text", "data=files"]
SIDES = ["data.users=users", "data.items=items"]
COLUMNS = [*feature("user", "user"), *feature("town", "user"), *feature("item", "sample"), *feature("tags", "item")]
COLUMNS += [*number("price", "sample"), *number("age", "user")]
CLICKS = ["head.labels=[click]", "head.hidden=[16]"]
HEADS = {
    "dlrm": ["head=dlrm", "head.bottom=[8]"],
    "dcnv2": ["head=dcnv2", "head.rank=4"],
    "deepfm": ["head=deepfm"],
    "wide_deep": ["head=wide_deep", "head.wide=[item,town]"],
}
SEVERAL = [
    *HEADS["dlrm"],
    "head.labels=[click,buy,stars]",
    "head.losses=[binary,binary,squared]",
    "head.label_weights=[1,1,0.1]",
    "head.group=user",
    "head.hidden=[16]",
    "head.towers=[8]",
    "head.experts=3",
    "head.dropout=0.1",
    "trainer.monitor=auc",
    "trainer.eval_every=4",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "parts")


def options(data: Path, *more: str) -> list[str]:
    """Return the options of a small job on rows, users and items, but for the head."""
    return [*FILES, f"data.path={data}", *SIDES, *COLUMNS, *LOOP, *more]


def changed(data: Path, folder: Path, **changes: Change) -> Path:
    """Copy the data with some of its parts changed; return the new folder."""
    folder.mkdir()
    for part in ("train", "test", "users", "items"):
        table = pq.read_table(data / f"{part}.parquet")
        pq.write_table(changes.get(part, lambda table: table)(table), folder / f"{part}.parquet")
    return folder


def with_values(column: str, change: Callable[[list], list]) -> Change:
    """Return what changes a column of a part."""
    return lambda table: table.set_column(table.column_names.index(column), column, [change(table[column].to_pylist())])


def first(value: Any) -> Callable[[list], list]:
    return lambda values: [value, *values[1:]]


def figures_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def area(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a one and a zero that are in order, ties half."""
    apart = predictions[labels == 1][:, None] - predictions[labels == 0][None]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


# ---------------------------------------------------------------- every head


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_predicts_as_it_was_judged_and_is_exported(data, tmp_path, head):
    run, out = tmp_path / "run", tmp_path / "out.parquet"
    assert bigembed("train", *options(data, *HEADS[head], *CLICKS), f"hydra.run.dir={run}") == 0
    figures = figures_of(run)
    assert figures["test"]["samples"] == TEST_ROWS and figures["validation"]["samples"] == ROWS // 10
    assert figures["test"]["auc"] > 0.75 and figures["test"]["normalised_entropy"] < 0.95
    assert bigembed("predict", f"run={run}", f"input={data}/test.parquet", f"output={out}") == 0
    answers, test = pq.read_table(out), pq.read_table(data / "test.parquet")
    assert answers.column_names == ["click"] and len(answers) == TEST_ROWS
    judged = area(answers["click"].to_numpy(), test["click"].to_numpy())
    assert judged == pytest.approx(figures["test"]["auc"], abs=1e-4)  # a batch of another size may round otherwise
    assert bigembed("export", f"run={run}", "table=town", f"out={tmp_path}/town.npy") == 0
    towns = np.load(tmp_path / "town.npy")
    assert towns.shape == (4, 8) and np.abs(towns).sum(1).min() > 0


# ---------------------------------------------------------------- several labels


@pytest.fixture(scope="module")
def several(data, tmp_path_factory) -> Path:
    """Clicks, purchases and ratings at once."""
    run = tmp_path_factory.mktemp("several") / "run"
    assert bigembed("train", *options(data, *SEVERAL), f"hydra.run.dir={run}") == 0
    return run


def test_several_labels_have_figures_of_their_own_and_means(several):
    for part in ("validation", "test"):
        figures = figures_of(several)[part]
        for name in ("auc", "gauc", "log_loss"):
            assert figures[name] == pytest.approx((figures[f"{name}/click"] + figures[f"{name}/buy"]) / 2)
        assert figures["squared_error"] == figures["squared_error/stars"] == pytest.approx(figures["rmse/stars"] ** 2)
        weighted = figures["log_loss/click"] + figures["log_loss/buy"] + 0.1 * figures["squared_error/stars"]
        assert figures["loss"] == pytest.approx(weighted, rel=1e-5)
        assert not any(name.startswith(("gauc/stars", "auc/stars", "rmse/click")) for name in figures)


def test_the_monitored_figure_chooses_the_checkpoint(several):
    lines = [json.loads(line) for line in (several / "metrics.jsonl").read_text().splitlines()]
    judged = {line["step"]: line["auc"] for line in lines if line["part"] == "validation"}
    assert len(judged) == 9 and len(set(judged.values())) > 1
    best = max(judged, key=lambda step: judged[step])
    assert figures_of(several)["checkpoint"] == f"step-{best:09d}"
    assert figures_of(several)["validation"]["auc"] == judged[best]


def test_figures_by_group_are_those_of_the_predictions(several, data, tmp_path):
    assert bigembed("predict", f"run={several}", f"input={data}/test.parquet", f"output={tmp_path}/out.parquet") == 0
    answers, test = pq.read_table(tmp_path / "out.parquet"), pq.read_table(data / "test.parquet")
    assert answers.column_names == ["click", "buy", "stars"]
    found, areas, users = figures_of(several)["test"], [], test["user"].to_numpy()
    for user in np.unique(users):
        own, labels = users == user, test["buy"].to_numpy()[users == user]
        if labels.min() < labels.max():
            areas.append((own.sum(), area(answers["buy"].to_numpy()[own], labels)))
    rows = np.array([count for count, _ in areas])
    assert found["groups_left_out/buy"] == len(np.unique(users)) - len(areas)
    assert found["gauc/buy"] == pytest.approx((rows * [each for _, each in areas]).sum() / rows.sum(), abs=1e-4)
    apart = answers["stars"].to_numpy().astype(np.float64) - test["stars"].to_numpy()
    assert found["rmse/stars"] == pytest.approx((apart**2).mean() ** 0.5, rel=1e-5)


def test_a_killed_run_ends_as_if_it_had_not_been(several, data, tmp_path):
    run = tmp_path / "run"
    process = start("train", *options(data, *SEVERAL), f"hydra.run.dir={run}")
    reached = wait_until(lambda: (run / "checkpoints" / ".step-000000020.unfinished").exists(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert reached and not (run / "metrics.json").exists()
    assert bigembed("train", f"resume={run}") == 0
    assert tables_of(run) == tables_of(several)
    assert all(figures_of(run)[part] == figures_of(several)[part] for part in ("validation", "test"))


def test_two_ranks_give_the_figures_and_the_picture_of_one(several, data, tmp_path):
    pictures = [tmp_path / f"{name}.html" for name in ("one", "two")]
    assert bigembed("evaluate", f"run={several}", f"picture={pictures[0]}") == 0
    out = f"output={tmp_path}/figures.json"
    commands = [["evaluate", f"run={several}", "runtime.threads=1", f"picture={pictures[1]}", out]] * 2
    codes, texts = run_commands(commands, tmp_path / "log")
    assert codes == [0, 0], texts
    found = json.loads((tmp_path / "figures.json").read_text())
    for part in ("validation", "test"):
        assert found[part] == pytest.approx(figures_of(several)[part], abs=1e-5)
    assert pictures[0].read_text() == pictures[1].read_text()


def test_training_on_two_ranks_ends_where_one_does(data, tmp_path):
    command = ["train", *options(data, *SEVERAL), "trainer.steps=6", "optim.tables.eps=1e-4", "optim.dense.eps=1e-4"]
    assert bigembed(*command, f"hydra.run.dir={tmp_path}/one") == 0
    codes, texts = run_commands([[*command, f"hydra.run.dir={tmp_path}/two"]] * 2, tmp_path / "log")
    assert codes == [0, 0], texts
    one, two = figures_of(tmp_path / "one"), figures_of(tmp_path / "two")
    for part in ("train", "validation", "test"):
        assert two[part] == pytest.approx(one[part], rel=1e-3)


def test_the_picture_shows_predicted_and_true_shares(several, data, tmp_path):
    assert bigembed("evaluate", f"run={several}", f"picture={tmp_path}/p.html") == 0
    text = (tmp_path / "p.html").read_text()
    assert "<h2>click</h2>" in text and "<h2>buy</h2>" in text and "stars" not in text
    shown = re.findall(r"<title>predicted ([\d.]+), true ([\d.]+) \((\d+) rows\)</title>", text)
    assert len(shown) == 2 * 2 * 20  # labels, parts, dots
    of_test = np.array(shown, float).reshape(2, 2, 20, 3)[0, 1]
    scores = load(several).predict(pq.read_table(data / "test.parquet"))[1][:, 0]
    clicks = pq.read_table(data / "test.parquet")["click"].to_numpy()
    order = np.argsort(scores)
    np.testing.assert_allclose(of_test[:, 0], scores[order].reshape(20, 10).mean(1), atol=1e-4)
    np.testing.assert_allclose(of_test[:, 1], clicks[order].reshape(20, 10).mean(1), atol=1e-4)
    assert (of_test[:, 2] == TEST_ROWS / 20).all()


def test_a_picture_of_what_has_no_calibration_is_refused(data, tmp_path, capsys):
    run, ratings = tmp_path / "run", ["head=dcnv2", "head.labels=[stars]", "head.losses=[squared]", "trainer.steps=30"]
    assert bigembed("train", *options(data, *ratings), f"hydra.run.dir={run}") == 0
    figures = figures_of(run)["test"]
    assert figures["rmse"] < np.std(pq.read_table(data / "test.parquet")["stars"].to_numpy()) and "auc" not in figures
    assert bigembed("evaluate", f"run={run}", f"picture={tmp_path}/p.html") == 2
    assert "picture draws the calibration of binary labels" in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()


def test_one_class_in_what_is_judged_is_told(several, data, tmp_path, capsys):
    metrics._warn.cache_clear()
    other = changed(data, tmp_path / "other", test=with_values("buy", lambda values: [0] * len(values)))
    out = tmp_path / "figures.json"
    assert bigembed("evaluate", f"run={several}", f"data.path={other}", f"output={out}") == 0
    assert "warning: every 'buy' of the rows that are judged is 0, so that there is no auc" in capsys.readouterr().err
    figures = json.loads(out.read_text())["test"]
    assert "auc/buy" not in figures and "calibration/buy" not in figures
    assert figures["auc"] == figures["auc/click"] == pytest.approx(figures_of(several)["test"]["auc/click"], abs=1e-9)


# ---------------------------------------------------------------- users and items


def test_columns_of_users_and_items_count_as_if_they_stood_in_the_rows(data, tmp_path):
    def joined(table: pa.Table) -> pa.Table:
        users, items = (pq.read_table(data / f"{part}.parquet") for part in ("users", "items"))
        user = [users["user"].to_pylist().index(each) for each in table["user"].to_pylist()]
        item = [items["item"].to_pylist().index(each) for each in table["item"].to_pylist()]
        for name in ("town", "age"):
            table = table.append_column(name, users[name].take(pa.array(user)))
        return table.append_column("tags", items["tags"].take(pa.array(item)))

    flat = changed(data, tmp_path / "flat", train=joined, test=joined)
    own = [text.replace("of=user", "of=sample").replace("of=item", "of=sample") for text in COLUMNS]
    head = [*HEADS["dcnv2"], *CLICKS, "trainer.steps=8"]
    assert bigembed("train", *FILES, f"data.path={flat}", *own, *LOOP, *head, f"hydra.run.dir={tmp_path}/flat_run") == 0
    assert bigembed("train", *options(data, *head), f"hydra.run.dir={tmp_path}/run") == 0
    assert tables_of(tmp_path / "run") == tables_of(tmp_path / "flat_run")
    assert figures_of(tmp_path / "run")["test"] == figures_of(tmp_path / "flat_run")["test"]


def test_answers_find_users_and_items_where_they_are_now(several, data, tmp_path, capsys):
    moved = changed(data, tmp_path / "moved")
    rows = pq.read_table(data / "test.parquet").slice(0, 3)
    pq.write_table(rows.drop_columns(["click", "buy", "stars"]), tmp_path / "rows.parquet")
    assert bigembed("predict", f"run={several}", f"input={tmp_path}/rows.parquet", f"data.path={moved}") == 0
    lines = [[float(value) for value in line.split("\t")] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(lines, load(several).predict(rows)[1], rtol=1e-4)
    assert bigembed("predict", f"run={several}", f"input={tmp_path}/rows.parquet", f"data.path={moved}/none") == 2
    assert "none does not exist" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"row 1 of the input has the user 99, which has no row in data.users"):
        load(several).predict(with_values("user", lambda values: [values[0], 99, values[2]])(rows))
    with pytest.raises(UserError, match="there is no column 'price' to predict from"):
        load(several).predict(rows.drop_columns(["price"]))


def test_a_line_of_text_is_no_row_of_a_file_of_users(data, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    job = [*FILES, f"data.path={data}", "data.users=users", *feature("town", "user"), "head=dcnv2", *CLICKS]
    assert bigembed("train", *job, *LOOP, "trainer.steps=1", f"hydra.run.dir={run}") == 0
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"3\n")))
    assert bigembed("predict", f"run={run}") == 2
    assert "the model reads the column user only to find its row" in capsys.readouterr().err


def test_rows_of_a_file_of_users_without_an_id_are_left_out_and_told(data, tmp_path, capsys, job):
    other = changed(data, tmp_path / "other", users=lambda table: pa.concat_tables([table, NOBODY.cast(table.schema)]))
    prepared = prepare(saved.override(job, [f"data.path={other}"]), folder_of(tmp_path))
    assert "warning: 2 of 42 rows of data.users have no user (null) and are left out" in capsys.readouterr().err
    assert prepared.test is not None and len(prepared.test.rows) == TEST_ROWS


NOBODY = pa.table({"user": pa.nulls(2, pa.int64()), "town": ["town 1", "town 9"], "age": [1.0, 2.0]})


# ---------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def job(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    jobs: list[Job] = []
    labels = ["head.labels=[click,stars]", "head.losses=[binary,squared]", "head.group=user"]
    folder = tmp_path_factory.mktemp("job")
    compose.run([*options(data, *HEADS["dlrm"], *labels), f"hydra.run.dir={folder}"], lambda job, _: jobs.append(job))
    return jobs[0]


def folder_of(tmp_path: Path) -> Path:
    """Return an empty run folder."""
    (tmp_path / "run" / "encoders").mkdir(parents=True)
    return tmp_path / "run"


WRONG: dict[str, tuple[str, Change, str]] = {
    "label 2": (
        "train",
        with_values("click", first(2)),
        "Row 0 of column 'click' of the train part is 2, neither 0 nor 1",
    ),
    "label 0.5": (
        "test",
        with_values("click", first(0.5)),
        "Row 0 of column 'click' of the test part is 0.5, not a whole",
    ),
    "no label": ("train", with_values("click", first(None)), "Row 0 of column 'click' of the train part has no label"),
    "label a text": ("train", with_values("click", lambda values: ["yes"] * len(values)), "are string, 'yes' in row 0"),
    "one class": (
        "train",
        with_values("click", lambda values: [1] * len(values)),
        "Column 'click' of the train part holds nothing but 1, so that there is nothing to tell apart",
    ),
    "no rating": ("test", with_values("stars", first(None)), "Row 0 of column 'stars' of the test part has no rating"),
    "a rating beyond float32": ("train", with_values("stars", first(1e39)), "1 of 600 rows have none"),
    "a rating that is a text": (
        "train",
        with_values("stars", lambda values: [str(value) for value in values]),
        "holds string, not numbers",
    ),
    "no column of labels": ("test", lambda table: table.drop_columns(["click"]), "test.parquet has no column 'click'"),
    "no column of numbers": ("train", lambda table: table.drop_columns(["price"]), "has no column 'price', it has"),
    "a number that is a text": (
        "train",
        with_values("price", lambda values: ["dear"] * len(values)),
        "Column 'price' of .*train.parquet holds string, not numbers",
    ),
    "an infinite number": (
        "test",
        with_values("price", first(float("inf"))),
        "row 0 of the test part holds inf in column",
    ),
    "a user without a row": (
        "train",
        with_values("user", first(77)),
        r"row 0 of the train part has the user 77, which has no row in data.users \(1 of 600 rows\)",
    ),
    "no user": (
        "test",
        with_values("user", first(None)),
        r"row 0 of the test part has no user \(column 'user' is null\)",
    ),
    "no item": ("train", with_values("item", first(None)), "row 0 of the train part has no item"),
    "users of another type": (
        "users",
        with_values("user", lambda values: [str(value) for value in values]),
        "The users are whole numbers in one part of the data and texts in another",
    ),
    "a user with two rows": (
        "users",
        with_values("user", first(38)),
        "Rows 0 and 1 of column 'user' of data.users are both 38",
    ),
    "users without ids": ("users", lambda table: table.drop_columns(["user"]), "users.parquet has no column 'user'"),
    "no town": (
        "users",
        with_values("town", first(None)),
        r"row 0 of data.users has nothing \(null\) in column 'town'",
    ),
    "no column of towns": ("users", lambda table: table.drop_columns(["town"]), "users.parquet has no column 'town'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_data_that_cannot_be_ranked_is_refused_in_one_sentence(data, tmp_path, job, wrong):
    part, change, message = WRONG[wrong]
    other = changed(data, tmp_path / "other", **{part: change})
    with pytest.raises(UserError, match=message) as refused:
        prepare(saved.override(job, [f"data.path={other}"]), folder_of(tmp_path))
    assert "\n" not in str(refused.value)


def test_groups_that_are_missing_are_refused(tmp_path, job):
    with pytest.raises(UserError, match=r"Column 'price' of the train part, head.group, has 55 nulls"):
        prepare(saved.override(job, ["head.group=price"]), folder_of(tmp_path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["head.experts=3", "head.hidden=[]"], "head.experts is 3, and an expert is the layers of head.hidden"),
        (
            ["trainer.monitor=normalised_entropy", "head.labels=[click,buy]"],
            "which this head does not give; it gives auc,",
        ),
        (["trainer.monitor=gauc/click", "head.labels=[click,buy]"], "which this head does not give"),
        (["head.group=user", "head.losses=[squared]"], "head.group is for binary labels"),
        (["data.users=null"], "features.town.of is user, so that column 'town' is one of data.users"),
        (["tables.town.dim=4"], "whose widths differ: user 8, town 4"),
    ],
)
def test_options_that_contradict_each_other_are_refused(data, capsys, more, message):
    assert bigembed("train", *options(data, *HEADS["dlrm"], *CLICKS), *more) == 2
    assert message in capsys.readouterr().err


def test_dot_products_need_two_vectors(data, capsys):
    assert bigembed("train", *FILES, f"data.path={data}", *feature("item", "sample"), *LOOP, "head=dlrm", *CLICKS) == 2
    assert "there is one feature alone; add features or numbers" in capsys.readouterr().err


# ---------------------------------------------------------------- real clicks


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["criteo_dlrm", "criteo_dcnv2"])
def test_the_experiments_on_criteo_rank_real_clicks(data_dir, tmp_path, experiment):
    if not (data_dir / "criteo-sample").is_dir():
        pytest.skip(f"no clicks in {data_dir}")
    parts = [f"data.path={data_dir}/criteo-sample", "data.validation=dev", "data.test=test"]
    options = [f"experiment={experiment}", *parts, "runtime.tensorboard=false", f"hydra.run.dir={tmp_path}/run"]
    assert bigembed("train", *options) == 0
    assert figures_of(tmp_path / "run")["test"]["auc"] > 0.68
