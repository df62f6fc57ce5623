"""Tables of numbers cut into intervals: row 0 for missing numbers, then a row for every interval."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import BucketizedTable, Scheme
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import Encoded, Encoder, Ids
from bigembed.encoders.numbers import NumberColumn, number_at, signed_log
from bigembed.errors import UserError
from bigembed.hashing import hash_integers
from bigembed.ragged import Ragged
from bigembed.wishes import NUMBERS

EXACT = 1 << 23  # numbers that quantiles are taken of exactly; of more, about as many are drawn
_STEP = 512  # numbers that are searched for side by side


class BucketizedEncoder(Encoder):
    """Gives a number the row of the interval that it lies in; an interval holds its lower border, and not its upper one.

    Parameters
    ----------
    config : BucketizedTable
        The table.
    learned : dict
        ``borders``: where one interval ends and the next begins, ascending.
    """

    kind = "bucketized"
    reads = NUMBERS
    copies = True
    learns_rows = True
    config: BucketizedTable

    def __init__(self, config: BucketizedTable, learned: dict[str, Any]) -> None:
        super().__init__(config, (len(learned["borders"]) + 2,), learned)
        self._borders = np.array(learned["borders"], np.float64)

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> NumberColumn:
        """Return a column of numbers, of which some may be missing."""
        return NumberColumn(array, name)

    @classmethod
    def learn(
        cls,
        name: str,
        config: BucketizedTable,
        columns: Sequence[NumberColumn],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "BucketizedEncoder":
        """Find the borders between the intervals; see ``bigembed.encoders.build``.

        Quantiles are exact for up to 2**23 numbers; of more, about as many are drawn by a hash of their places.

        Raises
        ------
        UserError
            There are no numbers to learn from.
        """
        if config.scheme is Scheme.given:
            return cls(config, {"borders": [float(border) for border in config.borders]})
        find = _quantiles if config.scheme is Scheme.quantiles else _log_steps
        borders = find(columns, index, config.bins, progress)
        if borders is None:
            told = ", ".join(f"'{column.name}'" for column in columns)
            raise UserError(
                f"the intervals of table '{name}' cannot be learned: there is no number in column {told} of the training rows; "
                "name another column, or give the borders"
            )
        return cls(config, {"borders": borders.tolist()})

    @classmethod
    def restore(
        cls, config: BucketizedTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "BucketizedEncoder":
        """Make the encoder from its borders."""
        return cls(config, learned)

    @classmethod
    def settings_of(cls, config: BucketizedTable) -> dict[str, Any]:
        """Return how the borders were found."""
        if config.scheme is Scheme.given:
            return {"scheme": config.scheme.value, "borders": [float(border) for border in config.borders]}
        return {"scheme": config.scheme.value, "bins": config.bins}

    @classmethod
    def rows_at_most(cls, config: BucketizedTable) -> tuple[int, ...]:
        """Return one row more than there are intervals, which may be fewer than asked for."""
        return ((len(config.borders) + 2 if config.scheme is Scheme.given else config.bins + 1),)

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse crossed columns, whose values are hashes and no numbers.

        Raises
        ------
        UserError
            Naming the feature.
        """
        if not isinstance(column, NumberColumn):
            raise UserError(
                f"feature '{feature}' crosses columns, but tables.{table} is of kind bucketized, which is made for numbers; cross "
                "columns of whole numbers or of texts in a table of kind hashed"
            )

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the number that each text is; an empty one is missing.

        Raises
        ------
        UserError
            A text is no number.
        """
        numbers = []
        for number, text in enumerate(texts):
            try:
                numbers.append(_number(text))
            except UserError as error:
                raise UserError(f"{name(number)}: {error}") from None
        return pa.array(numbers, pa.float64())

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return the row of each number in memory, of ``dtype`` int64 or int32."""
        rows = np.empty(len(spans), dtype)
        _find(spans.begin, self._borders, rows)
        return Encoded((Ids(Ragged(rows, np.arange(len(rows) + 1))),), np.ones(len(rows), np.int32))

    def row_of(self, token: str) -> int:
        """Return the row of a number as it is typed; that of an empty text is the row of missing numbers.

        Raises
        ------
        UserError
            ``token`` is no number.
        """
        column = self.open(pa.array([_number(token)], pa.float64()), "token")
        return int(self.encode(column, np.zeros(1, np.int64)).ids.values[0])

    def interval_of(self, row: int) -> str:
        """Return the numbers that have a row, such as ``[3.5, 7)``; of row 0, ``missing``.

        Raises
        ------
        IndexError
            The table has no such row.
        """
        if not 0 <= row < self.rows[0]:
            raise IndexError(f"row {row} of a table of {self.rows[0]} rows")
        if row == 0:
            return "missing"
        last = row == self.rows[0] - 1
        lower = "-inf" if row == 1 else _written(self._borders[row - 2])
        return f"[{lower}, inf]" if last else f"[{lower}, {_written(self._borders[row - 1])})"


