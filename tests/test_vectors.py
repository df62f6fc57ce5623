"""Files of vectors: read back by readers of their own, bit for bit, and written without much memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from bigembed import vectors
from bigembed.errors import UserError
from bigembed.vectors import WRITERS, arrays, blocks, write_words
from bigembed.vectors.blocks import Vectors, words_path
from bigembed.vectors.word2vec import write_binary, write_text

WORD2VEC = ["word2vec", "word2vec-binary"]
ODD_WORDS = [
    '"',
    '"quoted"',
    "'",
    ",",
    "a,b",
    "naïve",
    "日本語",
    "🙂",
    "\u200b",
    "a\0b",
    "#",
    "%d",
    "\\n",
    "1.5",
    "nan",
    "</s>",
]


def written(vectors: Vectors, form: str, path: Path) -> bytes:
    """What a writer writes, also put into a file."""
    content = b"".join(bytes(part) for part in WRITERS[form](vectors))
    path.write_bytes(content)
    return content


def read_text(content: bytes) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a word2vec text file."""
    header, *lines = content.decode().split("\n")
    assert lines.pop() == ""
    count, width = map(int, header.split(" "))
    words, rows = [], np.empty((count, width), np.float32)
    assert len(lines) == count
    for row, line in zip(rows, lines, strict=True):
        word, *numbers = line.split(" ")
        words.append(word)
        assert len(numbers) == width
        row[:] = [np.float32(number) for number in numbers]
    return words, rows


