"""Tables of row ids: columns of integers and of lists of them, against lists in Python; what has no row is refused before training."""

import json
import re
import sys
import tracemalloc
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import bigembed

from bigembed import load as load_run
from bigembed.config.schema import FeatureConfig, HashedTable, IdsTable, Job
from bigembed.encoders import IdsColumn, IdsEncoder, TextColumn, build, encode_all, load, save
from bigembed.encoders.values import open_values
from bigembed.errors import UserError
from bigembed.examples import alone, open_examples
from bigembed.prepare import _fingerprint

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
BAGS = [[3, 17, 5], [], [0], [99, 99], [1, 2, 3, 4, 5], [7]]


def rows_of(encoded):
    return [encoded.ids.values[a:b].tolist() for a, b in pairwise(encoded.ids.offsets.tolist())]


def bags_of(values):
    return [value if isinstance(value, list) else [value] for value in values]


def layouts():
    """Yield arrays of the same kinds of rows, laid out in every way that Arrow has for them."""
    for kind in INTEGERS:
        yield f"{kind}", pa.array([3, 0, 99, 100], kind)
        yield f"list of {kind}", pa.array(BAGS, pa.list_(kind))
    yield "large list", pa.array(BAGS, pa.large_list(pa.int32()))
    yield "fixed list", pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int64(), 2))
    yield "fixed list of nothing", pa.array([[], []], pa.list_(pa.int64(), 0))
    yield "all lists empty", pa.array([[], [], []])
    yield "sliced", pa.array(range(20), pa.int32()).slice(3, 9)
    yield "sliced list", pa.array([[1], [2, 3], [], [4, 5, 6]]).slice(1, 2)
    yield "sliced fixed list", pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.uint8(), 2)).slice(1)
    values = pa.array(range(20), pa.int16()).slice(3)
    yield "list of a slice", pa.ListArray.from_arrays(pa.array([0, 2, 5, 6], pa.int32()), values).slice(1)
    yield "fixed list of a slice", pa.FixedSizeListArray.from_arrays(values.slice(0, 9), 3).slice(1)
    yield "chunks", pa.chunked_array([[5], [], [6, 7], [8]], pa.int32())
    yield "chunks of lists", pa.chunked_array([BAGS[:2], [], BAGS[2:]]).slice(1, 4)
    yield "nothing", pa.array([], pa.int64())


LAYOUTS = dict(layouts())


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_every_layout_gives_its_ids_in_any_order(name, dtype):
    array = LAYOUTS[name]
    values = bags_of(array.to_pylist())
    encoder = IdsEncoder(IdsTable(rows=101))
    column = encoder.open(array, "id")
    encoder.check(column, "f", "t", "train part")
    assert len(column) == len(values)
    index = np.random.default_rng(0).integers(0, max(1, len(values)), 3 * len(values))
    encoded = encoder.encode(column, index, dtype)
    assert encoded.ids.values.dtype == dtype
    assert encoded.tokens.dtype == np.int32
    assert rows_of(encoded) == [values[row] for row in index]
    assert encoded.tokens.tolist() == [len(values[row]) for row in index]
    assert rows_of(encode_all(encoder, column, threads=2)) == values
    assert column.empty() == sum(value == [] for value in values)


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_the_largest_ids_of_a_type_are_read_as_what_they_are(kind):
    largest = min(2 ** (kind.bit_width - str(kind).startswith("int")), 2**40) - 1
    encoder = IdsEncoder(IdsTable(rows=2**40))
    column = encoder.open(pa.array([[largest, 0], [largest - 1]], pa.list_(kind)), "id")
    encoder.check(column, "f", "t", "train part")
    assert rows_of(encoder.encode(column, np.array([1, 0]))) == [[largest - 1], [largest, 0]]


def test_the_layouts_are_all_that_there_are():
    assert len(LAYOUTS) == 2 * len(INTEGERS) + 12


