"""Data files: found by name, read alike from every format, converted when large, and refused in one clear sentence."""

import bz2
import csv
import gzip
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import FilesData, Format
from bigembed.data import converted, lines, open_data, open_part
from bigembed.data.lines import scan_csv
from bigembed.errors import UserError
from bigembed.wishes import IDS, NUMBERS, VALUES, WEIGHTS

TEXTS = ["good film", "", 'a "quoted", one\nand a second line', "2020-01-01", "NA", "12", "ünï ☃ 日本 🙂", "tab\there"]
LABELS = [1, 0, 1, 0, 1, 1, 0, 0]
FORMATS = ["parquet", "csv", "jsonl", "csv.gz", "jsonl.gz", "csv.bz2"]


def table(texts=TEXTS, labels=LABELS):
    return pa.table({"extra": [0.5] * len(texts), "label": labels, "text": texts})


def write(path, data=None):
    """Write a table in the format of the path's ending, as other programs would."""
    data = table() if data is None else data
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(data, path)
        return path
    opener = {"gz": gzip.open, "bz2": bz2.open}.get(name.rsplit(".", 1)[1], open)
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in name:
            writer = csv.writer(file)
            writer.writerow(data.column_names)
            writer.writerows(zip(*data.to_pydict().values(), strict=True))
        else:
            for row in data.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def opened(path, part="train", **options):
    return open_part(FilesData(path=str(path), **options), part, ["text"], ["label"])


def contents(part):
    return part["text"].to_pylist(), part["label"].to_pylist()