def read_binary(content: bytes) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a word2vec binary file."""
    header, _, rest = content.partition(b"\n")
    count, width = map(int, header.split(b" "))
    words, rows = [], np.empty((count, width), np.float32)
    for row in rows:
        word, _, rest = rest.partition(b" ")
        words.append(word.decode())
        row[:] = np.frombuffer(rest[: 4 * width], "<f4")
        assert rest[4 * width : 4 * width + 1] == b"\n"
        rest = rest[4 * width + 1 :]
    assert rest == b""
    return words, rows


READERS: dict[str, Callable[[bytes], tuple[list[str], np.ndarray]]] = {
    "word2vec": read_text,
    "word2vec-binary": read_binary,
}


def any_floats(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Finite float32 of all sizes: any bits, the smallest and the largest among them."""
    bits = np.random.default_rng(seed).integers(0, 2**32, (count, width), np.uint32)
    rows = bits.view(np.float32)
    rows[~np.isfinite(rows)] = 1.0
    special = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, 1 / 3, 16777216.0], np.float32)
    rows.reshape(-1)[: min(len(special), rows.size)] = special[: rows.size]
    return rows


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays of float32 are equal to the sign of zero."""
    return left.shape == right.shape and bool((left.view(np.uint32) == right.view(np.uint32)).all())


def test_every_writer_is_known_to_these_tests() -> None:
    assert list(WRITERS) == [*WORD2VEC, "glove", "fasttext", "parquet", "safetensors", "numpy"]
    assert vectors.WRITERS is WRITERS


@pytest.mark.parametrize("form", WORD2VEC)
@pytest.mark.parametrize("width", [4, 100])
def test_word2vec_reads_back_bit_for_bit(form: str, width: int, tmp_path: Path) -> None:
    table = any_floats(500, width)
    words = [*ODD_WORDS, *(f"word{number}" for number in range(len(ODD_WORDS), 500))]
    content = written(Vectors(table, range(500), pa.array(words)), form, tmp_path / "vectors")
    assert content.startswith(f"500 {width}\n".encode())
    again, rows = READERS[form](content)
    assert again == words and same_bits(rows, table)


@pytest.mark.parametrize("form", WORD2VEC)
def test_gensim_opens_word2vec(form: str, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models")
    table = any_floats(300, 8)
    words = [*ODD_WORDS, *(f"word{number}" for number in range(len(ODD_WORDS), 300))]
    written(Vectors(table, range(300), pa.array(words)), form, tmp_path / "vectors")
    opened = models.KeyedVectors.load_word2vec_format(tmp_path / "vectors", binary=form == "word2vec-binary")
    assert opened.index_to_key == words and same_bits(opened.vectors, table)


@pytest.mark.parametrize("form", WORD2VEC)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_blocks_join_without_a_seam(
    form: str, kind: pa.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = any_floats(40, 4)
    words = pa.array([f"w{number}" for number in range(50)], kind)[10:]  # an array that begins inside its buffer
    whole = written(Vectors(table, range(40), words), form, tmp_path / "whole")
    for rows in (1, 7, 8, 39, 40):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", rows * 16)
        assert len(list(Vectors(table, range(40), words).blocks())) == -(-40 // rows)
        assert written(Vectors(table, range(40), words), form, tmp_path / "parts") == whole
    again, read = READERS[form](whole)
    assert again == words.to_pylist() and same_bits(read, table)


@pytest.mark.parametrize("form", WRITERS)
def test_rows_may_be_a_part_of_the_table_or_an_index(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 3 * 16)
    table = any_floats(30, 4)
    chosen = np.array([29, 3, 3, 0, 17, 8, 28], np.int64)
    words = pa.array([f"w{number}" for number in range(7)])
    picked = written(Vectors(table, chosen, words), form, tmp_path / "index")
    assert picked == written(Vectors(table[chosen], range(7), words), form, tmp_path / "copy")
    part = written(Vectors(table, range(5, 12), words), form, tmp_path / "part")
    assert part == written(Vectors(table[5:12], range(7), words), form, tmp_path / "copy")
    assert part != picked


@pytest.mark.parametrize("form", WRITERS)
def test_a_memory_mapped_table_is_written_as_one_in_memory(form: str, tmp_path: Path) -> None:
    table = any_floats(20, 4)
    np.save(tmp_path / "table.npy", table)
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    words = pa.array([f"w{number}" for number in range(20)])
    assert written(Vectors(mapped, range(20), words), form, tmp_path / "mapped") == written(
        Vectors(table, range(20), words), form, tmp_path / "in_memory"
    )


@pytest.mark.parametrize("form", WORD2VEC)
@pytest.mark.parametrize(
    "word", ["", " ", "a b", "a\tb", "a\n", "\r", "\v", "a\u00a0b", "a\u2028b", "\u3000", "\x85", "\x1c"]
)
def test_words_that_are_empty_or_hold_white_space_are_refused(form: str, word: str) -> None:
    table = any_floats(3, 4)
    with pytest.raises(UserError) as caught:
        next(WRITERS[form](Vectors(table, range(3), pa.array(["fine", word, "also fine"]))))
    assert repr(word) in str(caught.value) and "white space" in str(caught.value) and "\n" not in str(caught.value)
    assert "format=safetensors or numpy" in str(caught.value)


@settings(max_examples=150)
@given(
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=1, max_size=8),
    width=st.sampled_from([1, 4, 12]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_words_are_read_back_or_refused(words: list[str], width: int, seed: int) -> None:
    table = any_floats(len(words), width, seed)
    given = Vectors(table, range(len(words)), pa.array(words))
    if any(character.isspace() for word in words for character in word):
        for writer in (write_text, write_binary):
            with pytest.raises(UserError):
                next(writer(given))
        return
    for form, writer in (("word2vec", write_text), ("word2vec-binary", write_binary)):
        again, rows = READERS[form](b"".join(bytes(part) for part in writer(given)))
        assert again == words and same_bits(rows, table)


@pytest.mark.parametrize("form", WORD2VEC)
def test_rows_without_words_are_refused_by_the_formats_that_need_them(form: str) -> None:
    with pytest.raises(UserError, match=r"stand for no words.*words=FILE.*format=safetensors or numpy"):
        next(WRITERS[form](Vectors(any_floats(3, 4), range(3), None)))


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("words", [True, False])
def test_numpy_opens_the_array(count: int, words: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 999)
    table = any_floats(1000, 12)
    named = pa.array([f"a b{number}" for number in range(count)]) if words else None
    written(Vectors(table, range(count), named), "numpy", tmp_path / "vectors.npy")
    opened = np.load(tmp_path / "vectors.npy", allow_pickle=False)
    assert opened.dtype == np.float32 and opened.flags.c_contiguous and same_bits(opened, table[:count])
    assert same_bits(np.load(tmp_path / "vectors.npy", mmap_mode="r"), table[:count]) or count == 0


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_the_library_opens_the_safetensors_file(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 999)
    table = any_floats(1000, 12)
    content = written(Vectors(table, range(count), None), "safetensors", tmp_path / "vectors.safetensors")
    opened = load_file(tmp_path / "vectors.safetensors")
    assert list(opened) == ["embedding"] and opened["embedding"].dtype == np.float32
    assert same_bits(opened["embedding"], table[:count])
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0 and json.loads(content[8 : 8 + size])["__metadata__"] == {"format": "pt"}
    assert len(content) == 8 + size + 48 * count


@pytest.mark.parametrize("form", WORD2VEC)
def test_no_words_give_a_file_with_a_header_alone(form: str, tmp_path: Path) -> None:
    empty = Vectors(any_floats(5, 4), range(0), pa.array([], pa.string()))
    assert written(empty, form, tmp_path / "vectors") == b"0 4\n"
    assert READERS[form](b"0 4\n")[0] == []


def test_the_words_beside_an_array_stand_one_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LINES", 3)
    words = [*ODD_WORDS, "", "a b", "\u2028"]
    table = any_floats(len(words), 4)
    content = b"".join(write_words(Vectors(table, range(len(words)), pa.array(words))))
    assert content.decode().split("\n") == [*words, ""]
    assert b"".join(write_words(Vectors(table, range(0), None))) == b""
    for word in ("a\nb", "\r"):
        with pytest.raises(UserError, match="holds a line end"):
            next(write_words(Vectors(table, range(2), pa.array(["fine", word]))))


def test_the_file_of_words_has_the_name_of_the_other_file_in_its_own() -> None:
    assert words_path(Path("some/vectors.npy")) == Path("some/vectors.npy.words.txt")


GROWTH = """
import json, sys, threading, time
import numpy as np
import pyarrow as pa
from bigembed.vectors import WRITERS, arrays, blocks, write_words
from bigembed.vectors.blocks import Vectors

