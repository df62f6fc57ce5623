"""Draws of items that a user is taught not to want: functions of keys, so that all ranks draw the same."""

import numba
import numpy as np

from bigembed.config.schema import Sampling
from bigembed.hashing import MASK, mix, reduce
from bigembed.interactions.known import contains, row_of
from bigembed.ragged import Ragged

TRIES = 64  # until a draw that does not count stands
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SCALE = 1 << 31  # weight of the most frequent item
_TINY = 1e-30


class Sampler:
    """Draws items.

    Parameters
    ----------
    sampling : Sampling
        uniform: all items alike; popularity: in proportion to ``counts ** power``, items without interactions never (but for
        ``power=0``); all: as uniform, but ``shared`` gives every item.
    power : float
        For popularity.
    counts : ndarray, shape (items,), int64
        Training interactions of every item.
    known : Ragged, optional
        The items of every user, ascending, which ``each`` leaves out.

    Raises
    ------
    ValueError
        There is nothing to draw from.
    """

    def __init__(self, sampling: Sampling, power: float, counts: np.ndarray, known: Ragged | None = None) -> None:
        self.items, self._all = len(counts), sampling is Sampling.all
        if not self.items or (sampling is Sampling.popularity and not counts.any()):
            raise ValueError("Sampler needs an item to draw")
        self._shares = counts / max(1, int(counts.sum()))
        self._known = known or Ragged(np.empty(0, np.int64), np.zeros(1, np.int64))
        self._ends = self._guide = np.empty(0, np.int64)
        self._shift = 0
        if sampling is Sampling.popularity:
            self._weigh(counts, power)

    def _weigh(self, counts: np.ndarray, power: float) -> None:
        """Lay the items side by side, each as long as its weight, with a guide to every 2**shift-th place (Chen and Asau 1974).

        Weights are whole numbers, so that a power's last bit, which differs between machines, as good as never moves a draw.
        """
        weights = np.rint((counts / counts.max()) ** power * _SCALE).astype(np.int64)
        self._ends = np.cumsum(np.maximum(weights, counts > 0))
        total = int(self._ends[-1])
        self._shift = max(0, total.bit_length() - self.items.bit_length() - 1)
        places = np.arange((total >> self._shift) + 2, dtype=np.int64) << self._shift
        self._guide = np.minimum(np.searchsorted(self._ends, places, side="right"), self.items - 1)

    def probability(self, codes: np.ndarray) -> np.ndarray:
        """Return the probability that one draw is each of ``codes`` (int64), float64."""
        if not len(self._ends):
            return np.full(len(codes), 1.0 / self.items)
        before = np.where(codes > 0, self._ends[codes - 1], 0)
        return (self._ends[codes] - before) / self._ends[-1]

    def shared(self, count: int, key: int) -> np.ndarray:
        """Return what ``count`` draws, with repeats, gave: distinct codes, ascending, int64; of sampling=all every code."""
        if self._all:
            return np.arange(self.items)
        drawn = np.empty(count, np.int64)
        _draw_many(drawn, np.uint64(key & MASK), self.items, self._ends, self._guide, self._shift)
        if self.items > 64 * count:
            return np.unique(drawn)
        marked = np.zeros(self.items, np.bool_)
        marked[drawn] = True
        return np.flatnonzero(marked)

    def log_inclusion(self, codes: np.ndarray, draws: int, in_batch: int) -> np.ndarray:
        """Return the logarithm of the probability that each item is among the negatives of a batch.

        It is ``log(1 - exp(-(draws * p + in_batch * f)))`` with ``p`` the probability of a draw and ``f`` the item's share of the
        training interactions: the number of times that an item comes is taken for Poisson's, whose mean that is.

        Parameters
        ----------
        codes : ndarray, shape (n,), int64
            The items.
        draws : int
            How many ``shared`` made.
        in_batch : int
            Training interactions whose items are negatives besides.

        Returns
        -------
        ndarray, shape (n,), float32
            For sampling=all, 0.
        """
        if self._all:
            return np.zeros(len(codes), np.float32)
        times = draws * self.probability(codes) + in_batch * self._shares[codes]
        return np.log(-np.expm1(-np.maximum(times, _TINY))).astype(np.float32)

    def each(self, seeds: np.ndarray, count: int, users: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw negatives for every sample, with repeats, by ``sampling``'s probabilities (those of uniform for all).

        Parameters
        ----------
        seeds : ndarray, shape (n,), int64
            What each sample's draws depend on.
        count : int
            Draws of each.
        users : ndarray, shape (n,), int64
            Whose items are left out where ``known`` was given; a negative code has none.
        own : ndarray, shape (n,), int64
            The sample's own item, which is left out.

        Returns
        -------
        codes : ndarray, shape (n, count), int64
        out : ndarray, shape (n, count), bool
            Draws that do not count: they are to be left out, and so were the 63 before.
        """
        codes, out = np.empty((len(seeds), count), np.int64), np.zeros((len(seeds), count), np.bool_)
        known = self._known
        _draw_each(
            codes, out, seeds, users, own, self.items, self._ends, self._guide, self._shift, known.values, known.offsets
        )
        return codes, out


@numba.njit(nogil=True, cache=True)
def _draw(bits: np.uint64, items: int, ends: np.ndarray, guide: np.ndarray, shift: int) -> np.int64:
    """Return the item that a random number falls on."""
    if len(ends) == 0:
        return np.int64(reduce(bits, np.uint64(items)))
    place = np.int64(reduce(bits, np.uint64(ends[-1])))
    low, high = guide[place >> shift], guide[(place >> shift) + 1]
    while low < high:
        middle = (low + high) >> 1
        if ends[middle] <= place:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(nogil=True, cache=True)
def _draw_many(out: np.ndarray, key: np.uint64, items: int, ends: np.ndarray, guide: np.ndarray, shift: int) -> None:
    start = mix(key + _GOLDEN)
    for i in range(len(out)):
        out[i] = _draw(mix(start + np.uint64(i) * _GOLDEN), items, ends, guide, shift)


@numba.njit(nogil=True, cache=True)
def _draw_each(
    codes: np.ndarray,
    out: np.ndarray,
    seeds: np.ndarray,
    users: np.ndarray,
    own: np.ndarray,
    items: int,
    ends: np.ndarray,
    guide: np.ndarray,
    shift: int,
    values: np.ndarray,
    offsets: np.ndarray,
) -> None:
    for i in range(len(seeds)):
        start = mix(np.uint64(seeds[i]) + _GOLDEN)
        known = row_of(values, offsets, users[i])  # once: a view of an array costs more than a draw
        for j in range(codes.shape[1]):
            for attempt in range(TRIES):
                code = _draw(mix(start + np.uint64(j * TRIES + attempt) * _GOLDEN), items, ends, guide, shift)
                wrong = code == own[i] or contains(known, code)
                if not wrong:
                    break
            codes[i, j], out[i, j] = code, wrong
