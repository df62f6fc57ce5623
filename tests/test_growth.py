"""A run that grows from another one: what was learned is found again, whatever else became larger; nothing is lost unasked."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ranks import run_commands
from running import bigembed, tables_of
from safetensors.torch import load_file

from bigembed import encoders, run
from bigembed.config import saved
from bigembed.config.physical import part_name, parts
from bigembed.growth.rows import FRESH, cycled, fresh, listed, same, scaled, sources
from bigembed.inference import load

OLD_WORDS, ALL_WORDS = 120, 200


def write_data(folder: Path, words: int, seed: int) -> Path:
    """Write a training part: texts of some of the words, lists of ids, numbers, and labels."""
    rng, rows = np.random.default_rng(seed), 300
    folder.mkdir()
    texts = [" ".join(f"wort{word}" for word in rng.integers(0, words, 8)) for _ in range(rows)]
    columns = {
        "text": texts,
        "ids": [rng.integers(0, 50, 3).tolist() for _ in range(rows)],
        "price": rng.normal(size=rows),
        "label": rng.integers(0, 2, rows),
    }
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


# One table of every kind that can grow or be taken over, each with a feature of its own name.
KINDS = {
    "text": ["tables.text.buckets=500", "tables.text.dim=4"],
    "hashed": ["tables.hashed.buckets=100", "tables.hashed.functions=2", "tables.hashed.importance=50"],
    "subword": ["tables.subword.buckets=300"],
    "mixed": ["tables.mixed.blocks=[20,30]", "tables.mixed.widths=[16,8,4]", "tables.mixed.buckets=200"],
    "quotient_remainder": ["tables.quotient_remainder.partitions=[30,40]"],
    "ids": ["tables.ids.rows=60", "features.ids.column=ids"],
    "bucketized": [
        "tables.bucketized.bins=8",
        "features.bucketized.column=price",
    ],  # and a dense feature of the same column
    "tokenizer": ["tables.tokenizer.vocab_size=300"],
}
COMMON = [
    "data=files",
    "data.test=null",
    "trainer.batch_size=50",
    "trainer.steps=12",
    "trainer.save_every=5",
    "trainer.keep=9",
    "trainer.test_with=last",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]
GROWN = [
    "tables.text.buckets=1500",
    "tables.hashed.buckets=200",
    "tables.hashed.importance=150",
    "tables.subword.buckets=900",
    "tables.mixed.buckets=400",
    "tables.ids.rows=90",
    "+table@tables.more=hashed",
    "tables.more.buckets=70",
    "+feature@features.more=column",
    "features.more.table=more",
    "~table@tables.tokenizer",
    "~feature@features.tokenizer",
]


def options_of_kinds() -> list[str]:
    """The options of a job with a table of every kind."""
    options = []
    for kind, own in KINDS.items():
        if kind != "text":
            options += [
                f"+table@tables.{kind}={kind}",
                f"+feature@features.{kind}=column",
                f"features.{kind}.table={kind}",
            ]
        options += own
    return [*options, "+number@numbers.price=column", "numbers.price.column=price"]


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    data = write_data(folder / "data", OLD_WORDS, 1)
    options = [*COMMON, *options_of_kinds(), f"data.path={data}", f"hydra.run.dir={folder / 'run'}"]
    assert bigembed("train", *options) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def new(old, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    data = write_data(folder / "data", ALL_WORDS, 2)
    assert bigembed("train", f"grow={old}", *GROWN, f"data.path={data}", f"hydra.run.dir={folder / 'run'}") == 0
    return folder / "run"


def rows_of_values(folder: Path, name: str) -> list[np.ndarray]:
    """The rows, part by part, that a run's encoder gives the values of the old run's training part."""
    job = saved.load(folder)
    encoder = encoders.load(job.tables[name], folder / run.ENCODERS / name)
    train = pq.read_table(Path(saved.load(folder).grow or folder).parent / "data" / "train.parquet")
    column = encoder.open(train[job.features[name].column], name)
    return [part.rows.values for part in encoder.encode(column, np.arange(len(column))).parts]


def arrays_of(folder: Path, step: int, name: str) -> list[dict[str, np.ndarray]]:
    """Weight and state of every part of a table."""
    job, path = saved.load(folder), folder / "checkpoints" / run.name_of(step) / "tables"
    names = [part_name(name, part) for part in parts(job.tables[name])]
    return [{state: np.load(path / f"{each}.{state}.npy") for state in ("weight", "momentum1")} for each in names]


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind != "tokenizer"])
def test_every_value_finds_its_own_rows_again_with_their_state_bit_for_bit(old, new, name):
    compared = 0
    before, after = rows_of_values(old, name), rows_of_values(new, name)
    learned, begun = arrays_of(old, 12, name), arrays_of(new, 0, name)
    for old_rows, new_rows, old_part, new_part in zip(before, after, learned, begun, strict=True):
        assert len(old_rows) == len(new_rows)
        for state in old_part:
            assert np.array_equal(old_part[state][old_rows], new_part[state][new_rows])
            compared += len(old_rows)
        assert old_part["momentum1"].any()
    assert compared >= 600


def test_new_rows_begin_as_in_any_run(old, new):
    words = encoders.load(saved.load(new).tables["text"], new / run.ENCODERS / "text").words().to_pylist()
    before = set(encoders.load(saved.load(old).tables["text"], old / run.ENCODERS / "text").words().to_pylist())
    rows = [row + 1 for row, word in enumerate(words) if word not in before]
    assert len(rows) >= 70 and before <= set(words)
    (begun,) = arrays_of(new, 0, "text")
    assert (begun["momentum1"][rows] == 0).all() and (abs(begun["weight"][rows]) <= 1 / 4).all()
    assert len(np.unique(begun["weight"][rows])) > 2 * len(rows)
    (more,) = arrays_of(new, 0, "more")
    assert more["weight"].shape == (70, 16) and not more["momentum1"].any() and more["weight"].any()


def test_the_grown_vocabulary_is_in_the_order_of_its_counts(new):
    encoder = encoders.load(saved.load(new).tables["text"], new / run.ENCODERS / "text")
    counts = encoder.counts()
    train = pq.read_table(new.parent / "data" / "train.parquet")["text"].to_pylist()
    words = " ".join(train).split()
    assert (np.diff(counts) <= 0).all() and counts.sum() <= len(words)
    assert counts[0] <= words.count(encoder.words()[0].as_py())


def test_what_the_old_run_said_of_its_data_the_grown_one_says_before_it_trains(old, new, tmp_path):
    folder, larger = (
        tmp_path / "run",
        [option for option in GROWN if option.startswith("tables.") and ".more." not in option],
    )
    data = new.parent / "data"
    options = [*larger, "trainer.steps=1", f"data.path={data}", f"hydra.run.dir={folder}"]
    assert bigembed("train", f"grow={old}", *options) == 0
    shutil.rmtree(run.checkpoints(folder)[-1])
    assert [path.name for path in run.checkpoints(folder)] == [run.name_of(0)]
    asked = pq.read_table(old.parent / "data" / "train.parquet")
    (labels, before), (_, after) = (load(each).predict(asked) for each in (old, folder))
    assert 0 < labels.sum() < len(labels) == len(asked)
    assert np.array_equal(before, after)


def inputs_of(folder: Path) -> list[tuple[str, int]]:
    """The inputs of the head's first layer with their widths."""
    job = saved.load(folder)
    looked_up = ("hashed", "quotient_remainder")  # row by row: these come after the sums
    names = [name for name in job.features if name not in looked_up] + [
        each for each in job.features if each in looked_up
    ]
    # Sums come in the order of the tables' modules, which is that of the tables.
    return [(name, job.tables[job.features[name].table].dim) for name in names] + [(name, 1) for name in job.numbers]