def own_memory():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) << 10

def growth(content):
    before, peak, ended = own_memory(), [0], threading.Event()
    def watch():
        while not ended.is_set():
            peak[0] = max(peak[0], own_memory())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    size = 0
    for part in content:
        size += memoryview(part).nbytes
        peak[0] = max(peak[0], own_memory())
    ended.set()
    watcher.join()
    return peak[0] - before, size

table = np.load(sys.argv[1], mmap_mode="r")
words = pa.array(map(str, range(len(table))))
index = np.arange(len(table))[::-1]
found = {}
for form, writer in WRITERS.items():
    found[form] = growth(writer(Vectors(table, range(len(table)), words)))
    if form != "word2vec":
        found[form + " by index"] = growth(writer(Vectors(table, index, words)))
blocks.BLOCK_BYTES = 1 << 40
found["in one block"] = growth(WRITERS["numpy"](Vectors(table, index, words)))
print(json.dumps(found))
"""


def test_memory_stays_bounded_however_large_the_table_is(tmp_path: Path) -> None:
    rows, width = 500_000, 64  # 128 MB
    table = np.lib.format.open_memmap(tmp_path / "table.npy", "w+", np.float32, (rows, width))
    table[:] = np.random.default_rng(0).normal(size=(1, width))
    del table
    done = subprocess.run([sys.executable, "-c", GROWTH, tmp_path / "table.npy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 14
    assert found.pop("in one block")[0] > 120e6  # so it would be seen
    for form, (growth, size) in found.items():
        assert growth < 100e6, form
        assert size > rows * width * 4, form