@given(
    st.sampled_from(INTEGERS),
    st.sampled_from(["scalar", "list", "large", "fixed"]),
    st.lists(st.lists(st.integers(0, 120), min_size=3, max_size=6), min_size=1, max_size=12),
    st.integers(1, 125),
    st.data(),
)
def test_the_first_id_without_a_row_is_found_and_no_other_is(kind, shape, bags, rows, data):
    if str(kind).startswith("int") and data.draw(st.booleans()):
        bags[data.draw(st.integers(0, len(bags) - 1))][1] = data.draw(st.integers(-128, -1))
    if shape == "scalar":
        array = pa.array([bag[1] for bag in bags], kind)
    elif shape == "fixed":
        array = pa.array([bag[:3] for bag in bags], pa.list_(kind, 3))
    else:
        array = pa.array(bags, pa.list_(kind) if shape == "list" else pa.large_list(kind))
    start = data.draw(st.integers(0, len(bags) - 1))
    cut = data.draw(st.integers(start, len(bags)))
    array = pa.chunked_array([array.slice(start, cut - start), array.slice(cut)], array.type)
    bad = [(row, value) for row, bag in enumerate(bags_of(array.to_pylist())) for value in bag if not 0 <= value < rows]
    assert IdsColumn(array).first_outside(rows) == (bad[0] if bad else None)


def test_ids_at_the_edges_of_their_types_are_told_apart():
    for kind in INTEGERS:
        bits = kind.bit_width
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if str(kind).startswith("int") else (0, 2**bits - 1)
        for values in ([0, low], [0, high], [high, low]):
            array = pa.array(values, kind)
            for rows in (1, 127, 128, 2**31, 2**40):
                bad = [(row, value) for row, value in enumerate(values) if not 0 <= value < rows]
                assert IdsColumn(array).first_outside(rows) == (bad[0] if bad else None)


def test_a_bad_id_far_into_a_large_column_is_found_without_a_copy_of_it():
    values = np.random.default_rng(0).integers(0, 1000, 4_000_000)
    values[3_999_990] = 1000
    column = IdsColumn(pa.chunked_array([values[:1_500_000], values[1_500_000:]]))
    tracemalloc.start()
    assert column.first_outside(1000) == (3_999_990, 1000)
    assert column.first_outside(1001) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < values.nbytes / 50


@pytest.mark.parametrize("value", [1000, -1, 2**64 - 1])
def test_an_id_without_a_row_is_refused_with_feature_part_row_and_value(value):
    job = Job(tables={"user": IdsTable(rows=1000)}, features={"who": FeatureConfig(table="user", column="user_id")})
    array = pa.array([0] * 17 + [value] + [999], pa.uint64() if value > 2**63 else pa.int64())
    with pytest.raises(UserError) as caught:
        known = {"user": IdsEncoder(job.tables["user"])}
        open_examples(job, known, {}, pa.table({"user_id": array}), None, "train part")
    assert str(caught.value) == (
        f"feature 'who': row 17 of the train part holds the id {value} in column 'user_id', but tables.user has 1,000 rows "
        "(ids 0 to 999); mend the data" + (", or train with a larger tables.user.rows" if value > 0 else "")
    )


NULLS = {
    "no id (null) in 2 of 5 rows, the first is row 3": pa.chunked_array([[1, 2], [3, None, None]], pa.int32()),
    "no id (null) in 3 of 3 rows, the first is row 0": pa.nulls(3),
    "no list (null) in 1 of 3 rows, the first is row 2": pa.array([[1], [], None]),
    "no list (null) in 1 of 2 rows, the first is row 1": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "an id missing (null) in 2 of 4 rows, the first is row 1": pa.array(
        [[None], [1], [2, None, None], [], [None]]
    ).slice(1),
    "an id missing (null) in 1 of 3 rows, the first is row 2": pa.array(
        [[None, 0], [1, 2], [3, 4], [5, None]], pa.list_(pa.int8(), 2)
    ).slice(1),
    "an id missing (null) in 1 of 2 rows, the first is row 0": pa.array([[None], []]),
}


@pytest.mark.parametrize("message", NULLS)
def test_nulls_are_refused_with_their_row(message):
    with pytest.raises(UserError, match=re.escape(f"column 'x' has {message}: ")):
        IdsColumn(NULLS[message], "x")


@pytest.mark.parametrize(
    "array",
    [pa.array([1.0]), pa.array(["1"]), pa.array([["1"]]), pa.array([[[1]]]), pa.array([True]), pa.array([b"1"])],
)
def test_columns_of_something_else_are_refused(array):
    with pytest.raises(
        UserError, match=f"column 'x' holds {re.escape(str(array.type))}, not row ids: name a column of"
    ):
        IdsColumn(array, "x")


