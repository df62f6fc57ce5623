"""fastText's files, against fastText itself, gensim, values that these state, and a plain reader of the same layout."""

import gzip
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.vectors import fasttext, fasttext_writer
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.fasttext import begins, open_fasttext
from bigembed.vectors.fasttext_writer import write_fasttext
from bigembed.vectors.source import Ngrams, Source
from bigembed.vectors.streams import open_stream

NEW, OLD = (793712314, 12), ()


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    found = data_dir / "vectors"
    if not found.is_dir():
        pytest.skip(f"no files of vectors in {data_dir}")
    return found


def opened(path: Path) -> Source:
    return open_fasttext(open_stream(str(path)))


def read(source: Source) -> tuple[list[bytes], np.ndarray]:
    """All words, and all rows."""
    words, rows, after = [], [np.empty((0, source.dim), np.float32)], 0
    for block in source.blocks():
        assert block.first == after and block.rows.dtype == np.float32 and block.rows.flags.c_contiguous
        after += len(block.rows)
        words += [] if block.words is None else block.words.to_pylist()
        rows.append(block.rows)
    return words, np.concatenate(rows)


@dataclass
class Model:
    """A fastText file, put together by hand: what the settings say, and what is really there."""

    begin: tuple[int, ...] = NEW
    words: list[bytes] = field(default_factory=lambda: [b"</s>", b"the", b"\xc3\xa9t\xe9", b"New York"])
    labels: list[bytes] = field(default_factory=list)
    dim: int = 4
    buckets: int = 6
    model: int = 2
    min_n: int = 2
    max_n: int = 3
    pruned: list[tuple[int, int]] | None = None
    pieces: int | None = None  # numbers of a piece of a quantised row
    norms: bool = False
    rows: np.ndarray | None = None

    @property
    def matrix(self) -> np.ndarray:
        count = len(self.words) + (self.buckets if self.pruned is None else len(self.pruned))
        if self.rows is not None:
            return self.rows
        return np.random.default_rng(7).normal(size=(count, self.dim)).astype(np.float32)

    @property
    def codes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Codes, centroids, codes of lengths and lengths."""
        rng, rows = np.random.default_rng(8), len(self.matrix)
        codes = rng.integers(0, 256, (rows, -(-self.dim // self.pieces)), np.uint8)
        centroids = rng.normal(size=256 * self.dim).astype(np.float32)
        return codes, centroids, rng.integers(0, 256, rows, np.uint8), rng.normal(size=256).astype(np.float32)

    @property
    def unpacked(self) -> np.ndarray:
        """The rows that a reader must find."""
        if self.pieces is None:
            return self.matrix
        codes, centroids, norm_codes, norms = self.codes
        rows = np.empty((len(codes), self.dim), np.float32)
        for row, column in np.ndindex(rows.shape):
            piece, place = divmod(column, self.pieces)
            width = min(self.pieces, self.dim - piece * self.pieces)
            number = centroids[256 * self.pieces * piece + int(codes[row, piece]) * width + place]
            rows[row, column] = number * norms[norm_codes[row]] if self.norms else number
        return rows

    def bytes(self) -> bytes:
        size, new = len(self.words) + len(self.labels), self.begin != OLD
        out = struct.pack(f"<{len(self.begin)}i", *self.begin)
        settings = (self.dim, 5, 5, 1, 5, 1, 2, self.model, self.buckets, self.min_n, self.max_n, 100)
        out += struct.pack("<12id3iq", *settings, 1e-4, size, len(self.words), len(self.labels), 1000)
        out += struct.pack("<q", -1 if self.pruned is None else len(self.pruned)) if new else b""
        for kind, entries in enumerate((self.words, self.labels)):
            out += b"".join(entry + b"\0" + struct.pack("<qB", 9, kind) for entry in entries)
        out += b"".join(struct.pack("<2i", *pair) for pair in self.pruned or ())
        if self.pieces is None:
            out += (b"\0" if new else b"") + struct.pack("<2q", *self.matrix.shape) + self.matrix.tobytes()
        else:
            codes, centroids, norm_codes, norms = self.codes
            out += struct.pack("<BBqqi", 1, self.norms, len(codes), self.dim, codes.size) + codes.tobytes()
            last = self.dim - (codes.shape[1] - 1) * self.pieces
            out += struct.pack("<4i", self.dim, codes.shape[1], self.pieces, last) + centroids.tobytes()
            out += norm_codes.tobytes() + struct.pack("<4i", 1, 1, 1, 1) + norms.tobytes() if self.norms else b""
        return out + (b"\0" if new else b"") + struct.pack("<2q", 1, self.dim) + bytes(4 * self.dim)

    def open(self, path: Path) -> Source:
        path.write_bytes(self.bytes())
        return opened(path)


MODELS = {
    "new": Model(),
    "version 11": Model(begin=(793712314, 11)),
    "old": Model(begin=OLD),
    "supervised": Model(model=3, labels=[b"__label__a", b"__label__b"]),
    "a label among unsupervised": Model(labels=[b"__label__a"]),
    "no n-grams": Model(buckets=0, min_n=0, max_n=0),
    "quantised": Model(pieces=2),
    "quantised, with lengths": Model(pieces=2, norms=True),
    "quantised, the last piece shorter": Model(pieces=3, norms=True),
    "pruned": Model(pieces=2, pruned=[(5, 0), (0, 2), (3, 1)], labels=[b"__label__a"]),
    "pruned of all": Model(pieces=4, pruned=[]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("packed", [False, True])
def test_what_was_put_into_a_file_is_read(
    name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fasttext, "BLOCK", 3 * 16)
    monkeypatch.setattr(fasttext, "CHUNK", 1 << 4)
    model, path = MODELS[name], tmp_path / "model.bin"
    path.write_bytes(gzip.compress(model.bytes()) if packed else model.bytes())
    source = opened(path)
    words, rows = read(source)
    assert words == source.dictionary.to_pylist() == model.words == next(source.words()).to_pylist()
    assert np.array_equal(rows, model.unpacked)
    assert source.format == ("fasttext" if model.pieces is None else "fasttext-quantised")
    assert (source.dim, source.count, source.has_words) == (4, len(model.words), True)
    assert source.details["labels"] == len(model.labels) and source.details["model"] in ("skip-gram", "supervised")
    assert source.details.get("compression") == ("gz" if packed else None)
    assert source.consumed == source.size == path.stat().st_size
    assert all(map(np.array_equal, read(source), (words, rows)))  # as often as it is asked for


def test_the_ngrams_of_a_file_are_told(tmp_path: Path) -> None:
    found = {name: model.open(tmp_path / "model.bin").ngrams for name, model in MODELS.items()}
    of_all = Ngrams(2, 3, 6, 6)
    assert found["new"] == found["old"] == found["version 11"] == found["supervised"] == found["quantised"] == of_all
    assert found["no n-grams"] is None and found["pruned of all"] is None
    assert (found["pruned"].rows, found["pruned"].buckets) == (3, 6)
    assert found["pruned"].places.tolist() == [2, -1, -1, 1, -1, 0]


@pytest.mark.parametrize("begin", [OLD, (793712314, 11), NEW])
def test_supervised_models_of_old_versions_have_no_ngrams_of_characters(begin: tuple, tmp_path: Path) -> None:
    source = Model(begin=begin, model=3).open(tmp_path / "model.bin")
    assert (source.ngrams is not None) == (begin == NEW)
    assert len(read(source)[1]) == (10 if begin == NEW else 4)  # the other rows belong to n-grams of words


def test_min_n_of_zero_is_one(tmp_path: Path) -> None:
    assert Model(min_n=0).open(tmp_path / "model.bin").ngrams == Ngrams(1, 3, 6, 6)


def test_how_far_it_is_grows_to_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext, "BLOCK", 3 * 16)
    for model in MODELS.values():
        source = model.open(tmp_path / "model.bin")
        told = [source.consumed for _ in source.blocks()]
        assert told == sorted(set(told)) and 0 < told[0] < told[-1] == source.size


def test_long_words_cross_the_chunks_of_a_dictionary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(1, 256, size, np.uint8)) for size in [*rng.integers(0, 3000, 1500), 1 << 16]]
    model = Model(words=words, buckets=0, max_n=0, labels=[b"x" * size for size in rng.integers(0, 3000, 800)])
    assert read(model.open(tmp_path / "model.bin"))[0] == words


def damaged(**changes: object) -> bytes:
    return Model(**changes).bytes()


BEGIN = 8 + 12 * 4 + 8  # where the dictionary's sizes begin
PRUNED = Model(pieces=2, pruned=[(5, 0), (0, 1)])
REFUSED = {
    "version": (damaged(begin=(793712314, 13)), "of version 13, and known are 11 and 12"),
    "dim": (damaged()[:8] + struct.pack("<i", -4) + damaged()[12:], "says vectors of -4 numbers"),
    "huge dim": (damaged()[:8] + struct.pack("<i", 1 << 30) + damaged()[12:], "says vectors of 1,073,741,824 numbers"),
    "model": (damaged(model=9), "says the model 9"),
    "buckets": (damaged()[:40] + struct.pack("<i", 7) + damaged()[44:], "are 10 × 4 .* but its header says 11 × 4"),
    "negative buckets": (damaged()[:40] + struct.pack("<i", -7) + damaged()[44:], "says -7 buckets"),
    "n-grams": (damaged(max_n=1 << 30), "n-grams of 2 to 1073741824 characters"),
    "entries": (damaged()[:BEGIN] + struct.pack("<i", 5) + damaged()[BEGIN + 4 :], "5 entries, 4 words and 0 labels"),
    "many entries": (
        damaged()[:BEGIN] + struct.pack("<2i", 1 << 30, 1 << 30) + damaged()[BEGIN + 8 :],
        "the dictionary of 1,073,741,824 entries would end at byte 10,7.*, and the file holds [0-9]+ bytes",
    ),
    "pruned": (damaged(pruned=[]), "says 7 n-grams|pruned and not quantised"),
    "kinds": (
        damaged().replace(b"the\0\x09\0\0\0\0\0\0\0\0", b"the\0\x09\0\0\0\0\0\0\0\1"),
        "entry 1 .* neither word nor",
    ),
    "long word": (damaged(words=[b"a", b"b" * (3 << 20)]), "entry 1 .* is longer than 65,536 bytes"),
    "rows": (damaged(rows=np.zeros((9, 4), np.float32)), "vectors are 9 × 4 .* header says 10 × 4"),
    "columns": (damaged(rows=np.zeros((10, 5), np.float32)), "vectors are 10 × 5 .* header says 10 × 4"),
    "wide and quantised": (
        (PRUNED.bytes()[:8] + struct.pack("<i", 1 << 17) + PRUNED.bytes()[12:]).replace(
            struct.pack("<2q", 6, 4), struct.pack("<2q", 6, 1 << 17)
        ),
        "rows of 131,072 numbers are quantised",
    ),
    "bucket twice": (damaged(pieces=2, pruned=[(5, 0), (5, 1)]), "have a bucket or a row twice"),
    "row twice": (damaged(pieces=2, pruned=[(5, 1), (4, 1)]), "have a bucket or a row twice"),
    "bucket outside": (damaged(pieces=2, pruned=[(6, 0)]), "have buckets or rows outside"),
    "row outside": (damaged(pieces=2, pruned=[(5, 1)]), "have buckets or rows outside"),
    "many buckets": (
        PRUNED.bytes()[:40] + struct.pack("<i", 1 << 30) + PRUNED.bytes()[44:],
        r"1,073,741,824 buckets, pruned \(more than 16,777,216\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_contradicts_itself_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    content, says = REFUSED[name]
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        opened(tmp_path / "model.bin")
    assert str(error.value).startswith(str(tmp_path / "model.bin")) and "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_row(wrong: float, tmp_path: Path) -> None:
    for row, of in ((3, "'New York'"), (7, "n-gram 3")):
        matrix = np.zeros((10, 4), np.float32)
        matrix[row, 1] = wrong
        source = Model(rows=matrix).open(tmp_path / "model.bin")
        at = (tmp_path / "model.bin").read_bytes().index(matrix.tobytes()) + 16 * row
        with pytest.raises(UserError, match=rf"row {row}, of {of} \(byte {at:,}\), holds .* not finite"):
            read(source)


def test_centroids_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    content = Model(pieces=2).bytes()
    at = content.index(Model(pieces=2).codes[1].tobytes())
    (tmp_path / "model.ftz").write_bytes(content[:at] + struct.pack("<f", np.nan) + content[at + 4 :])
    with pytest.raises(UserError, match=r"a centroid .* is not finite"):
        opened(tmp_path / "model.ftz")


@pytest.mark.parametrize("name", ["new", "old", "quantised, with lengths", "pruned"])
def test_a_file_that_is_cut_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    content = MODELS[name].bytes()
    ends = [*range(0, 300, 5), *range(300, len(content), 197), *range(len(content) - 40, len(content))]
    for end in sorted(set(ends) & set(range(len(content)))):
        (tmp_path / "model.bin").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cut short|cut off|version|damaged"):
            read(opened(tmp_path / "model.bin"))


def test_the_format_is_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    for model in MODELS.values():
        path.write_bytes(model.bytes())
        assert begins(model.bytes()[:4096], open_stream(str(path)))
    for content in (b"", b"2 3\nword 1 2 3\n", b"the 0.4 0.25 -0.4\n" * 99, b"\x93NUMPY" + bytes(200), bytes(4096)):
        path.write_bytes(content)
        assert not begins(content[:4096], open_stream(str(path)))


def plain_reader(content: bytes) -> tuple[list[bytes], np.ndarray]:
    """What a file says, by the layout alone; any exception where it says nothing."""
    at = 0

    def take(form: str) -> tuple:
        nonlocal at
        at += struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, content, at - struct.calcsize("<" + form))

    (magic,) = struct.unpack_from("<i", content)
    version = take("2i")[1] if magic == NEW[0] else 0
    dim, _, _, _, _, _, _, model, _, min_n, max_n, *_ = take("12id")
    size, count, _, _ = take("3iq")
    pruned = take("q")[0] if version else -1
    words = []
    for number in range(size):
        end = content.index(b"\0", at)
        words += [content[at:end]] if number < count else []
        at = end + 10
    at += 8 * max(pruned, 0)
    if version and take("B")[0]:
        norms, rows, _, used = take("Bqqi")
        codes = np.frombuffer(content, np.uint8, used, at).reshape(rows, -1)
        at += used
        _, pieces, width, last = take("4i")
        centroids, column, out = np.frombuffer(content, "<f4", 256 * dim, at), 0, np.empty((rows, dim), np.float32)
        at += 1024 * dim
        for piece in range(pieces):
            own = last if piece == pieces - 1 else width
            part = centroids[256 * width * piece :][: 256 * own].reshape(256, own)
            out[:, column : column + own] = part[codes[:, piece]]
            column += own
        if norms:
            lengths = np.frombuffer(content, np.uint8, rows, at)
            out *= np.frombuffer(content, "<f4", 256, at + rows + 16)[lengths][:, None]
    else:
        rows, columns = take("2q")
        out = np.frombuffer(content, "<f4", rows * columns, at).reshape(rows, columns)
    no_ngrams = max(min_n, 1) > max_n or (model == 3 and version != 12)
    return words, out[: len(words)] if no_ngrams else out


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good file, changed in one to four places."""
    content = bytearray(MODELS[draw(st.sampled_from(sorted(MODELS)))].bytes())
    for _ in range(draw(st.integers(1, 4))):
        # Most of a file are numbers, and most of what can be wrong with it stands before them.
        last = len(content) - 9
        at = draw(st.one_of(st.integers(0, min(160, last)), st.integers(0, last)))
        kind = draw(st.sampled_from(["bit", "byte", "int32", "int64", "float", "cut", "gone", "more"]))
        if kind == "bit":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            content[at] = draw(st.integers(0, 255))
        elif kind == "int32":
            content[at : at + 4] = struct.pack(
                "<i", draw(st.sampled_from([0, 1, -1, 3, 5, 1 << 20, 2**31 - 1, -(2**31)]))
            )
        elif kind == "int64":
            content[at : at + 8] = struct.pack("<q", draw(st.sampled_from([0, 1, -1, 4, 1 << 31, 2**63 - 1, -(2**63)])))
        elif kind == "float":
            content[at : at + 4] = struct.pack("<f", draw(st.sampled_from([float("nan"), float("inf"), 1e38])))
        elif kind == "cut" and at > 8:
            del content[at:]
        elif kind == "gone":
            del content[at : at + draw(st.integers(1, 8))]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        if len(content) < 64:
            break
    return bytes(content)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "model.bin"


