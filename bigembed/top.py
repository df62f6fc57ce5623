"""The best of many scores, block by block: no matrix of all users and all items is ever there."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from bigembed.ragged import Ragged


class Best:
    """The ``k`` best items of each of ``rows`` users so far; of equal scores the item with the lower code comes first.

    Attributes
    ----------
    codes : ndarray, shape (rows, k), int64
        A heap each, the worst first; -1 where there are fewer.
    scores : ndarray, shape (rows, k), float32
        Theirs.
    """

    def __init__(self, rows: int, k: int) -> None:
        self.codes = np.full((rows, k), -1, np.int64)
        self.scores = np.full((rows, k), -np.inf, np.float32)

    def add_block(self, scores: np.ndarray, first: int, removed: Ragged | None, threads: int = 1) -> None:
        """Add the scores, shape (rows, items), float32, of the items from code ``first`` on.

        ``removed`` are codes for each user, ascending, that are left out, as is what is no number.
        """
        none = np.zeros(len(scores) + 1, np.int64)
        values, offsets = (none[:0], none) if removed is None else (removed.values, removed.offsets)

        def add(start: int, stop: int) -> None:
            own = slice(start, stop)
            _add_block(scores[own], first, values, offsets[start : stop + 1], self.codes[own], self.scores[own])

        borders = np.linspace(0, len(scores), threads + 1).astype(int).tolist()
        if threads == 1:
            add(0, len(scores))
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, borders[:-1], borders[1:]))

    def add(self, codes: np.ndarray, scores: np.ndarray) -> None:
        """Add items, shape (rows, n), with their scores; codes below 0 are none."""
        _add(codes, scores, self.codes, self.scores)

    def ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return codes and scores, the best first; -1 and -inf where there are fewer."""
        last = np.where(self.codes < 0, np.iinfo(np.int64).max, self.codes)
        order = np.lexsort((last, -self.scores), axis=1)
        return np.take_along_axis(self.codes, order, 1), np.take_along_axis(self.scores, order, 1)


@numba.njit(nogil=True, cache=True)
def _add_block(
    scores: np.ndarray, first: int, removed: np.ndarray, offsets: np.ndarray, codes: np.ndarray, best: np.ndarray
) -> None:
    for i in range(len(scores)):
        own = removed[offsets[i] : offsets[i + 1]]
        for j in range(scores.shape[1]):
            if scores[i, j] > best[i, 0] or codes[i, 0] < 0:
                code = first + j
                place = np.searchsorted(own, code)
                if place == len(own) or own[place] != code:
                    _offer(codes[i], best[i], code, scores[i, j])


@numba.njit(nogil=True, cache=True)
def _add(new: np.ndarray, scores: np.ndarray, codes: np.ndarray, best: np.ndarray) -> None:
    for i in range(len(new)):
        for j in range(new.shape[1]):
            if new[i, j] >= 0:
                _offer(codes[i], best[i], new[i, j], scores[i, j])


@numba.njit(nogil=True, cache=True)
def _offer(codes: np.ndarray, scores: np.ndarray, code: int, score: float) -> None:
    """Put an item in the place of the worst one, if it is better, and let it sink to where the heap is one again."""
    if not (score > scores[0] or codes[0] < 0 or (score == scores[0] and code < codes[0])) or score != score:
        return
    at, size = 0, len(codes)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(codes[child + 1], scores[child + 1], codes[child], scores[child]):
            child += 1
        if not _worse(codes[child], scores[child], code, score):
            break
        codes[at], scores[at] = codes[child], scores[child]
        at = child
    codes[at], scores[at] = code, score


@numba.njit(nogil=True, cache=True)
def _worse(code: int, score: float, other_code: int, other: float) -> bool:
    """Whether an item comes after another one; no item (-1) comes last."""
    if code < 0 or other_code < 0:
        return code < 0 and other_code >= 0
    return score < other or (score == other and code > other_code)
