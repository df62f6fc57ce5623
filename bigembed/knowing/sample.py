"""What a sample of the training rows says of a table: different values, how many there will be in all, and who will share rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bigembed.config.schema import TextTable, TokenizerTable
from bigembed.data.order import Order
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import in_order
from bigembed.encoders.numbers import NumberColumn, read
from bigembed.encoders.text import Tokenizer
from bigembed.encoders.tokens import elements_of
from bigembed.encoders.values import hash_numbers, hash_values
from bigembed.knowing.elements import gram_lengths
from bigembed.knowing.tally import Tally
from bigembed.ragged import Ragged

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Parts of the sample after which the different values are counted; the last is all of it."""
MOST = 1 << 21  # different values of a table that are all kept; of more, a part
RARE = 5  # a count above it is taken for the frequency


@dataclass(frozen=True, slots=True)
class Point:
    """How many values there were after a part of the sample.

    Attributes
    ----------
    total : int
        Occurrences.
    values, once, twice : float
        Different values, those seen once, those seen twice.
    """

    total: int
    values: float
    once: float
    twice: float


@dataclass(frozen=True, slots=True)
class Distinct:
    """How many different values the whole training part has.

    Attributes
    ----------
    low, values, high : float
        The estimate, and the two laws that it lies between; all the same where the sample is the whole part.
    new : float
        The share of what comes after the training part that was never seen in it.
    """

    low: float
    values: float
    high: float
    new: float


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Values of one sort that a table sees: tokens (or numbers), or n-grams.

    Attributes
    ----------
    counts : ndarray, shape (values,), int64
        How often each came in the sample, the frequent ones first; a part drawn by their hashes, where they are many.
    points : tuple of Point
        After each of ``SHARES``.
    distinct : Distinct
        In the whole training part.
    total : float
        Occurrences in the whole training part.
    whole : ndarray, shape (values,), float64
        How often values come in the whole training part: those of ``counts`` first, then those not seen yet, all the same.
    """

    counts: np.ndarray
    points: tuple[Point, ...]
    distinct: Distinct
    total: float
    whole: np.ndarray

    def kept(self, least: int) -> float:
        """Return which share of the different values is seen at least so often, wherever many are: Heaps' law keeps it the same."""
        return float((self.counts >= least).mean()) if len(self.counts) else 1.0

    def unknown(self, least: int) -> float:
        """Return which share of the occurrences in the whole part belongs to values that are seen less often than that in it."""
        rare = self.counts[self.counts < least].sum() / max(1, len(self.counts))
        return float(rare * self.distinct.values / max(1.0, self.total))

    def head(self, values: int) -> float:
        """Return which share of the occurrences belongs to the most frequent of so many values of the whole part."""
        known = round(values * len(self.whole) / max(1.0, self.distinct.values))
        return float(self.whole[:known].sum() / max(1.0, self.whole.sum()))

    def mixed(self, rows: float) -> float:
        """Return, on average over occurrences, the share of its row's occurrences that are other values', hashed into ``rows`` rows.

        The values are drawn into the rows; a part of them into as large a part of the rows.
        """
        size = max(1, round(rows * len(self.whole) / max(1.0, self.distinct.values)))
        if len(self.whole) < 2:
            return 0.0
        drawn = np.random.default_rng(0).integers(0, size, len(self.whole))
        _, where = np.unique(drawn, return_inverse=True) if size > 1 << 24 else (None, drawn)
        together = np.bincount(where, self.whole)[where]
        return float(1 - (self.whole * (self.whole / together)).sum() / self.whole.sum())

    def rows_for(self, mixed: float) -> int:
        """Return the rows at which at most the share ``mixed`` of occurrences is mixed with others."""
        low, high = -12.0, 12.0  # powers of two of the values
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if self.mixed(self.distinct.values * 2**middle) <= mixed else (middle, high)
        return max(1, math.ceil(self.distinct.values * 2**high))


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample shows of a table.

    Attributes
    ----------
    tokens : Group
        Tokens, or values.
    grams : Group or None
        n-grams of them, where there are any.
    elements : Group
        Both together.
    rows, whole : int
        Training rows in the sample, and in all.
    """

    tokens: Group
    grams: Group | None
    elements: Group
    rows: int
    whole: int


def look(
    table: object,
    columns: Sequence[Column],
    order: Order,
    rows: int,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Look at some training rows of a table.

    Parameters
    ----------
    table : TableConfig
        The table, for how texts are cut and for n-grams.
    columns : sequence of Column
        All columns of the training part that are looked up in it.
    order : Order
        Which of their rows are for training, drawn in the order of the first epoch.
    rows : int
        Rows of each column to look at.
    threads : int
        Threads to use; the result does not depend on it.
    progress : callable, optional
        Called with the number of rows done.

    Returns
    -------
    Sampled
    """
    ngrams = table.ngrams if isinstance(table, TextTable) else 1
    tokenizer, rows = _tokenizer(table), min(rows, order.train_size)
    tallies = [Tally(MOST) for _ in range(3 if ngrams > 1 else 1)]
    points: list[list[Point]] = [[] for _ in tallies]
    first = done = 0
    for share in SHARES:
        last = max(round(share * rows), first)
        index = np.sort(order.train_rows(0, first, last))
        for column in columns:
            work = _work(column, tokenizer, ngrams)
            for found in in_order(work, column.blocks(index), threads):
                for tally, hashes in zip(tallies, found, strict=True):
                    tally.add(hashes, hashes)
        done += len(index)
        if progress is not None:
            progress(done)
        for tally, own in zip(tallies, points, strict=True):
            own.append(_point(tally))
        first = last
    times = order.train_size / rows
    groups = [_group(tally, tuple(own), times) for tally, own in zip(tallies, points, strict=True)]
    grams = groups[1] if ngrams > 1 and tallies[1].total else None
    return Sampled(groups[0], grams, groups[-1], rows, order.train_size)


