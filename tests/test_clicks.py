"""Generated clicks: the same everywhere, ids by the law, and a probability and a best figure that are what they are said to be."""

import hashlib
import math

import numpy as np
import pyarrow as pa
import pytest

from bigembed.config.schema import ClicksData
from bigembed.data import clicks, converted, open_data, open_part
from bigembed.data.clicks import best_auc, drawn_auc
from bigembed.errors import UserError
from bigembed.hashing import MASK, hash_integers, permuted
from bigembed.wishes import IDS, NUMBERS, VALUES

GOLDEN = 0x9E3779B97F4A7C15


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bigembed"


def names_of(config):
    ids, numbers = [f"id{i}" for i in range(config.columns)], [f"number{i}" for i in range(config.numbers)]
    return [*ids, *numbers, "label", "probability"]


def train(config, *names):
    return open_part(config, "train", {}, names or names_of(config))


def area(scores, labels):
    """The area under the curve: the share of pairs in the right order, those that are equal counting half."""
    clicked, others = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    below, upto = np.searchsorted(others, clicked, "left"), np.searchsorted(others, clicked, "right")
    return float((below + upto).sum() / 2 / (len(clicked) * len(others)))


def test_the_clicks_are_pinned():
    # Bit for bit on every machine: figures in documents and tests depend on it.
    parts = open_data(
        ClicksData(rows=3000, test_rows=500, ids=100_000, exponent=1.2, seed=3), {}, names_of(ClicksData())
    )
    digest = hashlib.sha256()
    for table in (parts.train, parts.test):
        for name in table.column_names:
            digest.update(table[name].fill_null(0).to_numpy().tobytes())
    assert digest.hexdigest()[:16] == "4bbc8836b5e57c54"


def test_the_columns_are_as_promised():
    config = ClicksData(rows=5000, columns=3, numbers=2)
    table = train(config)
    table.validate(full=True)
    assert table.schema.types == [*[pa.int64()] * 3, *[pa.float64()] * 2, pa.int8(), pa.float64()]
    assert table.num_rows == 5000
    labels, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    assert set(labels) == {0, 1}
    assert abs(labels.mean() - probability.mean()) < 4 * 0.5 / math.sqrt(5000)
    assert 0.04 < table["number0"].null_count / 5000 < 0.06
    numbers = table["number1"].drop_null().to_numpy()
    assert abs(numbers.mean()) < 0.06
    assert abs(numbers.std() - 1) < 0.05


def test_columns_come_as_they_are_wished_for():
    config = ClicksData(rows=100)
    table = open_part(config, "train", {"id1": VALUES, "id0": IDS, "number0": NUMBERS}, ["label"])
    assert table.column_names == ["id1", "id0", "number0", "label"]
    assert table.equals(train(config, "id1", "id0", "number0", "label"))
    assert open_part(config, "train", {"id1": NUMBERS}).schema.field("id1").type == pa.float64()


def test_a_longer_part_begins_with_the_shorter_one_and_the_parts_and_seeds_differ():
    short, long = ClicksData(rows=1000, test_rows=1000), ClicksData(rows=70_000, test_rows=10)
    assert train(long).slice(0, 1000).equals(train(short))
    firsts = [
        train(short, "number0"),
        open_part(short, "test", {}, ["number0"]),
        train(ClicksData(rows=1000, seed=1), "number0"),
    ]
    values = [set(first["number0"].drop_null().to_pylist()) for first in firsts]
    assert all(len(one & other) < 20 for i, one in enumerate(values) for other in values[:i])


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.05, 3.0])
@pytest.mark.parametrize("ids", [1, 7, 1000, 50_000])
def test_ids_come_by_zipfs_law(ids, exponent):
    rows = 100_000
    table = train(ClicksData(rows=rows, columns=2, numbers=0, ids=ids, exponent=exponent), "id0", "id1")
    weights = np.arange(1, ids + 1, dtype=np.float64) ** -exponent
    expected = weights / weights.sum() * rows
    shuffled = []
    for column in ("id0", "id1"):
        values = table[column].to_numpy()
        assert values.min() >= 0
        assert values.max() < ids
        shuffle = permuted(np.arange(ids), ids, int(hash_integers(np.array([int(column[2:])]), 0)[0]))
        counts = np.bincount(values, minlength=ids)[shuffle]
        shuffled.append(tuple(shuffle[:20]))
        # Ranks in groups of at least 50 expected rows: the squares of standardised deviations are about 1 on average.
        groups = np.minimum((np.cumsum(expected) / max(50.0, expected.max() / 100)).astype(int), 2000)
        observed, hoped = np.bincount(groups, counts), np.bincount(groups, expected)
        chi = ((observed - hoped)[hoped > 5] ** 2 / hoped[hoped > 5]).sum()
        cells = (hoped > 5).sum()
        assert chi < cells + 5 * math.sqrt(2 * cells)
    assert ids < 1000 or shuffled[0] != shuffled[1] != tuple(range(20))


def test_ids_of_any_range_are_made():
    config = ClicksData(rows=20_000, columns=1, numbers=0, ids=2**40, exponent=0.0)
    values = train(config, "id0")["id0"].to_numpy()
    assert len(np.unique(values)) == 20_000
    shares = np.bincount(values >> 37, minlength=8) / 20_000
    assert np.abs(shares - 1 / 8).max() < 0.015