def refused(path, **options):
    with pytest.raises(UserError) as caught:
        opened(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bigembed"


# --- every format gives the same rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    part = opened(write(tmp_path / f"train.{ending}"))
    assert contents(part) == (TEXTS, LABELS)
    assert part.column_names == ["text", "label"]
    assert part.schema.types == [pa.string(), pa.int64()]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_converted_file_gives_the_same_rows_and_is_used_again(tmp_path, cache, ending):
    path = write(tmp_path / f"train.{ending}")
    assert contents(opened(path, in_memory_mib=0)) == (TEXTS, LABELS)
    (converted,) = [file for file in cache.iterdir() if file.suffix == ".arrow"]
    written = converted.stat().st_mtime_ns
    assert contents(opened(path, in_memory_mib=0)) == (TEXTS, LABELS)
    assert converted.stat().st_mtime_ns == written
    assert not list(cache.glob(".*unfinished"))


def test_a_changed_file_is_converted_anew(tmp_path, cache):
    path = write(tmp_path / "train.csv")
    opened(path, in_memory_mib=0)
    write(path, table(["other"], [0]))
    assert contents(opened(path, in_memory_mib=0)) == (["other"], [0])
    assert len(list(cache.glob("*.arrow"))) == 2


def test_a_converted_file_that_was_damaged_is_made_anew(tmp_path, cache):
    path = write(tmp_path / "train.csv")
    opened(path, in_memory_mib=0)
    (converted,) = cache.glob("*.arrow")
    converted.write_bytes(converted.read_bytes()[:100])
    assert contents(opened(path, in_memory_mib=0)) == (TEXTS, LABELS)


def test_a_converted_file_is_memory_mapped(tmp_path):
    part = opened(write(tmp_path / "train.csv"), in_memory_mib=0)
    before = pa.total_allocated_bytes()
    assert part["text"].nbytes > 0
    assert pa.total_allocated_bytes() == before


def test_files_that_turn_out_larger_than_they_looked_are_converted(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 1 << 16)
    texts = [f"{i} " + "x" * 1000 for i in range(3000)]  # 3 MB, compressed to a few KB of unknown meaning
    data = table(texts, [0, 1] * 1500)
    path = write(tmp_path / "train.csv.gz", data)
    part = opened(path, in_memory_mib=1)
    assert contents(part) == (texts, [0, 1] * 1500)
    assert len(list(cache.glob("*.arrow"))) == 1


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_text_of_10_mb_is_read(tmp_path, ending):
    texts = ["short", "long " * 2_000_000, "short again"]
    for limit in (0, 1024):
        part = opened(write(tmp_path / f"train.{ending}", table(texts, [0, 1, 0])), in_memory_mib=limit)
        assert contents(part) == (texts, [0, 1, 0])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("block", [1, 7, 64])
def test_where_blocks_are_cut_makes_no_difference(tmp_path, monkeypatch, ending, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    assert contents(opened(write(tmp_path / f"train.{ending}"))) == (TEXTS, LABELS)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(
    rows=st.lists(st.tuples(cells, st.integers(-9, 9)), min_size=1, max_size=20),
    block=st.integers(1, 100),
    quoting=st.booleans(),
)
def test_texts_make_the_round_trip_through_csv(tmp_path_factory, rows, block, quoting):
    path = tmp_path_factory.mktemp("csv") / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if quoting else csv.QUOTE_MINIMAL)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        assert contents(opened(path)) == tuple(map(list, zip(*rows, strict=True)))


@given(
    texts=st.lists(st.one_of(st.none(), cells), min_size=1, max_size=20), block=st.integers(1, 100), ascii=st.booleans()
)
def test_texts_make_the_round_trip_through_json_lines(tmp_path_factory, texts, block, ascii):
    path = tmp_path_factory.mktemp("json") / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": 1}, ensure_ascii=ascii) + "\n" for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        assert opened(path)["text"].to_pylist() == texts


@given(st.text('a",\r\n', max_size=30))
def test_the_walk_over_csv_counts_lines_and_rows_whole(text):
    data = np.frombuffer(text.encode(), np.uint8)
    end, rows, line_breaks, longest = scan_csv(data, True, -1)
    assert 0 <= end <= len(data)
    assert longest <= end
    assert line_breaks == text[:end].replace("\r\n", "\n").replace("\r", "\n").count("\n")
    steps = [scan_csv(data, True, row) for row in range(rows + 1)]
    assert [step[1] for step in steps] == list(range(rows + 1))
    assert [step[0] for step in steps] == sorted(step[0] for step in steps)


def test_windows_and_old_macintosh_lines_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "train.csv"
    for mark in (b"", b"\xef\xbb\xbf"):
        for end in (b"\n", b"\r\n", b"\r"):
            path.write_bytes(mark + end.join([b"text,label", b"", b"a,1", b"", b"", b"b,0"]))
            assert contents(opened(path)) == (["a", "b"], [1, 0])
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a","label":1}\r\n\r\n{"text":"b","label":0}')
    assert contents(opened(path)) == (["a", "b"], [1, 0])


def test_labels_written_as_floats_or_truth_values_become_whole_numbers(tmp_path):
    (tmp_path / "train.csv").write_text('text,label\na,1.0\nb,False\nc,"0"\nd, 1\ne,\n')
    assert opened(tmp_path / "train.csv")["label"].to_pylist() == [1, 0, 0, 1, None]
    rows = [1.0, False, 0, None]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": "a", "label": label}) + "\n" for label in rows))
    assert opened(tmp_path / "train.jsonl")["label"].to_pylist() == [1, 0, 0, None]


def test_null_texts_stay_null_where_the_format_knows_them(tmp_path):
    for ending in ("parquet", "jsonl"):
        assert opened(write(tmp_path / f"x.{ending}", table([None, "b"], [0, 1])))["text"].to_pylist() == [None, "b"]


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_every_text_type_of_parquet_becomes_strings(tmp_path, kind):
    data = pa.table({"text": pa.array(TEXTS).cast(kind), "label": pa.array(LABELS, pa.int8())})
    part = opened(write(tmp_path / "train.parquet", data))
    assert contents(part) == (TEXTS, LABELS)
    assert part.schema.types == [pa.large_string() if kind == pa.large_string() else pa.string(), pa.int8()]


def test_files_without_a_label_column_are_read_when_none_is_asked_for(tmp_path):
    for ending in ("parquet", "csv", "jsonl"):
        path = write(tmp_path / f"x.{ending}", pa.table({"text": TEXTS}))
        assert open_part(FilesData(path=str(path)), "test", ["text"])["text"].to_pylist() == TEXTS


def test_only_the_wished_columns_are_read(tmp_path):
    rows = ['{"text":"a","label":1,"other":[{"deep":1}]}', '{"text":"b","label":0,"other":"now a text"}']
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    assert contents(opened(tmp_path / "train.jsonl")) == (["a", "b"], [1, 0])


def test_two_text_columns_come_in_the_wished_order(tmp_path):
    write(tmp_path / "train.csv", pa.table({"b": ["1"], "label": [0], "a": ["2"]}))
    parts = open_data(FilesData(path=str(tmp_path), test=None), ["a", "b"], ["label"])
    assert parts.train.to_pydict() == {"a": ["2"], "b": ["1"], "label": [0]}


# --- ids: whole numbers, and lists of them ----------------------------------------------------------------------------

USERS = [7, 0, 2**40, 12]
BAGS = [[3, 17, 5], [], [2**40], [0, 0]]


def ids(path, name="id", **options):
    return open_part(FilesData(path=str(path), **options), "train", {name: IDS})[name]


@pytest.mark.parametrize("limit", [0, 1024])
@pytest.mark.parametrize("ending", FORMATS)
def test_whole_numbers_are_read_from_every_format(tmp_path, ending, limit):
    column = ids(write(tmp_path / f"train.{ending}", pa.table({"id": USERS})), in_memory_mib=limit)
    assert (column.to_pylist(), column.type) == (USERS, pa.int64())


@pytest.mark.parametrize("limit", [0, 1024])
@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
def test_lists_of_whole_numbers_are_read_from_formats_that_know_them(tmp_path, ending, limit):
    column = ids(write(tmp_path / f"train.{ending}", pa.table({"id": BAGS})), in_memory_mib=limit)
    assert (column.to_pylist(), column.type) == (BAGS, IDS)


def test_ids_keep_the_type_that_parquet_has_for_them(tmp_path):
    kinds = [pa.int8(), pa.uint64(), pa.list_(pa.uint16()), pa.large_list(pa.int32()), pa.list_(pa.int64(), 2)]
    for kind in kinds:
        values = [1, 2] if pa.types.is_integer(kind) else [[1, 2], [3, 4]]
        column = ids(write(tmp_path / "train.parquet", pa.table({"id": pa.array(values, kind)})))
        assert (column.to_pylist(), column.type) == (values, kind)
    plain = {
        pa.int64(): [pa.array([5, 6]).dictionary_encode(), pa.nulls(2)],
        IDS: [pa.array([[], []])],  # of lists of nothing
    }
    for kind, arrays in plain.items():
        for array in arrays:
            column = ids(write(tmp_path / "train.parquet", pa.table({"id": array})))
            assert (column.to_pylist(), column.type) == (array.to_pylist(), kind)


@pytest.mark.parametrize(
    "array", [pa.array([1.0]), pa.array(["1"]), pa.array([["1"]]), pa.array([[[1]]]), pa.array([True])]
)
def test_a_column_that_holds_no_ids_is_refused(tmp_path, array):
    path = write(tmp_path / "train.parquet", pa.table({"id": array}))
    with pytest.raises(UserError) as caught:
        ids(path)
    message = str(caught.value).replace("element", "item")  # what Parquet calls the values of a list
    assert (
        message
        == f"Column 'id' of {path} holds {array.type}, not whole numbers or lists of them; name another column, or convert it."
    )


def test_the_first_value_of_json_lines_tells_whether_ids_are_lists(tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    path.write_text('\n{"id": null}\n{"id": []}\n{"id": [1, 2.0, null]}\n')
    assert ids(path).to_pylist() == [None, [], [1, 2, None]]
    path.write_text('{"id": null, "more": [1]}\n{"id": 5.0}\n{"id": 6}\n')
    assert ids(path).to_pylist() == [None, 5, 6]
    for block in (20, 1 << 20):
        monkeypatch.setattr(lines, "BLOCK", block)
        for rows, message in (
            (["[1]", "[2]", "3"], "line 3: column 'id' is 3, not a list of whole numbers"),
            (["[1]", "[2, 0.5]"], "line 2: column 'id' is [2, 0.5], not a list of whole numbers"),
            (["[1]", '["a"]'], "line 2: column 'id' is ['a'], not a list of whole numbers"),
            (["1", "2", "[3]"], "line 3: column 'id' is [3], not a whole number"),
            (["[1]", "[99999999999999999999]"], "line 2: column 'id' is [99999999999999999999], not a list of whole"),
        ):
            path.write_text("".join(f'{{"id": {row}}}\n' for row in rows))
            with pytest.raises(UserError) as caught:
                ids(path)
            assert f"{path}, {message}" in str(caught.value)
    path.write_text('{"id": 1}\n{"other": 5\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        ids(path)
    path.write_text('{"other": 5}\n')
    with pytest.raises(UserError, match="has no column 'id', it has 'other'"):
        ids(path)


def test_ids_of_csv_must_be_whole_numbers(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('id,label\n5,1\n"6.0",0\n,0\n')
    assert ids(path).to_pylist() == [5, 6, None]
    path.write_text("id,label\n5,1\n3 17,0\n")
    with pytest.raises(UserError, match="line 3: column 'id' is '3 17', not a whole number"):
        ids(path)


def test_files_of_a_part_must_have_ids_of_the_same_kind(tmp_path):
    never_null = pa.list_(pa.field("each", pa.int64(), nullable=False))
    for number, kind in enumerate((IDS, never_null)):
        write(tmp_path / f"train-{number}.parquet", pa.table({"id": pa.array([[number]], kind)}))
    assert ids(tmp_path).to_pylist() == [[0], [1]]
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    write(tmp_path / "train-0.jsonl", pa.table({"id": [[1]]}))
    write(tmp_path / "train-1.jsonl", pa.table({"id": [2]}))
    with pytest.raises(UserError, match=r"Column 'id' is int64 in .*train-1.jsonl, but list<item: int64> in"):
        ids(tmp_path)


def test_ids_of_saved_data_sets_are_memory_mapped(tmp_path, datasets):
    datasets.Dataset.from_dict({"id": BAGS, "user": USERS}).save_to_disk(tmp_path / "one", num_shards=2)
    before = pa.total_allocated_bytes()
    lists, users = ids(tmp_path / "one"), ids(tmp_path / "one", "user")
    assert pa.total_allocated_bytes() - before < 4096
    assert (lists.to_pylist(), users.to_pylist()) == (BAGS, USERS)
    datasets.Dataset.from_dict({"id": [0.5]}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="holds double, not whole numbers or lists of them"):
        ids(tmp_path / "other")


# --- values, numbers and weights --------------------------------------------------------------------------------------

WORDS = [["New York", "b"], [], ["", "日本"], ["2020-01-01"]]
FLOATS = [0.5, None, -3.0, 1e300]


def column(path, wish, **options):
    return open_part(FilesData(path=str(path), **options), "train", {"x": wish})["x"]


def no(path, wish):
    with pytest.raises(UserError) as caught:
        column(path, wish)
    return str(caught.value)


@pytest.mark.parametrize("limit", [0, 1024])
@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
def test_values_come_as_the_data_has_them(tmp_path, ending, limit):
    kinds = {pa.string(): TEXTS, pa.int64(): USERS, pa.list_(pa.string()): WORDS, IDS: BAGS}
    for number, (kind, values) in enumerate(kinds.items()):
        read = column(write(tmp_path / f"{number}.{ending}", pa.table({"x": values})), VALUES, in_memory_mib=limit)
        assert (read.to_pylist(), read.type) == (values, kind)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_values_of_csv_are_texts(tmp_path, ending):
    for values in (TEXTS, ["12", "7"], ["1.5", "x"]):
        read = column(write(tmp_path / f"train.{ending}", pa.table({"x": values})), VALUES)
        assert (read.to_pylist(), read.type) == (values, pa.string())


def test_values_of_parquet_keep_the_kind_of_list_and_number_and_become_plain_texts(tmp_path):
    rows, texts, number = [["a", "ü"], ["", "c"]], pa.list_(pa.string()), pa.int32()
    kinds = {
        pa.list_(pa.binary()): texts,
        pa.list_(pa.dictionary(pa.int32(), pa.string())): texts,
        pa.large_list(pa.string()): pa.large_list(pa.string()),
        pa.list_(pa.string(), 2): pa.list_(pa.string(), 2),
        pa.list_(pa.large_string()): pa.list_(pa.large_string()),
    }
    for kind, wanted in kinds.items():
        read = column(write(tmp_path / "train.parquet", pa.table({"x": pa.array(rows, kind)})), VALUES)
        assert (read.to_pylist(), read.type) == (rows, wanted)
    for array in (pa.array([5, 6], number), pa.array([5, 6], number).dictionary_encode()):
        read = column(write(tmp_path / "train.parquet", pa.table({"x": array})), VALUES)
        assert (read.to_pylist(), read.type) == ([5, 6], number)


@pytest.mark.parametrize("array", [pa.array([True]), pa.array([[[1]]]), pa.array([{"a": 1}]), pa.array([[0.5]])])
def test_values_that_are_neither_texts_nor_whole_numbers_are_refused(tmp_path, array):
    path = write(tmp_path / "train.parquet", pa.table({"x": array}))
    message = no(path, VALUES).replace("element", "item")  # what Parquet calls the values of a list
    of = str(array.type)
    assert message == (
        f"Column 'x' of {path} holds {of}, not texts, whole numbers, or lists of either; name another column, or convert it."
    )


def test_values_with_a_fraction_are_sent_to_bucketized_tables(tmp_path):
    path = write(tmp_path / "train.parquet", pa.table({"x": [0.5]}))
    assert "holds double, not texts, whole numbers, or lists of either; look it up in a table of kind bucketized" in no(
        path, VALUES
    )
    path = tmp_path / "train.jsonl"
    path.write_text('{"x": null}\n{"x": 0.5}\n')
    assert f"{path}, line 2: column 'x' is 0.5, and numbers with a fraction are for a table of kind bucketized." in no(
        path, VALUES
    )


def test_the_first_values_of_json_lines_tell_what_all_are(tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    for rows, kind in (
        ('[null, [], [null, "a"]]', pa.list_(pa.string())),
        ("[null, [], [1, 2.0]]", IDS),
        ("[null, [], []]", pa.list_(pa.string())),
        ("[null, 3.0, -1]", pa.int64()),
        ('[null, "", "12"]', pa.string()),
    ):
        values = json.loads(rows)
        path.write_text("".join(json.dumps({"x": value}) + "\n" for value in values))
        read = column(path, VALUES)
        assert (read.to_pylist(), read.type) == (values, kind)
    for block in (20, 1 << 20):
        monkeypatch.setattr(lines, "BLOCK", block)
        for rows, message in (
            (['["a"]', '["b"]', '"c"'], "line 3: column 'x' is 'c', not a list of texts"),
            (['["a"]', "[1]"], "line 2: column 'x' is [1], not a list of texts"),
            (['["a"]', '["\\ud83d"]'], "line 2: column 'x' has half of a surrogate pair"),
            (['"a"', "1"], "line 2: column 'x' is 1, not a text"),
            (["1", '"1"'], "line 2: column 'x' is '1', not a whole number"),
            (["1", "0.5"], "line 2: column 'x' is 0.5, not a whole number"),
            (["1", str(2**63)], f"line 2: column 'x' is {2**63}, not a whole number of 64 bits with a sign"),
            (["true"], "line 1: column 'x' is True, not a text, a whole number, or a list of either"),
            (['{"a": 1}'], "line 1: column 'x' is {'a': 1}, not a text, a whole number, or a list of either"),
            (["[[1]]"], "line 1: column 'x' is [[1]], not a text, a whole number, or a list of either"),
        ):
            path.write_text("".join(f'{{"x": {row}}}\n' for row in rows))
            assert f"{path}, {message}" in no(path, VALUES)


def test_lists_of_texts_that_are_not_utf_8_are_refused_with_their_row(tmp_path):
    for kind in (pa.list_(pa.binary()), pa.large_list(pa.binary())):
        array = pa.array([[b"a"], [], [b"b", b"caf\xe9"]], kind)
        path = write(tmp_path / "train.parquet", pa.table({"x": array}))
        assert f"Row 2 (the first is 0) of {path} is not valid UTF-8 in column 'x'" in no(path, VALUES)
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"b", b"caf\xe9"]).buffers())
    pq.write_table(pa.table({"x": pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), texts)}), path)
    assert "Row 1 (the first is 0)" in no(path, VALUES)


