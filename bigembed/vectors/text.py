"""Vectors as text, a word and its numbers a line: word2vec's and fastText's .vec with a line "count dim" first, GloVe's without.

What stands between fields is one space or tab or more. A word may hold spaces: the last fields of a line are its numbers.
"""

import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed.cores import available_cores
from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.finite import WIDEST
from bigembed.vectors.lines import LONGEST, NEWLINE, count_lines, last_line, round_with_care, take_lines
from bigembed.vectors.source import Block, Source
from bigembed.vectors.streams import Reader, Stream
from bigembed.vectors.word2vec import NUMBER, binary_array, header_of, write_text

HEAD = 1 << 20  # bytes that tell the format
CHUNK = 1 << 22  # bytes of text parsed at a time, and the longest line
THREADS = 4  # at most: what they parse ahead is in memory
LOOKED_AT = 100  # lines that tell the width of a file without a header
BOM = b"\xef\xbb\xbf"
BY_HAND = 1 << 16  # bytes: what is larger was written by a program, which ends its last line, unless it was cut
CUT = "the last line, which has no end, so that its last number may be cut"
LARGEST = 2.0**128 - 2.0**103  # from here on, the nearest float32 is infinite


def begins(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` has a first line "count dim" and is no binary one (which is asked first)."""
    return header_of(head.removeprefix(BOM)) is not None


def begins_without_header(head: bytes, stream: Stream) -> bool:
    """Whether the first lines of a file are words with numbers, two at least."""
    return _width(head) > 1


def open_text(stream: Stream, word_list: str | None = None) -> Source:
    """Open a file whose first line is "count dim".

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        Of no use here: the file has its words.

    Raises
    ------
    UserError
        When the first line says what the file cannot hold.
    """
    with stream.open() as reader:
        head = reader.read(1 << 10)
    bom = len(BOM) if head.startswith(BOM) else 0
    header = header_of(head[bom:])
    assert header is not None  # begins has seen to that
    count, dim, length = header
    if not 1 <= dim <= WIDEST:
        raise UserError(f"{stream.path}, line 1: says vectors of {dim:,} numbers; 1 to {WIDEST:,} can be read")
    source = TextSource(stream, "word2vec", dim, count, bom + length)
    if count * (2 * dim + 1) > stream.most and (rows := _lines(stream) - 1) < count:
        raise source.too_few(rows)
    return source


def open_glove(stream: Stream, word_list: str | None = None) -> Source:
    """Open a file without such a line; its width is that of most of its first lines.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        Of no use here: the file has its words.

    Raises
    ------
    UserError
        When the file cannot be read.
    """
    with stream.open() as reader:
        head = reader.read(HEAD)
    source = TextSource(stream, "glove", _width(head), None, len(BOM) if head.startswith(BOM) else 0)
    if stream.file is not None and stream.size > BY_HAND and not _ends_line(stream.file):
        source.details["left out"] = CUT
    return source


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def write_glove(vectors: Vectors) -> Iterator[bytes | pa.Buffer]:
    """Yield the bytes of a file as GloVe writes it: word2vec's text without its first line.

    Raises
    ------
    UserError
        As ``write_text``.
    """
    pieces = write_text(vectors)
    next(pieces)
    yield from pieces


class TextSource(Source):
    """Lines of a word and its numbers, parsed by several threads.

    Parameters
    ----------
    stream : Stream
    format : str
    dim : int
    count : int or None
        Rows that the first line says; None where there is no such line.
    start : int
        The byte at which the first row begins.
    """

    def __init__(self, stream: Stream, format: str, dim: int, count: int | None, start: int) -> None:
        self.path, self.size, self.format = stream.path, stream.size, format
        self.dim, self.count = dim, count
        self.details = {} if stream.compression is None else {"compression": stream.compression}
        self._stream, self._start = stream, start

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, some megabytes at a time."""
        for first, part in self._parts(True):
            yield Block(first, part.words, part.rows)

    def words(self) -> Iterator[pa.BinaryArray]:
        """Yield the words; the numbers are counted, and not looked at."""
        for _, part in self._parts(False):
            yield part.words

    def too_few(self, rows: int) -> UserError:
        """Return that the file has fewer rows than its first line says."""
        return UserError(
            f"{self.path}: its first line says {self.count:,} rows, but there are {rows:,}: it was cut short, so fetch it again, or "
            f"make that line '{rows} {self.dim}' to use what is there"
        )

    def _parts(self, numbers: bool) -> Iterator[tuple[int, "_Part"]]:
        """Yield the number of the first row and the rows, a few blocks being parsed ahead."""
        threads = min(THREADS, available_cores())
        done, ahead = 0, deque[Future[_Part]]()
        pool = ThreadPoolExecutor(threads, "vectors")
        try:
            with self._stream.open() as reader:
                reader.read(self._start)
                for chunk, ended in self._chunks(reader):
                    ahead.append(pool.submit(_parse, chunk, ended, self.dim, numbers))
                    if len(ahead) > threads:
                        part = self._checked(done, ahead.popleft().result())
                        yield done, part
                        done += len(part.words)
            while ahead:
                part = self._checked(done, ahead.popleft().result())
                yield done, part
                done += len(part.words)
        finally:
            pool.shutdown(cancel_futures=True)
        if self.count is not None and done < self.count:
            raise self.too_few(done)

    def _chunks(self, reader: Reader) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield whole lines, some megabytes at a time, and whether the last one has a line end in the file: here, all have."""
        rest = np.empty(0, np.uint8)
        while True:
            chunk = np.empty(CHUNK + 1, np.uint8)
            chunk[: len(rest)] = rest
            filled = len(rest) + reader.readinto(chunk[len(rest) : CHUNK])
            self.consumed = self._stream.consumed
            if filled < CHUNK:
                break
            end = last_line(chunk[:filled])
            if end == 0:
                raise UserError(
                    f"{self.path}: a line that goes on beyond byte {self.consumed:,} is longer than {CHUNK:,} bytes, so this is no "
                    f"text of vectors"
                )
            rest = chunk[end:filled].copy()
            yield chunk[:end], True
        if "left out" in self.details:
            filled = last_line(chunk[:filled])
        if filled:
            chunk[filled] = NEWLINE
            ended = bool(chunk[filled - 1] == NEWLINE)
            yield chunk[: filled + (not ended)], ended

    def _checked(self, before: int, part: "_Part") -> "_Part":
        """Return a part, unless one of its lines is wrong, or there are more of them than the first line says."""
        rows, header = before + len(part.words), self.count is not None
        if self.count is not None and rows + (part.wrong is not None) > self.count:
            raise UserError(
                f"{self.path}, line {self.count + 2:,}: is one more than the {self.count:,} rows that the first line says; correct "
                f"that line, or delete what is too much"
            )
        if part.wrong is not None:
            reason = _reason(part.wrong, self.dim)
            if not part.ended:
                reason += (
                    f"; the file ends there, so it may be cut short: fetch it again, or take the {rows:,} rows before"
                )
            raise UserError(f"{self.path}, line {rows + 1 + header:,}: {reason}")
        return part


@dataclass(frozen=True, slots=True)
class _Part:
    """What a block of lines holds, up to the first one that is wrong; whether that one has a line end in the file."""

    words: pa.BinaryArray
    rows: np.ndarray
    wrong: bytes | None = None
    ended: bool = True


def _parse(chunk: np.ndarray, ended: bool, dim: int, numbers: bool) -> _Part:
    """Return the rows of a block of whole lines; without ``numbers``, their words alone."""
    most = min(len(chunk) // (2 * dim + 1) + 1, count_lines(chunk))  # a number takes a separator and a digit
    rows = np.empty((most if numbers else 0, dim), np.float32)
    letters, offsets, starts = np.empty(len(chunk), np.uint8), np.zeros(most + 1, np.int32), np.empty(most, np.int32)
    found, end, careful = take_lines(chunk, dim, numbers, rows, letters, offsets, starts)
    if careful and (fit := round_with_care(chunk, rows[:found], starts)) < found:
        found, end = fit, chunk[: starts[fit]].tobytes().rfind(b"\n") + 1
    words = binary_array(letters[: offsets[found]].copy(), offsets[: found + 1])
    if end == len(chunk):
        return _Part(words, rows[:found])
    wrong = chunk[end:].tobytes().partition(b"\n")[0]
    return _Part(words, rows[:found], wrong, ended or end + len(wrong) + 1 < len(chunk))


def _reason(line: bytes, dim: int) -> str:
    """Return what is wrong with a line."""
    fields = _split(line)
    filled = [field for field in fields if field]
    numbers = _numbers_behind(filled, bool(fields[0]))
    if not filled:
        return "is blank; delete it"
    if numbers < dim < len(filled):
        return f"{_shown(next(field for field in filled[::-1] if not NUMBER.fullmatch(field)))} is no number"
    if numbers == dim:
        unfit = [field for field in filled[-dim:] if len(field) > LONGEST or not abs(float(field)) < LARGEST]
        return f"{_shown(unfit[0])} is no finite number as a float32" if unfit else "cannot be read"
    return f"has {numbers:,} numbers behind its word, not {dim:,}"


def _shown(field: bytes) -> str:
    return repr(field[:40].decode("utf-8", "replace") + ("…" if len(field) > 40 else ""))


def _numbers_behind(fields: list[bytes], word: bool) -> int:
    """Return how many fields at the end of a line are numbers; the first of a line with a word is none."""
    numbers = 0
    while numbers < len(fields) - word and NUMBER.fullmatch(fields[-1 - numbers]):
        numbers += 1
    return numbers


def _width(head: bytes) -> int:
    """Return how many numbers most of a file's first lines end with; of two equally frequent widths, the larger one."""
    lines = head.removeprefix(BOM).split(b"\n", LOOKED_AT)
    if len(head) == HEAD or len(lines) > LOOKED_AT or not lines[-1]:
        del lines[-1]  # which may be cut, or is none
    widths = Counter[int]()
    for line in lines:
        fields = _split(line)
        widths[_numbers_behind([field for field in fields if field], bool(fields[0]))] += 1
    return max(widths, key=lambda width: (widths[width], width), default=0)


def _split(line: bytes) -> list[bytes]:
    """Return the fields of a line, with an empty one for each separator more than needed."""
    return line.removesuffix(b"\r").replace(b"\t", b" ").split(b" ")


def _lines(stream: Stream) -> int:
    """Return how many lines a file has."""
    chunk, lines, ended = np.empty(CHUNK, np.uint8), 0, True
    with stream.open() as reader:
        while filled := reader.readinto(chunk):
            lines += count_lines(chunk[:filled])
            ended = bool(chunk[filled - 1] == NEWLINE)
    return lines + (not ended)
