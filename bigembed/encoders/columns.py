"""Columns of texts or numbers as they lie in Arrow's memory, reached in any order and without a copy.

A row is reached as a span, the addresses of its first byte and of the byte after its last, so that a memory-mapped
column of thousands of chunks costs nothing but what is read of it.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba.extending import intrinsic

from bigembed.errors import UserError

BLOCK_ROWS = 1 << 16
_BLOCK_BYTES = 1 << 21
BYTES = np.dtype("S1")  # of texts; as a number of 8 bits it would be one of the ids


@dataclass(frozen=True, slots=True)
class Spans:
    """Rows by their addresses.

    Attributes
    ----------
    begin, end : ndarray, shape (spans,), int64
        Address of each span's first byte, and of the byte after its last. A span is a row, or where there are ``rows``
        one text of it.
    owner : object
        Keeps the memory alive.
    dtype : dtype
        What lies there: the bytes of texts, or integers.
    rows : ndarray, shape (rows + 1,), int64, or None
        Row ``i`` has the spans ``rows[i]`` to ``rows[i + 1]``; None: each has one.
    others : tuple of Spans
        The same rows of the columns that this one is crossed with.
    """

    begin: np.ndarray
    end: np.ndarray
    owner: Any
    dtype: np.dtype = BYTES
    rows: np.ndarray | None = None
    others: "tuple[Spans, ...]" = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.begin) if self.rows is None else len(self.rows) - 1

    def __getitem__(self, rows: slice) -> "Spans":
        """Return some of the rows, side by side."""
        start, stop, _ = rows.indices(len(self))
        others = tuple(other[rows] for other in self.others)
        if self.rows is None:
            return replace(self, begin=self.begin[start:stop], end=self.end[start:stop], others=others)
        bounds = self.rows[start : max(start, stop) + 1]
        part = slice(bounds[0], bounds[-1])
        return replace(self, begin=self.begin[part], end=self.end[part], rows=bounds - bounds[0], others=others)

    @property
    def sizes(self) -> np.ndarray:
        """The bytes of each row, shape (rows,), int64, without those of ``others``."""
        sizes = self.end - self.begin
        if self.rows is None:
            return sizes
        ends = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=ends[1:])
        return np.diff(ends[self.rows])

    @property
    def size(self) -> int:
        """The bytes of all rows together, without those of ``others``."""
        return int((self.end - self.begin).sum())

    def texts(self) -> Iterator[str]:
        """Yield each text as a Python string; a byte that is not UTF-8 becomes U+FFFD."""
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

    Attributes
    ----------
    name : str
        What messages call the column.
    what : str
        What messages call the rows.
    """

    name: str
    what: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index`` (int64), in that order.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """

    @abstractmethod
    def contents(self) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """Yield the lengths (int64) and the contents (buffers) of all rows in order, some rows at a time, for a checksum."""

    def blocks(self, index: np.ndarray | None = None) -> Iterator[Spans]:
        """Yield the rows named by ``index`` (int64; by default all) in order, a few megabytes of whole rows at a time."""
        rows = len(self) if index is None else len(index)
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            yield from self._blocks(np.arange(start, stop) if index is None else index[start:stop])

    def empty(self) -> int:
        """Return how many rows have nothing in them, or in a column that they are crossed with."""
        return sum(
            int(np.any([each.sizes == 0 for each in (spans, *spans.others)], axis=0).sum()) for spans in self.blocks()
        )

    def _blocks(self, index: np.ndarray) -> Iterator[Spans]:
        spans = self.spans(index)
        sizes = sum((other.sizes for other in spans.others), start=spans.sizes)
        for start, stop in pieces(sizes, _BLOCK_BYTES):
            yield spans[start:stop]


class ArrowColumn(Column):
    """A column of one Arrow array.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of a type that the kind of column takes.
    name : str
        What messages call the column.

    Attributes
    ----------
    dtype : dtype
        What a row is made of.

    Raises
    ------
    UserError
        The column is of another type, or rows are null.
    """

    dtype: np.dtype

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str) -> None:
        self.name = name
        self._array = array  # keeps the buffers alive
        self._parts = chunks_of(array)
        self._check()
        buffers: list[int] = []
        self._places = Places(self._parts, [self._layout(chunk, buffers) for chunk in self._parts], buffers)

    @abstractmethod
    def _check(self) -> None:
        """Refuse what the column cannot hold."""

    @abstractmethod
    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        """Return where a chunk lies; addresses that views need go to the end of ``buffers``."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index``; see ``Column``."""
        return Spans(*self._places.find(index, self.name), self._array, self.dtype)