def mixed(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def normal(bits):
    quarters = [bits >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    return (sum(quarters) - 131070) / (65536 * math.sqrt(4 / 12))


@pytest.mark.parametrize("columns", [1, 3, 6])
def test_the_probability_is_the_documented_function_of_the_row(columns):
    config = ClicksData(rows=60, columns=columns, numbers=3, ids=500, seed=5)
    weights = np.arange(1, 501, dtype=np.float64) ** -config.exponent
    shares = weights / weights.sum()
    strengths = shares / (shares + clicks.RARE)
    strengths /= np.sqrt((shares * strengths**2).sum())
    keys = [int(key) for key in hash_integers(np.arange(columns), 5)]
    ranks = [{int(place): rank for rank, place in enumerate(permuted(np.arange(500), 500, key))} for key in keys]
    signs = [1 if key & 1 else -1 for key in hash_integers(np.arange(3), ~5).tolist()]
    for row in train(config).to_pylist():
        logit, factors = clicks.INTERCEPT, []
        for c, key in enumerate(keys):
            rank = ranks[c][row[f"id{c}"]]
            drawn = mixed((key + (rank + 1) * GOLDEN) & MASK)
            logit += clicks.OWN / math.sqrt(columns) * strengths[rank] * normal(drawn)
            pair = [mixed((drawn + GOLDEN) & MASK), mixed((drawn - GOLDEN) & MASK)]
            factors.append([strengths[rank] * normal(each) for each in pair])
        for a, b in ((0, 1), (2, 3)):
            if b < columns:
                logit += clicks.PAIRED / 2 * float(np.dot(factors[a], factors[b]))
        for j in range(3):
            x = row[f"number{j}"] or 0.0
            logit += signs[j] * clicks.BY_NUMBERS / math.sqrt(3) * ((abs(x) - 0.8) / 0.6 if j % 2 else x)
        assert row["probability"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def test_the_best_area_is_that_of_the_probabilities():
    config = ClicksData(test_rows=20_000)
    test = open_part(config, "test", {}, ["label", "probability"])
    probability, labels = test["probability"].to_numpy(), test["label"].to_numpy()
    assert drawn_auc(config) == pytest.approx(area(probability, labels), abs=1e-6)
    # The expected figure is the mean over labels drawn anew.
    rng = np.random.default_rng(0)
    areas = [area(probability, rng.random(len(probability)) < probability) for _ in range(40)]
    assert best_auc(config) == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / math.sqrt(40))
    assert 0.8 < best_auc(config) < 0.9


def test_the_documented_best_areas_hold():
    assert round(best_auc(ClicksData()), 4) == 0.8551
    assert round(drawn_auc(ClicksData()), 4) == 0.8565


def test_ids_that_come_seldom_count_little():
    law = clicks._law(10**6, 1.05)
    each = np.diff(law.totals, prepend=0) / 2.0**53
    assert (each * law.strengths**2).sum() == pytest.approx(1.0, abs=1e-6)
    assert (each * law.strengths**2)[law.firsts < 50].sum() > 0.99
    none = clicks._law(10**6, 0.0)
    assert none.strengths.max() < 0.001


@pytest.mark.parametrize(("columns", "numbers"), [(1, 0), (2, 1), (300, 200)])
def test_there_may_be_few_columns_or_many(columns, numbers):
    config = ClicksData(rows=2500, test_rows=100, columns=columns, numbers=numbers)
    table = train(config)
    assert table.num_columns == columns + numbers + 2
    assert table.num_rows == 2500
    assert 0.5 < best_auc(config) < 1.0


def test_large_parts_lie_in_a_file_that_is_made_once(cache, monkeypatch):
    config = ClicksData(rows=150_000, in_memory_mib=1)
    names = ("id0", "id7", "number0", "label")
    in_memory = train(ClicksData(rows=150_000), *names)
    assert not cache.exists()
    before = pa.total_allocated_bytes()
    mapped = train(config, *names)
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert mapped.equals(in_memory)
    (file,) = cache.glob("*.arrow")
    monkeypatch.setattr(clicks, "_block", None)
    assert train(config, *names).equals(in_memory)
    assert file.name.startswith("clicks-train-")


def test_each_choice_has_a_file_of_its_own(tmp_path):
    options = {"rows": 2000, "test_rows": 2000, "in_memory_mib": 0, "work_dir": str(tmp_path / "work")}
    for more in ({}, {"seed": 1}, {"ids": 999}, {"columns": 7}, {"numbers": 3}, {"exponent": 1.0}, {"rows": 2001}):
        config = ClicksData(**{**options, **more})
        assert train(config, "id0", "label").equals(
            train(ClicksData(**{**options, **more, "in_memory_mib": 99}), "id0", "label")
        )
    train(ClicksData(**options), "id1", "label")
    open_part(ClicksData(**options), "test", {}, ["id0", "label"])
    assert len(list((tmp_path / "work").glob("clicks-*.arrow"))) == 9


def test_what_takes_long_is_told(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(converted.time, "monotonic", lambda: float(next(clock)))
    told = []
    open_part(ClicksData(rows=1000), "train", {}, ["id0"], say=told.append)
    assert told == ["making clicks: 0 of about 0 MiB"]


@pytest.mark.parametrize("name", ["id8", "number4", "id08", "id-1", "text", "id", "id99999999999999999999"])
def test_a_column_that_is_not_made_is_refused(name):
    with pytest.raises(UserError, match=rf"no column '{name}'.*id0 … id7, number0 … number3, label, probability"):
        train(ClicksData(rows=10), name)


def test_other_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no validation part; they have train and test"):
        open_part(ClicksData(rows=10), "validation", {}, ["id0"])
    with pytest.raises(UserError, match="'number0' of generated clicks holds double, not texts"):
        open_part(ClicksData(rows=10), "train", {"number0": VALUES})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be converted in .*data\.work_dir"):
        train(ClicksData(rows=10, in_memory_mib=0, work_dir=str(tmp_path / "file")), "number0", "label")
