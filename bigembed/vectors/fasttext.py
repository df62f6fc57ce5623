"""fastText's own files: .bin in its old and its new layout, and quantised .ftz (Bojanowski et al. 2017, Joulin et al. 2016).

The layout, little-endian (``FastText::saveModel``, ``Args``, ``Dictionary`` and ``DenseMatrix`` in fastText's source). New files
begin with a magic number and a version, both int32; old ones do not. Then come 12 int32 of settings and a float64; int32 sizes
of the dictionary, of its words and of its labels, int64 tokens and (new) int64 n-grams kept by pruning, -1 where there was
no pruning; the entries, words first: the text, a zero byte, an int64 count and a byte 0 (word) or 1 (label); the pairs of
int32 bucket and row that pruning kept; (new) a byte whether the vectors are quantised; int64 rows and columns, and the rows:
those of words, then those of the buckets. What follows are the weights of the output, which are no word's vector.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.errors import UserError
from bigembed.vectors.cursor import Cursor
from bigembed.vectors.finite import WIDEST, first_not_finite
from bigembed.vectors.quantised import Quantised, open_quantised
from bigembed.vectors.source import Block, Ngrams, Source
from bigembed.vectors.streams import Stream
from bigembed.vectors.word2vec import binary_array

MAGIC = 793712314
VERSIONS = (11, 12)
SETTINGS = (
    "12id"  # dim, window, epochs, least count, negatives, n-grams of words, loss, model, buckets, min_n, max_n, …
)
LOSSES = {1: "hierarchical softmax", 2: "negative sampling", 3: "softmax", 4: "one vs all"}
MODELS = {1: "cbow", 2: "skip-gram", 3: "supervised"}
SUPERVISED = 3
LONGEST_NGRAM = 64  # characters; the default is 6
MOST_PRUNED = 1 << 24  # buckets of a pruned file, whose places are kept in memory; the default is 2,000,000
LONGEST_WORD = 1 << 16  # bytes; fastText's own limit is 1,024 for training data
CHUNK = 1 << 20  # bytes of the dictionary looked at at once
BLOCK = 1 << 22  # bytes of rows
MOST_LETTERS = 1 << 30  # bytes of all words; Arrow counts them in int32
_GOES_ON, _WRONG_KIND = 0, 1
_DAMAGED = "it is damaged, or no fastText model; take another copy"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its dictionary.

    Attributes
    ----------
    version : int or None
        None in the old layout.
    dim, word_ngrams, loss, model, buckets, min_n, max_n : int
        fastText's settings of these names.
    words, labels : int
        Entries of the dictionary.
    pruned : int
        N-grams that pruning kept; -1 where there was no pruning.
    """

    version: int | None
    dim: int
    word_ngrams: int
    loss: int
    model: int
    buckets: int
    min_n: int
    max_n: int
    words: int
    labels: int
    pruned: int

    @property
    def rows(self) -> int:
        """Rows of the file: words and n-grams."""
        return self.words + (self.buckets if self.pruned < 0 else self.pruned)


@dataclass(frozen=True, slots=True)
class Dense:
    """Rows that are not quantised, which begin at byte ``start``."""

    count: int
    dim: int
    start: int

    def rows(self, stream: Stream, parts: Iterable[range]) -> Iterator[np.ndarray]:
        """Yield the rows of each part, as ``Quantised.rows`` does."""
        with Cursor(stream) as cursor:
            cursor.skip(self.start, "the rows")
            done = 0
            for part in parts:
                rows = np.empty((len(part), self.dim), np.float32)
                cursor.fill(rows, f"the rows {part.start:,} to {part.stop - 1:,}")
                yield rows
                done = part.stop
            cursor.skip(4 * self.dim * (self.count - done), "the rows that are not used")
            cursor.finish()


