"""Tables whose values are row ids already: whole numbers, one a sample or a list of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import IdsTable
from bigembed.encoders import columns as at
from bigembed.encoders.columns import Column, Layout, Spans, address
from bigembed.encoders.encoder import Encoded, Encoder
from bigembed.errors import UserError
from bigembed.ragged import Ragged

_BLOCK = 1 << 16  # values compared at once: they stay in a core's cache


class IdsColumn(Column):
    """A column of ids; see ``Column``.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of integers, or of lists of integers (also large ones and ones of fixed size); signed or not, of any width.
    name : str
        What messages call the column.

    Raises
    ------
    UserError
        The column is of another type; or rows are null, or have a null in their list.
    """

    what = "lists"

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "id") -> None:
        if pa.types.is_null(array.type):
            array = array.cast(pa.int64())
        elif _is_list(array.type) and pa.types.is_null(
            array.type.value_type
        ):  # as Arrow calls lists that are all empty
            array = array.cast(pa.list_(pa.int64()))
        super().__init__(array, name)

    def contents(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        """Yield the number of ids (int64) and the ids (as int64, whatever their type) of all rows in order."""
        for spans in self.blocks():
            ids = read(spans)
            yield ids.lengths, [ids.values]

    def first_outside(self, rows: int) -> tuple[int, int] | None:
        """Return the first row with an id that is not in ``[0, rows)``, and that id; None where there is none."""
        # Read as an unsigned number, a negative one is at least this: one comparison tells both.
        limit = rows if self.dtype.kind == "u" else min(rows, 1 << (8 * self.dtype.itemsize - 1))
        for chunk, start in zip(self._parts, self._starts.tolist(), strict=False):
            values = _numbers(_values(chunk), self.dtype)
            unsigned = values.view(f"u{self.dtype.itemsize}")
            for begin in range(0, len(values), _BLOCK):
                block = unsigned[begin : begin + _BLOCK]
                if int(block.max()) >= limit:
                    place = begin + int((block >= limit).argmax())
                    return start + int(_rows_of(chunk, np.array([place]))[0]), int(values[place])
        return None

    def _check(self) -> None:
        kind = self._array.type
        item = kind.value_type if _is_list(kind) else kind
        if not pa.types.is_integer(item):
            raise UserError(
                f"column '{self.name}' holds {kind}, not row ids: name a column of whole numbers, or of lists of them"
            )
        self.dtype = np.dtype(str(item))
        nulls = [np.flatnonzero(chunk.is_null()) if chunk.null_count else np.empty(0, int) for chunk in self._parts]
        if not _is_list(kind):
            self._refuse(nulls, "no id", "fill them")
            return
        self._refuse(nulls, "no list", "fill them, for example with empty lists")
        self._refuse([_rows_with_nulls(chunk) for chunk in self._parts], "an id missing", "leave it out of the list")

    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        width = self.dtype.itemsize
        if not _is_list(chunk.type):
            return Layout(-1, 0, address(chunk.buffers()[1]) + width * chunk.offset, width)
        values = address(chunk.values.buffers()[1]) + width * chunk.values.offset
        if pa.types.is_fixed_size_list(chunk.type):
            item = width * chunk.type.list_size
            return Layout(-1, 0, values + item * chunk.offset, item)
        of_offsets = _offset_type(chunk).itemsize
        return Layout(of_offsets, address(chunk.buffers()[1]) + of_offsets * chunk.offset, values, width)


class IdsEncoder(Encoder):
    """Takes ids as the rows that they name; there is nothing to learn.

    Parameters
    ----------
    config : IdsTable
        The table.
    """

    kind = "ids"
    reads = pa.list_(pa.int64())
    copies = True

    def __init__(self, config: IdsTable) -> None:
        super().__init__(config, config.rows)

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> IdsColumn:
        """Return a column of ids; whether the table has rows for them is seen by ``check``."""
        return IdsColumn(array, name)

    @classmethod
    def learn(
        cls,
        name: str,
        config: IdsTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "IdsEncoder":
        """Make the encoder of a new table; the ids are not looked at."""
        return cls(config)

    @classmethod
    def restore(cls, config: IdsTable, words: pa.StringArray, counts: np.ndarray) -> "IdsEncoder":
        """Make the encoder again; it saved no words."""
        return cls(config)

    @classmethod
    def settings_of(cls, config: IdsTable) -> dict[str, Any]:
        """Return how many rows there are, as nothing else decides what an id means."""
        return {"rows": config.rows}

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse ids that the table has no rows for, in one pass over the column.

        Raises
        ------
        UserError
            Naming the first such id and its row.
        """
        assert isinstance(column, IdsColumn)
        found = column.first_outside(self.rows)
        if found is not None:
            row, value = found
            larger = f", or train with a larger tables.{table}.rows" if value >= 0 else ""
            raise UserError(
                f"feature '{feature}': row {row} of the {part} holds the id {value} in column '{column.name}', but "
                f"tables.{table} has {self.rows:,} rows (ids 0 to {self.rows - 1}); mend the data{larger}"
            )

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the numbers in each text, with white space between them, as a list.

        Raises
        ------
        UserError
            A word of a text is no id of this table.
        """
        ids = []
        for number, text in enumerate(texts):
            try:
                ids.append([self.row_of(word) for word in text.split()])
            except UserError as error:
                raise UserError(f"{name(number)}: {error}") from None
        return pa.array(ids, self.reads)

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return ids in memory, which ``check`` has seen, as ``dtype`` int64 or int32."""
        ids = read(spans, dtype)
        return Encoded(ids, ids.lengths.astype(np.int32))

    def row_of(self, token: str) -> int:
        """Return the row of an id written in decimal digits.

        Raises
        ------
        UserError
            ``token`` is no such id, or too large for the table.
        """
        # No id has 20 digits; Python refuses to read thousands of them.
        row = int(token) if token.isascii() and token.isdecimal() and len(token) < 20 else -1
        if not 0 <= row < self.rows:
            raise UserError(f"'{token}' is no row of this table, whose ids are the numbers 0 to {self.rows - 1}")
        return row


