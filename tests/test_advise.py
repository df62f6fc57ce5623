"""Advice: what a sample tells of the whole, how memory is divided, which kinds are proposed, what is typed, and the sweep."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import bigembed

from bigembed.commands.advise_picture import picture
from bigembed.commands.advise_typed import overrides_for
from bigembed.config import compose, saved
from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    HashedTable,
    IdsTable,
    Job,
    ManagedTable,
    SubwordTable,
    TokenizerTable,
    VocabTable,
)
from bigembed.data.order import Order
from bigembed.encoders.values import open_values
from bigembed.knowing import advice, sample
from bigembed.knowing.advice import Case, propose, share
from bigembed.knowing.sample import Distinct, Group, Point, Sampled, look

ROW = 68  # bytes of a row of 16 numbers, with rowwise Adagrad's one


def zipf(rows: int, values: int, exponent: float = 1.0, seed: int = 0) -> np.ndarray:
    """Values 0 … values - 1 by Zipf's law."""
    weights = 1.0 / np.arange(1, values + 1) ** exponent
    return np.random.default_rng(seed).choice(values, rows, p=weights / weights.sum())


def looked_at(values: np.ndarray, rows: int, **options: Any) -> Sampled:
    return look(HashedTable(**options), [open_values(pa.array(values), "id")], Order(len(values), 0.0, 0), rows)


def group_of(counts: np.ndarray, new: float = 0.0) -> Group:
    """A group that was seen as a whole."""
    counts = np.sort(counts)[::-1]
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    point, size = Point(int(counts.sum()), float(len(counts)), once, twice), float(len(counts))
    return Group(counts, (point,), Distinct(size, size, size, new), float(counts.sum()), counts.astype(float))


def case_of(
    counts: np.ndarray, kinds: tuple[str, ...] = ("vocab", "hashed", "quotient_remainder"), **more: Any
) -> Case:
    tokens = group_of(counts, more.pop("new", 0.0))
    table = more.pop("table", HashedTable())
    return Case(table, Sampled(tokens, None, tokens, 1000, more.pop("rows", 1000)), kinds, ROW)


# ---- what a sample tells


def test_all_rows_tell_exactly_what_there_is() -> None:
    values = zipf(5000, 3000)
    sampled, (_, counts) = looked_at(values, 10_000), np.unique(values, return_counts=True)
    assert (sampled.rows, sampled.whole) == (5000, 5000)
    assert sampled.tokens.counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert sampled.tokens.distinct.low == sampled.tokens.distinct.values == sampled.tokens.distinct.high == len(counts)
    assert sampled.grams is None and sampled.elements is sampled.tokens
    assert sampled.tokens.unknown(2) == pytest.approx((counts == 1).sum() / 5000)
    assert sampled.tokens.kept(3) == pytest.approx((counts >= 3).mean())
    assert sampled.tokens.head(10) == pytest.approx(np.sort(counts)[-10:].sum() / 5000)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.2])
def test_a_part_of_the_rows_tells_how_many_values_there_are_in_all(exponent: float, seed: int) -> None:
    values = zipf(64_000, 50_000, exponent, seed)
    truth = len(np.unique(values))
    distinct = looked_at(values, 8000).tokens.distinct
    assert distinct.low <= distinct.values <= distinct.high
    assert distinct.low < 1.02 * truth and truth < 1.02 * distinct.high
    assert distinct.values == pytest.approx(truth, rel=0.2)
    later = zipf(20_000, 50_000, exponent, seed + 100)
    assert distinct.new == pytest.approx((~np.isin(later, values)).mean(), abs=0.06)


def test_the_first_points_are_those_of_smaller_samples() -> None:
    values = zipf(4000, 1000)
    points = looked_at(values, 4000).tokens.points
    order = Order(4000, 0.0, 0)
    assert [point.total for point in points] == [125, 250, 500, 1000, 2000, 4000]
    for point in points:
        _, counts = np.unique(values[order.train_rows(0, 0, point.total)], return_counts=True)
        assert (point.values, point.once, point.twice) == (len(counts), (counts == 1).sum(), (counts == 2).sum())


def test_n_grams_are_told_apart_from_words() -> None:
    texts = ["a b c a", "b c", "a"]
    sampled = look(VocabTable(ngrams=2), [open_values(pa.array(texts), "text")], Order(3, 0.0, 0), 3)
    assert sampled.tokens.counts.tolist() == [3, 2, 2]
    assert sampled.grams is not None and sampled.grams.counts.tolist() == [2, 1, 1]
    assert sampled.elements.points[-1].total == 11
    assert look(VocabTable(ngrams=2), [open_values(pa.array(["a", "b"]), "text")], Order(2, 0.0, 0), 2).grams is None