def test_a_memory_mapped_column_of_many_chunks_is_read_where_it_lies(tmp_path):
    chunks = [pa.array([[i, i + 1], [i]], pa.list_(pa.uint16())) for i in range(300)]
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), pa.schema({"x": chunks[0].type})) as writer:
        for chunk in chunks:
            writer.write_batch(pa.record_batch([chunk], ["x"]))
    before = pa.total_allocated_bytes()
    mapped = pa.ipc.open_file(pa.memory_map(str(tmp_path / "x.arrow"))).read_all()["x"]
    column, expected = IdsColumn(mapped), pa.chunked_array(chunks).to_pylist()
    del mapped  # the column itself keeps the memory
    encoder = IdsEncoder(IdsTable())
    encoder.check(column, "f", "t", "train part")
    index = np.random.default_rng(1).permutation(len(expected))
    assert rows_of(encoder.encode(column, index)) == [expected[row] for row in index]
    assert pa.total_allocated_bytes() - before < 4096
    with pytest.raises(IndexError, match=r"column 'id', which has 600"):
        column.spans(np.array([600]))


def test_nothing_is_learned_and_the_file_of_an_encoder_keeps_the_number_of_rows(tmp_path):
    encoder = build("user", IdsTable(rows=50), [IdsColumn(pa.array([1, 2]))])
    assert (encoder.kind, encoder.rows, encoder.dtype, encoder.word_rows) == ("ids", (50,), np.int32, (0, 0))
    assert encoder.words() is None and encoder.counts() is None
    assert IdsEncoder(IdsTable(rows=2**31)).dtype == np.int64
    save(encoder, tmp_path / "user")
    assert load(IdsTable(rows=50), tmp_path / "user").rows == (50,)
    with pytest.raises(UserError, match=r"rows=50 \(here 51\)"):
        load(IdsTable(rows=51), tmp_path / "user")
    with pytest.raises(UserError, match=r"kind='ids' \(here 'hashed'\)"):
        load(HashedTable(), tmp_path / "user")


def test_the_row_of_an_id_is_the_id():
    encoder = IdsEncoder(IdsTable(rows=50))
    assert [encoder.row_of(token) for token in ("17", "0", "49", "007")] == [17, 0, 49, 7]
    for token in ("50", "-1", "", "x", "1.0", "1_0", "²", "१", "9" * 5000, "3 4"):
        with pytest.raises(UserError, match="is no row of this table, whose ids are the numbers 0 to 49"):
            encoder.row_of(token)


def test_a_fingerprint_goes_by_the_values_and_not_by_how_they_lie():
    labels = np.zeros(6, np.int64)

    def fingerprint(array):
        return _fingerprint([IdsColumn(array)], labels)

    same = [pa.array(BAGS, pa.list_(kind)) for kind in INTEGERS]
    same += [pa.array(BAGS, pa.large_list(pa.int64())), pa.chunked_array([BAGS[:1], BAGS[1:4], BAGS[4:]])]
    same += [pa.array([[1], *BAGS]).slice(1)]
    assert len({fingerprint(array) for array in same}) == 1
    moved = [[3, 17], [5], *BAGS[2:]]  # the same values, in other rows
    changed = [[3, 17, 6], *BAGS[1:]]
    assert len({fingerprint(pa.array(bags)) for bags in (BAGS, moved, changed)}) == 3
    assert fingerprint(pa.array([1, 2])) == fingerprint(pa.chunked_array([[1], [2]], pa.uint8()))
    many = np.arange(500_000) % 100  # as int64 more than one block of the checksum, as uint8 one
    assert len({fingerprint(pa.array(many.reshape(-1, 50).tolist(), pa.list_(kind))) for kind in INTEGERS}) == 1
    texts = pa.array(["a", "bc", "", "d"])
    in_pieces = [pa.chunked_array([texts.slice(0, 1), texts.slice(1)]), texts.cast(pa.large_string()), texts]
    assert len({_fingerprint([TextColumn(array)], labels) for array in in_pieces}) == 1
    assert _fingerprint([TextColumn(pa.array(["ab", "c", "", "d"]))], labels) != _fingerprint(
        [TextColumn(texts)], labels
    )


def test_ids_are_read_where_they_lie_and_leave_the_memory_to_texts():
    job = Job(
        tables={"user": IdsTable(rows=10), "text": HashedTable(buckets=10)},
        features={"user": FeatureConfig("user", "user"), "text": FeatureConfig("text", "text")},
    )
    table = pa.table({"user": [1, 2] * 500, "text": ["a b", "c"] * 500})
    encoders = {name: build(name, kind, [open_values(table[name], name)]) for name, kind in job.tables.items()}
    examples = open_examples(job, encoders, {}, table, None, "train part")
    examples.cache(20_000, threads=1, once=alone)  # the texts alone fit
    assert [feature.cached is None for feature in examples.features] == [True, False]
    users, texts = examples.encode(np.array([1, 0]))
    assert rows_of(users) == [[2], [1]]
    assert texts.tokens.tolist() == [1, 2]


