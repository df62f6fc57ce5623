"""Rows of a plain array in a file, as float32, with the words that stand beside it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.errors import UserError
from bigembed.vectors.finite import WIDEST, first_not_finite
from bigembed.vectors.shown import shown
from bigembed.vectors.source import Block, Source
from bigembed.vectors.streams import Stream
from bigembed.vectors.word_lists import beside, open_list, words_of

BLOCK = 1 << 22  # bytes of the file in memory at once
BFLOAT16 = "bfloat16"  # which numpy does not know: the upper halves of float32


class ArraySource(Source):
    """An array of vectors, opened.

    Parameters
    ----------
    stream : Stream
    form : str
        The format, for the user.
    shape : tuple of int
    dtype : str
        numpy's name of its numbers, or "bfloat16".
    start : int
        The byte at which its numbers begin.
    behind : int
        Bytes that follow them.
    word_list : str or None
        The file of its words; None: what lies beside it, if any.
    details : dict of str to value
        What else there is to tell.

    Raises
    ------
    UserError
        When it has not two dimensions, the file does not fit its shape, or the words do not.
    """

    def __init__(
        self,
        stream: Stream,
        form: str,
        shape: tuple[int, ...],
        dtype: str,
        start: int,
        behind: int,
        word_list: str | None,
        details: dict[str, Any],
    ) -> None:
        self.path, self.size, self.format = stream.path, stream.size, form
        if len(shape) != 2 or not 1 <= shape[1] <= WIDEST:
            raise UserError(
                f"{self.path} is an array of shape {shown(shape)}; vectors are wanted, (count, 1 to {WIDEST:,})"
            )
        self.count: int = shape[0]
        self.dim = shape[1]
        self._stream, self._start, self._behind, self._bfloat16 = stream, start, behind, dtype == BFLOAT16
        self._dtype = np.dtype("<u2" if self._bfloat16 else dtype)
        end = start + self.count * self.dim * self._dtype.itemsize
        if end + behind > stream.most:
            raise UserError(
                f"{self.path} is to hold {self.count:,} vectors of {self.dim:,} numbers, up to byte {end:,}, but has "
                f"{stream.size:,} bytes: it was cut, or its header is wrong"
            )
        if stream.file is not None and end + behind < stream.size:
            raise self._goes_on(end + behind)
        self._list = word_list or beside(stream)
        self.has_words = self._list is not None
        self._counted = self._list is not None and open_list(self._list, self.count, self.path)
        self.details = {"numbers": BFLOAT16 if self._bfloat16 else self._dtype.name, **details}
        self.details |= {} if self._list is None else {"words": self._list}
        self.details |= {} if stream.compression is None else {"compression": stream.compression}

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, some megabytes at a time."""
        first, place = 0, self._start
        with self._stream.open() as reader:
            reader.skip(place)
            for count, words in self._parts():
                numbers = np.empty((count, self.dim), self._dtype)
                read = reader.readinto(numbers)
                if read < numbers.nbytes:
                    raise UserError(
                        f"{self.path} ends at byte {place + read:,}, in row {first + read // numbers[0].nbytes + 1:,} of "
                        f"{self.count:,}: it was cut, or its header is wrong"
                    )
                self.consumed = self._stream.consumed
                rows = self._as_float32(numbers)
                wrong = first_not_finite(rows)
                if wrong >= 0:
                    raise UserError(
                        f"{self.path}: row {first + wrong + 1:,}, at byte {place + wrong * numbers[0].nbytes:,}, holds a number that is "
                        f"not finite in float32 (NaN, infinite or too large)"
                    )
                yield Block(first, words, rows)
                first, place = first + count, place + numbers.nbytes
            # To the end, even if nothing there is used: what the file is packed in has its checksum there.
            place += reader.skip(self._behind)
            if place < self._start + self._behind + self.count * self.dim * self._dtype.itemsize:
                raise UserError(
                    f"{self.path} ends at byte {place:,}, behind its vectors: it was cut, or its header is wrong"
                )
            if reader.read(1):
                raise self._goes_on(place)

    def words(self) -> Iterator[pa.BinaryArray]:
        """Yield the words that stand beside the array; none where there are none."""
        if self._list is not None:
            yield from words_of(self._list, self._counted)

    def _parts(self) -> Iterator[tuple[int, pa.BinaryArray | None]]:
        """Yield how many rows a block has, and their words."""
        size = max(1, BLOCK // (self.dim * self._dtype.itemsize))
        if self._list is None:
            for first in range(0, self.count, size):
                yield min(size, self.count - first), None
        for chunk in self.words():
            for first in range(0, len(chunk), size):
                words = chunk.slice(first, size)
                yield len(words), words

    def _as_float32(self, numbers: np.ndarray) -> np.ndarray:
        if self._bfloat16:
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is refused
            return numbers.astype(np.float32, copy=False)

    def _goes_on(self, end: int) -> UserError:
        return UserError(
            f"{self.path} goes on at byte {end:,}, after the {self.count:,} vectors of {self.dim:,} numbers that its header says: "
            f"that is wrong, or the file has more than one array"
        )