def test_the_head_keeps_the_columns_of_the_features_that_stay(old, new):
    before = load_file(old / "checkpoints" / run.name_of(12) / "dense.safetensors")
    after = load_file(new / "checkpoints" / run.name_of(0) / "dense.safetensors")
    places: list[dict[str, slice]] = []
    for folder in (old, new):
        begin, found = 0, {}
        for name, width in inputs_of(folder):
            found[name] = slice(begin, begin + width)
            begin += width
        places.append(found)
    stay = [name for name in places[0] if name in places[1]]
    assert len(stay) == len(KINDS) and "price" in stay
    weight, total = "head.layers.0.weight", "optim.head.layers.0.weight|sum"
    for key in (f"model.{weight}", total):
        for name in stay:
            assert (before[key][:, places[0][name]] == after[key][:, places[1][name]]).all(), name
    assert not after[total][:, places[1]["more"]].any() and after[f"model.{weight}"][:, places[1]["more"]].any()
    others = [key for key in before if weight not in key]
    assert len(others) >= 8 and all((before[key] == after[key]).all() for key in others)


def test_what_became_of_rows_and_features_is_told(old, new, tmp_path, capfd):
    assert bigembed("train", f"grow={old}", "tables.hashed.buckets=150", "optim=sgd", f"hydra.run.dir={tmp_path}") == 0
    text = capfd.readouterr().err
    told = [line.split() for line in text.splitlines()]
    assert ["hashed-rows", "100", "150", "100", "100", "0", "0"] in told
    assert ["ids", "60", "60", "60", "0", "0", "0"] in told and ["numbers.price", "kept"] in told
    assert ["hashed-rows:", "buckets", "re-derived:", "some", "values", "have", "a", "neighbour's"] in told
    assert ["features.text", "kept"] in told and "starts anew" not in text  # sgd has no state