def test_many_values_are_counted_by_a_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = zipf(40_000, 30_000, 0.9)
    whole = looked_at(values, 40_000).tokens
    monkeypatch.setattr(sample, "MOST", 1 << 11)
    part = looked_at(values, 40_000).tokens
    assert len(part.counts) < 1 << 11 < len(whole.counts)
    assert part.distinct.values == pytest.approx(whole.distinct.values, rel=0.1)
    assert part.kept(2) == pytest.approx(whole.kept(2), abs=0.05)


def test_mixed_is_the_share_of_a_row_that_is_others() -> None:
    group = group_of(np.random.default_rng(0).integers(1, 50, 20_000))
    for rows in (2000, 20_000, 200_000):
        where = np.random.default_rng(1).integers(0, rows, 20_000)  # another draw than its own
        own = group.counts / np.bincount(where, group.counts)[where]
        assert group.mixed(rows) == pytest.approx(1 - np.average(own, weights=group.counts), abs=0.01)
    assert group.mixed(group.rows_for(0.1)) == pytest.approx(0.1, abs=0.01)
    assert group_of(np.array([5])).mixed(1) == 0


def test_a_sample_tells_what_the_whole_would_mix() -> None:
    values = zipf(64_000, 50_000)
    for rows in (500, 5000):
        assert looked_at(values, 8000).tokens.mixed(rows) == pytest.approx(
            looked_at(values, 64_000).tokens.mixed(rows), abs=0.09
        )


# ---- how memory is divided


def test_memory_is_divided_by_the_root_of_the_need_and_none_gets_more_than_it_needs() -> None:
    assert share({"a": 100, "b": 200}, 1000) == {"a": 100, "b": 200}
    shares = share({"small": 10, "b": 400, "c": 1600}, 310)
    assert shares == pytest.approx({"small": 10, "b": 100, "c": 200})
    needs = {"a": 900.0, "b": 2500.0}
    best = min(range(1, 400), key=lambda first: needs["a"] / first + needs["b"] / (400 - first))
    assert share(needs, 400)["a"] == pytest.approx(best, abs=1)


@pytest.mark.parametrize("memory", [40_000, 200_000, 2_000_000, 1e9])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_proposed_fits(memory: float, stream: bool) -> None:
    kinds = (
        ("vocab", "hashed", "quotient_remainder", "managed") if stream else ("vocab", "hashed", "quotient_remainder")
    )
    cases = {str(size): case_of(rare(size), kinds) for size in (50, 3000, 20_000)}
    proposals = propose(cases, memory, 0.1, stream)
    assert sum(each.bytes for each in proposals.values()) <= memory
    assert all(each.rows * ROW == each.bytes and each.why for each in proposals.values())


# ---- which kinds


def rare(values: int) -> np.ndarray:
    return np.bincount(zipf(6 * values, values), minlength=values) + 1


def test_all_values_that_fit_have_rows_of_their_own() -> None:
    (each,) = propose({"t": case_of(rare(1000), table=VocabTable(ngrams=2))}, 1001 * ROW, 0.1).values()
    assert isinstance(each.table, VocabTable) and (each.table.min_count, each.table.max_size) == (1, None)
    assert each.table.ngrams == 1  # of n-grams there are none
    assert (each.unknown, each.mixed, each.collisions, each.rows) == (0, 0, 0, 1001)


def test_rare_values_go_without_a_row_where_that_is_enough() -> None:
    counts = np.array([1000] * 100 + [1] * 500)
    (each,) = propose({"t": case_of(counts)}, 101 * ROW, 0.1).values()
    assert isinstance(each.table, VocabTable) and each.table.min_count == 2
    assert each.unknown == pytest.approx(500 / 100_500)


def test_the_frequent_values_have_rows_where_the_rest_is_less_than_hashing_mixes_up() -> None:
    case = case_of(rare(1000))
    (each,) = propose({"t": case}, 300 * ROW, 0.01).values()
    assert isinstance(each.table, VocabTable) and each.table.max_size == 299
    hashed = advice.made_as("hashed", {"t": case}, 300 * ROW, 0.01)["t"]
    assert 0.01 < each.unknown < hashed.mixed
    counts = np.sort(case.sampled.tokens.counts)
    assert each.unknown == pytest.approx(counts[:-299].sum() / counts.sum())


def test_n_grams_that_would_be_mixed_up_get_two_rows_each() -> None:
    tokens, grams = group_of(rare(300)), group_of(rare(5000))
    both = group_of(np.concatenate([tokens.counts, grams.counts]))
    case = Case(
        HashedTable(ngrams=2), Sampled(tokens, grams, both, 1000, 1000), ("vocab", "hashed", "quotient_remainder"), ROW
    )
    (each,) = propose({"t": case}, 1000 * ROW, 0.1).values()
    assert isinstance(each.table, CompositionalTable) and each.table.partitions == [500, 500]
    assert each.table.ngrams == 2 and each.mixed > 0.1
    assert each.collisions == pytest.approx(1 - (1 - 1 / 250_000) ** 5299)
    (each,) = propose({"t": case}, 1e9, 0.1).values()
    assert isinstance(each.table, VocabTable) and each.table.ngrams == 2 and each.mixed <= 0.1


