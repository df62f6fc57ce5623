"""word2vec's binary form: read as gensim reads it, whatever its words are; cut, lying and damaged files refused."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.vectors import word2vec
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.finite import first_not_finite
from bigembed.vectors.source import Source
from bigembed.vectors.streams import open_stream
from bigembed.vectors.word2vec import begins, header_of, open_binary, write_binary, write_text


def some_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Finite float32 of any bits, so that their bytes look like spaces, line ends and letters too."""
    bits = np.random.default_rng(seed).integers(0, 2**32, (count, dim), np.uint32)
    rows = bits.view(np.float32)
    rows[~np.isfinite(rows)] = 32.0
    return rows


def binary(words: list[bytes], rows: np.ndarray, seams: bool, header: tuple[int, int] | None = None) -> bytes:
    """A file as word2vec writes it: with line ends behind the rows, or none."""
    count, dim = header or rows.shape
    behind = b"\n" if seams else b""
    lines = [word + b" " + row.tobytes() + behind for word, row in zip(words, rows, strict=True)]
    return b"%d %d\n" % (count, dim) + b"".join(lines)


def opened(content: bytes, path: Path) -> Source:
    path.write_bytes(content)
    return open_binary(open_stream(str(path)))


def taken(source: Source) -> tuple[list[bytes], np.ndarray]:
    """All words and rows, the blocks checked for what they promise."""
    words, rows = list[bytes](), [np.empty((0, source.dim), np.float32)]
    for block in source.blocks():
        assert block.first == len(words) and block.words is not None and len(block.words) == len(block.rows)
        assert block.rows.dtype == np.float32 and block.rows.flags.c_contiguous and np.isfinite(block.rows).all()
        block.words.validate(full=True)
        words += block.words.to_pylist()
        rows.append(block.rows)
    assert len(words) == source.count
    return words, np.concatenate(rows)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and bool((left.view(np.uint32) == right.view(np.uint32)).all())


@pytest.mark.parametrize(
    ("name", "shape", "first"),
    [
        ("gensim/euclidean_vectors.bin", (2747, 10), [b"the", b"to", b"of"]),
        ("gensim/high_precision.kv.bin", (2, 2), [b"kangaroo.n.01", b"horse.n.01"]),
        ("finalfusion/similarity.bin", (41, 100), [b"Berlin", b"Potsdam", b"Hamburg"]),
        ("finalfusion/analogy.bin", (43, 100), [b"Paris", b"Frankreich", b"Berlin"]),
        ("finalfusion/utf8-incomplete.bin", (3, 3), [b"meren", b"zee\xbfn", b"rivieren"]),
    ],
)
def test_real_files_read_as_gensim_reads_them(
    name: str, shape: tuple[int, int], first: list[bytes], data_dir: Path
) -> None:
    models = pytest.importorskip("gensim.models")
    path = data_dir / "vectors" / name
    stream = open_stream(str(path))
    with stream.open() as reader:
        assert begins(reader.read(1 << 16), stream)
    source = open_binary(stream)
    assert (source.count, source.dim) == shape
    words, rows = taken(source)
    assert words[:3] == first[: len(words)] and source.consumed == source.size == path.stat().st_size
    peer = models.KeyedVectors.load_word2vec_format(path, binary=True, unicode_errors="surrogateescape")
    assert [word.encode("utf-8", "surrogateescape") for word in peer.index_to_key] == words
    assert same_bits(peer.vectors, rows)


def test_the_neighbours_of_a_word_are_those_that_gensim_states(data_dir: Path) -> None:
    words, rows = taken(open_binary(open_stream(str(data_dir / "vectors" / "gensim" / "euclidean_vectors.bin"))))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit[words.index(b"war")]
    nearest = [words[row] for row in np.argsort(-cosines)[1:6]]
    assert nearest == [b"conflict", b"administration", b"terrorism", b"call", b"israel"]
    assert 1 - cosines[words.index(b"conflict")] == pytest.approx(0.06694602, abs=1e-6)


