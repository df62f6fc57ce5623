"""Columns of texts or numbers as they lie in Arrow's memory, reached in any order and without a copy.

A row is reached as a span, the addresses of its first byte and of the byte after its last, so that a memory-mapped
column of thousands of chunks costs nothing but what is read of it.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba.extending import intrinsic

from bigembed.errors import UserError

_BLOCK_ROWS = 1 << 14
_BLOCK_BYTES = 1 << 21
BYTES = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Spans:
    """Rows by their addresses.

    Attributes
    ----------
    begin, end : ndarray, shape (rows,), int64
        Address of each row's first byte, and of the byte after its last.
    owner : object
        Keeps the memory alive.
    dtype : dtype
        What lies there: the bytes of texts, or integers.
    """

    begin: np.ndarray
    end: np.ndarray
    owner: Any
    dtype: np.dtype = BYTES

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.begin)

    def __getitem__(self, rows: slice) -> "Spans":
        """Return some of the rows."""
        return Spans(self.begin[rows], self.end[rows], self.owner, self.dtype)

    @property
    def size(self) -> int:
        """The bytes of all rows together."""
        return int((self.end - self.begin).sum())

    def texts(self) -> Iterator[str]:
        """Yield each row as a Python string; a byte that is not UTF-8 becomes U+FFFD."""
        for begin, end in zip(self.begin.tolist(), self.end.tolist(), strict=True):
            yield ctypes.string_at(begin, end - begin).decode(errors="replace")


class Layout(NamedTuple):
    """A chunk as the kernel knows it; all are addresses or counts of bytes.

    Attributes
    ----------
    width : int
        Of the offsets; 0: there are views instead; -1: neither, every row takes ``item`` bytes.
    offsets : int
        Address of the offsets or views.
    values : int
        Address of the values; for views, the number of the chunk's first buffer.
    item : int
        Bytes of what the offsets count.
    code_width, codes : int
        Width and address of a dictionary's codes; width 0: there is no dictionary.
    """

    width: int
    offsets: int
    values: int
    item: int
    code_width: int = 0
    codes: int = 0


class Column(ABC):
    """A column in Arrow's memory, sliced or memory-mapped as may be.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of a type that the kind of column takes.
    name : str
        What messages call the column.

    Attributes
    ----------
    what : str
        What messages call the rows.
    dtype : dtype
        What a row is made of.

    Raises
    ------
    UserError
        The column is of another type, or rows are null.
    """

    what: str
    dtype: np.dtype

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str) -> None:
        self.name = name
        self._array = array  # keeps the buffers alive
        self._length = len(array)
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        self._parts = [chunk for chunk in chunks if len(chunk)]
        self._check()
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self._parts], dtype=np.int64)
        buffers: list[int] = []
        layouts = [self._layout(chunk, buffers) for chunk in self._parts]
        self._chunks = np.array(layouts, np.int64).reshape(-1, len(Layout._fields))
        self._buffers = np.array(buffers, np.int64)

    @abstractmethod
    def _check(self) -> None:
        """Refuse what the column cannot hold."""

    @abstractmethod
    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        """Return where a chunk lies; addresses that views need go to the end of ``buffers``."""

    @abstractmethod
    def contents(self) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """Yield the lengths (int64) and the contents (buffers) of all rows in order, some rows at a time, for a checksum."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index`` (int64), in that order.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """
        index = np.ascontiguousarray(index, np.int64)
        begin, end = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
        if not _locate(self._starts, self._chunks, self._buffers, index, begin, end):
            raise IndexError(f"rows {index.min()} to {index.max()} of column {self.name!r}, which has {len(self)}")
        return Spans(begin, end, self._array, self.dtype)

    def blocks(self, index: np.ndarray | None = None) -> Iterator[Spans]:
        """Yield the rows named by ``index`` (int64; by default all) in order, a few megabytes at a time."""
        rows = len(self) if index is None else len(index)
        for start in range(0, rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, rows)
            spans = self.spans(np.arange(start, stop) if index is None else index[start:stop])
            block = np.cumsum(spans.end - spans.begin) // _BLOCK_BYTES
            cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(spans)]
            for a, b in pairwise(cuts):
                yield spans[a:b]

    def empty(self) -> int:
        """Return how many rows have nothing in them."""
        return sum(int((spans.begin == spans.end).sum()) for spans in self.blocks())

    def _refuse(self, bad: Sequence[np.ndarray], what: str, remedy: str) -> None:
        """Refuse the column where a chunk has bad rows (given for each chunk)."""
        count = sum(len(rows) for rows in bad)
        if not count:
            return
        before = 0
        for chunk, rows in zip(self._parts, bad, strict=True):
            if len(rows):
                raise UserError(
                    f"column '{self.name}' has {what} (null) in {count} of {len(self)} rows, the first is row "
                    f"{before + int(rows[0])}: drop these rows or {remedy}"
                )
            before += len(chunk)


def address(buffer: pa.Buffer | None) -> int:
    """Return where a buffer lies; 0 for none."""
    return 0 if buffer is None else buffer.address


def loader(bits: int, signed: bool) -> Any:
    """Return a compiled function that reads an integer of so many bits at an address: int64 to int64."""

    def load(typing: Any, at: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.PointerType(ir.IntType(bits)))
            value = builder.load(place, typ=ir.IntType(bits), align=1)
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return numba.int64(numba.int64), emit

    return intrinsic(load)


uint8_at, uint16_at, uint32_at = loader(8, False), loader(16, False), loader(32, False)
int8_at, int16_at, int32_at, int64_at = loader(8, True), loader(16, True), loader(32, True), loader(64, True)

_WIDTH, _OFFSETS, _VALUES, _ITEM, _CODE_WIDTH, _CODES = range(len(Layout._fields))


@numba.njit(nogil=True, cache=True)
def _locate(
    starts: np.ndarray, chunks: np.ndarray, buffers: np.ndarray, index: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> bool:
    """Write the spans of the rows; False if an index is no row."""
    first = last = width = offsets = values = item = code_width = codes = 0
    for i in range(len(index)):
        row = index[i]
        if not first <= row < last:  # of the chunk that the row before lies in
            if row < 0 or row >= starts[-1]:
                return False
            chunk = np.searchsorted(starts, row, "right") - 1
            first, last = starts[chunk], starts[chunk + 1]
            width, offsets, values = chunks[chunk, _WIDTH], chunks[chunk, _OFFSETS], chunks[chunk, _VALUES]
            item, code_width, codes = chunks[chunk, _ITEM], chunks[chunk, _CODE_WIDTH], chunks[chunk, _CODES]
        row -= first
        if code_width == 1:
            row = uint8_at(codes + row)
        elif code_width == 2:
            row = uint16_at(codes + 2 * row)
        elif code_width == 4:
            row = uint32_at(codes + 4 * row)
        elif code_width == 8:
            row = int64_at(codes + 8 * row)
        if width == 4:
            begin[i] = values + item * int32_at(offsets + 4 * row)
            end[i] = values + item * int32_at(offsets + 4 * row + 4)
        elif width == 8:
            begin[i] = values + item * int64_at(offsets + 8 * row)
            end[i] = values + item * int64_at(offsets + 8 * row + 8)
        elif width < 0:
            begin[i] = values + item * row
            end[i] = begin[i] + item
        else:
            # A view: its length, then up to 12 bytes in place, or the first four, a buffer's number and a place in it.
            view = offsets + 16 * row
            size = int32_at(view)
            begin[i] = view + 4
            if size > 12:
                begin[i] = buffers[values + int32_at(view + 8)] + int32_at(view + 12)
            end[i] = begin[i] + size
    return True
