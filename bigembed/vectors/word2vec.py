"""word2vec's files: a line "count dim", then a word and its numbers, as text or as float32 (Mikolov et al. 2013)."""

import codecs
import re
from collections.abc import Iterator

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.finite import EXPONENT, WIDEST
from bigembed.vectors.source import Block, Source
from bigembed.vectors.streams import Stream

# What Unicode or Python's str.split() takes for white space: readers of these files split at one or the other.
UNFIT = r"[\s\v\x1c-\x1f\x{85}\p{Z}]|^$"

HEADER = re.compile(rb"[ \t]*(\d{1,15})[ \t]+(\d{1,9})[ \t\r]*\n")
# No two ways to read the same digits: a field may have a million of them.
NUMBER = re.compile(rb"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)
NOT_IN_TEXT = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
HEADER_BYTES = 1 << 8
CHUNK = 1 << 22  # bytes of the file in memory at once
LONGEST = 1 << 16  # bytes of a word
NAMED = 80  # characters of a word in a message
SPACE, NEWLINE = 32, 10
GOES_ON, TOO_LONG, NO_SEAM, NOT_FINITE = range(4)  # why the kernel stopped


def header_of(head: bytes) -> tuple[int, int, int] | None:
    """Return count, dim and bytes of a first line "count dim"; None where the first line is none.

    Parameters
    ----------
    head : bytes
        The beginning of the file.
    """
    found = HEADER.match(head)
    return None if found is None else (int(found[1]), int(found[2]), found.end())


def write_text(vectors: Vectors) -> Iterator[bytes | pa.Buffer]:
    """Yield the bytes of the text file; every number is the shortest that reads back as the same float32.

    Raises
    ------
    UserError
        When the rows have no words, or a word cannot stand in the format.
    """
    yield _header(vectors)
    for words, rows in vectors.blocks():
        assert words is not None  # the header has seen to that
        numbers = [pc.cast(pa.array(column), pa.string()) for column in rows.T]
        yield _joined([words.cast(pa.string()), *numbers], pa.string())


def write_binary(vectors: Vectors) -> Iterator[bytes | pa.Buffer]:
    """Yield the bytes of the binary file.

    Raises
    ------
    UserError
        When the rows have no words, or a word cannot stand in the format.
    """
    yield _header(vectors)
    for words, rows in vectors.blocks():
        assert words is not None
        width = rows.shape[1] * 4
        numbers = pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])
        yield _joined([words.cast(pa.binary()), numbers.cast(pa.binary())], pa.binary())


def _header(vectors: Vectors) -> bytes:
    if vectors.words is None:
        raise UserError(
            "the rows of this table stand for no words, which word2vec's formats need; give words=FILE, or use "
            "format=safetensors or numpy"
        )
    unfit = pc.filter(vectors.words, pc.match_substring_regex(vectors.words, UNFIT))
    if len(unfit):
        raise UserError(
            f"{unfit[0].as_py()!r} is empty or holds white space, which a word of word2vec's formats cannot; use "
            f"format=safetensors or numpy"
        )
    return "{} {}\n".format(*vectors.shape).encode()


def _joined(columns: list[pa.Array], kind: pa.DataType) -> pa.Buffer:
    """Return the columns' entries with spaces between and a line end behind, as one run of bytes."""
    space, newline, nothing = (pa.scalar(text).cast(kind) for text in (" ", "\n", ""))
    lines = pc.binary_join_element_wise(*columns, space)
    lines = pc.binary_join_element_wise(lines, newline, nothing)
    lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    offsets = np.frombuffer(lines.buffers()[1], np.int32)
    start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return lines.buffers()[2].slice(int(start), int(end - start))