def test_few_enough_mixed_up_are_hashed() -> None:
    case = case_of(np.full(1000, 20))
    (each,) = propose({"t": case}, 900 * ROW, 0.5).values()
    assert isinstance(each.table, HashedTable) and 0.1 < each.mixed <= 0.5
    assert each.collisions == pytest.approx(1 - (1 - 1 / each.table.buckets) ** 999)


def test_a_stream_gets_a_managed_table() -> None:
    case = case_of(rare(1000), ("vocab", "hashed", "managed"))
    (each,) = propose({"t": case}, 512 * ROW, 0.1, stream=True).values()
    assert isinstance(each.table, ManagedTable) and each.table.rows == 512 and 0 < each.unknown < 1


def test_texts_of_many_new_words_are_cut_into_pieces() -> None:
    kinds = ("vocab", "hashed", "quotient_remainder", "subword", "tokenizer")
    case = case_of(rare(1000), kinds, new=0.05)
    (large,) = propose({"t": case}, 6000 * ROW, 0.1).values()
    (small,) = propose({"t": case}, 600 * ROW, 0.1).values()
    assert isinstance(large.table, SubwordTable) and large.rows == 5001
    assert isinstance(small.table, TokenizerTable) and small.table.vocab_size == 600
    (known,) = propose({"t": case_of(rare(1000), kinds, new=0.001)}, 6000 * ROW, 0.1).values()
    assert known.kind == "vocab"


def test_ids_stay_rows_where_they_fit_and_share_none_where_they_do_not() -> None:
    case = case_of(rare(1000), table=IdsTable(rows=1000))
    (whole,) = propose({"t": case}, 1000 * ROW, 0.1).values()
    assert whole.table is case.table
    made = advice.made_as("quotient_remainder", {"t": case}, 200 * ROW, 0.1)["t"]
    assert isinstance(made.table, CompositionalTable)
    assert (made.table.partitions, made.table.values, made.collisions) == ([100, 100], 1000, 0)


def test_numbers_get_intervals_of_a_thousand_rows() -> None:
    cases = {"t": case_of(np.ones(9000, np.int64), (), table=BucketizedTable(), rows=9000)}
    (each,) = propose(cases, 1e6, 0.1).values()
    assert isinstance(each.table, BucketizedTable) and (each.table.bins, each.rows) == (9, 10)


# ---- what is typed


def job_of(arguments: list[str], folder: Path) -> Job:
    jobs: list[Job] = []
    compose.run([*arguments, f"hydra.run.dir={folder}"], lambda job, _: jobs.append(job))
    return jobs[0]


