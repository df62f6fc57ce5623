"""Which values have a row of their own in a bounded table, and which give theirs up: no torch.

Rows lie in groups of ``GROUP``. A value is a uniformly distributed whole number (a hash), and belongs to one group for ever. The first
row of a group is shared by all of its values that have no row; each other row is free or belongs to one value. Beside the rows a group
has as many places without vectors, in which values without a row wait and are counted. All that happens to a value happens within its
group, in an order that neither the order of a batch nor another group can change: the outcome does not know how groups lie over ranks.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numba
import numpy as np

from bigembed.config.schema import Policy
from bigembed.errors import UserError

GROUP = 32  # part of the format of checkpoints; larger groups keep few more hits and take longer to search
FREE = -1  # in the place of a value
BYTES = 32  # of state a row, in the host's memory
# Numbers of groups that more and more numbers of ranks can share evenly; each divides the next.
SHARES = (1, 2, 4, 12, 24, 48, 240, 480, 960, 1920)
SLACK = 16  # a table grows by at most one part in this for it
ALONE = 8192  # values that one thread has looked up before another could have started
POLICIES = {Policy.lfu: 0, Policy.lru: 1, Policy.distance_lfu: 2}

_LFU, _LRU = POLICIES[Policy.lfu], POLICIES[Policy.lru]
_MOST = int(np.iinfo(np.int32).max)  # counts stop here
_NOWHERE = int(np.iinfo(np.int64).min)

T = TypeVar("T")


def whole_rows(rows: int) -> int:
    """Return how many rows a table of at least ``rows`` has: whole groups, so many that most numbers of ranks can share them evenly."""
    unit = GROUP * max(share for share in SHARES if share == 1 or share * GROUP * SLACK <= rows)
    return -(-rows // unit) * unit


def check_shared(name: str, rows: int, ranks: int) -> None:
    """Refuse ranks that cannot have equally many groups of table ``name`` each.

    Raises
    ------
    UserError
        Naming a number of rows that they could share.
    """
    unit = GROUP * ranks
    if rows % unit:
        raise UserError(
            f"tables.{name} is managed in {rows // GROUP:,} groups of {GROUP} rows, which {ranks:,} ranks cannot share evenly; use "
            f"tables.{name}.rows={-(-rows // unit) * unit} or another number of ranks"
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """Who gets a row.

    Attributes
    ----------
    policy : Policy
        Who gives up a row of a full group: the least frequent value, the one unseen for longest, or the one of the least
        count / (steps since it was seen + 1) ** decay. Who takes it surpasses that.
    decay : float
        For distance_lfu.
    min_count : int
        How often a value must have been seen, as far as it is remembered, to get a row.
    """

    policy: Policy = Policy.lfu
    decay: float = 1.0
    min_count: int = 1


@dataclass(slots=True)
class Admission:
    """The values of the rows and of the places to wait, of a part of a table. The arrays are the whole state.

    Attributes
    ----------
    rows, first, whole : int
        Rows of the part, the row of the whole table where it begins, and rows of the whole: multiples of ``GROUP``.
    rules : Rules
        Who gets a row.
    ids, waiting_ids : ndarray, shape (rows,), int64
        The value of each row and of each place; -1 where there is none.
    counts, waiting_counts : ndarray, shape (rows,), int32
        How often the value was seen, as far as it is remembered.
    last, waiting_last : ndarray, shape (rows,), int32
        The step in which it was seen last.
    clock : ndarray, shape (1,), int64
        Steps made.
    """

    rows: int
    first: int
    whole: int
    rules: Rules
    ids: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)
    last: np.ndarray = field(init=False)
    waiting_ids: np.ndarray = field(init=False)
    waiting_counts: np.ndarray = field(init=False)
    waiting_last: np.ndarray = field(init=False)
    clock: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Begin with free rows and nobody waiting."""
        assert self.rows % GROUP == self.first % GROUP == self.whole % GROUP == 0
        self.ids, self.waiting_ids = (np.full(self.rows, FREE, np.int64) for _ in range(2))
        self.counts, self.last = (np.zeros(self.rows, np.int32) for _ in range(2))
        self.waiting_counts, self.waiting_last = (np.zeros(self.rows, np.int32) for _ in range(2))
        self.clock = np.zeros(1, np.int64)

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays by name; not copies."""
        names = ("ids", "counts", "last", "waiting_ids", "waiting_counts", "waiting_last", "clock")
        return {name: getattr(self, name) for name in names}

    def step(self, values: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Count the values of a step, give rows to those that surpass others, and look all of them up.

        Parameters
        ----------
        values : ndarray, shape (count,), int64
            Not negative, of groups of this part, in any order.
        threads : int
            Threads to use.

        Returns
        -------
        rows : ndarray, shape (count,), int64
            The values' rows in the whole table.
        taken : ndarray, int64
            Rows in the whole table that have been taken from another value.
        """
        self.clock += 1
        now, groups = int(self.clock[0]), np.uint64(self.whole // GROUP)
        residents = self.ids, self.counts, self.last
        waiting = self.waiting_ids, self.waiting_counts, self.waiting_last
        rules = POLICIES[self.rules.policy], float(self.rules.decay), self.rules.min_count
        rows = np.full(len(values), _NOWHERE)

        def work(low: int, high: int) -> np.ndarray:  # of groups of the part, no matter what else is among the values
            own = low * GROUP, high * GROUP
            missing = _count(values, groups, self.first, own, residents, now, rows)
            newcomers, times = np.unique(missing, return_counts=True)
            taken = _admit(newcomers, times, groups, self.first, residents, waiting, now, rules)
            _settle(values, own, self.ids, rows)
            return taken

        taken = np.concatenate(_spread(work, self.rows // GROUP, threads if len(values) > ALONE else 1))
        return rows + self.first, taken + self.first


def rows_of(values: np.ndarray, ids: np.ndarray, first: int, whole: int, threads: int = 1) -> np.ndarray:
    """Return the rows of values in the whole table: their own, or the one that their group shares.

    Parameters
    ----------
    values : ndarray, shape (count,), int64
        Not negative, of groups of the part.
    ids : ndarray, shape (rows,), int64
        The value of each row of a part of the table.
    first, whole : int
        The row of the whole table where the part begins, and rows of the whole.
    threads : int
        Threads to use.

    Returns
    -------
    ndarray, shape (count,), int64
    """
    rows, groups = np.empty(len(values), np.int64), np.uint64(whole // GROUP)

    def work(low: int, high: int) -> None:
        _look_up(values[low:high], groups, first, ids, rows[low:high])

    _spread(work, len(values), threads if len(values) > ALONE else 1)
    return rows + first


def _spread(work: Callable[[int, int], T], size: int, threads: int) -> list[T]:
    """Return the results of ``work`` on equal parts of ``range(size)``, one for each thread."""
    if threads == 1:
        return [work(0, size)]
    bounds = [size * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))


@numba.njit(nogil=True, cache=True)
def _base(value: int, groups: np.uint64, first: int) -> Any:
    """Return where in the part the value's group begins; TorchRec sends values to ranks by the same remainder."""
    return np.int64(np.uint64(value) % groups) * GROUP - first


@numba.njit(nogil=True, cache=True)
def _row(value: int, base: int, ids: np.ndarray) -> int:
    """Return the value's row in the part; the shared one where it has none."""
    for row in range(base + 1, base + GROUP):
        if ids[row] == value:
            return row
    return base


@numba.njit(nogil=True, cache=True)
def _look_up(values: np.ndarray, groups: np.uint64, first: int, ids: np.ndarray, rows: np.ndarray) -> None:
    for i in range(len(values)):
        rows[i] = _row(values[i], _base(values[i], groups, first), ids)


@numba.njit(nogil=True, cache=True)
def _count(
    values: np.ndarray, groups: np.uint64, first: int, own: Any, residents: Any, now: int, rows: np.ndarray
) -> np.ndarray:
    """Count those of the rows ``own`` that have one, note the row of each, and return the others."""
    ids, counts, last = residents
    missing, size = np.empty(len(values), np.int64), 0
    for i in range(len(values)):
        base = _base(values[i], groups, first)
        if own[0] <= base < own[1]:
            row = _row(values[i], base, ids)
            rows[i] = row
            if row == base:
                missing[size] = values[i]
                size += 1
            else:
                counts[row] = min(counts[row] + 1, _MOST)
                last[row] = now
    return missing[:size]


@numba.njit(nogil=True, cache=True)
def _settle(values: np.ndarray, own: Any, ids: np.ndarray, rows: np.ndarray) -> None:
    """Look up again what ``_count`` found no row for, and what has lost its row since."""
    for i in range(len(values)):
        row = rows[i]
        if own[0] <= row < own[1] and ids[row] != values[i]:
            rows[i] = _row(values[i], row - row % GROUP, ids)


@numba.njit(nogil=True, cache=True)
def _admit(
    newcomers: np.ndarray,
    times: np.ndarray,
    groups: np.uint64,
    first: int,
    residents: Any,
    waiting: Any,
    now: int,
    rules: Any,
) -> np.ndarray:
    """Let each of the newcomers, sorted, have a row or wait, seen so many times; return the rows that were taken from others."""
    ids, counts, last = residents
    policy, decay, min_count = rules
    taken, size = np.empty(len(newcomers), np.int64), 0
    for i in range(len(newcomers)):
        value, seen, when = newcomers[i], times[i], now
        base = _base(value, groups, first)
        place = _place(value, base, waiting[0])
        if place != _NOWHERE:
            seen = min(seen + waiting[1][place], _MOST)
        row = _NOWHERE if seen < min_count else _within_reach(seen, base, residents, now, policy, decay)
        if row != _NOWHERE:
            before = ids[row], counts[row], last[row]
            ids[row], counts[row], last[row] = value, seen, when
            value, seen, when = before  # who waits in its place, if anybody
            if value != FREE:
                taken[size] = row
                size += 1
        _wait(value, seen, when, place, base, waiting, now)
    return taken[:size]


@numba.njit(nogil=True, cache=True)
def _place(value: int, base: int, ids: np.ndarray) -> int:
    """Return the place where the value waits."""
    for place in range(base, base + GROUP):
        if ids[place] == value:
            return place
    return _NOWHERE


@numba.njit(nogil=True, cache=True)
def _within_reach(seen: int, base: int, residents: Any, now: int, policy: int, decay: float) -> int:
    """Return the row that a value seen so often, and just now, may take: a free one, or the weakest resident's if that is surpassed."""
    ids, counts, last = residents
    if ids[base + GROUP - 1] == FREE:  # rows are given out in order, and none becomes free again
        return _place(FREE, base + 1, ids)
    if policy == _LFU:
        if seen == 1:  # surpasses nobody
            return _NOWHERE
        row = _least(base, counts, last)
        return row if seen > counts[row] else _NOWHERE
    if policy == _LRU:
        row = _least(base, last, counts)
        return row if now > last[row] else _NOWHERE
    row, least = _NOWHERE, np.float64(seen)
    for other in range(base + 1, base + GROUP):
        age = np.float64(now - last[other] + 1)
        worth = counts[other] / (age if decay == 1.0 else age**decay)
        if worth < least:
            row, least = other, worth
    return row


@numba.njit(nogil=True, cache=True)
def _least(base: int, first: np.ndarray, second: np.ndarray) -> int:
    """Return the row of the least number in ``first``; of equal ones, of the least in ``second``."""
    row, least = base, _MOST << 32 | _MOST
    for other in range(base + 1, base + GROUP):
        key = first[other] << 32 | second[other]
        if key < least:
            row, least = other, key
    return row


@numba.njit(nogil=True, cache=True)
def _wait(value: int, seen: int, when: int, place: int, base: int, waiting: Any, now: int) -> None:
    """Let a value, or none, have the place; where there is none, a free one or that of whoever has the least count / age."""
    ids, counts, last = waiting
    if place == _NOWHERE:
        if value == FREE:
            return
        place, least = base, np.inf
        for other in range(base, base + GROUP):
            if ids[other] == FREE:
                place = other
                break
            worth = counts[other] / np.float64(now - last[other] + 1)
            if worth < least:
                place, least = other, worth
    ids[place], counts[place], last[place] = value, seen, when