def read(spans: Spans, dtype: Any = np.int64) -> Ragged:
    """Return the integers in ``spans``, of ``dtype`` int64 or int32."""
    width, unsigned = spans.dtype.itemsize, spans.dtype.kind == "u"
    values, offsets = np.empty(spans.size // width, dtype), np.zeros(len(spans) + 1, np.int64)
    _copy(spans.begin, spans.end, width, unsigned, values, offsets[1:])
    return Ragged(values, offsets)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _offset_type(chunk: pa.Array) -> np.dtype:
    return np.dtype(np.int64 if pa.types.is_large_list(chunk.type) else np.int32)


def _offsets(chunk: pa.Array) -> np.ndarray:
    """Return where each list begins in the values, and where the last one ends."""
    kind = _offset_type(chunk)
    return np.frombuffer(chunk.buffers()[1], kind, len(chunk) + 1, kind.itemsize * chunk.offset)


def _values(chunk: pa.Array) -> pa.Array:
    """Return the integers of the rows of a chunk, and no others."""
    if not _is_list(chunk.type):
        return chunk
    if pa.types.is_fixed_size_list(chunk.type):
        size = chunk.type.list_size
        return chunk.values.slice(size * chunk.offset, size * len(chunk))
    offsets = _offsets(chunk)
    return chunk.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _numbers(values: pa.Array, kind: np.dtype) -> np.ndarray:
    if not len(values):
        return np.empty(0, kind)
    return np.frombuffer(values.buffers()[1], kind, len(values), kind.itemsize * values.offset)


def _rows_of(chunk: pa.Array, places: np.ndarray) -> np.ndarray:
    """Return the rows of a chunk in which some of its ``_values`` lie."""
    if not _is_list(chunk.type):
        return places
    if pa.types.is_fixed_size_list(chunk.type):
        return places // chunk.type.list_size
    offsets = _offsets(chunk)
    return np.searchsorted(offsets, places + offsets[0], "right") - 1


def _rows_with_nulls(chunk: pa.Array) -> np.ndarray:
    values = _values(chunk)
    return np.unique(_rows_of(chunk, np.flatnonzero(values.is_null()))) if values.null_count else np.empty(0, int)


@numba.njit(nogil=True, cache=True)
def _copy(begin: np.ndarray, end: np.ndarray, width: int, unsigned: bool, out: np.ndarray, ends: np.ndarray) -> None:
    """Write the integers of all spans, one after the other, and where those of each end."""
    used = 0
    for row in range(len(begin)):
        place, stop = begin[row], end[row]
        while place < stop:
            if width == 8:
                out[used] = at.int64_at(place)
            elif width == 4:
                out[used] = at.uint32_at(place) if unsigned else at.int32_at(place)
            elif width == 2:
                out[used] = at.uint16_at(place) if unsigned else at.int16_at(place)
            else:
                out[used] = at.uint8_at(place) if unsigned else at.int8_at(place)
            place += width
            used += 1
        ends[row] = used