def extrapolate(points: Sequence[Point], times: float) -> Distinct:
    """Return how many different values there are in ``times`` as many rows as the last of ``points`` counted.

    Two laws enclose it: Chao's (2014), which takes the values not seen yet to be equally frequent and so tells too few, and Heaps' power
    law through the last two points, which tells too many, as its exponent falls. Where between them the truth lies is tried out
    within the sample, by telling its last point from each of the earlier ones.
    """
    last = points[-1]
    if times <= 1:
        return Distinct(last.values, last.values, last.values, last.once / max(1, last.total))
    tried = [_between(points[:size], last) for size in range(2, len(points)) if _ratio(points[size - 1], last) > 1]
    where = sum(tried) / len(tried) if tried else 0.5
    low, high = _bounds(points, times)
    values, before = (_law(points, size, where) for size in (times, 0.9 * times + 0.1))
    return Distinct(low, values, high, (values - before) / max(1.0, 0.1 * (times - 1) * last.total))


def _law(points: Sequence[Point], times: float, where: float) -> float:
    low, high = _bounds(points, times)
    return low ** (1 - where) * high**where if low > 0 else 0.0


def _bounds(points: Sequence[Point], times: float) -> tuple[float, float]:
    before, last = points[-2], points[-1]
    once, twice, more = last.once, last.twice, last.total * (times - 1)
    unseen = once * once / (2 * twice) if twice else once * (once - 1) / 2
    low = last.values
    if unseen > 0:
        low -= unseen * math.expm1(more * math.log1p(-once / (last.total * unseen + once)))
    grew = 0 < before.values < last.values and before.total < last.total
    exponent = math.log(last.values / before.values) / math.log(last.total / before.total) if grew else 0.0
    high = min(last.values * times**exponent, last.values + more * once / max(1, last.total))
    return low, max(low, high)


def _between(points: Sequence[Point], truth: Point) -> float:
    """Return where between the two laws the values of a later point lie: 0 at the lower one, 1 at the upper one."""
    low, high = _bounds(points, _ratio(points[-1], truth))
    if not 0 < low < high:
        return 0.5
    return min(1.0, max(0.0, math.log(truth.values / low) / math.log(high / low)))


def _ratio(point: Point, later: Point) -> float:
    return later.total / point.total if point.total else 1.0


def _tokenizer(table: object) -> Tokenizer:
    if isinstance(table, TextTable):
        return Tokenizer(table.tokens, table.pattern, table.lower)
    return Tokenizer(lower=table.lower) if isinstance(table, TokenizerTable) else Tokenizer()


def _work(column: Column, tokenizer: Tokenizer, ngrams: int) -> Callable[[Spans], list[np.ndarray]]:
    def values(spans: Spans) -> list[np.ndarray]:
        if isinstance(column, NumberColumn):
            return [hash_numbers(read(spans).view(np.int64))]
        tokens: Ragged = hash_values(spans, tokenizer)
        if ngrams == 1:
            return [tokens.values]
        elements = elements_of(tokens, ngrams).values
        return [tokens.values, elements[gram_lengths(tokens, ngrams) > 1], elements]

    return values


def _point(tally: Tally) -> Point:
    counts, times = tally.sample().counts, 2.0**tally.level
    return Point(tally.total, times * len(counts), times * int((counts == 1).sum()), times * int((counts == 2).sum()))


def _group(tally: Tally, points: tuple[Point, ...], times: float) -> Group:
    counts = np.sort(tally.sample().counts)[::-1]
    distinct = extrapolate(points, times)
    part = len(counts) / max(1.0, points[-1].values)
    unseen = round(part * (distinct.values - points[-1].values))
    return Group(counts, points, distinct, tally.total * times, _whole(counts, unseen, times))


def _whole(counts: np.ndarray, unseen: int, times: float) -> np.ndarray:
    """Return how often values come in ``times`` as much data, by the formula of Good and Turing for the rare ones."""
    if unseen <= 0:
        return counts * times
    seen = np.bincount(np.minimum(counts, RARE + 1), minlength=RARE + 2).astype(np.float64)
    expected = counts * times
    for count in range(1, RARE):
        if seen[count] and seen[count + 1]:
            expected[counts == count] = times * (count + 1) * seen[count + 1] / seen[count]
    return np.append(expected, np.full(unseen, times * seen[1] / unseen))
