"""Tables whose values are row ids already: whole numbers, one a sample or a list of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import IdsTable
from bigembed.encoders import columns as at
from bigembed.encoders.columns import ArrowColumn, Column, Layout, Spans, address, refuse_nulls
from bigembed.encoders.encoder import Encoded, Encoder, Ids
from bigembed.encoders.lists import is_list, list_layout, null_rows, refuse_lists, rows_of, values_of
from bigembed.errors import UserError
from bigembed.ragged import Ragged
from bigembed.wishes import IDS

_BLOCK = 1 << 16  # values compared at once: they stay in a core's cache


class IdsColumn(ArrowColumn):
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

    @property
    def of_lists(self) -> bool:
        """Whether rows are lists of ids."""
        return is_list(self._array.type)

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "id") -> None:
        if pa.types.is_null(array.type):
            array = array.cast(pa.int64())
        elif is_list(array.type) and pa.types.is_null(array.type.value_type):  # as Arrow calls lists that are all empty
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
        for chunk, start in zip(self._parts, self._places.starts.tolist(), strict=False):
            values = _numbers(values_of(chunk), self.dtype)
            unsigned = values.view(f"u{self.dtype.itemsize}")
            for begin in range(0, len(values), _BLOCK):
                block = unsigned[begin : begin + _BLOCK]
                if int(block.max()) >= limit:
                    place = begin + int((block >= limit).argmax())
                    return start + int(rows_of(chunk, np.array([place]))[0]), int(values[place])
        return None

    def _check(self) -> None:
        kind = self._array.type
        item = kind.value_type if is_list(kind) else kind
        if not pa.types.is_integer(item):
            raise UserError(
                f"column '{self.name}' holds {kind}, not row ids: name a column of whole numbers, or of lists of them"
            )
        self.dtype = np.dtype(str(item))
        if is_list(kind):
            refuse_lists(self.name, self._parts, "an id")
        else:
            nulls = [null_rows(chunk) for chunk in self._parts]
            refuse_nulls(self.name, self._parts, nulls, "no id", "fill them")

    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        width = self.dtype.itemsize
        if not is_list(chunk.type):
            return Layout(-1, 0, address(chunk.buffers()[1]) + width * chunk.offset, width)
        return list_layout(chunk, address(chunk.values.buffers()[1]) + width * chunk.values.offset, width)


class IdsEncoder(Encoder):
    """Takes ids as the rows that they name; there is nothing to learn.

    Parameters
    ----------
    config : IdsTable
        The table.
    """

    kind = "ids"
    reads = IDS
    copies = True
    config: IdsTable

    def __init__(self, config: IdsTable) -> None:
        super().__init__(config, self.rows_at_most(config))

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
    def restore(
        cls, config: IdsTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "IdsEncoder":
        """Make the encoder again; it saved nothing."""
        return cls(config)

    @classmethod
    def settings_of(cls, config: IdsTable) -> dict[str, Any]:
        """Return how many rows there are, as nothing else decides what an id means."""
        return {"rows": config.rows}

    @classmethod
    def rows_at_most(cls, config: IdsTable) -> tuple[int, ...]:
        """Return the rows of the table."""
        return (config.rows,)

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse ids that the table has no rows for, in one pass over the column.

        Raises
        ------
        UserError
            Naming the first such id and its row.
        """
        assert isinstance(column, IdsColumn)
        found = column.first_outside(self.config.rows)
        if found is not None:
            row, value = found
            larger = f", or train with a larger tables.{table}.rows" if value >= 0 else ""
            raise UserError(
                f"feature '{feature}': row {row} of the {part} holds the id {value} in column '{column.name}', but "
                f"tables.{table} has {self.config.rows:,} rows (ids 0 to {self.config.rows - 1}); mend the data{larger}"
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
        return Encoded((Ids(ids),), ids.lengths.astype(np.int32))

    def row_of(self, token: str) -> int:
        """Return the row of an id written in decimal digits.

        Raises
        ------
        UserError
            ``token`` is no such id, or too large for the table.
        """
        # No id has 20 digits; Python refuses to read thousands of them.
        row = int(token) if token.isascii() and token.isdecimal() and len(token) < 20 else -1
        if not 0 <= row < self.config.rows:
            raise UserError(f"'{token}' is no row of this table, whose ids are the numbers 0 to {self.config.rows - 1}")
        return row


def read(spans: Spans, dtype: Any = np.int64) -> Ragged:
    """Return the integers in ``spans``, of ``dtype`` int64 or int32; those of 64 bits without a sign by their bits."""
    width, unsigned = spans.dtype.itemsize, spans.dtype.kind == "u"
    values, offsets = np.empty(spans.size // width, dtype), np.zeros(len(spans) + 1, np.int64)
    _copy(spans.begin, spans.end, width, unsigned, values, offsets[1:])
    return Ragged(values, offsets)


def _numbers(values: pa.Array, kind: np.dtype) -> np.ndarray:
    if not len(values):
        return np.empty(0, kind)
    return np.frombuffer(values.buffers()[1], kind, len(values), kind.itemsize * values.offset)


@numba.njit(nogil=True, cache=True)
def _copy(begin: np.ndarray, end: np.ndarray, width: int, unsigned: bool, out: np.ndarray, ends: np.ndarray) -> None:
    """Write the integers of all spans, one after the other, and where those of each end."""
    used, shift = 0, (width >= 2) + (width >= 4) + (width >= 8)
    for row in range(len(begin)):
        place = begin[row]
        count = (end[row] - place) >> shift
        if count == 1:  # as a rule; the loops below are for many
            out[used] = _number(place, 0, width, unsigned)
        elif width == 8:
            for i in range(count):
                out[used + i] = at.int64_of(place, i)
        elif width == 4 and unsigned:
            for i in range(count):
                out[used + i] = at.uint32_of(place, i)
        elif width == 4:
            for i in range(count):
                out[used + i] = at.int32_of(place, i)
        else:
            for i in range(count):
                out[used + i] = _number(place, i, width, unsigned)
        used += count
        ends[row] = used


@numba.njit(nogil=True, cache=True)
def _number(place: int, i: int, width: int, unsigned: bool) -> int:
    """Return integer ``i`` from an address on."""
    if width == 8:
        return at.int64_of(place, i)
    if width == 4:
        return at.uint32_of(place, i) if unsigned else at.int32_of(place, i)
    if width == 2:
        return at.uint16_of(place, i) if unsigned else at.int16_of(place, i)
    return at.uint8_of(place, i) if unsigned else at.int8_of(place, i)
