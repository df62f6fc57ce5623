"""How often each value came and with which others it shares its rows, in bounded memory and one pass.

A value is a hash of 64 bits; its key says which rows it has, so that values of one key share all of them. All values are kept
while there are few. Then only those whose keys fall into a sample are, ever fewer: who shares rows with whom stays known exactly
for those in it. The most frequent values known by then stay besides, to be named.
"""

from dataclasses import dataclass

import numba
import numpy as np

from bigembed.encoders.slots import slot_of
from bigembed.hashing import mix
from bigembed.knowing.sketch import HyperLogLog

MOST = 1 << 22
FREQUENT = 1 << 10  # values that stay whether they are in the sample or not
_HASH, _KEY, _COUNT = range(3)


@dataclass(frozen=True, slots=True)
class Counts:
    """Different values with what is known of each.

    Attributes
    ----------
    hashes, keys : ndarray, shape (values,), uint64
    counts : ndarray, shape (values,), int64
    """

    hashes: np.ndarray
    keys: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.hashes)

    def take(self, chosen: np.ndarray) -> "Counts":
        """Return the values that an index or a mask names."""
        return Counts(self.hashes[chosen], self.keys[chosen], self.counts[chosen])

    def top(self, count: int) -> "Counts":
        """Return the most frequent values, those first; of equally frequent ones those of smaller hashes."""
        return self.take(np.lexsort((self.hashes, -self.counts))[:count])

    def shared(self) -> np.ndarray:
        """Return whether each value has its key in common with another one: shape (values,), bool."""
        _, inverse, times = np.unique(self.keys, return_inverse=True, return_counts=True)
        return times[inverse] > 1


class Tally:
    """Counts values.

    Parameters
    ----------
    most : int
        Values that are kept; up to there everything is exact.

    Attributes
    ----------
    total : int
        Values counted, each as often as it came.
    level : int
        A sample of one key in ``2**level`` is kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.total = self.level = self.known = 0
        self.sketch = HyperLogLog()
        self._slots = np.zeros((1 << 12, 3), np.uint64)

    def add(self, hashes: np.ndarray, keys: np.ndarray, times: np.ndarray | None = None) -> None:
        """Count values by their hashes, none of them 0, with their keys (uint64), which a value has always the same.

        Each counts once, or as often as ``times`` (int64) says.
        """
        times = np.broadcast_to(np.int64(1), len(hashes)) if times is None else times
        self.total += int(times.sum())
        self.sketch.add(hashes)
        at = 0
        while True:
            room = min(self.most, len(self._slots) // 2)
            at, self.known = _count(hashes, keys, times, self._slots, at, self.known, room, self.level)
            if at == len(hashes):
                return
            if room < self.most:
                self._move(2 * len(self._slots))
            else:
                self._thin()

    @property
    def exact(self) -> bool:
        """Whether all values are known."""
        return self.level == 0

    def distinct(self) -> float:
        """Return how many different values came; an estimate where not all are known."""
        return float(self.known) if self.exact else self.sketch.estimate()

    def sample(self) -> Counts:
        """Return the values whose keys are in the sample: all, where ``exact``."""
        kept = self.kept()
        return kept.take(_sampled(kept.keys, self.level))

    def kept(self) -> Counts:
        """Return all values that are known: the sample, and frequent ones besides."""
        slots = self._slots[self._slots[:, _HASH] != 0]
        return Counts(slots[:, _HASH].copy(), slots[:, _KEY].copy(), slots[:, _COUNT].astype(np.int64))

    def _move(self, size: int) -> None:
        larger = np.zeros((size, 3), np.uint64)
        _fill(self._slots[self._slots[:, _HASH] != 0], larger)
        self._slots = larger

    def _thin(self) -> None:
        """Halve the sample until there is room again."""
        kept = self.kept()
        frequent = np.sort(kept.top(min(FREQUENT, self.most // 4)).hashes)
        stays = np.ones(len(kept), bool)
        while stays.sum() > self.most // 2 and self.level < 63:
            self.level += 1
            stays = _sampled(kept.keys, self.level) | np.isin(kept.hashes, frequent)
        chosen, size = kept.take(stays), len(self._slots)
        self.known = len(chosen)
        self._slots = np.zeros((size, 3), np.uint64)
        _fill(np.stack([chosen.hashes, chosen.keys, chosen.counts.astype(np.uint64)], 1), self._slots)


def _sampled(keys: np.ndarray, level: int) -> np.ndarray:
    out = np.empty(len(keys), bool)
    _sampled_of(keys, level, out)
    return out


@numba.njit(nogil=True, cache=True)
def _is_sampled(key: np.uint64, level: int) -> bool:
    return level == 0 or mix(key + np.uint64(1)) >> np.uint64(64 - level) == 0


@numba.njit(nogil=True, cache=True)
def _sampled_of(keys: np.ndarray, level: int, out: np.ndarray) -> None:
    for i in range(len(keys)):
        out[i] = _is_sampled(keys[i], level)


@numba.njit(nogil=True, cache=True)
def _fill(entries: np.ndarray, slots: np.ndarray) -> None:
    for i in range(len(entries)):
        slots[slot_of(slots, entries[i, 0])] = entries[i]


@numba.njit(nogil=True, cache=True)
def _count(
    hashes: np.ndarray,
    keys: np.ndarray,
    times: np.ndarray,
    slots: np.ndarray,
    at: int,
    known: int,
    room: int,
    level: int,
) -> tuple[int, int]:
    """Count values from ``at`` on until there is no room; return where to go on, and how many are known."""
    while at < len(hashes):
        slot = slot_of(slots, hashes[at])
        if slots[slot, 0] == 0 and _is_sampled(keys[at], level):
            if known == room:
                return at, known
            slots[slot, 0] = hashes[at]
            slots[slot, 1] = keys[at]
            known += 1
        if slots[slot, 0] != 0:
            slots[slot, 2] += np.uint64(times[at])
        at += 1
    return at, known