TABLES = {
    "vocab": VocabTable(min_count=2, max_size=99, ngrams=1, dim=8),
    "hashed": HashedTable(buckets=77, ngrams=3, lower=False),
    "quotient_remainder": CompositionalTable(partitions=[5, 7], ngrams=2),
    "subword": SubwordTable(buckets=10, distinct=True),
    "tokenizer": TokenizerTable(vocab_size=400),
    "managed": ManagedTable(rows=64),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("given", [[], ["experiment=imdb", "tables.text.buckets=5", "data.path=here"]])
def test_what_is_typed_makes_the_proposed_job(kind: str, given: list[str], tmp_path: Path) -> None:
    job = job_of(given, tmp_path / "a")
    wanted = replace(job, tables={"text": TABLES[kind]})
    typed = overrides_for(given, wanted, {"text": kind})
    made = job_of(typed, tmp_path / "b")
    (name,) = made.tables
    assert made.tables[name] == TABLES[kind]
    assert made.features["text"].table == name
    assert replace(made, tables={}, features={}) == replace(job, tables={}, features={})
    assert set(TABLES) == set(advice.KINDS)


# ---- the command


def write_clicks(folder: Path, rows: int = 3000) -> list[str]:
    """Write clicks of two columns of ids and a price; return the arguments of a small job on them."""
    folder.mkdir()
    user, item = zipf(rows, 400, seed=1), zipf(rows, 200, seed=2)
    label = (np.random.default_rng(0).random(rows) < 0.1 + 0.8 * (item % 2)).astype(np.int64)
    table = pa.table({"user": user, "item": item, "price": np.arange(rows) / 7, "label": label})
    pq.write_table(table, folder / "train.parquet")
    arguments = ["data=files", f"data.path={folder}", "data.test=null", "data.validation_fraction=0.2"]
    arguments += ["table@tables.text=hashed", "features.text.column=user", "+table@tables.item=ids"]
    arguments += ["tables.item.rows=200", "+feature@features.item=column", "features.item.table=item"]
    arguments += ["features.item.column=item", "+table@tables.price=bucketized", "+feature@features.price=column"]
    return [*arguments, "features.price.table=price", "features.price.column=price"]


def test_the_command_tells_its_advice_and_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, out = write_clicks(tmp_path / "clicks"), tmp_path / "advice.json"
    assert bigembed("advise", *arguments, "memory_mib=0.03", f"out={out}") == 0
    told = json.loads(out.read_text())
    assert {name: each["proposal"]["kind"] for name, each in told["tables"].items()}.keys() == {"text", "item", "price"}
    assert told["tables"]["price"]["proposal"]["options"]["bins"] == 2
    assert sum(each["proposal"]["bytes"] for each in told["tables"].values()) <= 0.03 * 2**20
    job = job_of(told["train"][2:], tmp_path / "typed")
    as_told = {name: each["proposal"]["options"] for name, each in told["tables"].items()}
    assert saved.as_dict(job)["tables"] == as_told
    shown = capsys.readouterr().out
    assert "sweep=DIR" in shown and "memory_mib=0.03" in shown and "table@tables.text=" in shown
    assert not (tmp_path / "outputs").exists()


class Shapes(HTMLParser):
    """Counts the elements of a page, and refuses one that is left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag not in ("meta", "br", "path") or (tag == "path" and not self.rawdata[: self.getpos()[1]]):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_picture_has_a_line_for_every_kind_and_a_point_for_every_size() -> None:
    points = [
        {"kind": kind, "bytes": size, "accuracy": 0.8 + seed / 100, "loss": 0.4, "samples": 500, "seed": seed}
        | {"folder": f"x/{kind}-{size}-seed{seed}"}
        for kind in ("vocab", "hashed", "a<b")
        for size in (1000, 4000)
        for seed in (0, 1)
    ]
    described = saved.as_dict(Job())
    page = picture({"points": points, "seeds": 2, "measured_on": described | {"data": {"kind": "generated"}}})
    seen = Shapes(page).seen
    assert seen["circle"] == 6 and page.count("a&lt;b") and "<b" not in page.replace("<body", "").replace("<br", "")
    assert page.count('stroke-width="2"') == 3 and "500 samples" in page and "2 seeds" in page


@pytest.mark.slow
def test_a_sweep_measures_every_kind_and_size_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*write_clicks(tmp_path / "clicks"), "trainer.epochs=2", "trainer.batch_size=64", "runtime.device=cpu"]
    sweep = ["advise", *arguments, "runtime.tensorboard=false", "memory_mib=0.02", "sizes=2", f"sweep={tmp_path}/sweep"]
    assert bigembed(*sweep) == 0
    found = json.loads((tmp_path / "sweep" / "curves.json").read_text())
    assert [each["kind"] for each in found["points"]] == ["vocab"] * 2 + ["hashed"] * 2 + ["quotient_remainder"] * 2
    assert all(each["samples"] == 600 and each["accuracy"] > 0.5 for each in found["points"])
    for large, small in zip(found["points"][::2], found["points"][1::2], strict=True):
        assert 0.02 * 2**20 >= large["bytes"] > 2 * small["bytes"]
    assert "<svg" in (tmp_path / "sweep" / "curves.html").read_text()
    made = sorted(path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert bigembed(*sweep) == 0 and len(made) == 6
    assert made == sorted(path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/metrics.json"))
    capsys.readouterr()
    assert bigembed(*sweep, "trainer.epochs=1") == 2
    assert "another sweep" in capsys.readouterr().err


BAD = {
    "memory_mib=0": "memory_mib is 0.0; it must be above 0",
    "memory_mib=nan": "memory_mib is nan",
    "sample=0": "sample is 0; it must be at least 1",
    "mixed=1": "mixed is 1.0; it must be below 1.0",
    "sizes=0": "sizes is 0",
    "seeds=0": "seeds is 0",
    "-m": "-m is for bigembed train",
    "hydra.run.dir=x": "is for bigembed train",
    "data.rows=1.5": "data.rows",
    "out=missing/x.json": "cannot be written",
}


@pytest.mark.parametrize("argument", BAD)
def test_what_cannot_be_advised_is_one_sentence(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bigembed("advise", "data.rows=300", "data.test_rows=10", argument) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("bigembed: ") and BAD[argument] in said


def test_a_sweep_wants_a_validation_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data.rows=300", "data.test_rows=10", "data.validation_fraction=0", f"sweep={tmp_path}/s"]
    assert bigembed("advise", *given) == 2
    assert "validation" in capsys.readouterr().err