def test_values_of_saved_data_sets_are_memory_mapped(tmp_path, datasets):
    datasets.Dataset.from_dict({"x": WORDS}).save_to_disk(tmp_path / "one", num_shards=2)
    before = pa.total_allocated_bytes()
    read = column(tmp_path / "one", VALUES)
    assert pa.total_allocated_bytes() - before < 4096
    assert read.to_pylist() == WORDS


@pytest.mark.parametrize("limit", [0, 1024])
@pytest.mark.parametrize("ending", FORMATS)
def test_numbers_are_read_as_float64_from_every_format_and_nothing_is_none(tmp_path, ending, limit):
    for values in (FLOATS, [7, None, -(2**60), 2**53 + 1]):
        read = column(write(tmp_path / f"train.{ending}", pa.table({"x": values})), NUMBERS, in_memory_mib=limit)
        assert read.type == pa.float64()
        assert read.to_pylist() == [None if value is None else float(value) for value in values]


def test_numbers_of_every_width_and_nulls_alone_are_read(tmp_path):
    for kind in (pa.float16(), pa.float32(), pa.int8(), pa.uint64()):
        read = column(write(tmp_path / "train.parquet", pa.table({"x": pa.array([1, None, 3]).cast(kind)})), NUMBERS)
        assert (read.to_pylist(), read.type) == ([1.0, None, 3.0], pa.float64())
    assert column(write(tmp_path / "train.parquet", pa.table({"x": pa.nulls(2)})), NUMBERS).to_pylist() == [None, None]