def check_mutated(path: Path, content: bytes, packed: bool) -> None:
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    tracemalloc.start()
    try:
        words, rows = read(opened(path))
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 150e6  # the places of a pruned file's buckets are the most: 64 MiB
    expected_words, expected_rows = plain_reader(content)
    assert words == expected_words and np.array_equal(rows, expected_rows) and np.isfinite(rows).all()


@settings(max_examples=100)
@given(content=mutations(), packed=st.booleans())
def test_a_mutated_file_is_read_right_or_refused(somewhere: Path, content: bytes, packed: bool) -> None:
    check_mutated(somewhere, content, packed)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(content=mutations(), packed=st.booleans())
def test_ten_thousand_mutated_files_are_read_right_or_refused(somewhere: Path, content: bytes, packed: bool) -> None:
    check_mutated(somewhere, content, packed)


# ---- files that fastText and gensim made

FILES = {  # version, dim, words, n-grams' rows, labels
    "gensim/crime-and-punishment.bin": (12, 5, 291, 100, 0),
    "gensim/toy-model.bin": (12, 5, 22, 100, 0),
    "gensim/toy-model-pretrained.bin": (12, 5, 24, 100, 0),
    "gensim/lee_fasttext_new.bin": (11, 10, 1763, 1000, 0),
    "gensim/lee_fasttext.bin": ("old", 10, 1762, 1000, 0),
    "gensim/cp852_fasttext.bin": ("old", 2, 171, 1000, 0),
    "gensim/non_ascii_fasttext.bin": ("old", 2, 171, 10000, 0),
    "gensim/pang_lee_polarity_fasttext.bin": (12, 100, 1694, 0, 2),
    "finalfusion/fasttext.bin": (12, 50, 157, 100, 0),
    "fasttext-lid/lid.176.ftz": (12, 16, 7235, 42765, 176),
}