def begins(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` is word2vec's binary form: what follows its first line is no text.

    The text form has the same first line; there, the second ends with numbers.
    """
    header = header_of(head)
    if header is None or header[0] == 0:
        return False
    _, dim, length = header
    line, newline, _ = head[length:].partition(b"\n")
    fields = line.split()
    numbers = fields[-dim:] if newline else fields[len(fields) // 2 : -1]  # the last may be cut
    if numbers and all(NUMBER.fullmatch(field) for field in numbers):
        return False
    return NOT_IN_TEXT.search(head) is not None or not _is_utf8(head)


def open_binary(stream: Stream, word_list: str | None = None) -> Source:
    """Open word2vec's binary form, with or without line ends between the rows.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        Of no use here: the file has its words.

    Raises
    ------
    UserError
        When the first line is none, or says what the file cannot hold.
    """
    with stream.open() as reader:
        head = reader.read(HEADER_BYTES)
        header = header_of(head)
        if header is None:
            raise UserError(f"{stream.path}: its first line is not 'COUNT DIM', as in word2vec's files")
        count, dim, length = header
        if not 1 <= dim <= WIDEST:
            raise UserError(
                f"{stream.path}: its first line says vectors of {dim:,} numbers; 1 to {WIDEST:,} can be read"
            )
        if length + count * (4 * dim + 1) > stream.most:
            raise UserError(
                f"{stream.path}: its first line says {count:,} words of {dim:,} numbers, which is more than its "
                f"{stream.size:,} bytes hold: it was cut, or that line is wrong"
            )
        first = head[length:] + reader.read(LONGEST + 4 * dim + 2)
    end = first.find(b" ") + 1 + 4 * dim
    return BinarySource(stream, count, dim, length, count > 1 and first[end : end + 1] == b"\n")


class BinarySource(Source):
    """word2vec's binary form, opened.

    Parameters
    ----------
    stream : Stream
    count, dim : int
        What the first line says.
    start : int
        The byte at which the first row begins.
    seams : bool
        Whether a line end stands between rows.
    """

    format = "word2vec-binary"

    def __init__(self, stream: Stream, count: int, dim: int, start: int, seams: bool) -> None:
        self.path, self.size = stream.path, stream.size
        self.count: int = count
        self.dim = dim
        self.details = {} if stream.compression is None else {"compression": stream.compression}
        self._stream, self._start, self._seams = stream, start, seams

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, some megabytes at a time."""
        for first, words, rows in self._parts(True):
            yield Block(first, words, rows)

    def words(self) -> Iterator[pa.BinaryArray]:
        """Yield the words; the numbers are passed over, and not looked at."""
        for _, words, _ in self._parts(False):
            yield words

    def _parts(self, numbers: bool) -> Iterator[tuple[int, pa.BinaryArray, np.ndarray]]:
        """Yield number of the first row, words and rows (none when ``numbers`` is false)."""
        width = 4 * self.dim
        buffer = np.empty(CHUNK + LONGEST + width, np.uint8)  # always room for a row
        letters = np.empty(len(buffer), np.uint8)
        done, filled, place = 0, 0, self._start  # place: where in the file the buffer begins
        with self._stream.open() as reader:
            reader.skip(self._start)
            while done < self.count:
                filled += reader.readinto(buffer[filled:])
                self.consumed = self._stream.consumed
                most = min(self.count - done, filled // (width + 1))
                rows = np.empty((most if numbers else 0, self.dim), np.float32)
                offsets = np.zeros(most + 1, np.int32)
                found, end, why = _rows(buffer[:filled], width, done, self._seams, rows, numbers, letters, offsets)
                if why != GOES_ON or found == 0:
                    raise self._wrong(why, done + found, place + end, buffer[end:filled].tobytes(), place + filled)
                words = binary_array(letters[: offsets[found]].copy(), offsets[: found + 1])
                yield done, words, rows[:found]
                done, place, filled = done + found, place + end, filled - end
                buffer[:filled] = buffer[end : end + filled].copy()
            rest = buffer[:filled].tobytes() + reader.read(2)
        if rest not in (b"", b"\n"):
            raise UserError(
                f"{self.path}: goes on at byte {place:,}, after the {self.count:,} words of {self.dim:,} numbers that its "
                f"first line says: that line is wrong, or the file is damaged"
            )

    def _wrong(self, why: int, row: int, place: int, rest: bytes, end: int) -> UserError:
        """Return what is wrong with the row (from 0 on) that begins at byte ``place``, or a line end before it does."""
        place += self._seams and row > 0 and why != NO_SEAM
        where = f"{self.path}: row {row + 1:,}, at byte {place:,},"
        if why == TOO_LONG:
            return UserError(f"{where} has no word: there is no space within {LONGEST:,} bytes; the file is damaged")
        if why == NO_SEAM:
            found = (
                "no line end stands before it, as before"
                if self._seams
                else "a line end stands before it, unlike before"
            )
            return UserError(f"{where} is not where it should be: {found} other rows; the file is damaged")
        if why == NOT_FINITE:
            word = rest.lstrip(b"\n").partition(b" ")[0].decode("utf-8", "replace")[:NAMED]
            return UserError(f"{where} of the word {word!r}, holds a number that is not finite (NaN or infinite)")
        return UserError(
            f"{self.path}: ends at byte {end:,}, in row {row + 1:,} of the {self.count:,} that its first line says: it was cut, "
            f"or that line is wrong"
        )


def binary_array(letters: np.ndarray, offsets: np.ndarray) -> pa.BinaryArray:
    """Return the words that lie in ``letters`` one after another.

    Parameters
    ----------
    letters : ndarray, shape (bytes,), uint8
    offsets : ndarray, shape (words + 1,), int32
    """
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    )


@numba.njit(nogil=True, cache=True)
def _rows(
    data: np.ndarray,
    width: int,
    before: int,
    seams: bool,
    rows: np.ndarray,
    numbers: bool,
    letters: np.ndarray,
    offsets: np.ndarray,
) -> tuple[int, int, int]:
    """Take as many rows out of ``data`` as it holds, and ``offsets`` has room for; return how many, where they end, why.

    ``before`` rows came earlier; where ``numbers`` is false, ``rows`` is left alone.
    """
    taken = rows.view(np.uint8)
    bits = rows.view(np.uint32)
    place, written, row = 0, 0, 0
    while row < len(offsets) - 1:
        word = place
        if before + row > 0:
            if place == len(data):
                break
            if (data[place] == NEWLINE) != seams:
                return row, place, NO_SEAM
            word += seams
        space = word
        while space < len(data) and data[space] != SPACE:
            space += 1
        if space - word > LONGEST:
            return row, place, TOO_LONG
        if space + 1 + width > len(data):
            break
        if numbers:
            wrong = False
            for column in range(width):
                taken[row, column] = data[space + 1 + column]
            for column in range(bits.shape[1]):
                wrong |= (bits[row, column] & EXPONENT) == EXPONENT
            if wrong:
                return row, place, NOT_FINITE
        for letter in range(word, space):
            letters[written] = data[letter]
            written += 1
        row += 1
        offsets[row] = written
        place = space + 1 + width
    return row, place, GOES_ON


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a character
    except UnicodeDecodeError:
        return False
    return True
