"""Parquet: what pyarrow writes is read, what we write pyarrow reads, and what would take the memory or the process is refused."""

import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.vectors import parquet, parquet_columns, parquet_pages
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.parquet import begins, open_parquet, write_parquet
from bigembed.vectors.source import Source
from bigembed.vectors.streams import open_stream

ROWS = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
WORDS = [f"wörd{number % 30}" * (number % 4) for number in range(40)]  # some twice, some empty
LISTS = pa.array(ROWS.tolist(), pa.list_(pa.float32()))


def file_of(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def opened(content: bytes, path: Path) -> Source:
    path.write_bytes(content)
    stream = open_stream(str(path))
    assert begins(content[:100], stream)
    return open_parquet(stream)


def taken(source: Source) -> tuple[list[str] | None, np.ndarray]:
    """All words and rows, the blocks checked for what they promise."""
    words, rows = list[bytes](), [np.empty((0, source.dim), np.float32)]
    for block in source.blocks():
        assert block.first == sum(map(len, rows)) and (block.words is not None) == source.has_words
        assert block.rows.dtype == np.float32 and block.rows.flags.c_contiguous and np.isfinite(block.rows).all()
        if block.words is not None:
            block.words.validate(full=True)
            assert block.words.type == pa.binary() and len(block.words) == len(block.rows)
            words += block.words.to_pylist()
        rows.append(block.rows)
    assert sum(map(len, rows)) == source.count and source.consumed in (0, source.size)
    assert [word for part in source.words() for word in part.to_pylist()] == words
    return ([word.decode() for word in words] if source.has_words else None), np.concatenate(rows)


def refused(content: bytes, path: Path) -> str:
    """The sentence by which a file is refused."""
    with pytest.raises(UserError) as caught:
        taken(opened(content, path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "\n" not in sentence
    return sentence.removeprefix(str(path))


KINDS = {
    "list": pa.list_(pa.float32()),
    "large list": pa.large_list(pa.float32()),
    "fixed list": pa.list_(pa.float32(), 5),
    "list of float64": pa.list_(pa.float64()),
    "fixed list of float16": pa.list_(pa.float16(), 5),
}
WRITTEN: dict[str, dict[str, Any]] = {
    "as usual": {},
    "without dictionary": {"use_dictionary": False, "compression": "none"},
    "version 2 pages": {"data_page_version": "2.0", "compression": "zstd"},
    "small pages and row groups": {"data_page_size": 64, "row_group_size": 7, "write_batch_size": 3},
    "a dictionary that fills up": {"dictionary_pagesize_limit": 40, "data_page_size": 64, "write_batch_size": 3},
    "stream split": {"use_dictionary": ["w"], "use_byte_stream_split": True, "compression": "gzip"},
    "with indexes and checksums": {"write_page_index": True, "write_page_checksum": True},
    "without Arrow's schema": {"store_schema": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", WRITTEN)
def test_lists_of_any_floats_are_read(kind: str, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = pa.array(ROWS.astype(np.float16 if "float16" in kind else np.float32).tolist(), KINDS[kind])
    content = file_of(pa.table({"v": lists, "n": range(40), "w": WORDS}), **WRITTEN[options])
    expected = np.array(lists.to_pylist(), np.float32)
    for rows in (1 << 15, 3, 1):
        monkeypatch.setattr(parquet, "ROWS", rows)
        source = opened(content, tmp_path / "a.parquet")
        assert (source.format, source.count, source.dim) == ("parquet", 40, 5)
        words, found = taken(source)
        assert words == WORDS and (found == expected).all()
    assert source.details == {"columns": ["w", "v"]}


@pytest.mark.parametrize("options", WRITTEN)
@pytest.mark.parametrize("width", [1, 5, 40])
def test_columns_of_a_number_each_are_read(
    options: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.random.default_rng(1).normal(size=(40, width)).astype(np.float32)
    columns = {f"c{column}": wide[:, column].astype([np.float32, np.float64][column % 2]) for column in range(width)}
    content = file_of(pa.table({"w": WORDS, **columns, "n": range(40)}), **WRITTEN[options])
    for rows in (1 << 15, 3):
        monkeypatch.setattr(parquet, "ROWS", rows)
        words, found = taken(opened(content, tmp_path / "a.parquet"))
        assert words == WORDS and (found == wide).all()


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int16(), pa.string())],
    ids=str,
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_words_of_any_kind_of_text_are_read(kind: pa.DataType, dictionary: bool, tmp_path: Path) -> None:
    content = file_of(pa.table({"w": pa.array(WORDS, kind), "v": LISTS}), use_dictionary=dictionary)
    assert taken(opened(content, tmp_path / "a.parquet"))[0] == WORDS


def test_a_file_without_words_or_rows_is_read(tmp_path: Path) -> None:
    source = opened(file_of(pa.table({"v": LISTS})), tmp_path / "a.parquet")
    words, rows = taken(source)
    assert words is None and not source.has_words and (rows == ROWS).all()
    none = pa.table({"w": pa.array([], pa.string()), "v": LISTS[:0].cast(pa.list_(pa.float32(), 5))})
    source = opened(file_of(none), tmp_path / "a.parquet")
    assert (source.count, source.dim) == (0, 5) and taken(source)[0] == []


@pytest.mark.parametrize("group", [1 << 24, 100])
def test_what_is_written_pyarrow_and_we_read(group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", group)
    monkeypatch.setattr("bigembed.vectors.blocks.BLOCK_BYTES", 3 * 20)
    path = tmp_path / "a.parquet"
    for words in (pa.array(WORDS), pa.array(["x", *WORDS], pa.large_string())[1:], None):
        content = b"".join(write_parquet(Vectors(ROWS, range(40), words)))
        again, rows = taken(opened(content, path))
        assert again == (words and words.to_pylist()) and rows.tobytes() == ROWS.tobytes()
        table = pq.read_table(path)
        assert table.column_names == (["vector"] if words is None else ["word", "vector"])
        assert table.schema.field("vector").type.list_size == 5 and table["vector"].to_pylist() == ROWS.tolist()
        assert words is None or table["word"].to_pylist() == WORDS
        assert pq.read_metadata(path).num_row_groups == (1 if group > 1000 else 7)
    content = b"".join(write_parquet(Vectors(ROWS[:0], range(0), None)))
    assert opened(content, path).dim == 5


def test_the_file_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 4000)
    monkeypatch.setattr("bigembed.vectors.blocks.BLOCK_BYTES", 2000)
    rows = np.ones((1000, 5), np.float32)
    parts = list(write_parquet(Vectors(rows, range(1000), None)))
    assert len(parts) > 10 and max(map(len, parts)) < 8000 and sum(map(len, parts)) > rows.nbytes


def test_of_several_columns_those_with_usual_names_are_meant(tmp_path: Path) -> None:
    other = pa.array([["x"]] * 40)
    table = pa.table({"language": WORDS[::-1], "Word": WORDS, "norms": LISTS, "embedding": LISTS, "tags": other})
    words, rows = taken(opened(file_of(table), tmp_path / "a.parquet"))
    assert words == WORDS and (rows == ROWS).all()


NAMED = "does not tell which columns are meant"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"w": WORDS, "n": range(40)}, f"{NAMED}.*w \\(string\\), n \\(int64\\)"),
        ({"a": WORDS, "b": WORDS, "v": LISTS}, f"{NAMED}.*a \\(string\\), b \\(string\\), v \\(list"),
        ({"w": WORDS, "a": LISTS, "b": LISTS}, NAMED),
        ({"w": WORDS, "v": LISTS.cast(pa.list_(pa.int32()), safe=False)}, NAMED),
        ({"w": WORDS, "v": pa.array([[[1.0]]] * 40)}, NAMED),
        ({f"c{number}": range(40) for number in range(30)}, "c11 \\(int64\\), …"),
    ],
)
def test_columns_that_are_not_clear_are_refused_with_their_names(
    columns: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        opened(file_of(pa.table(columns)), tmp_path / "a.parquet")


def test_a_name_that_stands_for_several_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    dotted = {"w": WORDS, **{f"c.{number}": ROWS[:, number] for number in range(5)}}
    assert (taken(opened(file_of(pa.table(dotted)), path))[1] == ROWS).all()
    assert "several columns by the name 'c.1', or below it" in refused(
        file_of(pa.table({**dotted, "c.1.x": range(40)})), path
    )
    twice = pa.Table.from_arrays([pa.array(ROWS[:, 0]), pa.array(ROWS[:, 1])], ["a", "a"])
    assert NAMED in refused(file_of(twice), path)


def changed(row: int, value: Any) -> pa.Array:
    return pa.array([value if number == row else vector for number, vector in enumerate(ROWS.tolist())])


GAPS = pa.array([*WORDS[:20], None, *WORDS[21:]])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"w": WORDS, "v": changed(17, [1.0, 2.0])}, "differ in width, or some are missing"),
        ({"w": WORDS, "v": changed(17, None)}, "differ in width, or some are missing"),
        ({"w": WORDS, "v": changed(17, [1.0, None, 2.0, 3.0, 4.0])}, "rows 1 to 40 has no vector, or one with a gap"),
        (
            {"w": WORDS, "v": changed(17, [1.0, float("nan"), 2.0, 3.0, 4.0])},
            "row 18 holds a number that is not finite",
        ),
        ({"w": WORDS, "v": changed(17, [1.0, 1e39, 2.0, 3.0, 4.0])}, "row 18 holds a number that is not finite"),
        ({"w": GAPS, "v": LISTS}, "rows 1 to 40 has no word"),
        ({"w": WORDS, "c": [*ROWS[:39, 0].tolist(), None]}, "has a gap"),
        ({"w": ["x" * 70_000] * 40, "v": LISTS}, "has a word of more than 65,536 bytes"),
        ({"w": WORDS, "v": pa.array([[]] * 40, pa.list_(pa.float32()))}, "row 1 has 0 numbers, where 1 "),
        ({"w": WORDS[:0], "v": LISTS[:0]}, "holds no vectors, so that their width is unknown"),
    ],
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_rows_that_are_no_vectors_are_refused(
    columns: dict[str, Any], said: str, dictionary: bool, tmp_path: Path
) -> None:
    content = file_of(pa.table(columns), use_dictionary=dictionary)
    with pytest.raises(UserError, match=said):
        taken(opened(content, tmp_path / "a.parquet"))


