"""Columns of numbers, missing ones among them, and the dense features that are made of them without a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import NumberConfig
from bigembed.encoders.columns import ArrowColumn, Layout, Spans, address, int64_of, uint8_of
from bigembed.errors import UserError

_MISSING = np.array([np.nan])  # what the span of a missing number points to
_ITEM = _MISSING.itemsize


class NumberColumn(ArrowColumn):
    """A column of numbers, read as float64; a null is a NaN.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of whole or floating numbers of any width; those of float64 are read where they lie, others are copied.
    name : str
        What messages call the column.

    Raises
    ------
    UserError
        The column is of another type.
    """

    what = "numbers"
    dtype = np.dtype(np.float64)

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "number") -> None:
        kind, types = array.type, pa.types
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind)):
            raise UserError(f"column '{name}' holds {kind}, not numbers: name a column of whole or floating numbers")
        super().__init__(array if kind == pa.float64() else array.cast(pa.float64(), safe=False), name)
        null = [(address(chunk.buffers()[0]), chunk.offset) for chunk in self._parts]
        self._bitmaps = np.array(null, np.int64).reshape(-1, 2)

    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index``; see ``Column``."""
        spans = super().spans(index)
        if self._bitmaps[:, 0].any():
            _point_nulls_at(
                *(_MISSING.ctypes.data, np.ascontiguousarray(index, np.int64), self._places.starts, self._bitmaps),
                *(spans.begin, spans.end),
            )
        return spans

    def values(self, index: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the numbers (float64, NaN where missing) of the rows named by ``index`` (int64; by default all), by blocks."""
        for spans in self.blocks(index):
            yield read(spans)

    def contents(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        """Yield the lengths (int64, all 1) and the numbers (float64) of all rows in order, some rows at a time."""
        for values in self.values():
            yield np.ones(len(values), np.int64), [values]

    def _check(self) -> None:
        """Take everything: the type was looked at already, and missing numbers are no error."""

    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        return Layout(-1, 0, address(chunk.buffers()[1]) + _ITEM * chunk.offset, _ITEM)


def read(spans: Spans) -> np.ndarray:
    """Return the numbers (float64) in the spans of a ``NumberColumn``, one a row."""
    values = np.empty(len(spans), np.float64)
    _read(spans.begin, values)
    return values


@dataclass(frozen=True, slots=True)
class Scale:
    """What a dense feature has learned from the training rows.

    Attributes
    ----------
    mean, deviation : float
        Of the numbers there are, after the logarithm where there is one.
    missing : int
        Rows without a number.
    """

    mean: float
    deviation: float
    missing: int

    def apply(self, array: pa.Array | pa.ChunkedArray, config: NumberConfig, part: str = "data") -> np.ndarray:
        """Return a column as the head takes it, shape (rows,), float32; missing numbers count as the mean.

        Parameters
        ----------
        array : Array or ChunkedArray
            Of whole or floating numbers; nulls and NaNs are missing.
        config : NumberConfig
            The dense feature. Standardised numbers are the distances from the mean, in deviations; where all training rows
            hold the same number, the distances as they are.
        part : str
            What messages call the rows.

        Raises
        ------
        UserError
            The column is of another type; or holds an infinite number, or one that float32 does not reach, with its row.
        """
        column, out, row = NumberColumn(array, config.column), np.empty(len(array), np.float32), 0
        centre = self.mean if config.standardise else 0.0
        unit = self.deviation if config.standardise and self.deviation > 0 else 1.0
        for values in column.values():
            missing = np.isnan(values)
            scaled = (np.where(missing, self.mean, _logged(values, config)) - centre) / unit
            with np.errstate(over="ignore"):
                out[row : row + len(values)] = scaled
            wrong = np.flatnonzero(~np.isfinite(out[row : row + len(values)]))
            if len(wrong):
                raise UserError(
                    f"row {row + int(wrong[0])} of the {part} holds {values[wrong[0]]} in column '{config.column}', which a dense "
                    "feature cannot be; mend the data, or use a table of kind bucketized"
                )
            row += len(values)
        return out


def learn_scale(array: pa.Array | pa.ChunkedArray, config: NumberConfig, index: np.ndarray | None = None) -> Scale:
    """Return mean and deviation of a column, in one pass by blocks (Chan, Golub and LeVeque 1979), in float64.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of whole or floating numbers; nulls and NaNs are missing, infinite numbers are left out.
    config : NumberConfig
        The dense feature.
    index : ndarray, shape (rows,), int64, optional
        The rows to learn from, the training part; by default all.

    Returns
    -------
    Scale

    Raises
    ------
    UserError
        The column is of another type, or holds no number in these rows.
    """
    count, missing, mean, squares, low, high = 0, 0, 0.0, 0.0, np.inf, -np.inf
    for block in NumberColumn(array, config.column).values(index):
        missing += int(np.isnan(block).sum())
        values = _logged(block[np.isfinite(block)], config)
        if not len(values):
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            low, high = min(low, values.min()), max(high, values.max())
            new_mean, share = values.mean(), len(values) / (count + len(values))
            squares += ((values - new_mean) ** 2).sum() + (new_mean - mean) ** 2 * count * share
        mean += (new_mean - mean) * share
        count += len(values)
    if not count:
        raise UserError(f"column '{config.column}' holds no number in the training rows; name another column")
    if not np.isfinite(squares):
        raise UserError(f"the numbers of column '{config.column}' are too large for a mean; set log=true for them")
    if low == high:  # sums of one number are rounded
        return Scale(float(low), 0.0, missing)
    return Scale(float(mean), float(np.sqrt(squares / count)), missing)


def _logged(values: np.ndarray, config: NumberConfig) -> np.ndarray:
    return signed_log(values) if config.log else values


def signed_log(values: np.ndarray) -> np.ndarray:
    """Return sign(x) log(1 + |x|) of numbers (float64): near 0 as they are, far from it their magnitude."""
    return np.copysign(np.log1p(np.abs(values)), values)


@numba.njit(nogil=True, cache=True)
def number_at(place: int) -> float:
    """Return the float64 at an address."""
    return np.int64(int64_of(place, 0)).view(np.float64)


@numba.njit(nogil=True, cache=True)
def _read(begin: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(begin)):
        out[i] = number_at(begin[i])


@numba.njit(nogil=True, cache=True)
def _point_nulls_at(
    place: int, index: np.ndarray, starts: np.ndarray, bitmaps: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> None:
    """Let the spans of null rows point to ``place``; ``bitmaps`` has address and first bit of each chunk's validity."""
    first = last = bits = shift = 0
    for i in range(len(index)):
        row = index[i]
        if not first <= row < last:  # of the chunk that the row before lies in
            chunk = np.searchsorted(starts, row, "right") - 1
            first, last = starts[chunk], starts[chunk + 1]
            bits, shift = bitmaps[chunk, 0], bitmaps[chunk, 1]
        if bits != 0:
            bit = row - first + shift
            if not (uint8_of(bits, bit >> 3) >> (bit & 7)) & 1:
                begin[i] = place
                end[i] = place + 8
