"""Arrays of vectors, .npy and safetensors: the numbers that numpy and the library read, with the words that lie beside them."""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bigembed.errors import UserError
from bigembed.vectors import array_source, word_lists
from bigembed.vectors.arrays import (
    begins_npy,
    begins_safetensors,
    open_npy,
    open_safetensors,
    write_numpy,
    write_safetensors,
    write_words,
)
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.source import Source
from bigembed.vectors.streams import open_stream

ROWS = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
WORDS = [f"wörd {number}" for number in range(30)]


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_of(header: str) -> bytes:
    """A .npy file with any header, and some numbers."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + ROWS.tobytes()


def opened(content: bytes, path: Path, word_list: str | None = None) -> Source:
    path.write_bytes(content)
    stream = open_stream(str(path))
    with stream.open() as reader:
        head = reader.read(1 << 12)
    if begins_npy(head, stream):
        assert not begins_safetensors(head, stream)
        return open_npy(stream, word_list)
    assert begins_safetensors(head, stream)
    return open_safetensors(stream, word_list)


def taken(source: Source) -> tuple[list[bytes] | None, np.ndarray]:
    """All words and rows, the blocks checked for what they promise."""
    words, rows = list[bytes](), [np.empty((0, source.dim), np.float32)]
    for block in source.blocks():
        assert block.first == sum(map(len, rows)) and (block.words is not None) == source.has_words
        assert block.rows.dtype == np.float32 and block.rows.flags.c_contiguous and np.isfinite(block.rows).all()
        if block.words is not None:
            block.words.validate(full=True)
            assert len(block.words) == len(block.rows)
            words += block.words.to_pylist()
        rows.append(block.rows)
    assert sum(map(len, rows)) == source.count and source.dictionary is None
    assert [word for part in source.words() for word in part.to_pylist()] == words
    return (words if source.has_words else None), np.concatenate(rows)


def refused(content: bytes, path: Path, word_list: str | None = None) -> str:
    """The sentence by which a file is refused."""
    with pytest.raises(UserError) as caught:
        taken(opened(content, path, word_list))
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence.replace(str(path), "PATH")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vecto/npy/test.npy", [b"the", b"apple", b"banana", b"fast", b"quick"]),
        ("gensim/word2vec_pre_kv_sep_py3.syn0.npy", None),
        ("gensim/doc2vec_old_sep.syn1neg.npy", None),
    ],
)
def test_real_files_read_as_numpy_reads_them(name: str, words: list[bytes] | None, data_dir: Path) -> None:
    path = data_dir / "vectors" / name
    source = open_npy(open_stream(str(path)))
    assert source.format == "numpy" and source.size == path.stat().st_size
    found, rows = taken(source)
    assert found == words and (rows == np.load(path).astype(np.float32)).all()
    assert source.consumed == source.size


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("packed", [False, True])
def test_npy_of_any_floats_is_read(
    dtype: str, version: tuple[int, int], packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = ROWS.astype(dtype)
    content = npy(array, version)
    for block in (1 << 22, 100, 1):
        monkeypatch.setattr(array_source, "BLOCK", block)
        source = opened(gzip.compress(content) if packed else content, tmp_path / "a.npy")
        words, rows = taken(source)
        assert words is None and rows.tobytes() == array.astype(np.float32).tobytes()
    assert source.details == {"numbers": array.dtype.name} | ({"compression": "gz"} if packed else {})


def test_npy_of_python_2_and_of_no_rows_is_read(tmp_path: Path) -> None:
    old = npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (30L, 5L), }")
    assert (taken(opened(old, tmp_path / "a.npy"))[1] == ROWS).all()
    source = opened(npy(ROWS[:0]), tmp_path / "a.npy")
    assert (source.count, source.dim) == (0, 5) and list(source.blocks()) == []


def bfloat16(rows: np.ndarray) -> bytes:
    """The upper halves of float32."""
    return (rows.view(np.uint32) >> 16).astype("<u2").tobytes()


def tensors(entries: dict[str, tuple[str, list[int], bytes]], **meta: str) -> bytes:
    """A safetensors file: its header by hand."""
    header, place = dict[str, Any](), 0
    for name, (dtype, shape, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(data)]}
        place += len(data)
    text = json.dumps(header | ({"__metadata__": meta} if meta else {})).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in entries.values())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("packed", [False, True])
def test_safetensors_of_the_library_are_read(dtype: type, packed: bool, tmp_path: Path) -> None:
    # The library sorts by type and name: the table is neither the first nor the last.
    content = save(
        {"bias": ROWS[0], "some.table": ROWS.astype(dtype), "ids": np.arange(4), "wide": np.ones((2, 2), int)}
    )
    source = opened(gzip.compress(content) if packed else content, tmp_path / "a.safetensors")
    assert source.format == "safetensors" and source.details["tensor"] == "some.table"
    assert (taken(source)[1] == ROWS.astype(dtype).astype(np.float32)).all()


def test_bfloat16_is_read(tmp_path: Path) -> None:
    source = opened(tensors({"x": ("BF16", [30, 5], bfloat16(ROWS))}, format="pt"), tmp_path / "a.safetensors")
    expected = (ROWS.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert (taken(source)[1] == expected).all() and source.details["numbers"] == "bfloat16"


@pytest.mark.parametrize("name", ["embedding", "embeddings", "embedding.weight", "weight", "vectors"])
def test_of_several_tables_the_one_with_a_usual_name_is_meant(name: str, tmp_path: Path) -> None:
    source = opened(save({"a": ROWS + 1, name: ROWS, "z": ROWS + 2}), tmp_path / "a.safetensors")
    assert (taken(source)[1] == ROWS).all()


def test_a_table_that_is_not_clear_is_refused_with_the_names(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for names in (["first", "second"], ["weight", "embedding"]):
        sentence = refused(save(dict.fromkeys(names, ROWS)), path)
        assert all(f"{name} (F32, [30, 5])" in sentence for name in names) and "save it alone" in sentence
    assert "bias (F32, [5])" in refused(save({"bias": ROWS[0]}), path)
    assert "there are: none" in refused(tensors({}), path)
    assert "; …" in refused(save({f"t{number}": ROWS[:1] for number in range(20)}), path)


@pytest.mark.parametrize("form", ["npy", "safetensors"])
def test_what_is_written_is_read_with_its_words(form: str, tmp_path: Path) -> None:
    vectors = Vectors(ROWS, range(30), pa.array(WORDS))
    writer = {"npy": write_numpy, "safetensors": write_safetensors}[form]
    path = tmp_path / f"a.{form}"
    (tmp_path / f"a.{form}.words.txt").write_bytes(b"".join(write_words(vectors)))
    source = opened(b"".join(map(bytes, writer(vectors))), path)
    words, rows = taken(source)
    assert words == [word.encode() for word in WORDS] and (rows == ROWS).all()
    assert source.details["words"] == f"{path}.words.txt"


LIST = b"".join(b"w%d\n" % number for number in range(30))
PLAIN = LIST.split()


@pytest.mark.parametrize("name", ["a.npy.words.txt", "a.vocab", "a.txt", "a.words"])
def test_words_beside_the_array_are_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LIST)
    assert taken(opened(npy(ROWS), tmp_path / "a.npy"))[0] == PLAIN
    (tmp_path / name).rename(tmp_path / "else")
    assert taken(opened(npy(ROWS), tmp_path / "a.npy"))[0] is None
    assert taken(opened(npy(ROWS), tmp_path / "a.npy", str(tmp_path / "else")))[0] == PLAIN


def test_words_beside_a_packed_array_are_found_and_in_an_archive_only_named(tmp_path: Path) -> None:
    (tmp_path / "a.vocab").write_bytes(LIST)
    assert taken(opened(gzip.compress(npy(ROWS)), tmp_path / "a.npy.gz"))[0] == PLAIN
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.npy", npy(ROWS))
        archive.writestr("list", LIST)
    stream = open_stream(f"{tmp_path}/a.zip::a.npy")
    assert taken(open_npy(stream))[0] is None
    assert taken(open_npy(stream, f"{tmp_path}/a.zip::list"))[0] == PLAIN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a\nb\nc\n", [b"a", b"b", b"c"]),
        (b"a\nb\nc", [b"a", b"b", b"c"]),
        (b"a\r\n\r\nc d \r\n", [b"a", b"", b"c d "]),
        (b"a 3\nb c 2\n\xff\t 17\n", [b"a", b"b c", b"\xff"]),  # counts, in every line
        (b"a 3\nb\nc 4\n", [b"a 3", b"b", b"c 4"]),
        (b"1\n2\n3\n", [b"1", b"2", b"3"]),
        (b" 1\nb 2\nc 3\n", [b" 1", b"b 2", b"c 3"]),
        (b"a\r3\nb 2\nc 3\n", [b"a\r3", b"b 2", b"c 3"]),
    ],
)
def test_a_word_list_has_a_word_a_line_and_maybe_counts(text: bytes, words: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "a.vocab").write_bytes(text)
    assert taken(opened(npy(ROWS[:3]), tmp_path / "a.npy"))[0] == words


def test_words_of_our_own_keep_numbers_behind_them(tmp_path: Path) -> None:
    (tmp_path / "a.npy.words.txt").write_bytes(b"area 51\n")
    assert taken(opened(npy(ROWS[:1]), tmp_path / "a.npy"))[0] == [b"area 51"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.binary(max_size=9), min_size=1, max_size=30), size=st.integers(11, 60))
def test_any_word_list_reads_as_its_lines(words: list[bytes], size: int, tmp_path: Path) -> None:
    words = [
        b"w",
        *(word.replace(b"\n", b"").rstrip(b"\r") for word in words),
    ]  # a first one may look like a packed file
    path = tmp_path / "a.npy.words.txt"
    path.write_bytes(b"".join(word + b"\n" for word in words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_lists, "CHUNK", size)
        assert taken(opened(npy(np.ones((len(words), 2), np.float32)), tmp_path / "a.npy"))[0] == words


def test_a_word_list_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.npy", tmp_path / "a.txt"
    for text, said in [
        (LIST + b"more\n", "a.txt has more than 30 lines, but PATH has 30 rows"),
        (LIST[:-4], "a.txt has 29 lines, but PATH has 30 rows"),
        (b"", "a.txt has 0 lines"),
    ]:
        beside.write_bytes(text)
        sentence = refused(npy(ROWS), path)
        assert said in sentence and "word_list=" in sentence
    assert "no such file" in refused_list(npy(ROWS), path, str(tmp_path / "none")).lower()


def refused_list(content: bytes, path: Path, word_list: str) -> str:
    with pytest.raises(UserError) as caught:
        opened(content, path, word_list)
    return str(caught.value)


def test_vectors_in_text_are_no_word_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"w{number} 0.1 -0.2 3.5e-3\n" for number in range(30)))
    sentence = refused_list(npy(ROWS), tmp_path / "a.npy", str(tmp_path / "a.txt"))
    assert "holds vectors and not words alone" in sentence and "word_list=" in sentence


def test_a_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LIST.replace(b"w20\n", b"w" * 70_000 + b"\n"))
    assert "longer than 65,536 bytes" in refused_list(npy(ROWS), tmp_path / "a.npy", str(tmp_path / "list"))
    (tmp_path / "list").write_bytes(b"w" * 3_000_000)
    assert "longer than 65,536 bytes" in refused_list(npy(ROWS), tmp_path / "a.npy", str(tmp_path / "list"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(np.asfortranarray(ROWS)), "column by column"),
        (npy(ROWS[0]), "array of shape (5,)"),
        (npy(ROWS.reshape(3, 10, 5)), "array of shape (3, 10, 5)"),
        (npy(ROWS.astype(int)), "numbers of the type '<i8'"),
        (npy(ROWS > 0), "numbers of the type '|b1'"),
        (npy(ROWS.astype(complex)), "numbers of the type '<c16'"),
        (npy(np.zeros(3, [("word", "S4"), ("vector", "f4", 5)])), "numbers of the type"),
        (npy(ROWS[:, :0]), "array of shape (30, 0)"),
        (npy(ROWS)[:-1], "it was cut"),
        (npy(ROWS)[:-40], "it was cut"),
        (npy(ROWS) + b"\0", "goes on at byte 728"),
        (npy(ROWS)[:20], "cannot be read"),
        (npy(ROWS)[:8], "cannot be read"),
        (b"\x93NUMPY\x09\x00" + npy(ROWS)[8:], "cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + npy(ROWS)[12:], "cannot be read"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 5), }"), "it was cut"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000), }"), "array of shape"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5), }"), "cannot be read"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 5), }"), "cannot be read"),
        (npy_of("{'descr': '<f4', 'fortran_order': 0, 'shape': (30, 5), }"), "cannot be read"),
        (npy_of("{'descr': '<f4', 'shape': (30, 5), }"), "cannot be read"),
        (npy_of("{'descr': '<f4\\d', 'fortran_order': False, 'shape': (30, 5), }"), "cannot be read"),
        (npy_of("[" * 5000), "cannot be read"),
        (npy_of("-" * 60_000 + "1"), "cannot be read"),
        (npy_of("__import__('os').system('true')"), "cannot be read"),
    ],
)
def test_npy_that_is_no_table_of_floats_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(content, tmp_path / "a.npy")


def test_npy_of_objects_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([["a", 1]], object))
    assert "numbers of the type '|O'" in refused(path.read_bytes(), path)


@pytest.mark.parametrize(
    ("dtype", "number"), [("<f4", np.nan), ("<f2", np.inf), ("<f8", -np.inf), ("<f8", 1e39), (">f4", np.inf)]
)
def test_a_number_that_is_not_finite_is_refused_with_its_row(dtype: str, number: float, tmp_path: Path) -> None:
    array = ROWS.astype(dtype)
    array[17, 3] = number
    place = 128 + 17 * 5 * array.itemsize
    assert f"row 18, at byte {place}, holds a number that is not finite" in refused(npy(array), tmp_path / "a.npy")


def damaged_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    entry: dict[str, Any] = {"dtype": "F32", "shape": [30, 5], "data_offsets": [0, 600]}
    header = {"x": entry}
    text = json.dumps(change(entry) or header).encode()
    return struct.pack("<Q", len(text)) + text + ROWS.tobytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (save({"x": ROWS})[:-1], "it was cut"),
        (save({"x": ROWS}) + b"\0", "says that it ends at byte"),
        (save({"x": ROWS})[:30], "cannot be read"),
        (struct.pack("<Q", 1 << 26) + save({"x": ROWS})[8:], "is to take 67,108,864 bytes"),
        (damaged_header(lambda entry: entry.update(shape=[30, 6])), "cannot be read"),
        (damaged_header(lambda entry: entry.update(shape=[10**9, 10**9])), "cannot be read"),
        (damaged_header(lambda entry: entry.update(shape=[-30, -5])), "cannot be read"),
        (damaged_header(lambda entry: entry.update(shape="30")), "cannot be read"),
        (damaged_header(lambda entry: entry.update(dtype=None)), "cannot be read"),
        (damaged_header(lambda entry: entry.update(data_offsets=[600, 0])), "cannot be read"),
        (damaged_header(lambda entry: entry.update(data_offsets=[0.0, 600.0])), "cannot be read"),
        (damaged_header(lambda entry: entry.update(data_offsets=[4, 604])), "gap at byte 0"),
        (damaged_header(lambda entry: {"x": entry, "y": entry}), "overlap"),
        (damaged_header(lambda entry: {"x": 1}), "cannot be read"),
        (damaged_header(lambda entry: {"x": entry, "y": {**entry, "data_offsets": [600, 1200]}}), "it was cut"),
    ],
)
def test_damaged_safetensors_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    sentence = refused(content.ljust(40), tmp_path / "a.safetensors")
    assert said in sentence


@pytest.mark.parametrize("form", ["npy", "safetensors"])
def test_a_packed_file_that_promises_much_takes_little_memory(form: str, tmp_path: Path) -> None:
    count = 2_000_000
    entry = {"dtype": "F32", "shape": [count, 30], "data_offsets": [0, 120 * count]}
    text = json.dumps({"x": entry}).encode()
    content = {
        "npy": npy_of(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 30), }}"),
        "safetensors": struct.pack("<Q", len(text)) + text + ROWS.tobytes(),
    }[form]
    (tmp_path / "a").write_bytes(gzip.compress(content))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"ends at byte \d+, in row 6 of 2,000,000: it was cut"):
        taken(opened(gzip.compress(content), tmp_path / "a"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(["npy", "safetensors"]))
def test_a_damaged_file_is_refused_or_read_as_the_peers_read_it(data: st.DataObject, form: str, tmp_path: Path) -> None:
    content = bytearray(npy(ROWS[:4]) if form == "npy" else save({"embedding": ROWS[:4], "bias": ROWS[0]}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(9, len(content)))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path = tmp_path / f"a.{form}"
    path.write_bytes(content)
    stream = open_stream(str(path))
    try:
        rows = taken((open_npy if form == "npy" else open_safetensors)(stream))[1]
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return
    if form == "npy":
        peers = np.load(path, allow_pickle=False).astype(np.float32)
        assert peers.tobytes() == rows.tobytes()
    else:
        assert rows.tobytes() in bytes(content) or rows.size < 20  # a smaller type may be said now