@pytest.mark.parametrize("array", [pa.array(["1"]), pa.array([True]), pa.array([[1.0]])])
def test_what_holds_no_numbers_is_refused(tmp_path, array):
    path = write(tmp_path / "train.parquet", pa.table({"x": array}))
    assert "not numbers; name another column" in no(path, NUMBERS)


def test_cells_that_are_no_numbers_are_refused_with_their_line(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('x,y\n 1.5,a\n"",b\n+2,c\n"-3e2",d\n')
    assert column(path, NUMBERS).to_pylist() == [1.5, None, 2.0, -300.0]
    for cell in ("NA", "1_0", "0x1", "true", "1;2"):
        path.write_text(f'x,y\n1,a\n"{cell}",b\n')
        for wish in (NUMBERS, WEIGHTS):
            assert f"{path}, line 3: column 'x' is {cell!r}, not a number." in no(path, wish)
    path = tmp_path / "train.jsonl"
    path.write_text('{"x": 1}\n{"x": ""}\n{"x": null}\n{"x": 2.5}\n{}\n')
    assert column(path, NUMBERS).to_pylist() == [1.0, None, None, 2.5, None]
    for value in ('"1"', "true", "[1]"):
        path.write_text(f'{{"x": 1}}\n{{"x": {value}}}\n')
        assert f"{path}, line 2: column 'x' is {json.loads(value)!r}, not a number." in no(path, NUMBERS)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_weights_are_numbers_or_lists_of_them_as_float32(tmp_path, ending):
    kinds = {pa.float32(): [0.5, 2, 1.0], pa.list_(pa.float32()): [[0.5, 2.0], [], [3.0]]}
    for number, (kind, values) in enumerate(kinds.items()):
        read = column(write(tmp_path / f"{number}.{ending}", pa.table({"x": values})), WEIGHTS)
        assert (read.to_pylist(), read.type) == (values, kind)


def test_weights_of_whole_numbers_and_of_csv_are_read_and_others_refused(tmp_path):
    bags = pa.array([[1, 2**24 + 1], [3, None]], pa.list_(pa.int64(), 2))
    read = column(write(tmp_path / "train.parquet", pa.table({"x": bags})), WEIGHTS)
    assert (read.to_pylist(), read.type) == ([[1.0, 2.0**24], [3.0, None]], pa.list_(pa.float32(), 2))
    read = column(write(tmp_path / "train.csv", pa.table({"x": [0.5, 2]})), WEIGHTS)
    assert (read.to_pylist(), read.type) == ([0.5, 2.0], pa.float32())
    path = write(tmp_path / "other.parquet", pa.table({"x": [["a"]]}))
    assert "not numbers or lists of them" in no(path, WEIGHTS)
    path = tmp_path / "other.jsonl"
    path.write_text('{"x": [1, 2.5]}\n{"x": ["a"]}\n')
    assert f"{path}, line 2: column 'x' is ['a'], not a list of numbers." in no(path, WEIGHTS)


def test_wishes_cannot_be_confused_with_each_other_or_with_types_of_columns():
    wishes = [pa.string(), pa.int64(), IDS, VALUES, NUMBERS, WEIGHTS, pa.float64(), pa.list_(pa.float32())]
    assert len(set(wishes)) == len({str(wish) for wish in wishes}) == 8


# --- which files are a part -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["train.parquet"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train-a.csv", "train-b.csv"],
        ["train/2.jsonl", "train/10.jsonl", "train/.hidden.csv", "train/_SUCCESS"],
    ],
)
def test_a_part_is_found_by_its_name(tmp_path, names):
    (tmp_path / "train").mkdir() if "/" in names[0] else None
    expected = []
    for i, name in enumerate(names):
        if "/." in name or "/_" in name:
            (tmp_path / name).touch()
        else:
            write(tmp_path / name, table([f"row {i}"], [i % 2]))
            expected.append(f"row {i}")
    write(tmp_path / "test.csv", table(["judged"], [1]))
    parts = open_data(FilesData(path=str(tmp_path)), ["text"], ["label"])
    assert parts.train["text"].to_pylist() == expected
    assert parts.test["text"].to_pylist() == ["judged"]
    assert parts.validation is None


