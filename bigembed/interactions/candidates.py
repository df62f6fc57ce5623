"""The items among which that of a test row is to be found: given ones, or drawn ones."""

import numba
import numpy as np

from bigembed.errors import UserError
from bigembed.hashing import MASK, mix, reduce
from bigembed.interactions.known import Known, distinct_ascending
from bigembed.ragged import Ragged

Given = tuple[np.ndarray, np.ndarray, Ragged, np.ndarray]
"""Users and items of lists of negatives, the lists as codes, and how many more of each are not in the catalogue; see ``cases``."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keep(rows: Ragged, chosen: np.ndarray) -> Ragged:
    """Return rows with only those values for which ``chosen``, shape (values,), is true."""
    return Ragged(rows.values[chosen], np.append(0, np.cumsum(chosen))[rows.offsets])


def lists_of_rows(user: np.ndarray, item: np.ndarray, given: Given, items: int, told: list[str]) -> np.ndarray:
    """Return which list belongs to each row, shape (rows,), int64.

    Rows and lists of a user or an item that is not in the catalogue need not match: there is nothing to be found. Such rows get -1.

    Raises
    ------
    UserError
        Another row has no list, or another list no row.
    """
    inside = np.flatnonzero((given[0] >= 0) & (given[1] >= 0))
    pairs, first = np.unique(given[0][inside] * items + given[1][inside], return_index=True)
    if len(pairs) < len(inside):
        count = len(inside) - len(pairs)
        told.append(f"{count:,} lists of negatives repeat a user and an item: the first list of every pair counts.")
    places = np.full(len(user), -1, np.int64)
    known = np.flatnonzero((user >= 0) & (item >= 0))
    wanted = user[known] * items + item[known]
    at = np.searchsorted(pairs, wanted)
    there = at < len(pairs)
    there[there] = pairs[at[there]] == wanted[there]
    if not there.all():
        row = int(known[there.argmin()])
        raise UserError(
            f"Row {row:,} of the part that is judged has no list of negatives in data.negatives, as {np.sum(~there):,} of "
            f"{len(user):,} rows: give one for every pair of user and item, or set protocol.candidates to sampled or all."
        )
    used = np.zeros(len(pairs), np.bool_)
    used[at] = True
    if not used.all():
        row = int(inside[first[used.argmin()]])
        raise UserError(
            f"Row {row:,} of data.negatives is for a pair of user and item that is not in the part that is judged, as "
            f"{np.sum(~used):,} of {len(given[0]):,} rows: drop them, or name the part that they are for."
        )
    places[known] = inside[first[at]]
    return places


def listed(
    user: np.ndarray,
    item: np.ndarray,
    found: np.ndarray,
    given: Given,
    lists: np.ndarray,
    seen: Known | None,
    told: list[str],
) -> Ragged:
    """Return the candidates that were given.

    Parameters
    ----------
    user, item : ndarray, shape (cases,), int64
        Codes.
    found : ndarray, shape (cases,), bool
        Whether the item can be found, and so is a candidate.
    given : tuple
        All lists.
    lists : ndarray, shape (cases,), int64
        Which list is each case's; -1: none.
    seen : Known, optional
        What the users have, which is no candidate.
    told : list of str
        Is added to: what was left out of the lists.

    Returns
    -------
    Ragged, int64
        Codes, distinct and ascending.
    """
    none = len(given[2])
    with_none = Ragged(given[2].values, np.append(given[2].offsets, given[2].offsets[-1]))
    negatives = with_none.take(np.where(lists < 0, none, lists))
    unknown = int(given[3][lists[lists >= 0]].sum()) + int(np.sum(negatives.values < 0))
    if unknown:
        told.append(f"{unknown:,} given negatives are items that are not in the catalogue: they are left out.")
    case = np.repeat(np.arange(len(user)), negatives.lengths)
    own = negatives.values == item[case]
    if own.any():
        told.append(
            f"{len(np.unique(case[own])):,} lists of negatives hold the item itself that is to be found: it is taken out of them."
        )
    chosen = (negatives.values >= 0) & ~own
    if seen is not None:
        has = seen.has(user[case], negatives.values) & chosen
        chosen &= ~has
        if has.any():
            told.append(
                f"{has.sum():,} given negatives are items that the user has in training: they are no candidates "
                "(protocol.remove_seen=true)."
            )
    negatives = keep(negatives, chosen)
    candidates = _with_own(negatives, item, found)
    repeats = len(negatives.values) + int(found.sum()) - len(candidates.values)
    if repeats:
        told.append(f"{repeats:,} given negatives repeat one of their list: each counts once.")
    return candidates


def _with_own(negatives: Ragged, item: np.ndarray, found: np.ndarray) -> Ragged:
    """Return the negatives of every case, ascending and distinct, and its item where that can be found."""
    offsets = negatives.offsets + np.append(0, np.cumsum(found))
    return _ascending(np.insert(negatives.values, negatives.offsets[:-1][found], item[found]), offsets)


def drawn(
    user: np.ndarray,
    item: np.ndarray,
    found: np.ndarray,
    before: Known,
    items: int,
    count: int,
    seed: int,
    told: list[str],
) -> Ragged:
    """Return ``count`` drawn negatives for every case, with its own item where that can be found.

    Parameters are as those of ``listed``; users are ascending, and negative ones have no candidates. Every set of items that the
    user has neither in ``before`` nor among the cases is as likely; where there are fewer of these than ``count``, all are taken.
    """
    offsets = np.zeros(len(user) + 1, np.int64)
    values = np.empty(int(np.sum(user >= 0)) * (min(count, items) + 1), np.int64)
    own = before.items
    _draw(user, item, found, own.values, own.offsets, items, count, np.uint64(seed & MASK), values, offsets)
    short = int(np.sum(np.diff(offsets)[user >= 0] - found[user >= 0] < count))
    if short:
        told.append(
            f"{short:,} rows have fewer than {count:,} negatives (protocol.sampled): their users have all other items."
        )
    return _ascending(values[: offsets[-1]], offsets)


def _ascending(values: np.ndarray, offsets: np.ndarray) -> Ragged:
    out, out_offsets = np.empty_like(values), np.zeros_like(offsets)
    distinct_ascending(values, offsets, out, out_offsets)
    return Ragged(out[: out_offsets[-1]], out_offsets)


@numba.njit(nogil=True, cache=True)
def _draw(
    user: np.ndarray,
    item: np.ndarray,
    found: np.ndarray,
    own: np.ndarray,
    own_offsets: np.ndarray,
    items: int,
    count: int,
    seed: np.uint64,
    out: np.ndarray,
    offsets: np.ndarray,
) -> None:
    """Fill ``out``; of every item ``has`` is the last user (plus 1) that has it, ``last`` the last case (plus 1) that drew it."""
    has, last = np.zeros(items, np.int64), np.zeros(items, np.int64)
    first, taken, used = 0, 0, 0
    for case in range(len(user)):
        who = user[case]
        if case == 0 or who != user[case - 1]:
            first, taken = case, 0
        if who >= 0 and first == case:
            taken = _mark(has, who + 1, own[own_offsets[who] : own_offsets[who + 1]])
            end = case
            while end < len(user) and user[end] == who:
                end += 1
            taken += _mark(has, who + 1, item[case:end])
        if who >= 0:
            if found[case]:
                out[used] = item[case]
                used += 1
            key = mix(mix(mix(seed + _GOLDEN) + np.uint64(who)) + np.uint64(item[case]))
            wanted = min(count, items - taken)
            if 2 * (wanted + taken) > items:
                used = _choose(has, who + 1, items - taken, wanted, key, out, used)
            else:
                used = _try(has, who + 1, last, case + 1, wanted, key, out, used)
        offsets[case + 1] = used


@numba.njit(nogil=True, cache=True)
def _mark(has: np.ndarray, mark: int, codes: np.ndarray) -> int:
    """Mark ``codes``, negative ones aside, and return how many had no mark."""
    new = 0
    for code in codes:
        if code >= 0 and has[code] != mark:
            has[code] = mark
            new += 1
    return new


@numba.njit(nogil=True, cache=True)
def _choose(has: np.ndarray, mark: int, free: int, wanted: int, key: np.uint64, out: np.ndarray, used: int) -> int:
    """Go through all items and choose among the ``free`` ones without the mark (Knuth's algorithm S)."""
    end = used + wanted
    for code in range(len(has)):
        if used == end:
            break
        if has[code] != mark:
            if reduce(mix(key + np.uint64(code) * _GOLDEN), np.uint64(free)) < np.uint64(end - used):
                out[used] = code
                used += 1
            free -= 1
    return used


@numba.njit(nogil=True, cache=True)
def _try(
    has: np.ndarray, mark: int, last: np.ndarray, turn: int, wanted: int, key: np.uint64, out: np.ndarray, used: int
) -> int:
    """Draw until enough have come that are new and without the mark: on average every second draw at least."""
    end, attempt = used + wanted, np.uint64(0)
    while used < end:
        code = np.int64(reduce(mix(key + attempt * _GOLDEN), np.uint64(len(has))))
        attempt += np.uint64(1)
        if has[code] != mark and last[code] != turn:
            last[code] = turn
            out[used] = code
            used += 1
    return used