class Places:
    """Where the rows of chunks lie.

    Parameters
    ----------
    chunks : sequence of Array
        None of them empty.
    layouts : sequence of Layout
        Of each.
    buffers : sequence of int
        Addresses that layouts of views name by their number.

    Attributes
    ----------
    starts : ndarray, shape (chunks + 1,), int64
        The first row of each chunk, and the number of all rows.
    """

    def __init__(self, chunks: Sequence[pa.Array], layouts: Sequence[Layout], buffers: Sequence[int] = ()) -> None:
        self.starts = np.cumsum([0] + [len(chunk) for chunk in chunks], dtype=np.int64)
        self._chunks = np.array(layouts, np.int64).reshape(-1, len(Layout._fields))
        self._buffers = np.array(buffers, np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.starts[-1])

    def find(self, index: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where the rows named by ``index`` (int64) of the column ``name`` begin and end, both int64.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """
        index = np.ascontiguousarray(index, np.int64)
        begin, end = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
        if not _locate(self.starts, self._chunks, self._buffers, index, begin, end):
            raise IndexError(f"rows {index.min()} to {index.max()} of column {name!r}, which has {len(self)}")
        return begin, end


def chunks_of(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """Return the chunks of an array that have rows."""
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return [chunk for chunk in chunks if len(chunk)]


def refuse_nulls(name: str, chunks: Sequence[pa.Array], null: Sequence[np.ndarray], what: str, remedy: str) -> None:
    """Refuse the column ``name`` if any of its chunks has null rows, which are given for each.

    Raises
    ------
    UserError
        With the number of such rows, and the first of them.
    """
    count = sum(len(rows) for rows in null)
    if not count:
        return
    before, total = 0, sum(len(chunk) for chunk in chunks)
    for chunk, rows in zip(chunks, null, strict=True):
        if len(rows):
            raise UserError(
                f"column '{name}' has {what} (null) in {count} of {total} rows, the first is row {before + int(rows[0])}: "
                f"drop these rows or {remedy}"
            )
        before += len(chunk)


def pieces(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row after the last of pieces of rows of these sizes, each of about ``limit`` together."""
    cuts: list[int] = []
    if sizes.sum() >= limit:
        cuts = (np.flatnonzero(np.diff(np.cumsum(sizes) // limit)) + 1).tolist()
    if len(sizes):
        yield from pairwise([0, *cuts, len(sizes)])


def address(buffer: pa.Buffer | None) -> int:
    """Return where a buffer lies; 0 for none."""
    return 0 if buffer is None else buffer.address


def loader(bits: int, signed: bool) -> Any:
    """Return a compiled function that reads integer ``i`` of so many bits from an address on: (int64, int64) to int64."""

    def load(typing: Any, begin: Any, i: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.IntType(bits)
            place = builder.inttoptr(arguments[0], ir.PointerType(kind))
            place = builder.gep(place, [arguments[1]], source_etype=kind)  # which loops over i are vectorised by
            value = builder.load(place, typ=kind, align=1)
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64)) if bits < 64 else value

        return numba.int64(numba.int64, numba.int64), emit

    return intrinsic(load)


uint8_of, uint16_of, uint32_of = loader(8, False), loader(16, False), loader(32, False)
int8_of, int16_of, int32_of, int64_of = loader(8, True), loader(16, True), loader(32, True), loader(64, True)


@numba.njit(nogil=True, cache=True)
def uint8_at(place: int) -> int:
    """Return the byte at an address."""
    return uint8_of(place, 0)


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
            row = uint8_of(codes, row)
        elif code_width == 2:
            row = uint16_of(codes, row)
        elif code_width == 4:
            row = uint32_of(codes, row)
        elif code_width == 8:
            row = int64_of(codes, row)
        if width == 4:
            begin[i] = values + item * int32_of(offsets, row)
            end[i] = values + item * int32_of(offsets, row + 1)
        elif width == 8:
            begin[i] = values + item * int64_of(offsets, row)
            end[i] = values + item * int64_of(offsets, row + 1)
        elif width < 0:
            begin[i] = values + item * row
            end[i] = begin[i] + item
        else:
            # A view: its length, then up to 12 bytes in place, or the first four, a buffer's number and a place in it.
            view = offsets + 16 * row
            size = int32_of(view, 0)
            begin[i] = view + 4
            if size > 12:
                begin[i] = buffers[values + int32_of(view, 2)] + int32_of(view, 3)
            end[i] = begin[i] + size
    return True