@pytest.mark.parametrize("name", FILES)
def test_real_files_are_read(name: str, folder: Path) -> None:
    source = opened(folder / name)
    version, dim, count, ngrams, labels = FILES[name]
    assert (source.details["version"], source.dim, source.count, source.details["labels"]) == (
        version,
        dim,
        count,
        labels,
    )
    assert (source.ngrams.rows if source.ngrams else 0) == ngrams
    words, rows = read(source)
    assert len(words) == count and rows.shape == (count + ngrams, dim)
    expected_words, expected_rows = plain_reader((folder / name).read_bytes())
    assert words == expected_words and np.array_equal(rows, expected_rows)


def test_words_are_bytes_as_they_are(folder: Path) -> None:
    words = opened(folder / "gensim" / "cp852_fasttext.bin").dictionary.to_pylist()
    assert words[:3] == [b"ji", b"kter\xec", b"jen"]
    with pytest.raises(UnicodeDecodeError):
        words[1].decode()


def test_a_model_without_ngrams_has_the_vectors_of_its_text_file(folder: Path) -> None:
    words, rows = read(opened(folder / "gensim" / "pang_lee_polarity_fasttext.bin"))
    lines = (folder / "gensim" / "pang_lee_polarity_fasttext.vec").read_bytes().split(b"\n")[1 : 1 + len(words)]
    for word, row, line in zip(words, rows, lines, strict=True):
        expected = line.split(b" ")
        assert expected[0] == word
        assert np.allclose(row, np.array(expected[1:101], float), atol=1e-5, rtol=1e-4)


