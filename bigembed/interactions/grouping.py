"""Interactions by user."""

import numba
import numpy as np


def grouped(user: np.ndarray, users: int, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of every user.

    Parameters
    ----------
    user : ndarray, shape (n,), int64
        Whose each row is, in ``[0, users)``.
    users : int
        How many users there are.
    times : ndarray, shape (n,), int64 or float64, optional
        By which a user's rows are put in order; those of no known time (NaN, infinite) come first. Rows of one time, and all rows
        where there are no times, stay in the order in which they stand.

    Returns
    -------
    offsets : ndarray, shape (users + 1,), int64
    rows : ndarray, shape (n,), int64
        User ``u`` has ``rows[offsets[u]:offsets[u + 1]]``.

    Raises
    ------
    ValueError
        A user is out of range.
    """
    if len(user) and not 0 <= int(user.min()) <= int(user.max()) < users:
        raise ValueError(f"users must lie in [0, {users}), got {user.min()} to {user.max()}")
    offsets = np.zeros(users + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=users), out=offsets[1:])
    rows = np.empty(len(user), np.int64)
    _scatter(user, offsets[:-1].copy(), rows)
    if times is not None:
        if times.dtype.kind == "f" and not np.isfinite(times).all():
            times = np.where(np.isfinite(times), times, -np.inf)
        _sort(rows, offsets, times)
    return offsets, rows


@numba.njit(nogil=True, cache=True)
def _scatter(user: np.ndarray, ends: np.ndarray, rows: np.ndarray) -> None:
    for i in range(len(user)):
        rows[ends[user[i]]] = i
        ends[user[i]] += 1


@numba.njit(nogil=True, cache=True)
def _sort(rows: np.ndarray, offsets: np.ndarray, times: np.ndarray) -> None:
    for user in range(len(offsets) - 1):
        begin, end = offsets[user], offsets[user + 1]
        in_order = True
        for i in range(begin + 1, end):
            if times[rows[i]] < times[rows[i - 1]]:
                in_order = False
                break
        if not in_order:
            own = rows[begin:end].copy()
            rows[begin:end] = own[np.argsort(times[own], kind="mergesort")]  # the one that is stable
