"""What is told of tables: counts, shared rows, norms; compared with numpy and with plain Python."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from running import bigembed, write_reviews

from bigembed import encoders, hashing
from bigembed.admission import GROUP, Admission, Rules
from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    HashedTable,
    IdsTable,
    ManagedTable,
    MixedTable,
    Scheme,
    SubwordTable,
    TableConfig,
    VocabTable,
)
from bigembed.encoders import tokenize
from bigembed.knowing import collisions
from bigembed.knowing.character_grams import tally_grams
from bigembed.knowing.describe import places_of, shared_rows
from bigembed.knowing.elements import DRAWN, pools_of, rows_in
from bigembed.knowing.measure import Seen, measure
from bigembed.knowing.names import name_values
from bigembed.knowing.norms import First, Norms, read_weights
from bigembed.knowing.sketch import HyperLogLog
from bigembed.knowing.tally import Tally
from bigembed.knowing.touched import Touched


def hashes_of(numbers: np.ndarray, salt: int = 0) -> np.ndarray:
    return np.maximum(hashing.hash_integers(numbers, salt), np.uint64(1))


# ---------------------------------------------------------------- sketches and tallies


@pytest.mark.parametrize("values", [100, 10_000, 200_000])
def test_hyperloglog_errs_as_its_standard_error_says(values: int) -> None:
    errors = []
    for seed in range(100):
        sketch = HyperLogLog(precision=12)
        sketch.add(hashes_of(np.arange(values), seed))
        errors.append(sketch.estimate() / values - 1)
    expected = sketch.standard_error
    assert expected == pytest.approx(0.0162, abs=0.0001)
    assert np.abs(errors).max() < 4 * expected
    assert abs(np.mean(errors)) < 0.4 * expected  # 4 standard errors of a mean of 100
    assert np.std(errors) < 1.3 * expected


def test_hyperloglog_counts_a_value_once_and_nothing_as_nothing() -> None:
    once, twice = HyperLogLog(), HyperLogLog()
    assert once.estimate() == 0
    once.add(hashes_of(np.arange(5000)))
    for start in (0, 2000, 0):
        twice.add(hashes_of(np.arange(start, start + 3000)))
    assert twice.estimate() == once.estimate() == pytest.approx(5000, rel=4 * once.standard_error)


def zipf(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).zipf(1.2, count) % 50_000


def test_a_tally_counts_as_numpy_does() -> None:
    numbers, tally = zipf(60_000), Tally()
    hashes = hashes_of(numbers)
    for start in range(0, len(hashes), 7000):
        block = hashes[start : start + 7000]
        tally.add(block, block % np.uint64(900))
    values, counts = np.unique(hashes, return_counts=True)
    kept = tally.sample()
    order = np.argsort(kept.hashes)
    assert tally.exact and tally.total == 60_000 and tally.distinct() == len(values)
    assert (kept.hashes[order] == values).all() and (kept.counts[order] == counts).all()
    same = Counter((values % np.uint64(900)).tolist())
    assert (kept.shared()[order] == [same[key] > 1 for key in (values % np.uint64(900)).tolist()]).all()
    assert kept.top(3).counts.tolist() == sorted(counts.tolist(), reverse=True)[:3]


def test_a_tally_with_little_memory_keeps_a_sample_of_keys_and_the_frequent_values() -> None:
    hashes, places = hashes_of(zipf(400_000, 1)), np.uint64(20_000)
    whole, small = Tally(), Tally(most=4096)
    for start in range(0, len(hashes), 9000):
        block = hashes[start : start + 9000]
        keys = block % places
        whole.add(block, keys)
        small.add(block, keys)
    assert whole.exact and not small.exact and small.known <= 4096 and small.total == whole.total
    assert small.distinct() == pytest.approx(whole.distinct(), rel=4 * small.sketch.standard_error)
    known, sample = whole.sample(), small.sample()
    counted = dict(zip(known.hashes.tolist(), known.counts.tolist(), strict=True))
    assert 500 < len(sample) < 4096
    assert all(
        counted[value] == count for value, count in zip(sample.hashes.tolist(), sample.counts.tolist(), strict=True)
    )
    assert set(sample.keys.tolist()) == set(known.take(np.isin(known.keys, sample.keys)).keys.tolist())
    assert np.isin(known.hashes[np.isin(known.keys, sample.keys)], sample.hashes).all()  # all values of a key, or none
    assert sample.shared().mean() == pytest.approx(known.shared().mean(), abs=0.05)
    assert small.kept().top(20).hashes.tolist() == known.top(20).hashes.tolist()


@pytest.mark.parametrize(("values", "places"), [(2, 10), (300, 1000), (1000, 300), (5000, 5000)])
def test_expected_collisions_are_those_of_balls_in_bins(values: int, places: int) -> None:
    random = np.random.default_rng(values)
    shares = []
    for _ in range(2000 if values < 10 else 100):
        bins = np.bincount(random.integers(places, size=values), minlength=places)
        shares.append(bins[bins > 1].sum() / values)
    error = 4 * np.std(shares) / np.sqrt(len(shares))
    assert collisions.expected(values, places) == pytest.approx(np.mean(shares), abs=error)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.5])
@pytest.mark.parametrize("values", [2, 1000, 10**8])
def test_the_places_for_a_rate_are_the_fewest_that_keep_it(values: int, rate: float) -> None:
    places = collisions.places_for(values, rate)
    assert collisions.expected(values, places) <= rate * (1 + 1e-6)
    assert places == 2 or collisions.expected(values, places - max(1, places // 1000)) > rate
    assert collisions.expected(1, 1) == collisions.expected(0, 5) == 0
    assert collisions.expected(2, 1) == 1 and collisions.places_for(1, rate) == 1


def test_touched_rows_are_noted_once() -> None:
    rows = np.random.default_rng(0).integers(1003, size=400)
    touched = Touched(1003)
    for block in np.split(rows.astype(np.int32), 4):
        touched.add(block)
    mask = np.isin(np.arange(1003), rows)
    assert touched.count() == mask.sum()
    assert (touched.among(0, 1003) == mask).all() and (touched.among(8, 21) == mask[8:21]).all()


# ---------------------------------------------------------------- what tables see

TEXTS = [
    f"the {a} was {b}, the {b} {c}"
    for a in ("film", "plot", "cast")
    for b in range(40)
    for c in ("bad", "good", "so so")
]


def looked_at(config: TableConfig, array: pa.Array, threads: int = 1) -> tuple[encoders.Encoder, encoders.Column, Seen]:
    column = encoders.KINDS[type(config)].open(array, "column")
    encoder = encoders.build("table", config, [column])
    return encoder, column, measure(encoder, [column], threads=threads)


HASHED = [
    HashedTable(buckets=60),
    HashedTable(buckets=60, ngrams=2, distinct=True),
    HashedTable(buckets=12, functions=2),
    HashedTable(buckets=12, functions=2, sign=True, salt=3),
    HashedTable(buckets=8, functions=2, importance=3),
    CompositionalTable(partitions=[7, 9]),
    CompositionalTable(partitions=[3, 4, 5], ngrams=2),
]


@pytest.mark.parametrize("config", HASHED, ids=lambda config: type(config).__name__)
def test_shared_rows_are_those_that_plain_python_finds(config: HashedTable | CompositionalTable) -> None:
    encoder, column, seen = looked_at(config, pa.array(TEXTS))
    counts: Counter[str] = Counter()
    for text in TEXTS:
        tokens = tokenize(text)
        counts.update(tokens)
        if config.ngrams == 2:
            counts.update(map(" ".join, pairwise(tokens)))
    rows = {}
    for value in counts:
        parts = [part.rows.values.tolist() for part in encoder.encode_token(value).parts]
        in_order = isinstance(config, CompositionalTable) or config.importance is not None
        rows[value] = str(parts if in_order else sorted(parts[0]))
    having = Counter(rows.values())
    shared = {value: having[rows[value]] > 1 for value in counts}
    found = shared_rows(seen.tally, *(places_of(config)[0], 0.01, places_of(config)[1]))
    assert seen.tally.total == counts.total() and found["values"] == len(counts)
    assert found["measured"] == pytest.approx(np.mean(list(shared.values())))
    weighted = sum(counts[value] for value in counts if shared[value]) / counts.total()
    assert found["measured_of_occurrences"] == pytest.approx(weighted)
    once = [shared[value] for value in counts if counts[value] == 1]
    classes = {entry["from"]: entry for entry in found["classes"]}
    if once:
        assert classes[1]["measured"] == pytest.approx(np.mean(once))
    assert sum(entry["values"] for entry in classes.values()) == pytest.approx(1)
    top = name_values(encoder, seen.tally.kept().top(5), [column])
    assert [value.count for value in top] == sorted(counts.values(), reverse=True)[:5]
    assert all(counts[value.text] == value.count for value in top)
    touched = [mark.count() for mark in seen.touched]
    assert touched == [
        len({row for value in counts for row in encoder.encode_token(value).parts[part].rows.values.tolist()})
        for part in range(len(encoder.rows))
    ]


def test_the_shares_of_many_values_are_those_expected() -> None:
    numbers = pa.array(np.random.default_rng(0).permutation(30_000))
    for config in (
        HashedTable(buckets=40_000),
        HashedTable(buckets=300, functions=2),
        CompositionalTable(partitions=[200, 210]),
    ):
        _, _, seen = looked_at(config, numbers)
        places, rows_for = places_of(config)
        found = shared_rows(seen.tally, places, 0.01, rows_for)
        assert found["expected"] == pytest.approx(collisions.expected(30_000, places))
        assert found["measured"] == pytest.approx(found["expected"], abs=0.015)
        partitions = found["wanted"]["rows"]
        assert len(partitions) == (2 if isinstance(config, CompositionalTable) else 1)


def test_the_wanted_rows_keep_the_wished_rate() -> None:
    numbers = pa.array(np.arange(20_000))
    first = HashedTable(buckets=1000), HashedTable(buckets=100, functions=2), CompositionalTable(partitions=[10, 10])
    for config in first:
        places, rows_for = places_of(config)
        rows = shared_rows(looked_at(config, numbers)[2].tally, places, 0.05, rows_for)["wanted"]["rows"]
        larger = (
            CompositionalTable(partitions=rows)
            if len(rows) == 2
            else HashedTable(buckets=rows[0], functions=config.functions)
        )
        measured = shared_rows(looked_at(larger, numbers)[2].tally, places_of(larger)[0], 0.05)["measured"]
        assert measured == pytest.approx(0.05, abs=0.01)


def test_in_a_vocabulary_only_ngrams_share_rows_and_unknown_words_are_counted() -> None:
    for config in (
        VocabTable(ngrams=2, buckets=50, min_count=10),
        MixedTable(ngrams=2, buckets=50, min_count=10, blocks=[2, 4]),
    ):
        encoder, _, seen = looked_at(config, pa.array(TEXTS))
        tokens = Counter(token for text in TEXTS for token in tokenize(text))
        grams = {pair for text in TEXTS for pair in zip(tokenize(text), tokenize(text)[1:], strict=False)}
        assert seen.tokens == tokens.total()
        assert seen.unknown == sum(count for count in tokens.values() if count < 10)
        found = shared_rows(seen.tally, 50.0, 0.01)
        rows = {
            pair: str([part.rows.values.tolist() for part in encoder.encode_token(" ".join(pair)).parts])
            for pair in grams
        }
        having = Counter(rows.values())
        assert found["values"] == len(grams)
        assert found["measured"] == pytest.approx(np.mean([having[rows[pair]] > 1 for pair in grams]))


def test_a_result_does_not_depend_on_threads() -> None:
    array = pa.array(np.random.default_rng(0).integers(9999, size=300_000))
    one, three = (looked_at(HashedTable(buckets=4000), array, threads)[2] for threads in (1, 3))
    assert one.tally.total == three.tally.total == 300_000 and one.samples == three.samples
    assert sorted(one.tally.kept().hashes) == sorted(three.tally.kept().hashes)


def test_character_ngrams_and_their_rows_are_those_of_the_encoder() -> None:
    texts = pa.array(["where are the crème brûlées", "a 漢字 where </s> the", "thé the"])
    for config in (SubwordTable(buckets=70), SubwordTable(buckets=1000, min_n=1, max_n=3)):
        encoder, _, seen = looked_at(config, texts)
        counts, rows = Counter(), {}
        for word, count in zip(encoder.words().to_pylist(), encoder.counts().tolist(), strict=True):
            grams = encoder.pieces_of(word)
            counts.update({gram: count * times for gram, times in Counter(grams).items()})
            rows |= dict(zip(grams, encoder.rows_of(word)[1:].tolist(), strict=False))
        tally = tally_grams(encoder)
        kept = tally.kept()
        assert len(kept) == len(counts) and tally.total == counts.total()
        assert sorted(kept.counts.tolist()) == sorted(counts.values())
        assert set(pools_of(kept.keys).tolist()) == {DRAWN}
        assert Counter(rows_in(kept.keys).tolist()) == Counter(rows.values())
        assert seen.unknown == 0 and seen.touched[0].count() == len(set(rows.values())) + len(encoder.words())


def test_numbers_ids_lists_and_intervals_are_named() -> None:
    lists = pa.array([[3, -1], [3], [], [2**62]])
    encoder, column, seen = looked_at(HashedTable(buckets=9), lists)
    assert {(v.text, v.count) for v in name_values(encoder, seen.tally.kept().top(9), [column])} == {
        ("3", 2),
        ("-1", 1),
        (str(2**62), 1),
    }
    encoder, column, seen = looked_at(IdsTable(rows=5), pa.array([4, 4, 0]))
    assert [(v.text, v.count) for v in name_values(encoder, seen.tally.kept().top(9), [column])] == [("4", 2), ("0", 1)]
    assert seen.touched[0].count() == 2
    encoder, column, seen = looked_at(
        BucketizedTable(scheme=Scheme.given, borders=[0.0, 2.0]), pa.array([1.0, 1.5, 7.0, None])
    )
    named = name_values(encoder, seen.tally.kept().top(1), [column])
    assert [(v.text, v.count) for v in named] == [(encoder.interval_of(2), 2)]
    assert shared_rows(seen.tally, 1.0, 0.1)["values"] == 0


def test_crossed_columns_are_named_by_both_values() -> None:
    table = pa.table({"site": ["a", "b", "a", ""], "size": [1, 2, 1, 1]})
    columns = [encoders.HashedEncoder.open(table[name], name) for name in table.column_names]
    crossed = encoders.Crossed(columns, "site × size")
    encoder = encoders.build("table", HashedTable(buckets=50), [crossed])
    seen = measure(encoder, [crossed])
    assert {(v.text, v.count) for v in name_values(encoder, seen.tally.kept().top(9), [crossed])} == {
        ("a × 1", 2),
        ("b × 2", 1),
    }


def test_a_managed_table_tells_who_has_a_row_by_a_checkpoint() -> None:
    numbers, config = np.repeat(np.arange(200), 2), ManagedTable(rows=64)
    column = encoders.KINDS[ManagedTable].open(pa.array(numbers), "column")
    encoder = encoders.build("table", config, [column])
    values = encoder.encode(column, np.arange(400)).ids.values
    admission = Admission(64, 0, 64, Rules())
    rows, _ = admission.step(values[:100])
    without, seen = measure(encoder, [column]), measure(encoder, [column], residents=admission.ids)
    assert without.touched == [None] and without.tally.distinct() == 200
    having = set(values[:100][rows % GROUP != 0].tolist())
    assert len(having) >= 30
    assert seen.unknown == sum(value not in having for value in values.tolist())
    assert seen.touched[0].count() == len(having) + 2


# ---------------------------------------------------------------- norms


def test_norms_are_numpys_to_the_width_of_a_bin() -> None:
    values = np.random.default_rng(0).gamma(2, size=5001).astype(np.float32)
    values[:3] = 0
    norms = Norms()
    for block in np.array_split(values, 7):
        norms.add(block)
    assert (norms.rows, norms.least, norms.greatest) == (5001, 0, values.max())
    for share in (0.25, 0.5, 0.75):
        assert norms.quantile(share) == pytest.approx(np.quantile(values, share), rel=2e-3)
    edges, heights = norms.histogram(10)
    assert sum(heights) == 5001 and edges[-1] == values.max()
    assert np.abs(np.array(heights) - np.histogram(values, edges)[0]).max() <= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_as_they_began_are_recognised_in_numbers_of_every_width(dtype: torch.dtype, tmp_path: Path) -> None:
    from bigembed.run import read_array

    rows = np.empty((3000, 8), np.float32)
    hashing.fill_uniform(rows, 5, 77, 0, 0, 8, -0.1, 0.1)
    rows[::3] += 0.01
    stored = torch.from_numpy(rows).to(dtype)
    bits = stored.view(torch.uint16).numpy() if dtype is torch.bfloat16 else stored.numpy()
    np.save(tmp_path / "table.npy", bits)
    touched = Touched(3000)
    touched.add(np.arange(0, 3000, 2))
    found = read_weights(read_array(tmp_path / "table.npy"), First(5, 77, -0.1, 0.1), touched.among)
    assert (found.touched.rows, found.untouched.rows) == (1500, 1500)
    assert (found.first_touched, found.first_untouched) == (1000, 1000)
    assert found.touched.greatest == pytest.approx(np.linalg.norm(stored.float().numpy()[::2], axis=1).max(), rel=1e-6)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    small = ["tables.text.dim=8", "tables.text.buckets=500", "trainer.batch_size=16", "runtime.tensorboard=false"]
    assert bigembed("train", "data=files", f"data.path={data}", *small, f"hydra.run.dir={folder}") == 0
    return folder


def test_a_run_is_told_as_text_values_and_picture(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / "out.json", tmp_path / "out.html"
    assert bigembed("inspect", f"run={trained}", f"out={out}", f"picture={drawn}", "top=3", "collision_rate=0.2") == 0
    told, values = capsys.readouterr().out, json.loads(out.read_text())
    assert (values["part"], values["samples"]) == ("train", 180)
    text = values["tables"]["text"]
    assert text["exact"] and text["unknown"] == 0 and len(text["top"]) == 3
    assert {entry["value"] for entry in text["top"]} <= {"was", "review", ",", "review was", "was wonderful"}
    assert text["top"][0]["count"] == 180 and f"{text['occurrences']:,} values and n-grams" in told
    (part,) = text["parts"]
    checkpoint = sorted((trained / "checkpoints").glob("step-*"))[-1]
    weights = np.load(checkpoint.parent / values["checkpoint"] / "tables" / "text.weight.npy")
    norms, of = np.linalg.norm(weights, axis=1), part["norms"]
    assert (part["rows"], part["dim"], part["bytes"]) == (*weights.shape, weights.nbytes)
    assert part["state_bytes"] == 4 * len(weights) and part["bytes_by_dtype"]["fp16"] == weights.nbytes // 2
    assert of["touched"]["rows"] == part["touched"] and of["untouched"]["rows"] == part["rows"] - part["touched"] > 0
    assert of["untouched"]["as_begun"] == of["untouched"]["rows"] and of["touched"]["as_begun"] == 0
    assert max(of[group]["max"] for group in of) == pytest.approx(norms.max(), rel=1e-6)
    assert min(of[group]["min"] for group in of) == pytest.approx(norms.min(), rel=1e-6)
    grams = text["collisions"]["n-grams"]
    assert grams["places"] == 500 and 0 < grams["measured"] < 1 and grams["wanted"]["rate"] == 0.2
    assert f"{grams['wanted']['rows'][0]:,}" in told and "never touched" in told
    svgs = re.findall(r"<svg.*?</svg>", drawn.read_text(), re.DOTALL)
    assert len(svgs) == 3
    for svg in svgs:
        ElementTree.fromstring(svg)


def test_other_parts_and_other_data_can_be_looked_at(trained: Path, data: Path, tmp_path: Path) -> None:
    def samples(*arguments: str) -> int:
        out = tmp_path / "out.json"
        assert bigembed("inspect", f"run={trained}", f"out={out}", *arguments) == 0
        return json.loads(out.read_text())["samples"]

    assert samples("part=validation") == 20
    assert samples("part=test") == 50
    assert samples(f"data.path={data / 'test.parquet'}") == 50


def test_before_training_no_labels_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{number * number % 5003}" for number in range(9000)]
    pq.write_table(pa.table({"text": words}), tmp_path / "train.parquet")
    monkeypatch.chdir(tmp_path)
    job = [
        "data=files",
        "data.path=train.parquet",
        "data.test=null",
        "data.validation_fraction=0",
        "tables.text.ngrams=1",
    ]
    assert bigembed("inspect", *job, "table@tables.text=hashed", "tables.text.buckets=2000", "out=exact.json") == 0
    assert (
        bigembed(
            "inspect", *job, "table@tables.text=hashed", "tables.text.buckets=2000", "exact=1024", "out=sample.json"
        )
        == 0
    )
    exact, sample = (
        json.loads((tmp_path / f"{name}.json").read_text())["tables"]["text"] for name in ("exact", "sample")
    )
    assert exact["exact"] and exact["distinct"] == len(set(words)) and exact["occurrences"] == 9000
    assert not sample["exact"] and sample["sampled"] <= 0.5
    assert sample["distinct"] == pytest.approx(exact["distinct"], rel=4 * sample["standard_error"])
    measured = [found["collisions"]["values"]["measured"] for found in (exact, sample)]
    assert measured[1] == pytest.approx(measured[0], abs=0.1)
    assert "norms" not in exact["parts"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exact.json", "sample.json", "train.parquet"]


WRONG = {
    "part=tests": "part=tests is no part of the data; use train, validation or test",
    "collision_rate=1": "collision_rate is 1.0; it must be below 1.0",
    "exact=3": "exact is 3; it must be at least 1024",
    "top=0": "top is 0; it must be at least 1",
    "run=RUN tables.text.dim=16": "cannot be changed for bigembed inspect",
    "run=RUN tpo=3": "there is no option 'tpo'",
    "run=nowhere": "nowhere is no folder",
    "-m seed=1,2": "-m is for bigembed train",
    "hydra.run.dir=x": "is for bigembed train",
    "data=files data.path=TRAIN part=test data.test=null": "the data has no test part",
    "run=RUN out=/proc/nowhere/x": "out=/proc/nowhere/x cannot be written",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_mistakes_are_one_sentence(
    arguments: str, trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = arguments.replace("RUN", str(trained)).replace("TRAIN", str(data / "train.parquet"))
    assert bigembed("inspect", *typed.split()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bigembed: ")]
    assert WRONG[arguments] in line
