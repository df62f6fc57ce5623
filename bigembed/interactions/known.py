"""What every user has: in order, to be read, and ascending, to be looked up."""

from dataclasses import dataclass

import numba
import numpy as np

from bigembed.interactions.grouping import grouped
from bigembed.ragged import Ragged


@dataclass(slots=True)
class Known:
    """The interactions of a job that may be learned from.

    Attributes
    ----------
    histories : Ragged, int64
        Of every user the codes of his items, the latest last; repeats stay.
    times : ndarray, shape (interactions,), int64, or None
        The times of ``histories.values``. An unknown one is the user's earliest that is known, or 0 where none is.
    items : Ragged, int64
        Of every user the distinct codes of his items, ascending.
    counts : ndarray, shape (items,), int64
        Interactions of every item.
    """

    histories: Ragged
    times: np.ndarray | None
    items: Ragged
    counts: np.ndarray

    def has(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return of every pair of codes (int64; negative: unknown) whether the user has the item, shape (pairs,), bool."""
        out = np.empty(len(user), np.bool_)
        _has(self.items.values, self.items.offsets, user, item, out)
        return out


def known(user: np.ndarray, item: np.ndarray, times: np.ndarray | None, users: int, items: int) -> Known:
    """Put interactions in order.

    Parameters
    ----------
    user, item : ndarray, shape (interactions,), int64
        Codes, in ``[0, users)`` and ``[0, items)``.
    times : ndarray, shape (interactions,), float64 or int64, or None
        When each was; NaN: unknown, and taken for earlier than all others. None: they are in order as they stand. Those of one
        time stay in that order.
    users, items : int
        How many there are of each.

    Raises
    ------
    ValueError
        A code is out of range.
    """
    if len(item) and not 0 <= int(item.min()) <= int(item.max()) < items:
        raise ValueError(f"items must lie in [0, {items}), got {item.min()} to {item.max()}")
    offsets, rows = grouped(user, users, times)
    histories = Ragged(item[rows], offsets)
    when = None if times is None else _whole(times[rows], offsets)
    values, distinct = np.empty(len(item), np.int64), np.zeros(users + 1, np.int64)
    distinct_ascending(histories.values, offsets, values, distinct)
    counts = np.bincount(item, minlength=items).astype(np.int64, copy=False)
    return Known(histories, when, Ragged(values[: distinct[-1]], distinct), counts)


def _whole(times: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return times in the order of the histories as whole numbers, so near to 0 that no difference of two overflows."""
    if times.dtype.kind != "f":
        return times.astype(np.int64, copy=False)
    unknown = ~np.isfinite(times)
    whole = np.floor(np.where(unknown, 0.0, times)).clip(-(2.0**61), 2.0**61).astype(np.int64)
    _fill_unknown(whole, unknown, offsets)
    return whole


@numba.njit(nogil=True, cache=True)
def _fill_unknown(times: np.ndarray, unknown: np.ndarray, offsets: np.ndarray) -> None:
    """Give the times that are unknown, which come first of a user's, the earliest that is known."""
    for user in range(len(offsets) - 1):
        first = offsets[user]
        while first < offsets[user + 1] and unknown[first]:
            first += 1
        if first < offsets[user + 1]:
            times[offsets[user] : first] = times[first]


@numba.njit(nogil=True, cache=True)
def distinct_ascending(values: np.ndarray, offsets: np.ndarray, out: np.ndarray, out_offsets: np.ndarray) -> None:
    """Copy rows to ``out``, their values ascending and each once; ``out_offsets`` gets where they begin and begins with 0."""
    used = 0
    for row in range(len(offsets) - 1):
        begin = used
        ascending = np.sort(values[offsets[row] : offsets[row + 1]])
        for i in range(len(ascending)):
            if used == begin or out[used - 1] != ascending[i]:
                out[used] = ascending[i]
                used += 1
        out_offsets[row + 1] = used


@numba.njit(nogil=True, cache=True)
def row_of(values: np.ndarray, offsets: np.ndarray, row: np.int64) -> np.ndarray:
    """Return the values of a row; none of a row that is not there (a negative one, say)."""
    if row < 0 or row >= len(offsets) - 1:
        return values[:0]
    return values[offsets[row] : offsets[row + 1]]


@numba.njit(nogil=True, cache=True)
def contains(ascending: np.ndarray, value: np.int64) -> bool:
    """Return whether ``value`` is among ascending ones."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) >> 1
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(ascending) and ascending[low] == value


@numba.njit(nogil=True, cache=True)
def _has(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, wanted: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(rows)):
        out[i] = contains(row_of(values, offsets, rows[i]), wanted[i])
