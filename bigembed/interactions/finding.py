"""From ids to codes: the place of each of many values among distinct keys."""

from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from bigembed.hashing import BASIS, feed, finish, mix
from bigembed.interactions.keys import NUMBERS, numbers_of, texts_of

_SPARSE = 4  # keys that take up less than one in so many numbers are hashed: a table of all numbers would be too large


@dataclass(frozen=True, slots=True)
class Finder:
    """What finds keys.

    Attributes
    ----------
    keys : Array
        Of ``NUMBERS`` or ``TEXTS``, distinct, without nulls.
    lowest : int or None
        The smallest key, where ``places`` has an entry for every number from it on; None where ``places`` is a hash table.
    places : ndarray, int64
        The code of a key; -1: none.
    """

    keys: pa.Array
    lowest: int | None
    places: np.ndarray

    def find(self, values: pa.Array) -> np.ndarray:
        """Return the code (int64) of each of ``values``, an array of the keys' type without nulls; -1: it is no key."""
        out = np.empty(len(values), np.int64)
        if self.keys.type != NUMBERS:
            _find_texts(*texts_of(self.keys), *texts_of(values), self.places, out)
        elif self.lowest is None:
            _find_hashed(numbers_of(self.keys), numbers_of(values), self.places, out)
        else:
            _find_direct(numbers_of(values), self.lowest, self.lowest + len(self.places) - 1, self.places, out)
        return out


def finder(keys: pa.Array) -> Finder:
    """Return what finds ``keys``: distinct ones of ``NUMBERS`` or ``TEXTS``."""
    if keys.type == NUMBERS and len(keys):
        numbers = numbers_of(keys)
        lowest, highest = int(numbers.min()), int(numbers.max())
        if highest - lowest < _SPARSE * len(keys):
            places = np.full(highest - lowest + 1, -1, np.int64)
            places[numbers - lowest] = np.arange(len(keys))
            return Finder(keys, lowest, places)
    places = np.full(1 << max(4, (2 * len(keys)).bit_length()), -1, np.int64)  # at most half full
    if keys.type == NUMBERS:
        _place_hashed(numbers_of(keys), places)
    else:
        _place_texts(*texts_of(keys), places)
    return Finder(keys, None, places)


@numba.njit(nogil=True, cache=True)
def _find_direct(values: np.ndarray, lowest: int, highest: int, places: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(values)):
        out[i] = places[values[i] - lowest] if lowest <= values[i] <= highest else -1


@numba.njit(nogil=True, cache=True)
def _place_hashed(keys: np.ndarray, places: np.ndarray) -> None:
    mask = np.uint64(len(places) - 1)
    for i in range(len(keys)):
        at = mix(np.uint64(keys[i])) & mask
        while places[at] >= 0:
            at = (at + np.uint64(1)) & mask
        places[at] = i


@numba.njit(nogil=True, cache=True)
def _find_hashed(keys: np.ndarray, values: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    mask = np.uint64(len(places) - 1)
    for i in range(len(values)):
        at = mix(np.uint64(values[i])) & mask
        while places[at] >= 0 and keys[places[at]] != values[i]:
            at = (at + np.uint64(1)) & mask
        out[i] = places[at]


@numba.njit(nogil=True, cache=True)
def _hash_text(letters: np.ndarray, begin: int, end: int) -> np.uint64:
    state = BASIS
    for i in range(begin, end):
        state = feed(state, np.uint64(letters[i]))
    return finish(state, np.uint64(0))


@numba.njit(nogil=True, cache=True)
def _place_texts(letters: np.ndarray, offsets: np.ndarray, places: np.ndarray) -> None:
    mask = np.uint64(len(places) - 1)
    for i in range(len(offsets) - 1):
        at = _hash_text(letters, offsets[i], offsets[i + 1]) & mask
        while places[at] >= 0:
            at = (at + np.uint64(1)) & mask
        places[at] = i


@numba.njit(nogil=True, cache=True)
def _same(letters: np.ndarray, begin: int, end: int, others: np.ndarray, start: int, stop: int) -> bool:
    if end - begin != stop - start:
        return False
    for i in range(end - begin):  # noqa: SIM110 — compiled
        if letters[begin + i] != others[start + i]:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _find_texts(
    letters: np.ndarray,
    offsets: np.ndarray,
    others: np.ndarray,
    other_offsets: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
) -> None:
    mask = np.uint64(len(places) - 1)
    for i in range(len(out)):
        start, stop = other_offsets[i], other_offsets[i + 1]
        at = _hash_text(others, start, stop) & mask
        # The bytes themselves are compared: two ids of one hash are two ids.
        while places[at] >= 0 and not _same(letters, offsets[places[at]], offsets[places[at] + 1], others, start, stop):
            at = (at + np.uint64(1)) & mask
        out[i] = places[at]