def test_a_part_may_be_another_name_a_file_a_pattern_or_an_absolute_path(tmp_path):
    for i in range(3):
        write(tmp_path / f"day{i}.csv", table([f"row {i}"], [1]))
    write(tmp_path / "held[1].csv", table(["held"], [1]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere / "judged.csv", table(["judged"], [1]))
    for train in ("day[0-1].csv", str(tmp_path / "day[01].csv")):
        config = FilesData(
            path=str(tmp_path), train=train, validation="held[1].csv", test=str(elsewhere / "judged.csv")
        )
        parts = open_data(config, ["text"], ["label"])
        assert parts.train["text"].to_pylist() == ["row 0", "row 1"]
        assert parts.validation["text"].to_pylist() == ["held"]
        assert parts.test["text"].to_pylist() == ["judged"]


def test_without_a_path_the_parts_are_paths(tmp_path, monkeypatch):
    for i in range(2):
        write(tmp_path / f"day{i}.csv", table([f"row {i}"], [1]))
    monkeypatch.chdir(tmp_path)
    for train in (str(tmp_path), str(tmp_path / "day*.csv"), "day*.csv", "."):
        parts = open_data(FilesData(train=train, test="day1.csv"), ["text"], ["label"])
        assert parts.train["text"].to_pylist() == ["row 0", "row 1"]
        assert parts.test["text"].to_pylist() == ["row 1"]


def test_a_format_settles_what_the_ending_does_not_tell(tmp_path):
    write(tmp_path / "rows.csv").rename(tmp_path / "rows.txt")
    assert contents(opened(tmp_path / "rows.txt", format=Format.csv)) == (TEXTS, LABELS)
    assert "ending of" in refused(tmp_path / "rows.txt")
    write(tmp_path / "train.csv")
    write(tmp_path / "train.parquet", table(["from parquet"], [1]))
    assert opened(tmp_path, format=Format.parquet)["text"].to_pylist() == ["from parquet"]


def test_several_matches_are_refused_as_ambiguous(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "train.parquet")
    message = refused(tmp_path)
    assert "train.csv, train.parquet" in message
    assert "data.train=" in message
    assert contents(opened(tmp_path, train="train.csv")) == (TEXTS, LABELS)


def test_a_part_of_files_of_different_kinds_is_refused(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.parquet")
    assert "a.csv, b.parquet" in refused(tmp_path, train="*")


def test_a_part_that_is_not_there_is_refused_with_what_is(tmp_path):
    write(tmp_path / "training.csv")
    assert "no train part called 'train' (there are: training.csv)" in refused(tmp_path)
    assert "it is empty" in refused(empty_folder(tmp_path))
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "No file matches data.train=day*.csv" in refused(tmp_path, train="day*.csv")
    with pytest.raises(UserError, match=r"data\.train=train does not exist; .*data\.path"):
        open_data(FilesData(), ["text"])
    with pytest.raises(UserError, match=r"data\.test is null"):
        open_part(FilesData(path=str(tmp_path), test=None), "test", ["text"])
    (tmp_path / "train").mkdir()
    assert "holds no file that can be read" in refused(tmp_path)


def empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_a_download_with_missing_shards_is_refused(tmp_path):
    for i in (0, 2):
        write(tmp_path / f"train-0000{i}-of-00003.parquet")
    assert "2 of the 3 files" in refused(tmp_path)


def test_one_file_is_a_part_but_not_the_other_parts(tmp_path):
    path = write(tmp_path / "rows.csv")
    assert contents(opened(path, part="test")) == (TEXTS, LABELS)
    assert contents(opened(path, part="test", test=None)) == (TEXTS, LABELS)
    with pytest.raises(UserError, match=r"is one part by itself, so it has no test part: .*data\.test=null"):
        open_data(FilesData(path=str(path)), ["text"], ["label"])
    assert open_data(FilesData(path=str(path), test=None), ["text"], ["label"]).train.num_rows == len(TEXTS)


# --- saved data sets and the Hub --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets")


def test_saved_data_sets_are_memory_mapped(tmp_path, datasets):
    saved = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS}).cast_column("label", datasets.ClassLabel(2))
    datasets.DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(
        tmp_path / "all", num_shards={"train": 3, "test": 1}
    )
    saved.select([1, 0]).save_to_disk(tmp_path / "one")
    before = pa.total_allocated_bytes()
    parts = open_data(FilesData(path=str(tmp_path / "all")), ["text"], ["label"])
    assert pa.total_allocated_bytes() - before < 4096
    assert contents(parts.train) == (TEXTS, LABELS)
    assert contents(parts.test) == (TEXTS[:1], LABELS[:1])
    assert contents(opened(tmp_path / "one", part="test")) == ([TEXTS[1], TEXTS[0]], [0, 1])
    assert contents(open_part(FilesData(train=str(tmp_path / "one")), "train", ["text"], ["label"]))[1] == [0, 1]
    with pytest.raises(UserError, match="parts of its own"):
        open_part(FilesData(train=str(tmp_path / "all")), "train", ["text"])
    assert "no column 'label', it has 'sentence'" in refused(
        save(tmp_path / "other", datasets, {"sentence": ["a"]}, "text")
    )
    assert "holds int64, not texts" in refused(save(tmp_path / "ints", datasets, {"text": [1], "label": [1]}))