def test_the_quantised_rows_are_those_that_fasttext_unpacks(folder: Path) -> None:
    peer = pytest.importorskip("fasttext").load_model(str(folder / "fasttext-lid" / "lid.176.ftz"))
    words, rows = read(opened(folder / "fasttext-lid" / "lid.176.ftz"))
    for row in range(0, len(rows), 17):
        assert np.array_equal(rows[row], peer.get_input_vector(row))
    assert [word.decode() for word in words] == peer.get_words()


# ---- what we write

WORDS = ["the", "of", "naïve", "日本語", "New York", "x", "word with \u00a0 spaces", "</s>", "a\tb"]


def any_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def written(path: Path, words: pa.Array | None, table: np.ndarray, *ngrams: object) -> Path:
    count = len(table) if words is None else len(words)
    with path.open("wb") as file:
        for part in write_fasttext(Vectors(table, range(count), words), *ngrams):
            file.write(part)
    return path


def with_ngrams(path: Path, words: list[str] = WORDS) -> tuple[Path, np.ndarray, np.ndarray]:
    own, of_ngrams = any_rows(len(words), 6), any_rows(40, 6, 1)
    halves: Iterator[np.ndarray] = iter([of_ngrams[:13], of_ngrams[13:]])
    return written(path, pa.array(words), own, Ngrams(2, 4, 40, 40), halves), own, of_ngrams


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext_writer, "LINES", 4)
    path, own, of_ngrams = with_ngrams(tmp_path / "model.bin")
    source = opened(path)
    words, rows = read(source)
    assert [word.decode() for word in words] == WORDS
    assert np.array_equal(rows, np.concatenate([own, of_ngrams])) and source.ngrams == Ngrams(2, 4, 40, 40)
    plain = opened(written(tmp_path / "plain.bin", pa.array(WORDS), own))
    assert plain.ngrams is None and np.array_equal(read(plain)[1], own)
    assert path.read_bytes()[-4 * own.size :] == bytes(4 * own.size)