def test_lists_that_differ_in_width_are_refused_even_if_as_many_on_average(tmp_path: Path) -> None:
    lists = ROWS.tolist()
    lists[7], lists[30] = lists[7][:4], [*lists[30], 1.0]
    assert "row 8 has 4 numbers, where 5 are expected" in refused(
        file_of(pa.table({"w": WORDS, "v": lists})), tmp_path / "a.parquet"
    )


def test_parquet_inside_of_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(file_of(pa.table({"w": WORDS, "v": LISTS}))))
    with pytest.raises(UserError, match=r"Parquet inside of gz, .* unpack it first"):
        open_parquet(open_stream(str(path)))


def test_few_bytes_that_stand_for_many_numbers_are_refused(tmp_path: Path) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(20_000_000, np.float32)), 100)
    content = file_of(pa.table({"v": zeros}))
    assert len(content) < 200_000
    tracemalloc.start()
    assert "20,000,000 numbers stand in" in refused(content, tmp_path / "a.parquet")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_pages_and_words_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, path = pa.table({"w": [f"{number:04}" * 9 for number in range(40)], "v": LISTS}), tmp_path / "a.parquet"
    content = file_of(table, use_dictionary=False)
    monkeypatch.setattr(parquet_columns, "LARGEST", 300)
    assert "more than the 300 that are unpacked at once" in refused(content, path)
    monkeypatch.setattr(parquet_columns, "LARGEST", 1200)
    small = file_of(table, use_dictionary=False, data_page_size=64, write_batch_size=3)
    assert "the words of a row group take" in refused(small, path)
    monkeypatch.setattr(parquet_columns, "LARGEST", 1 << 20)
    monkeypatch.setattr(parquet_pages, "FOOTER", 100)
    assert "its list of columns takes" in refused(content, path)