# --- the commands -----------------------------------------------------------------------------------------------------

USERS, ITEMS = 40, 30
BASE = ["data=files", "trainer.batch_size=32", "trainer.epochs=6", "runtime.tensorboard=false"]
BASE += ["~table@tables.text", "~feature@features.text"]
OF_USERS = ["+table@tables.user=ids", f"tables.user.rows={USERS}", "tables.user.dim=8", "+feature@features.user=column"]
OF_USERS += ["features.user.table=user", "features.user.column=user_id"]
OF_ITEMS = [
    "+table@tables.item=ids",
    f"tables.item.rows={ITEMS}",
    "tables.item.dim=8",
    "+feature@features.items=column",
]
OF_ITEMS += ["features.items.table=item", "features.items.column=items"]


def clicks(rows, seed):
    """Return clicks whose label is whether the user is even, and items that are all even or all odd likewise."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, USERS, rows)
    items = [(2 * rng.integers(0, ITEMS // 2, rng.integers(1, 5)) + user % 2).tolist() for user in users]
    labels = pa.array((users + 1) % 2)
    return pa.table(
        {"user_id": pa.array(users, pa.int32()), "items": pa.array(items, pa.list_(pa.int64())), "label": labels}
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clicks")
    pq.write_table(clicks(600, 0), folder / "train.parquet")
    pq.write_table(clicks(100, 1), folder / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """A run whose only feature are the lists."""
    run = tmp_path_factory.mktemp("items") / "run"
    assert bigembed("train", *BASE, *OF_ITEMS, f"data.path={data}", f"hydra.run.dir={run}") == 0
    return run


def accuracy_of(run):
    return json.loads((run / "metrics.json").read_text())["test"]["accuracy"]


def test_users_and_bags_of_items_train_together_and_are_asked_from_a_file(data, tmp_path, capsys):
    run = tmp_path / "run"
    options = [*BASE, *OF_USERS, *OF_ITEMS, f"data.path={data}", f"hydra.run.dir={run}"]
    assert bigembed("train", *options) == 0
    assert accuracy_of(run) > 0.95
    model = load_run(run)
    assert model.matrix("user").shape == (USERS, 8)
    assert np.array_equal(model.vector("17", "user"), model.matrix("user")[17])
    assert model.words("user") == []
    capsys.readouterr()
    assert bigembed("predict", f"run={run}", f"input={data}/test.parquet", f"output={tmp_path}/out.parquet") == 0
    labels = pq.read_table(tmp_path / "out.parquet")["label"].to_numpy()
    assert np.mean(labels == clicks(100, 1)["label"].to_numpy()) == pytest.approx(accuracy_of(run))
    assert bigembed("predict", f"run={run}") == 2
    assert "user_id, items, which lines of text do not have" in capsys.readouterr().err


def test_json_lines_and_csv_train_as_parquet_does(data, tmp_path):
    table = {name: pq.read_table(data / f"{name}.parquet") for name in ("train", "test")}
    for kind, feature in (("jsonl", OF_ITEMS), ("csv", OF_USERS)):
        folder = tmp_path / kind
        folder.mkdir()
        for name, part in table.items():
            if kind == "csv":
                pa.csv.write_csv(part.drop_columns("items"), folder / f"{name}.csv")
            else:
                lines = "".join(json.dumps(row) + "\n" for row in part.to_pylist())
                (folder / f"{name}.jsonl").write_text(lines)
        figures = []
        for path in (data, folder):
            run = tmp_path / f"{kind}-{path.name}"
            options = ["trainer.epochs=1", f"data.path={path}", f"hydra.run.dir={run}"]
            assert bigembed("train", *BASE, *feature, *options) == 0
            figures.append(json.loads((run / "metrics.json").read_text())["test"])
        assert figures[0] == figures[1]


def test_a_run_is_evaluated_and_exported(trained, data, tmp_path, capsys):
    assert bigembed("evaluate", f"run={trained}") == 0
    assert f"{accuracy_of(trained):.4f}" in capsys.readouterr().out
    assert bigembed("export", f"run={trained}", f"out={tmp_path}/all.npy", "format=numpy") == 0
    matrix = np.load(tmp_path / "all.npy")
    assert matrix.shape == (ITEMS, 8)
    (tmp_path / "words").write_text("17\n3\n")
    assert bigembed("export", f"run={trained}", f"out={tmp_path}/some", f"words={tmp_path}/words") == 0
    lines = (tmp_path / "some").read_text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["17", "3"]
    assert np.array_equal(np.array(lines[2].split()[1:], np.float32), matrix[3])


def test_a_line_of_numbers_is_a_bag(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"2 4 8\r\n7 5\n\n  29\n")))
    assert bigembed("predict", f"run={trained}") == 0
    answers = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    labels, probabilities = load_run(trained).predict(pa.table({"items": [[2, 4, 8], [7, 5], [], [29]]}))
    assert [int(label) for label, _ in answers] == labels.tolist()
    assert labels[[0, 1, 3]].tolist() == [1, 0, 0]
    assert [float(share) for _, share in answers] == pytest.approx(probabilities.max(1), abs=1e-4)


@pytest.mark.parametrize("word", ["ten", "30", "-1", "1.5"])
def test_a_word_that_is_no_id_is_refused_with_its_line(trained, monkeypatch, capsys, word):
    monkeypatch.setattr("bigembed.commands.predict.BLOCK", 2)
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(f"1 2\n3\n4\n5 {word}\n".encode())))
    assert bigembed("predict", f"run={trained}") == 2
    out, error = capsys.readouterr()
    assert f"line 4 of standard input: '{word}' is no row of this table, whose ids are the numbers 0 to 29" in error
    assert len(out.splitlines()) == 2  # what was asked before


def test_ids_without_a_row_in_a_file_to_predict_are_refused_with_its_row(trained, tmp_path, capsys):
    table = pa.table({"items": [[1]] * 5000 + [[2, 30]]})
    pq.write_table(table, tmp_path / "in.parquet")
    assert bigembed("predict", f"run={trained}", f"input={tmp_path}/in.parquet") == 2
    out, error = capsys.readouterr()
    assert "row 5000 of the input holds the id 30 in column 'items', but tables.item has 30 rows" in error
    assert out == ""
    with pytest.raises(UserError, match="text 1: 'x' is no row"):
        load_run(trained).predict(["1", "x"])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_ids_without_a_row_are_refused_before_training(data, tmp_path, capsys, part):
    for name in ("train", "validation", "test"):
        table = clicks(50, 2)
        if part == name:
            users = table["user_id"].to_numpy().copy()
            users[17] = USERS
            table = table.set_column(0, "user_id", pa.array(users))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    options = [f"data.path={tmp_path}", "data.validation=validation", f"hydra.run.dir={tmp_path}/run"]
    assert bigembed("train", *BASE, *OF_USERS, *options) == 2
    error = capsys.readouterr().err
    assert f"feature 'user': row 17 of the {part} part holds the id 40 in column 'user_id'" in error
    assert not (tmp_path / "run").exists()


def test_empty_lists_are_warned_of_and_a_text_column_is_refused(tmp_path, capsys):
    table = pa.table({"items": [[1], [], [2, 3], []] * 10, "text": ["a"] * 40, "label": [0, 1, 1, 0] * 10})
    pq.write_table(table, tmp_path / "train.parquet")
    options = [f"data.path={tmp_path}", "data.test=null", f"hydra.run.dir={tmp_path}/run"]
    assert bigembed("train", *BASE, *OF_ITEMS, "features.items.column=text", *options) == 2
    assert "Column 'text' of" in (error := capsys.readouterr().err) and "not whole numbers or lists of them" in error
    assert bigembed("train", *BASE, *OF_ITEMS, *options) == 0
    assert "warning: 20 of 40 lists in column 'items' of the train part are empty" in capsys.readouterr().err


def test_a_run_continues_with_other_pieces_and_types_of_the_same_ids_and_not_with_other_ids(data, tmp_path, capsys):
    table = clicks(60, 3)
    path, run = tmp_path / "train.parquet", tmp_path / "run"
    pq.write_table(table, path)
    options = [f"data.path={tmp_path}", "data.test=null", f"hydra.run.dir={run}"]
    assert bigembed("train", *BASE, *OF_USERS, *options) == 0
    (run / "metrics.json").unlink()
    pq.write_table(table.set_column(0, "user_id", table["user_id"].cast(pa.uint8())), path, row_group_size=7)
    assert bigembed("train", f"resume={run}") == 0
    (run / "metrics.json").unlink()
    users = table["user_id"].to_numpy().copy()
    users[5] = (users[5] + 2) % USERS
    pq.write_table(table.set_column(0, "user_id", pa.array(users)), path)
    capsys.readouterr()
    assert bigembed("train", f"resume={run}") == 2
    assert "the data is not what the run began with (changed: train)" in capsys.readouterr().err