def test_a_grown_run_needs_the_other_one_no_more_once_it_has_begun(old, new, tmp_path):
    folder, moved = tmp_path / "run", old.with_name("moved")
    shutil.copytree(new, folder)
    (folder / "metrics.json").unlink()
    for path in run.checkpoints(folder)[1:]:
        shutil.rmtree(path)
    assert [path.name for path in run.checkpoints(folder)] == [run.name_of(0)]
    old.rename(moved)
    try:
        assert bigembed("train", f"resume={folder}") == 0
    finally:
        moved.rename(old)
    assert tables_of(folder) == tables_of(new)


def test_a_run_killed_before_it_had_anything_begins_to_grow_again(new, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(new, folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    assert bigembed("train", f"resume={folder}") == 0
    assert tables_of(folder) == tables_of(new)


@pytest.mark.parametrize(
    ("kind", "options", "files"),
    [
        ("row_wise", [], 2 * 12 + 1),
        # Without the state that column-wise sharding cannot have; the other optimizer's is not asked for.
        pytest.param("column_wise", ["optim=sgd", "sharding.min_partition=4"], 12, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_take_over_the_same_as_one(old, new, tmp_path, kind, options, files):
    folder, data = tmp_path / "run", new.parent / "data"
    sharding = [*options, *(f"tables.{name}.sharding.kind={kind}" for name in ("ids", "subword"))]
    command = ["train", f"grow={old}", *GROWN, *sharding, f"data.path={data}", f"hydra.run.dir={folder}"]
    codes, said = run_commands([command, command], tmp_path / "log")
    assert codes == [0, 0], said
    first = f"checkpoints/{run.name_of(0)}"
    names = [path.relative_to(folder / first) for path in (folder / first).rglob("*")]
    names = [name for name in names if name.suffix == ".npy" or (name.name == "dense.safetensors" and not options)]
    assert len(names) == files
    for name in names:
        assert (new / first / name).read_bytes() == (folder / first / name).read_bytes(), name
    assert said[0].count("grown from") == 1 and "grown from" not in said[1]


REFUSED: dict[str, tuple[list[str], str]] = {
    "another width": (["tables.text.dim=8"], "tables.text.dim is 8, but was 4"),
    "another type of numbers": (["tables.text.dtype=fp16"], "tables.text.dtype is fp16, but was fp32"),
    "another kind": (
        ["table@tables.hashed=vocab"],
        "tables.hashed is of kind vocab, but in the run that is grown from it is of kind hashed",
    ),
    "another salt": (["tables.hashed.salt=1"], "tables.hashed.salt is 1, but was 0"),
    "other n-grams": (["tables.text.ngrams=3"], "tables.text.ngrams is 3, but was 2"),
    "another way of cutting": (["tables.text.tokens=whitespace"], "tables.text.tokens is whitespace, but was words"),
    "no importance": (["tables.hashed.importance=null"], "tables.hashed.importance is not set, but was set"),
    "other partitions": (["tables.quotient_remainder.partitions=[60,40]"], "partitions is [60, 40], but was [30, 40]"),
    "another composition": (["tables.quotient_remainder.combine=add"], "combine is add, but was mult"),
    "other blocks": (["tables.mixed.blocks=[20,31]"], "tables.mixed.blocks is [20, 31], but was [20, 30]"),
    "other borders": (["tables.bucketized.bins=9"], "tables.bucketized.bins is 9, but was 8"),
    "fewer buckets": (
        ["tables.hashed.buckets=60"],
        "tables.hashed.buckets is 60, by which 40 of 100 learned rows would be lost",
    ),
    "fewer ids": (["tables.ids.rows=50"], "tables.ids.rows is 50, by which 10 of 60 learned rows would be lost"),
    "no multiple of fastText's buckets": (
        ["tables.subword.buckets=450"],
        "again only in a multiple of them; take e.g. 600",
    ),
    "too few words": (["tables.text.max_size=100"], "tables.text.max_size is 100, but there are 120 words"),
    "an experiment": (["experiment=imdb"], "and experiment=imdb has others"),
    "an unknown option": (["tables.text.bucket=4"], "tables.text.bucket"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_or_change_learned_rows_is_refused(old, tmp_path, capsys, case):
    options, sentence = REFUSED[case]
    assert bigembed("train", f"grow={old}", *options, f"hydra.run.dir={tmp_path / 'new'}") == 2
    said = capsys.readouterr().err
    assert sentence in said.splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "new" / "job.yaml").exists()


def test_a_run_grows_into_another_folder_from_one_that_has_learned_something(old, tmp_path, capsys):
    assert bigembed("train", f"grow={old}", f"hydra.run.dir={old}") == 2
    assert "needs a folder of its own" in capsys.readouterr().err
    assert bigembed("train", f"grow={tmp_path}", f"hydra.run.dir={tmp_path / 'new'}") == 2
    assert "so it is no run" in capsys.readouterr().err
    shutil.copytree(old, tmp_path / "begun", ignore=shutil.ignore_patterns("step-*"))
    assert bigembed("train", f"grow={tmp_path / 'begun'}", f"hydra.run.dir={tmp_path / 'new'}") == 2
    assert "has no finished checkpoint yet" in capsys.readouterr().err
    assert bigembed("train", "grow_drop=true", f"hydra.run.dir={tmp_path / 'new'}") == 2
    assert "grow_drop goes with grow=RUN" in capsys.readouterr().err


def test_rows_are_lost_where_that_is_asked_for(old, new, tmp_path, capfd):
    less = [
        "tables.hashed.buckets=50",
        "tables.ids.rows=50",
        "tables.subword.buckets=150",
        "grow_drop=true",
        "trainer.steps=1",
        "optim.tables.kind=adagrad",
        "head.hidden=[4]",
    ]
    data = write_data(tmp_path / "data", 90, 3)
    folder = tmp_path / "run"
    assert bigembed("train", f"grow={old}", *less, f"data.path={data}", f"hydra.run.dir={folder}") == 0
    text = capfd.readouterr().err
    told = {line.split()[0]: line.split() for line in text.splitlines() if line.strip() and ":" not in line}
    assert told["hashed-rows"][1:] == ["100", "50", "50", "50", "0", "50"]
    assert told["ids"][1:] == ["60", "50", "50", "0", "0", "10"]
    (before,), (after,) = arrays_of(old, 12, "ids"), arrays_of(folder, 0, "ids")
    assert np.array_equal(before["weight"][:50], after["weight"])
    assert after["momentum1"].shape == (50, 16) and not after["momentum1"].any()  # of an optimizer with another state
    assert "ids: the optimizer's state starts anew" in text
    assert text.count("begins anew with its layer") == len(KINDS) + 1 and "head.layers.1.weight" in text
    words = encoders.load(saved.load(folder).tables["text"], folder / run.ENCODERS / "text").words().to_pylist()
    assert len(words) == 90 == int(told["text"][2].replace(",", "")) - 1 - 500
    assert told["text"][-1] == "30"


def test_a_run_without_the_table_text_grows_and_that_one_grows_on(old, tmp_path):
    drop = [f"~table@tables.{kind}" for kind in KINDS if kind != "hashed"]
    drop += [f"~feature@features.{kind}" for kind in KINDS if kind != "hashed"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert bigembed("train", f"grow={old}", *drop, "trainer.steps=1", f"hydra.run.dir={one}") == 0
    assert bigembed("train", f"grow={one}", "tables.hashed.buckets=300", f"hydra.run.dir={two}") == 0
    job = saved.load(two)
    assert list(job.tables) == ["hashed"] and job.grow == str(one) and job.trainer.steps == 1


def test_an_attention_head_with_adam_keeps_what_belongs_to_the_sequences_that_stay(tmp_path):
    data = write_data(tmp_path / "data", 50, 4)
    one, two = tmp_path / "one", tmp_path / "two"
    own = ["head=attention", "features.text.pooling=none", "tables.text.dim=8", "tables.text.buckets=100"]
    options = [*COMMON, *own, "optim.dense.kind=adam", "head.hidden=[6]", f"data.path={data}"]
    assert bigembed("train", *options, f"hydra.run.dir={one}") == 0
    more = ["+table@tables.more=hashed", "tables.more.dim=8", "+feature@features.more=column"]
    more += ["features.more.table=more", "features.more.pooling=none"]
    assert bigembed("train", f"grow={one}", *more, f"hydra.run.dir={two}") == 0
    before = load_file(one / "checkpoints" / run.name_of(12) / "dense.safetensors")
    after = load_file(two / "checkpoints" / run.name_of(0) / "dense.safetensors")
    first = "head.layers.0.weight"
    kept = [key for key in before if first not in key]
    assert len(kept) >= 20 and all((before[key] == after[key]).all() for key in kept)
    assert (before[f"model.{first}"] == after[f"model.{first}"][:, :8]).all()
    assert (before[f"optim.{first}|exp_avg"] == after[f"optim.{first}|exp_avg"][:, :8]).all()
    assert not after[f"optim.{first}|exp_avg"][:, 8:].any() and after[f"model.{first}"][:, 8:].any()
    anew = {key for key in after if key not in before}
    assert len(anew) >= 3 and all(".scorers.more." in key for key in anew)


@pytest.mark.parametrize(
    ("old_rows", "rows"), [(7, 21), (7, 10), (10, 7), (3, 1000), (2**40 - 3, 2**40), (2**39, 2**40)]
)
def test_a_row_comes_from_the_row_that_the_middle_of_its_hashes_had(old_rows, rows):
    segment = scaled(rows, 5, old_rows, 5)
    first = max(0, rows - 100)
    found = segment.sources(first, rows)
    middles = [((2 * row + 1) << 64) // (2 * rows) for row in range(first, rows)]
    assert found.tolist() == [5 + (middle * old_rows >> 64) for middle in middles]
    assert len(found) == min(100, rows)


def test_few_values_have_a_neighbours_row_after_buckets_that_are_no_multiple():
    old_rows, rows = 1000, 1500
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64).tolist()
    found = scaled(rows, 0, old_rows, 0).sources(0, rows)
    apart = np.array([found[value * rows >> 64] - (value * old_rows >> 64) for value in hashes])
    assert (abs(apart) <= 1).all() and 0.1 < np.mean(apart != 0) < 0.2


def test_rows_of_several_rules_are_those_of_each_wherever_they_are_cut():
    segments = [same(1, 0, 0), listed(np.array([4, FRESH, 2]), 1), scaled(6, 5, 3, 4), cycled(4, 8, 2, 10), fresh(2)]
    whole = [0, 4, -1, 2, 5, 5, 6, 6, 7, 7, 8, 9, 8, 9, -1, -1]
    cuts = [(a, b) for a in range(len(whole) + 1) for b in range(a, len(whole) + 1)]
    assert len(cuts) == 153
    for first, last in cuts:
        assert sources(segments, first, last).tolist() == whole[first:last]
    counts: dict[str, Any] = {name: [getattr(each, name) for each in segments] for name in ("kept", "moved", "fresh")}
    assert counts == {"kept": [1, 2, 3, 2, 0], "moved": [0, 2, 3, 2, 0], "fresh": [0, 1, 0, 0, 2]}
