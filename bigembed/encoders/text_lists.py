"""Columns of lists of texts."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.encoders.columns import BLOCK_ROWS, Column, Places, Spans, chunks_of, pieces
from bigembed.encoders.lists import is_list, list_layout, refuse_lists
from bigembed.encoders.text import TextColumn, is_text, memory_of
from bigembed.errors import UserError


class TextListColumn(Column):
    """A column of lists of texts; see ``Column``.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of lists (also large ones and ones of fixed size) of what a ``TextColumn`` takes.
    name : str
        What messages call the column.

    Raises
    ------
    UserError
        The column is of another type; or rows are null, or have a null in their list.
    """

    what = "lists"

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "text") -> None:
        kind = array.type
        if not is_list(kind) or not is_text(kind.value_type):
            raise UserError(f"column '{name}' holds {kind}, not lists of texts: name a column of lists of strings")
        self.name = name
        lists = chunks_of(array)
        refuse_lists(name, lists, "a text")
        values = [chunk.values for chunk in lists]
        before = accumulate((len(each) for each in values), initial=0)
        # Lists have the numbers of their texts in place of addresses.
        self._lists = Places(lists, [list_layout(chunk, start, 1) for chunk, start in zip(lists, before, strict=False)])
        self._texts = _Texts(pa.chunked_array(values, kind.value_type), name)
        self._array = array  # keeps the buffers alive

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lists)

    def spans(self, index: np.ndarray) -> Spans:
        """Return the texts of the rows named by ``index``; see ``Column``."""
        begin, end = self._lists.find(index, self.name)
        rows = np.zeros(len(begin) + 1, np.int64)
        np.cumsum(end - begin, out=rows[1:])
        places = np.empty(rows[-1], np.int64)
        _count_up(begin, end, places)
        return replace(self._texts.spans(places), rows=rows)

    def contents(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        """Yield the lengths (int64) and the contents of all rows in order: of each how many texts, then the bytes of each."""
        for spans in self.blocks():
            assert spans.rows is not None
            yield np.insert(spans.end - spans.begin, spans.rows[:-1], np.diff(spans.rows)), memory_of(spans)

    def _blocks(self, index: np.ndarray) -> Iterator[Spans]:
        begin, end = self._lists.find(index, self.name)
        for start, stop in pieces(end - begin, BLOCK_ROWS):  # of so many texts
            yield from super()._blocks(index[start:stop])


class _Texts(TextColumn):
    """The texts in lists; those that are null are in none."""

    def _check(self) -> None:
        """Take all."""


@numba.njit(nogil=True, cache=True)
def _count_up(begin: np.ndarray, end: np.ndarray, out: np.ndarray) -> None:
    """Write the numbers from each ``begin`` to its ``end``, one after the other."""
    used = 0
    for row in range(len(begin)):
        for i in range(begin[row], end[row]):
            out[used] = i
            used += 1