def save(path, datasets, columns, also=None):
    datasets.Dataset.from_dict({**columns, **({also: ["a"]} if also else {})}).save_to_disk(path)
    return path


def test_a_damaged_saved_data_set_is_refused(tmp_path, datasets):
    save(tmp_path / "one", datasets, {"text": TEXTS, "label": LABELS})
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    content = arrow.read_bytes()
    arrow.write_bytes(content[: len(content) // 2])
    assert "damaged or not complete" in refused(tmp_path / "one")
    arrow.unlink()
    assert "damaged or not complete" in refused(tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text("{}")
    assert "damaged or not complete" in refused(tmp_path / "one")


def test_the_hub_is_asked_where_no_path_is_given(monkeypatch, datasets):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_dict({"label": LABELS, "text": TEXTS})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    parts = open_data(FilesData(hub="somebody/reviews"), ["text"], ["label"])
    assert asked == [("somebody/reviews", "train"), ("somebody/reviews", "test")]
    assert contents(parts.train) == (TEXTS, LABELS)


def test_a_hub_out_of_reach_is_one_sentence_with_a_way_out(monkeypatch, datasets):
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("Couldn't reach it\nat all"))
    )
    with pytest.raises(
        UserError, match=r"somebody/reviews .*Couldn't reach it\).*data.path=DIR, with train.parquet"
    ) as caught:
        open_data(FilesData(hub="somebody/reviews"), ["text"], ["label"])
    assert "\n" not in str(caught.value)


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_empty_files_and_files_without_rows_are_refused(tmp_path, ending):
    path = tmp_path / f"train.{ending}"
    path.touch()
    assert refused(path) == f"{path} is empty (0 bytes)."
    write(path, table([], []).cast(pa.schema({"extra": pa.float64(), "label": pa.int64(), "text": pa.string()})))
    if path.stat().st_size == 0:
        path.write_text("\n\n")
    for limit in (0, 1024):
        assert "has no rows" in refused(path, in_memory_mib=limit)


def test_an_empty_file_among_others_is_no_matter(tmp_path):
    schema = pa.schema({"extra": pa.float64(), "label": pa.int64(), "text": pa.string()})
    write(tmp_path / "train-0.parquet", table([], []).cast(schema))
    write(tmp_path / "train-1.parquet")
    assert contents(opened(tmp_path)) == (TEXTS, LABELS)


def test_a_parquet_that_was_cut_or_is_none_is_refused(tmp_path):
    path = write(tmp_path / "train.parquet")
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], content[:3], b"text,label\na,1\n" * 10):
        path.write_bytes(broken)
        assert f"{path} is not a Parquet file, or it was cut short" in refused(path)


