"""Which row of an old table each row of a new one begins from: runs of rows, each by a rule that needs no memory for its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FRESH = -1  # in place of an old row's number
MOST_ROWS = 1 << 20  # that are asked for at once: products with the rows of the largest tables then fit into 64 bits


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of a new table, one after another, that come from the old one by one rule.

    Attributes
    ----------
    rows : int
        How many there are.
    kept : int
        Old rows that live on in them.
    moved : int
        Those of them that have another number now.
    fresh : int
        Rows that come from no old one.
    sources : callable
        The old rows (int64, ``FRESH`` for none) of the rows from the first to before the second argument, counted from the
        segment's first.
    note : str
        What else is to be told.
    """

    rows: int
    kept: int
    moved: int
    fresh: int
    sources: Callable[[int, int], np.ndarray]
    note: str = ""


def sources(segments: Sequence[Segment], first: int, last: int) -> np.ndarray:
    """Return the old rows (int64, shape (last - first,)) of rows ``first`` to before ``last``, at most ``MOST_ROWS``, of a new table."""
    found, begin = [np.empty(0, np.int64)], 0
    for segment in segments:
        low, high = max(first - begin, 0), min(last - begin, segment.rows)
        if low < high:
            found.append(segment.sources(low, high))
        begin += segment.rows
    return np.concatenate(found)


def same(rows: int, old: int, new: int) -> Segment:
    """Return rows that follow each other from row ``new`` on as they did from row ``old`` on in the old table."""
    return Segment(rows, rows, 0 if old == new else rows, 0, lambda a, b: np.arange(old + a, old + b))


def fresh(rows: int) -> Segment:
    """Return rows that come from no old one."""
    return Segment(rows, 0, 0, rows, lambda a, b: np.full(b - a, FRESH))


def listed(old: np.ndarray, new: int) -> Segment:
    """Return rows from row ``new`` on that come from the rows ``old`` (int64, each once; ``FRESH`` for none)."""
    there = old != FRESH
    kept, stay = int(there.sum()), int((old == np.arange(new, new + len(old))).sum())
    return Segment(len(old), kept, kept - stay, len(old) - kept, lambda a, b: old[a:b])


def scaled(rows: int, first: int, old: int, new: int) -> Segment:
    """Return ``rows`` rows, from row ``new`` on, that hashes are reduced to (``hashing.reduce``); ``old`` they were, from ``first`` on.

    A row comes from the one that the middle of its hashes had before. With a multiple of the old rows all its hashes had that.
    """
    if rows == old:
        return same(rows, first, new)

    def of(begin: int, end: int) -> np.ndarray:
        whole, rest = divmod((2 * begin + 1) * old, 2 * rows)  # the product of large tables does not fit into 64 bits
        return first + whole + (rest + 2 * old * np.arange(end - begin)) // (2 * rows)

    if rows % old == 0:
        note = f"every bucket became {rows // old}"
    elif rows > old:
        note = "buckets re-derived: some values have a neighbour's"
    else:
        note = "buckets re-derived: several became one"
    return Segment(rows, min(rows, old), min(rows, old), 0, of, note)


def cycled(rows: int, first: int, old: int, new: int) -> Segment:
    """Return ``rows`` rows, from row ``new`` on, that hashes modulo ``rows`` name; they were ``old``, from row ``first`` on.

    One of the two numbers is a multiple of the other: no other two have anything to do with each other.
    """
    if rows <= old:
        assert old % rows == 0
        return same(rows, first, new)
    assert rows % old == 0
    return Segment(rows, old, old, 0, lambda a, b: first + np.arange(a, b) % old, f"every bucket became {rows // old}")