def test_long_words_in_a_dictionary_make_blocks_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_columns, "BLOCK_WORD_BYTES", 1000)
    words = [["short", "long" * 50][number % 2] for number in range(40)]
    for dictionary, most in ((True, 5), (False, 40)):
        source = opened(file_of(pa.table({"w": words, "v": LISTS}), use_dictionary=dictionary), tmp_path / "a.parquet")
        assert max(len(block.rows) for block in source.blocks()) == most
        assert taken(source)[0] == words


def test_words_told_by_the_one_before_are_refused(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        content = file_of(
            pa.table({"w": WORDS, "v": LISTS}),
            use_dictionary=False,
            column_encoding={"w": "DELTA_BYTE_ARRAY"},
            data_page_version=version,
        )
        assert "encoding DELTA_BYTE_ARRAY" in refused(content, tmp_path / "a.parquet")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = b"".join(write_parquet(Vectors(ROWS, range(40), pa.array(WORDS))))
    for end in range(4, len(content), 13):
        assert "it was cut" in refused(content[:end], tmp_path / "a.parquet")


def test_a_flipped_bit_of_what_we_wrote_is_found(tmp_path: Path) -> None:
    content = b"".join(write_parquet(Vectors(ROWS, range(40), pa.array(WORDS))))
    start = content.index(ROWS.tobytes()[:20])
    damaged = bytearray(content)
    damaged[start + 333] ^= 1
    assert "cannot be read as Parquet: could not verify page" in refused(bytes(damaged), tmp_path / "a.parquet")


SAMPLES = [
    b"".join(write_parquet(Vectors(ROWS, range(40), pa.array(WORDS)))),
    file_of(pa.table({"w": WORDS, "v": LISTS}), data_page_version="2.0", use_dictionary=False, compression="none"),
    file_of(pa.table({"w": WORDS, "a": ROWS[:, 0], "b": ROWS[:, 1]}), row_group_size=11, compression="zstd"),
]
# A crash ends the process, so files are opened in another one.
OPEN = """
import json, resource, sys
import pyarrow.compute, numba  # which take address space of their own
from bigembed.errors import UserError
from bigembed.vectors.parquet import open_parquet
from bigembed.vectors.streams import open_stream
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in map(str.strip, sys.stdin):
    try:
        source, rows = open_parquet(open_stream(path)), 0
        for block in source.blocks():
            assert block.first == rows and block.rows.shape[1] == source.dim
            assert block.words is None or len(block.words) == len(block.rows)
            rows += len(block.rows)
        assert rows == source.count
        print("read", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    except UserError as error:
        assert path in str(error) and "\\n" not in str(error)
        print("refused", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def damaged(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    content = bytearray(SAMPLES[seed % len(SAMPLES)])
    for _ in range(random.integers(1, 4)):
        tail = random.random() < 0.5  # what the end says does most harm
        place = int(random.integers(len(content) - 700 if tail else 4, len(content)))
        some = random.bytes(int(random.integers(0, 6)))
        content[place : place + int(random.integers(0, 6))] = [some, b"\xff\xff\xff\xff\x07", b"\0"][random.integers(3)]
    return bytes(content)


def test_damaged_files_are_read_or_refused_and_end_no_process(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.parquet" for seed in range(250)]
    for seed, path in enumerate(paths):
        path.write_bytes(damaged(seed))
    (tmp_path / "whole.parquet").write_bytes(SAMPLES[0])
    names = "\n".join(map(str, [tmp_path / "whole.parquet", *paths]))
    done = subprocess.run([sys.executable, "-c", OPEN], input=names, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 251 and lines[0][0] == "read"
    assert sum(what == "refused" for what, _ in lines) > 120
    assert int(lines[-1][1]) - int(lines[0][1]) < 64  # MB


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_of_columns_or_refused(data: bytes) -> None:
    file = io.BytesIO(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
    try:
        for rows, chunks in parquet_pages.row_groups(file, "f"):
            assert rows >= 0 and all(chunk.start <= chunk.end <= 12 + len(data) for chunk in chunks)
    except UserError as error:
        assert "list of columns" in str(error)


def test_a_list_of_columns_is_what_pyarrow_says() -> None:
    for sample in SAMPLES:
        footer = pq.read_metadata(io.BytesIO(sample))
        groups = parquet_pages.row_groups(io.BytesIO(sample), "f")
        assert len(groups) == footer.num_row_groups
        for number, (rows, chunks) in enumerate(groups):
            group = footer.row_group(number)
            assert rows == group.num_rows and len(chunks) == group.num_columns
            for place, chunk in enumerate(chunks):
                column = group.column(place)
                assert chunk.values == column.num_values
                assert chunk.end - chunk.start == column.total_compressed_size
                assert chunk.start == (column.dictionary_page_offset or column.data_page_offset)
                assert parquet_pages.look_at(io.BytesIO(sample), chunk, 1 << 20, "f") <= column.total_uncompressed_size


GROWTH = """
import json, sys
from bigembed.vectors.parquet import open_parquet
from bigembed.vectors.streams import open_stream

def own_memory():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) << 10

found = []
for path in sys.argv[1:]:
    before = peak = own_memory()
    for block in open_parquet(open_stream(path)).blocks():
        peak = max(peak, own_memory())
    found.append(peak - before)
print(json.dumps(found))
"""


def test_memory_stays_bounded_in_one_large_row_group(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).random((100_000, 256), np.float32)  # 102 MB
    lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), 256)
    words = pa.array(map(str, range(100_000)))
    pq.write_table(pa.table({"w": words, "v": lists}), tmp_path / "lists", use_dictionary=["w"])
    wide = pa.table({"w": words, **{str(column): numbers[:, column] for column in range(256)}})
    pq.write_table(wide, tmp_path / "wide", use_dictionary=False)
    paths = [tmp_path / "lists", tmp_path / "wide"]
    done = subprocess.run([sys.executable, "-c", GROWTH, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)) < 150e6
    assert all(path.stat().st_size > 95e6 for path in paths)