def test_a_parquet_with_a_hole_is_refused(tmp_path):
    path = write(tmp_path / "train.parquet", table([f"text {i}" for i in range(5000)], [0] * 5000))
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    assert f"{path} is damaged after row 0" in refused(path)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_missing_column_is_refused_with_those_there(tmp_path, ending):
    path = write(tmp_path / f"train.{ending}", pa.table({"review": ["a", "b"], "label": [1, 0]}))
    message = refused(path)
    assert str(path) in message
    assert "no column 'text'" in message
    assert "'review', 'label'" in message


def test_a_column_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,label,text\na,1,b\n")
    assert "2 columns 'text'" in refused(tmp_path / "train.csv")
    (tmp_path / "train.jsonl").write_text('{"text":"a","label":1}\n{"text":"a","label":1,"text":"b"}\n')
    assert "line 2: not JSON (one of the names text, label stands there twice)" in refused(tmp_path / "train.jsonl")


def test_files_of_a_part_must_have_the_same_types(tmp_path):
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "train-1.parquet", pa.table({"text": ["a"], "label": [0.5]}))
    message = refused(tmp_path)
    assert "Column 'label' is double in" in message
    assert "train-1.parquet, but int64 in" in message
    write(tmp_path / "train-1.parquet", pa.table({"text": [1], "label": [1]}))
    assert "Column 'text' of" in refused(tmp_path)
    assert "holds int64, not texts" in refused(tmp_path)


def test_large_and_plain_strings_fit_together(tmp_path):
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "train-1.parquet", pa.table({"text": pa.array(["a"], pa.large_string()), "label": [1]}))
    assert contents(opened(tmp_path)) == ([*TEXTS, "a"], [*LABELS, 1])


@pytest.mark.parametrize("limit", [0, 1024])
def test_invalid_utf_8_is_refused_with_its_line_or_row(tmp_path, limit):
    (tmp_path / "a.csv").write_bytes(b'text,label\n"a\nb",1\ncaf\xe9,0\n')
    assert refused(tmp_path / "a.csv", in_memory_mib=limit) == (
        f"{tmp_path / 'a.csv'}, line 4: byte 0xe9 is not valid UTF-8; convert the file to UTF-8."
    )
    (tmp_path / "a.jsonl").write_bytes(b'{"text":"a","label":1}\n{"text":"caf\xe9","label":1}\n')
    assert "a.jsonl, line 2: byte 0xe9 is not valid UTF-8" in refused(tmp_path / "a.jsonl", in_memory_mib=limit)
    data = pa.table({"text": pa.array([b"a", b"b", b"caf\xe9"]), "label": [0, 1, 0]})
    write(tmp_path / "a.parquet", data)
    assert "Row 2 (the first is 0)" in refused(tmp_path / "a.parquet", in_memory_mib=limit)
    pq.write_table(
        data.set_column(0, "text", pa.Array.from_buffers(pa.string(), 3, data["text"].chunk(0).buffers())),
        tmp_path / "a.parquet",
    )
    assert "Row 2 (the first is 0)" in refused(tmp_path / "a.parquet", in_memory_mib=limit)


@pytest.mark.parametrize("block", [10, 1 << 20])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('"a\n1",1\n\nb,2,3\n', "line 5: the row has 3 columns, the header has 2"),
        ("a,1\nb\n", "line 3: the row has 1 columns, the header has 2"),
        ("a,1\n\r\n" + "日本" * 2000 + "\n", "line 4: the row has 1 columns"),
        ('a,1\n"b,1\nc,1\n', "line 3: a quote is opened here and never closed"),
        ('a,1\n"b\nb",pos\n', "line 3: column 'label' is 'pos', not a whole number"),
        ("a,1\nb,0.5\n", "line 3: column 'label' is '0.5', not a whole number"),
        ("a,1\nb,NA\n", "line 3: column 'label' is 'NA', not a whole number"),
        ("a,1\nb,1_0\n", "line 3: column 'label' is '1_0', not a whole number"),
        ("a,1\nb,99999999999999999999\n", "line 3: column 'label' is '99999999999999999999', not a whole number"),
    ],
)
def test_malformed_csv_is_refused_with_its_line(tmp_path, monkeypatch, rows, message, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + rows)
    assert f"{path}, {message}" in refused(path)


@pytest.mark.parametrize("block", [10, 1 << 20])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text":"b","label":1', "not JSON (Expecting ',' delimiter: column 22"),
        ('[{"text":"b","label":1}]', "an array, but every line must be one JSON object"),
        ("7", "a single value, but every line must be one JSON object"),
        ('{"text":5,"label":1}', "column 'text' is 5, not a text"),
        ('{"text":"b","label":"pos"}', "column 'label' is 'pos', not a whole number"),
        ('{"text":"b","label":[1]}', "column 'label' is [1], not a whole number"),
        ('{"text":"b","label":0.5}', "column 'label' is 0.5, not a whole number"),
        ('{"text":"b","label":NaN}', "column 'label' is nan, not a whole number"),
        ('{"text":"\\ud83d","label":1}', "column 'text' has half of a surrogate pair"),
    ],
)
def test_malformed_json_lines_are_refused_with_the_line(tmp_path, monkeypatch, row, message, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"text":"a","label":0}}\n\n{row}\n{{"text":"a","label":0}}\n')
    assert f"{path}, line 3: {message}" in refused(path)