WORDS = st.binary(max_size=12).map(lambda word: word.replace(b" ", b"_"))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(WORDS, min_size=1, max_size=30),
    dim=st.sampled_from([1, 2, 7]),
    seams=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_words_read_back_bit_for_bit(
    words: list[bytes], dim: int, seams: bool, packed: bool, seed: int, tmp_path: Path
) -> None:
    rows = some_rows(len(words), dim, seed)
    if not seams:  # a word that begins with a line end is then not told from a line end between rows
        words = [word.lstrip(b"\n") for word in words]
    content = binary(words, rows, seams)
    source = opened(gzip.compress(content) if packed else content, tmp_path / "vectors")
    again, read = taken(source)
    assert again == words and same_bits(read, rows)
    assert [word for part in source.words() for word in part.to_pylist()] == words
    assert taken(source)[0] == words  # as often as asked for
    assert source.details == ({"compression": "gz"} if packed else {})


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(3000, 50)
    words = [b"w%d" % number * (number % 9 + 1) for number in range(3000)]
    for seams in (True, False):
        source = opened(binary(words, rows, seams), tmp_path / "vectors")
        monkeypatch.setattr(word2vec, "CHUNK", 10)
        monkeypatch.setattr(word2vec, "LONGEST", 90)
        assert len(list(source.blocks())) > 1000
        again, read = taken(source)
        assert again == words and same_bits(read, rows)
        assert [word for part in source.words() for word in part.to_pylist()] == words
        monkeypatch.undo()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows, words = some_rows(200, 8), [f"wörd{number}" for number in range(200)]
    vectors = Vectors(rows, range(200), pa.array(words))
    source = opened(b"".join(bytes(part) for part in write_binary(vectors)), tmp_path / "vectors")
    again, read = taken(source)
    assert [word.decode() for word in again] == words and same_bits(read, rows)
    assert (source.format, source.has_words, source.ngrams, source.path) == (
        "word2vec-binary",
        True,
        None,
        str(tmp_path / "vectors"),
    )


def test_a_file_without_words_is_read(tmp_path: Path) -> None:
    source = opened(b"0 4\n", tmp_path / "vectors")
    assert source.count == 0 and list(source.blocks()) == [] and list(source.words()) == []


def test_a_last_line_end_may_be_there_or_not(tmp_path: Path) -> None:
    rows = some_rows(2, 3)
    for content in (binary([b"a", b"b"], rows, True)[:-1], binary([b"a", b"b"], rows, False) + b"\n"):
        assert taken(opened(content, tmp_path / "vectors"))[0] == [b"a", b"b"]


def test_text_is_not_taken_for_binary(tmp_path: Path, data_dir: Path) -> None:
    folder = data_dir / "vectors"
    names = ["toy-model.vec", "high_precision.kv.txt", "lee_fasttext.vec", "w2v_keyedvectors_load_test.modeldata"]
    paths = [folder / "gensim" / name for name in names]
    paths += [folder / "torchtext" / "wiki.en.vec", folder / "finalfusion" / "utf8-incomplete.txt"]
    for path in paths:
        stream = open_stream(str(path))
        for size in (30, 100, 1000, 1 << 16):
            assert not begins(path.read_bytes()[:size], stream), (path, size)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dim=st.sampled_from([3, 20, 300]), seed=st.integers(0, 1000), size=st.sampled_from([200, 1 << 16]))
def test_binary_and_text_of_the_same_vectors_are_told_apart(dim: int, seed: int, size: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(seed).normal(size=(20, dim)).astype(np.float32)
    vectors = Vectors(rows, range(20), pa.array([f"wörd{number}" for number in range(20)]))
    (tmp_path / "vectors").write_bytes(b"")
    stream = open_stream(str(tmp_path / "vectors"))
    assert begins(b"".join(map(bytes, write_binary(vectors)))[:size], stream)
    assert not begins(b"".join(map(bytes, write_text(vectors)))[:size], stream)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"3 4\nx", (3, 4, 4)),
        (b"3\t4 \r\nx", (3, 4, 6)),
        (b"the 0.4\n", None),
        (b"3 4 5\n", None),
        (b"3 4", None),
        (b"-3 4\n", None),
        (b"", None),
    ],
)
def test_the_first_line_says_count_and_width(head: bytes, found: tuple[int, int, int] | None) -> None:
    assert header_of(head) == found