@settings(max_examples=40)
@given(words=st.lists(st.binary(max_size=9), max_size=9), seed=st.integers(0, 99))
def test_any_words_are_read_again_or_refused(somewhere: Path, words: list[bytes], seed: int) -> None:
    table = any_rows(len(words), 4, seed)
    if any(b"\0" in word for word in words) or len(set(words)) < len(words):
        with pytest.raises(UserError, match=r"zero byte|more than once"):
            written(somewhere, pa.array(words, pa.binary()), table)
        return
    found, rows = read(opened(written(somewhere, pa.array(words, pa.binary()), table)))
    assert found == words and np.array_equal(rows, table)


def test_what_cannot_stand_in_the_format_is_refused(tmp_path: Path) -> None:
    table = any_rows(3, 4)
    with pytest.raises(UserError, match="stand for no words"):
        written(tmp_path / "x", None, table)
    with pytest.raises(UserError, match=r"'a\\x00b' holds a zero byte"):
        written(tmp_path / "x", pa.array(["z", "a\0b", "c"]), table)
    with pytest.raises(UserError, match="'twice' is there more than once"):
        written(tmp_path / "x", pa.array(["z", "twice", "twice"]), table)
    with pytest.raises(UserError, match="no place for the n-grams of a pruned file"):
        written(tmp_path / "x", pa.array(["a"]), table, Ngrams(2, 3, 9, 1, np.full(9, -1, np.int32)), [table[:1]])


