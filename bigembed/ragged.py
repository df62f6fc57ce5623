"""Rows of unequal length as two flat arrays: the layout that Arrow lists and TorchRec's KeyedJaggedTensor share."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of values: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Attributes
    ----------
    values : ndarray, shape (n,), int32 or int64
        The values of all rows, one after the other.
    offsets : ndarray, shape (rows + 1,), int64
        Where each row begins; the last entry is where the last row ends.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of values of each row, shape (rows,), int64."""
        return np.diff(self.offsets)

    def take(self, index: np.ndarray) -> "Ragged":
        """Return the rows named by ``index`` (int64, each in ``[0, rows)``), copied, in that order."""
        offsets = np.zeros(len(index) + 1, np.int64)
        np.cumsum(self.offsets[index + 1] - self.offsets[index], out=offsets[1:])
        values = np.empty(offsets[-1], self.values.dtype)
        _copy_rows(self.values, self.offsets, index, offsets, values)
        return Ragged(values, offsets)

    def distinct(self) -> "Ragged":
        """Return every row without the repeats of a value in it, the first of each staying where it stood."""
        values, offsets = np.empty_like(self.values), np.zeros_like(self.offsets)
        longest = int(self.lengths.max(initial=0))
        seen = np.zeros(1 << max(4, (2 * longest).bit_length()), np.int64)  # at most half full
        _copy_distinct(self.values, self.offsets, seen, values, offsets)
        return Ragged(values[: offsets[-1]], offsets)


def concatenate(parts: "Sequence[Ragged] | deque[Ragged]") -> Ragged:
    """Return the rows of all ``parts``, one part after the other, in the widest of their types; a deque is emptied by and by."""
    rows, size = sum(len(part) for part in parts), sum(len(part.values) for part in parts)
    dtype = np.result_type(*{part.values.dtype for part in parts})
    values, offsets = np.empty(size, dtype), np.zeros(rows + 1, np.int64)
    row = 0
    waiting = parts if isinstance(parts, deque) else deque(parts)
    while waiting:
        part = waiting.popleft()
        start, stop = offsets[row], row + len(part)
        offsets[row + 1 : stop + 1] = part.offsets[1:] + start
        values[start : start + len(part.values)] = part.values
        row = stop
    return Ragged(values, offsets)


@numba.njit(nogil=True, cache=True)
def _copy_rows(
    values: np.ndarray, offsets: np.ndarray, index: np.ndarray, out_offsets: np.ndarray, out: np.ndarray
) -> None:
    for i in range(len(index)):
        start = offsets[index[i]]
        for j in range(out_offsets[i + 1] - out_offsets[i]):
            out[out_offsets[i] + j] = values[start + j]


@numba.njit(nogil=True, cache=True)
def _copy_distinct(
    values: np.ndarray, offsets: np.ndarray, seen: np.ndarray, out: np.ndarray, out_offsets: np.ndarray
) -> None:
    """Copy rows without repeats; ``seen`` is a hash set of places in ``out``, of which those before the row's start are empty."""
    mask, used = len(seen) - 1, 0
    for row in range(len(offsets) - 1):
        start = used
        for i in range(offsets[row], offsets[row + 1]):
            value = values[i]
            at = (np.int64(value) * 0x2545F4914F6CDD1D >> 20) & mask
            while seen[at] > start and out[seen[at] - 1] != value:
                at = (at + 1) & mask
            if seen[at] <= start:
                out[used] = value
                used += 1
                seen[at] = used
        out_offsets[row + 1] = used