def refused(content: bytes, path: Path) -> str:
    """The sentence by which a file is refused."""
    with pytest.raises(UserError) as caught:
        taken(opened(content, path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "\n" not in sentence
    return sentence.removeprefix(str(path))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seams", [False, True])
def test_a_file_cut_anywhere_is_refused(seams: bool, packed: bool, tmp_path: Path) -> None:
    content = binary([b"one", b"two", b"three"], some_rows(3, 2), seams)
    for end in range(4, len(content) - (1 if seams else 0)):
        cut = gzip.compress(content[:end]) if packed else content[:end]
        sentence = refused(cut, tmp_path / "vectors")
        assert "it was cut" in sentence and ("more than its" in sentence or f"ends at byte {end}" in sentence)


@pytest.mark.parametrize("seams", [False, True])
def test_a_first_line_that_lies_is_refused(seams: bool, tmp_path: Path) -> None:
    rows, words = some_rows(40, 3), [b"w%d" % number for number in range(40)]
    path = tmp_path / "vectors"
    assert "goes on at byte" in refused(binary(words, rows, seams, (39, 3)), path)
    assert "ends at byte" in refused(binary(words, rows, seams, (41, 3)), path)
    assert "goes on at byte" in refused(binary(words, rows, seams, (0, 3)), path)
    for header in [(40, 2), (40, 4), (50, 2)]:
        refused(binary(words, rows, seams, header), path)
    for header in [(10**14, 3), (40, 10**6), (3, 10**8), (3, 0)]:
        assert "first line says" in refused(binary(words, rows, seams, header), path)
    assert "first line is not 'COUNT DIM'" in refused(b"40 3 1\nabc", path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_word(number: float, tmp_path: Path) -> None:
    rows = some_rows(5, 3)
    rows[3, 2] = number
    sentence = refused(binary([b"a", b"b", b"c", b"w\xff\nx", b"e"], rows, True), tmp_path / "vectors")
    assert "row 4, at byte 49," in sentence and r"of the word 'w�\nx'" in sentence and "not finite" in sentence


def test_a_row_out_of_place_is_refused(tmp_path: Path) -> None:
    rows, words = np.ones((6, 3), np.float32), [b"a", b"b", b"New York", b"d", b"e", b"f"]
    assert "row 4" in refused(binary(words, rows, True), tmp_path / "vectors")  # York is taken for numbers
    words[2] = b"\nc"
    assert "row 3" in refused(binary(words, rows, False), tmp_path / "vectors")


def test_a_word_without_an_end_is_refused(tmp_path: Path) -> None:
    content = binary([b"a", b"b" * 70_000, b"c"], some_rows(3, 3), False)
    assert "row 2, at byte 18, has no word" in refused(content, tmp_path / "vectors")


@pytest.mark.parametrize("header", [b"10000000 1\n", b"60 1000000\n", b"100 600000\n"])
def test_a_packed_file_that_promises_much_takes_little_memory(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    tracemalloc.start()
    sentence = refused(gzip.compress(header + b"a " + some_rows(3, 9).tobytes()), path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "ends at byte" in sentence and peak < 60 << 20


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seams=st.booleans())
def test_a_damaged_file_is_refused_or_read_as_what_it_says(data: st.DataObject, seams: bool, tmp_path: Path) -> None:
    rows, words = some_rows(12, 3), [b"w%d" % number for number in range(12)]
    content = bytearray(binary(words, rows, seams))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path = tmp_path / "vectors"
    try:
        source = opened(bytes(content), path)
        found = taken(source)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return
    count, dim, length = header_of(bytes(content)) or (0, 0, 0)
    assert found[1].shape == (count, dim)
    again = binary(*found, seams=source._seams)  # type: ignore[attr-defined]
    assert again.partition(b"\n")[2].rstrip(b"\n") == bytes(content[length:]).rstrip(b"\n")


@given(
    rows=st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), max_size=6).map(
        lambda rows: np.array(rows, np.float32).reshape(-1, 3)
    )
)
def test_the_first_row_that_is_not_finite_is_found(rows: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(rows).all(1))
    assert first_not_finite(rows) == (wrong[0] if len(wrong) else -1)