def test_a_compressed_file_that_was_cut_is_refused(tmp_path):
    path = write(tmp_path / "train.csv.gz", table([f"text {i * 7919 % 10007}" for i in range(5000)], [0] * 5000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be read after line" in refused(path)
    path.write_bytes(b"not compressed")
    assert "cannot be read after line 0" in refused(path)


def test_a_row_that_never_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    monkeypatch.setattr(lines, "BLOCK", 1 << 16)
    path = tmp_path / "train.csv"
    path.write_text('text,label\n"' + "never closed\n" * 1_000_000)
    assert "line 2: a row does not end within 1 MiB" in refused(path)


# --- conversion -------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    path = write(tmp_path / "train.csv")
    assert "set data.work_dir to another folder" in refused(
        path, in_memory_mib=0, work_dir=str(tmp_path / "file" / "sub")
    )


def test_a_bad_row_far_into_a_conversion_leaves_nothing_behind(tmp_path, cache):
    path = write(tmp_path / "train.csv")
    with path.open("a") as file:
        file.write("one,two,three,four\n")
    assert "the row has 4 columns" in refused(path, in_memory_mib=0)
    assert not [file for file in cache.iterdir() if not file.name.endswith(".lock")]


def test_a_conversion_that_was_killed_leaves_nothing_in_the_way(tmp_path, cache):
    path = write(tmp_path / "train.csv")
    opened(path, in_memory_mib=0)
    (converted,) = cache.glob("*.arrow")
    left = converted.with_name(f".{converted.name}.12345.unfinished")
    converted.rename(left)
    assert contents(opened(path, in_memory_mib=0)) == (TEXTS, LABELS)
    assert not left.exists()


def run(code, **environment):
    """Run code in a process of its own, which may limit itself."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path, cache):
    path = write(tmp_path / "train.csv", table(["some text"] * 50_000, [0] * 50_000))
    done = run(
        f"""
        import resource
        from bigembed.config.schema import FilesData
        from bigembed.data import open_part
        from bigembed.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            open_part(FilesData(path={str(path)!r}, in_memory_mib=0), "train", ["text"], ["label"])
        except UserError as error:
            print(error)
        """,
        XDG_CACHE_HOME=str(cache.parent),
        NUMBA_CACHE_DIR=str(tmp_path / "numba"),
    )
    assert "cannot be converted in" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert not [file for file in cache.iterdir() if not file.name.endswith(".lock")]


def _open_in_process(path, started, answers):
    started.wait()
    answers.put(opened(path, in_memory_mib=0)["text"].to_pylist())


def test_processes_that_convert_at_the_same_time_agree(tmp_path, cache):
    texts = [f"text {i}" for i in range(20_000)]
    path = write(tmp_path / "train.jsonl", table(texts, [0] * len(texts)))
    context = multiprocessing.get_context("spawn")
    started, answers = context.Event(), context.Queue()
    processes = [context.Process(target=_open_in_process, args=(path, started, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    started.set()
    assert all(answers.get(timeout=60) == texts for _ in processes)
    for process in processes:
        process.join()
    assert len(list(cache.glob("*.arrow"))) == 1


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_conversion_takes_little_memory(tmp_path, cache, ending):
    words = np.random.default_rng(0).integers(0, 1 << 62, (10_000, 100)).astype(str)
    data = pa.concat_tables([table([" ".join(row) for row in words], [0] * len(words))] * 12)  # 230 MB
    path = tmp_path / f"train.{ending}"
    if ending == "parquet":
        pq.write_table(data, path, use_dictionary=False)
    else:
        head, body = write(path, data.slice(0, len(words))).read_bytes().split(b"\n", 1)
        path.write_bytes(head + b"\n" + body * 12 if ending == "csv" else (head + b"\n" + body) * 12)
    done = run(
        f"""
        import resource
        from pathlib import Path
        from bigembed.config.schema import FilesData
        from bigembed.data import open_part
        small = Path({str(tmp_path)!r}) / "small.csv"
        small.write_text("text,label\\na,1\\n")
        wished = ["text"], ["label"]
        open_part(FilesData(path=str(small), in_memory_mib=0), "train", *wished)  # whatever is loaded and compiled once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = open_part(FilesData(path={str(path)!r}, in_memory_mib=0), "train", *wished).num_rows
        print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
        """,
        XDG_CACHE_HOME=str(cache.parent),
    )
    rows, mib = map(int, done.stdout.split())
    assert rows == len(data)
    assert mib < 120
    assert opened(path, in_memory_mib=0).equals(opened(path, work_dir=str(tmp_path / "none")))


def test_what_takes_long_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lines, "BLOCK", 1000)
    path = write(tmp_path / "train.csv", table(["some text"] * 2000, [0] * 2000))
    clock = iter(range(10**6))
    monkeypatch.setattr(converted.time, "monotonic", lambda: float(next(clock)))
    told = []
    open_part(FilesData(path=str(path)), "train", ["text"], ["label"], say=told.append)
    assert told
    assert all(line.startswith(f"reading {path}: ") and line.endswith(" MiB") for line in told)
    with caplog.at_level(logging.INFO, "bigembed.data.files"):
        opened(path, in_memory_mib=0)
    assert "converting" in caplog.text


# --- no heavy imports, and real data ----------------------------------------------------------------------------------


def test_nothing_heavy_is_imported():
    done = run("import sys, bigembed.data; print({'torch', 'datasets', 'pandas'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_real_reviews_are_read_fast(data_dir):
    started = time.perf_counter()
    parts = open_data(FilesData(path=str(data_dir / "imdb")), ["text"], ["label"])
    assert time.perf_counter() - started < 2.0
    assert parts.train.num_rows == parts.test.num_rows == 25_000
    assert parts.train["label"].value_counts().field("counts").to_pylist() == [12_500, 12_500]