def test_gensim_reads_what_is_written(tmp_path: Path) -> None:
    from gensim.models.fasttext import load_facebook_model

    words = [word for word in WORDS if word != "</s>"]  # to gensim, a word with n-grams; to fastText, one without
    path, own, of_ngrams = with_ngrams(tmp_path / "model.bin", words)
    peer = load_facebook_model(str(path))
    assert peer.wv.index_to_key == words  # its order is that of the counts
    assert np.array_equal(peer.wv.vectors_vocab, own) and np.array_equal(peer.wv.vectors_ngrams, of_ngrams)
    peer.train([["the", "of", "x"]] * 9, total_examples=9, epochs=1)  # it can go on
    plain = load_facebook_model(str(written(tmp_path / "plain.bin", pa.array(words), own)))
    assert np.array_equal(plain.wv["日本語"], own[3])


def test_fasttext_reads_what_is_written(tmp_path: Path) -> None:
    load = pytest.importorskip("fasttext").load_model
    path, own, of_ngrams = with_ngrams(tmp_path / "model.bin")
    peer = load(str(path))
    assert peer.get_words() == WORDS
    assert np.array_equal(peer.get_input_matrix(), np.concatenate([own, of_ngrams]))
    plain = load(str(written(tmp_path / "plain.bin", pa.array(WORDS), own)))
    assert all(np.array_equal(plain.get_word_vector(word), row) for word, row in zip(WORDS, own, strict=True))