def _quantiles(
    columns: Sequence[NumberColumn], index: np.ndarray | None, bins: int, progress: Callable[[int], None] | None
) -> np.ndarray | None:
    """Return borders that cut the numbers into ``bins`` parts of one size, or into the distinct ones where these are fewer."""
    drawn = list(_drawn(columns, index, progress))
    values = np.sort(np.concatenate(drawn)) if drawn else np.empty(0)
    if not len(values):
        return None
    distinct = values[np.append(True, values[1:] > values[:-1])]
    # Below the least number there is nothing to tell apart, so no border is there.
    borders = distinct if len(distinct) <= bins else np.unique(values[np.arange(1, bins) * len(values) // bins])
    return borders[borders > values[0]]


def _drawn(
    columns: Sequence[NumberColumn], index: np.ndarray | None, progress: Callable[[int], None] | None
) -> Iterator[np.ndarray]:
    """Yield the finite numbers, or about ``EXACT`` of them: those whose places have small hashes."""
    rows = sum(len(column) if index is None else len(index) for column in columns)
    share = EXACT / max(rows, EXACT)
    for place, values in _values(columns, index, progress):
        if share < 1:
            hashes = hash_integers(np.arange(place, place + len(values)))
            values = values[hashes < np.uint64(int(share * 2.0**64))]
        yield values[np.isfinite(values)]


def _log_steps(
    columns: Sequence[NumberColumn], index: np.ndarray | None, bins: int, progress: Callable[[int], None] | None
) -> np.ndarray | None:
    """Return borders at equal steps of ``signed_log`` between the least and the greatest number."""
    least, greatest = np.inf, -np.inf
    for _, values in _values(columns, index, progress):
        finite = values[np.isfinite(values)]
        least, greatest = min(least, finite.min(initial=np.inf)), max(greatest, finite.max(initial=-np.inf))
    if least > greatest:
        return None
    low, high = signed_log(np.array([least, greatest]))
    steps = np.linspace(low, high, bins + 1)[1:-1]
    borders = np.unique(np.copysign(np.expm1(np.abs(steps)), steps))
    return borders[(borders > least) & (borders <= greatest)]


def _values(
    columns: Sequence[NumberColumn], index: np.ndarray | None, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the numbers of all columns by blocks, each with how many came before it."""
    done = 0
    for column in columns:
        for values in column.values(index):
            yield done, values
            done += len(values)
            if progress is not None:
                progress(done)


def _number(text: str) -> float | None:
    """Return the number that somebody typed, None for nothing."""
    if not text.strip():
        return None
    try:
        if "_" in text:  # which Python reads over
            raise ValueError
        return float(text)
    except ValueError:
        raise UserError(f"'{text}' is no number") from None


def _written(border: float) -> str:
    """Return the shortest text that is read as this number again, without an empty fraction."""
    return repr(float(border)).removesuffix(".0")


@numba.njit(nogil=True, cache=True)
def _find(begin: np.ndarray, borders: np.ndarray, rows: np.ndarray) -> None:
    """Write the row of the number at each address: 1 and the borders that are not above it, or 0 for a NaN."""
    values, at = np.empty(_STEP), np.empty(_STEP, np.int64)
    for start in range(0, len(begin), _STEP):
        count = min(_STEP, len(begin) - start)
        for i in range(count):
            values[i] = number_at(begin[start + i])
            at[i] = 0
        left = len(borders)
        while left > 1:  # a step of the search for many numbers at once, without a branch that hangs on them
            half = left >> 1
            for i in range(count):
                at[i] += half * (borders[at[i] + half - 1] <= values[i])
            left -= half
        for i in range(count):
            row = at[i] + 1
            if left == 1:
                row += borders[at[i]] <= values[i]
            rows[start + i] = row * (values[i] == values[i])
