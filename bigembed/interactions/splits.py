"""Which interactions are set aside to be judged on: functions of the seed, the user and the row."""

import numba
import numpy as np

from bigembed.config.schema import Split
from bigembed.errors import UserError
from bigembed.hashing import MASK, hash_integers, mix, permuted, reduce
from bigembed.interactions.grouping import grouped

_SALT = 0x5E7A
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def held_out(
    user: np.ndarray, times: np.ndarray | None, split: Split, fraction: float, seed: int, where: str
) -> np.ndarray:
    """Return the interactions that are set aside.

    Parameters
    ----------
    user : ndarray, shape (n,), int64
        Whose each is: codes from 0 on.
    times : ndarray, shape (n,), float64, or None
        When each was, NaN where that is unknown; None: they are in order as they stand.
    split : Split
        rows: ``round(fraction * n)`` of all, drawn, at least one and not all; last: the last of every user that has two or more
        (of those of one time the one that stands last); one: one of each such user, drawn; share: ``round(fraction * m)`` of the m
        of each such user, drawn, never all (``round`` takes halves to the even number); time: the latest ``round(fraction * n)`` of
        all, at least one, and those of the same time as the earliest of these, so that no time is on both sides.
    fraction : float
        In ``[0, 1)``; 0: none are set aside, whatever the split.
    seed : int
        Another seed draws others.
    where : str
        What messages call the interactions, e.g. ``"the training part"``.

    Returns
    -------
    ndarray, int64
        Their places, ascending.

    Raises
    ------
    UserError
        The split needs times and some or all are unknown; or all interactions are of one time, so that none is left.
    """
    if fraction <= 0.0 or len(user) < 2:
        return np.empty(0, np.int64)
    key = int(hash_integers(np.array([seed]), _SALT)[0])
    if split is Split.rows:
        return np.sort(permuted(np.arange(_wished(fraction, len(user))), len(user), key))
    if split is Split.time:
        return _latest(_complete(times, split, where), fraction, where)
    in_order = _complete(times, split, where) if split is Split.last and times is not None else None
    offsets, rows = grouped(user, int(user.max()) + 1, in_order)
    several = np.flatnonzero(np.diff(offsets) >= 2)
    if split is Split.last:
        return np.sort(rows[offsets[several + 1] - 1])
    taken = np.zeros(len(user), np.bool_)
    counts = np.diff(offsets)
    if split is Split.one:
        wished = (counts >= 2).astype(np.int64)
    else:
        wished = np.minimum(np.rint(fraction * counts).astype(np.int64), np.maximum(counts - 1, 0))
    _draw(rows, offsets, wished, np.uint64(key & MASK), taken)
    return np.flatnonzero(taken)


def _wished(fraction: float, n: int) -> int:
    return min(max(1, round(fraction * n)), n - 1)


def _complete(times: np.ndarray | None, split: Split, where: str) -> np.ndarray:
    """Return times that are all known."""
    remedy = "set interactions.split (or test_split) to one, which needs none"
    if times is None:
        raise UserError(
            f"The split {split.value!r} needs the time of every row of {where}: name its column in interactions.time, or {remedy}."
        )
    unknown = int(len(times) - np.count_nonzero(np.isfinite(times)))
    if unknown:
        raise UserError(
            f"{unknown:,} of {len(times):,} rows of {where} have no time, and the split {split.value!r} needs it: drop them, or {remedy}."
        )
    return times


def _latest(times: np.ndarray, fraction: float, where: str) -> np.ndarray:
    first = len(times) - _wished(fraction, len(times))
    border = np.partition(times, first)[first]
    late = times >= border
    if late.all():
        raise UserError(
            f"The split 'time' leaves nothing to train on: all {len(times):,} rows of {where} are of the time {border:g} or later, and "
            "rows of one time are not parted; set a smaller fraction, or interactions.split (or test_split) to one."
        )
    return np.flatnonzero(late)


@numba.njit(nogil=True, cache=True)
def _draw(rows: np.ndarray, offsets: np.ndarray, wished: np.ndarray, key: np.uint64, taken: np.ndarray) -> None:
    """Draw so many of each user's rows as are wished, each set of them as likely (Knuth's algorithm S)."""
    for user in range(len(offsets) - 1):
        wanted = wished[user]
        for i in range(offsets[user], offsets[user + 1]):
            left = np.uint64(offsets[user + 1] - i)
            if reduce(mix(key + np.uint64(rows[i]) * _GOLDEN), left) < np.uint64(wanted):
                taken[rows[i]] = True
                wanted -= 1