def begins(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` is one of fastText's: by the magic number, or by the settings of the old layout."""
    if head[:4] == struct.pack("<i", MAGIC):
        return True
    form = "<" + SETTINGS + "3iq"
    if len(head) < struct.calcsize(form):
        return False
    settings = struct.unpack_from(form, head)
    counts = (*settings[:12], *settings[13:])
    dim, loss, model, (size, words, labels, _) = settings[0], settings[6], settings[7], settings[13:]
    plausible = 1 <= dim <= WIDEST and loss in LOSSES and model in MODELS and size == words + labels and size > 0
    return plausible and min(counts) >= 0


def open_fasttext(stream: Stream, word_list: str | None = None) -> Source:
    """Open a fastText model, of any layout.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        Of no use: the file has its words.

    Returns
    -------
    Source
        Its blocks are the rows as they are in the file: a word's vector is the mean of its row and those of its n-grams.

    Raises
    ------
    UserError
        When the file contradicts itself, or ends too early.
    """
    with Cursor(stream) as cursor:
        header = _header(cursor)
        dictionary = _dictionary(cursor, header)
        places = _places(cursor, header)
        quantised = header.version is not None and _flag(cursor, "which says whether the vectors are quantised")
        matrix = open_quantised(cursor, header.rows, header.dim) if quantised else _dense(cursor, header)
        _check_output(cursor, header, matrix, stream)
    return FastTextSource(stream, header, dictionary, places, matrix)


class FastTextSource(Source):
    """A fastText model, opened.

    Parameters
    ----------
    stream : Stream
    header : Header
    dictionary : pa.BinaryArray
        Its words.
    places : ndarray or None
        As in ``Ngrams``.
    matrix : Dense or Quantised
        Where its rows are.
    """

    has_words = True
    dictionary: pa.BinaryArray

    def __init__(
        self,
        stream: Stream,
        header: Header,
        dictionary: pa.BinaryArray,
        places: np.ndarray | None,
        matrix: Dense | Quantised,
    ) -> None:
        self.path, self.size, self.dim, self.count = stream.path, stream.size, header.dim, header.words
        self.format = "fasttext-quantised" if isinstance(matrix, Quantised) else "fasttext"
        self.dictionary = dictionary
        self.details = _details(stream, header)
        rows = header.rows - header.words
        # Without n-grams of characters the buckets are those of n-grams of words, which no word is made of.
        if rows and max(header.min_n, 1) <= header.max_n:
            self.ngrams = Ngrams(max(header.min_n, 1), header.max_n, header.buckets, rows, places)
        self._stream, self._matrix = stream, matrix

    def blocks(self) -> Iterator[Block]:
        """Yield the rows of the words, then those of the n-grams; see ``Source.blocks``.

        Raises
        ------
        UserError
            A row holds a number that is not finite, or the file ends too early.
        """
        words, self.consumed = len(self.dictionary), 0
        end = words + (self.ngrams.rows if self.ngrams else 0)
        for part, rows in zip(self._parts(end), self._matrix.rows(self._stream, self._parts(end)), strict=True):
            self.consumed = self.size * part.stop // end  # as if what is passed over lay between the rows
            wrong = first_not_finite(rows)
            if wrong >= 0:
                raise self._not_finite(part.start + wrong)
            of_words = self.dictionary.slice(part.start, len(part)) if part.start < words else None
            yield Block(part.start, of_words, rows)

    def _parts(self, end: int) -> Iterator[range]:
        """Yield the rows of each block; none holds both words and n-grams."""
        words, most = len(self.dictionary), max(1, BLOCK // (4 * self.dim))
        for start, stop in ((0, words), (words, end)):
            for first in range(start, stop, most):
                yield range(first, min(first + most, stop))

    def _not_finite(self, row: int) -> UserError:
        words = len(self.dictionary)
        of = f"n-gram {row - words:,}" if row >= words else f"'{self.dictionary[row].as_py().decode(errors='replace')}'"
        where = f" (byte {self._matrix.start + 4 * row * self.dim:,})" if isinstance(self._matrix, Dense) else ""
        return UserError(
            f"{self.path}: row {row:,}, of {of}{where}, holds a number that is not finite (NaN or infinite): it is damaged; "
            "take another copy"
        )


def _header(cursor: Cursor) -> Header:
    """Read the header, old or new.

    Raises
    ------
    UserError
        It says what cannot be.
    """
    what = "the header"
    first, second = cursor.numbers("2i", what)
    if first == MAGIC and second not in VERSIONS:
        raise UserError(f"{cursor.path}: its fastText format is of version {second}, and known are 11 and 12")
    version = second if first == MAGIC else None
    dim, _ = cursor.numbers("2i", what) if version else (first, second)
    _, _, _, word_ngrams, loss, model, buckets, min_n, max_n, _, _ = cursor.numbers("10id", what)
    size, words, labels, _ = cursor.numbers("3iq", what)
    pruned = cursor.numbers("q", what)[0] if version else -1
    if model == SUPERVISED and version != 12:
        max_n = 0  # fastText, too, takes it so: such models were trained without n-grams of characters
    header = Header(version, dim, word_ngrams, loss, model, buckets, min_n, max_n, words, labels, pruned)
    _check(cursor.path, header, size)
    cursor.need(10 * size, f"the dictionary of {size:,} entries")
    return header


def _check(path: str, header: Header, size: int) -> None:
    """Refuse a header that says what cannot be, before anything is made as large as it says."""
    lengths = f"n-grams of {header.min_n} to {header.max_n} characters"
    wrong = {
        f"vectors of {header.dim:,} numbers": not 1 <= header.dim <= WIDEST,
        f"the loss {header.loss}": header.loss not in LOSSES,
        f"the model {header.model}": header.model not in MODELS,
        f"{header.buckets:,} buckets": header.buckets < 0,
        lengths: not 0 <= header.min_n <= LONGEST_NGRAM
        or not (header.max_n == 0 or header.min_n <= header.max_n <= LONGEST_NGRAM),
        f"{size:,} entries, {header.words:,} words and {header.labels:,} labels": (
            min(header.words, header.labels) < 0 or size != header.words + header.labels
        ),
        f"{header.pruned:,} n-grams of {header.buckets:,} kept": not -1 <= header.pruned <= header.buckets,
        f"{header.buckets:,} buckets, pruned (more than {MOST_PRUNED:,})": (
            header.pruned >= 0 and header.buckets > MOST_PRUNED
        ),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(f"{path}: its header (the first 100 bytes) says {what}: {_DAMAGED}")


def _dictionary(cursor: Cursor, header: Header) -> pa.BinaryArray:
    """Read the entries and return the words, without the labels.

    Raises
    ------
    UserError
        An entry is too long, or is not of the kind that it should be; or the file ends before.
    """
    done, size, rest = 0, header.words + header.labels, b""
    ends, texts, written = np.zeros(header.words + 1, np.int32), [np.empty(0, np.uint8)], 0
    while done < size:
        more = cursor.some(CHUNK)
        data = np.frombuffer(rest + more, np.uint8)
        letters, offsets = np.empty(len(data), np.uint8), np.zeros(len(data) // 10 + 1, np.int32)
        found, end, why = _entries(data, done, header.words, size, letters, offsets)
        start = cursor.position - len(data)
        where = f"{cursor.path}: entry {done + found:,} of its dictionary (byte {start + end:,})"
        if why == _WRONG_KIND:
            raise UserError(f"{where} is neither word nor label, or not where words and labels stand: {_DAMAGED}")
        if len(data) - end > LONGEST_WORD and done + found < size and found == 0:
            raise UserError(f"{where} is longer than {LONGEST_WORD:,} bytes: {_DAMAGED}")
        if not more:
            raise UserError(f"{where} is cut off by the file's end; take another copy")
        of_words = min(header.words - done, found) if done < header.words else 0
        ends[done + 1 : done + of_words + 1] = offsets[1 : of_words + 1] + np.int32(written)
        texts.append(letters[: offsets[of_words]].copy())
        written += len(texts[-1])
        if written > MOST_LETTERS:
            raise UserError(f"{where} ends words of more than {MOST_LETTERS:,} bytes, which is too much for memory")
        done, rest = done + found, data[end:].tobytes()
    cursor.put_back(rest)
    return binary_array(np.concatenate(texts), ends)


@numba.njit(nogil=True, cache=True)
def _entries(
    data: np.ndarray, first: int, words: int, size: int, letters: np.ndarray, offsets: np.ndarray
) -> tuple[int, int, int]:
    """Take the entries from number ``first`` on out of ``data``; return how many, where they end, and why it stopped.

    The words' letters go to ``letters``, and where each ends to ``offsets``; those of labels are passed over.
    """
    at, entry, used = 0, first, 0
    while entry < size:
        end = at
        while end < len(data) and data[end] != 0:
            end += 1
        if end + 9 >= len(data):
            break
        if data[end + 9] != (entry >= words):
            return entry - first, at, _WRONG_KIND
        if entry < words:
            letters[used : used + end - at] = data[at:end]
            used += end - at
            offsets[entry - first + 1] = used
        at = end + 10
        entry += 1
    return entry - first, at, _GOES_ON


def _places(cursor: Cursor, header: Header) -> np.ndarray | None:
    """Read which n-grams pruning kept; return the place of each bucket as ``Ngrams`` has it, None without pruning.

    Raises
    ------
    UserError
        A bucket or a place is none, or is there twice.
    """
    if header.pruned < 0:
        return None
    start, what = cursor.position, "the n-grams that pruning kept"
    cursor.need(8 * header.pruned, what)
    places, taken = np.full(header.buckets, -1, np.int32), np.zeros(header.pruned, bool)
    for first in range(0, header.pruned, CHUNK // 8):
        pairs = np.empty((min(header.pruned - first, CHUNK // 8), 2), np.int32)
        cursor.fill(pairs, what)
        fits = (pairs >= 0) & (pairs < (header.buckets, header.pruned))
        if fits.all():
            places[pairs[:, 0]] = pairs[:, 1]
            taken[pairs[:, 1]] = True
        else:
            raise UserError(f"{cursor.path}: {what} (from byte {start:,} on) have buckets or rows outside: {_DAMAGED}")
    if np.count_nonzero(places >= 0) < header.pruned or not taken.all():
        raise UserError(f"{cursor.path}: {what} (from byte {start:,} on) have a bucket or a row twice: {_DAMAGED}")
    return places


def _flag(cursor: Cursor, what: str) -> bool:
    (flag,) = cursor.numbers("B", what)
    if flag > 1:
        raise UserError(f"{cursor.path}: the byte {cursor.position - 1:,}, {what}, is {flag}: {_DAMAGED}")
    return bool(flag)


def _dense(cursor: Cursor, header: Header) -> Dense:
    """Read the shape of the rows; return where they are.

    Raises
    ------
    UserError
        It is not that of the header, or the file ends before the last row.
    """
    start = cursor.position
    rows, columns = cursor.numbers("2q", "the shape of the vectors")
    if header.pruned >= 0:
        raise UserError(
            f"{cursor.path}: it is pruned and not quantised, which fastText itself refuses (its issue 332); take a newer file"
        )
    if (rows, columns) != (header.rows, header.dim):
        raise UserError(
            f"{cursor.path}: its vectors are {rows:,} × {columns:,} (byte {start:,}), but its header says {header.rows:,} × "
            f"{header.dim:,}: {_DAMAGED}"
        )
    cursor.need(4 * rows * columns, "the vectors")
    return Dense(header.rows, header.dim, cursor.position)


def _check_output(cursor: Cursor, header: Header, matrix: Dense | Quantised, stream: Stream) -> None:
    """Refuse a plain file that ends before the weights of the output do: nothing of them is used, but the rest is in doubt.

    A packed file would have to be unpacked for it as a whole, and notices by itself where it is cut.
    """
    if stream.file is None:
        return
    what = "the weights of the output"
    if isinstance(matrix, Dense):
        cursor.skip(4 * header.rows * header.dim, "the vectors")
    quantised = header.version is not None and _flag(cursor, f"whether {what} are quantised")
    if quantised and isinstance(matrix, Quantised):
        return
    rows, columns = cursor.numbers("2q", what)
    if columns != header.dim or rows < 0:
        raise UserError(
            f"{cursor.path}: {what} are {rows:,} × {columns:,} (byte {cursor.position - 16:,}), and its vectors have "
            f"{header.dim:,} numbers: {_DAMAGED}"
        )
    cursor.need(4 * rows * columns, what)


def _details(stream: Stream, header: Header) -> dict[str, Any]:
    """Return what there is to tell a user."""
    kept = {"ngrams_kept": header.pruned} if header.pruned >= 0 else {}
    return {
        **({"compression": stream.compression} if stream.compression else {}),
        "version": header.version or "old",
        "model": MODELS[header.model],
        "loss": LOSSES[header.loss],
        "labels": header.labels,
        "buckets": header.buckets,
        "min_n": header.min_n,
        "max_n": header.max_n,
        "word_ngrams": header.word_ngrams,
        **kept,
    }
