"""The hash table in which words are found by their hashes: compiled, open addressing, at most two thirds full."""

import numba
import numpy as np


def make_slots(hashes: np.ndarray) -> np.ndarray:
    """Return the hash table that finds a word's row: word ``i``, of hash ``hashes[i]``, has row ``i + 1``.

    Parameters
    ----------
    hashes : ndarray, shape (words,), uint64
        Their hashes, none of them 0.

    Returns
    -------
    ndarray, shape (slots, 2), uint64
        Hash and row in each slot, hash 0 in empty ones; at most two thirds are taken.

    Raises
    ------
    ValueError
        Two words have the same hash.
    """
    slots = empty_slots(len(hashes))
    again = _fill(slots, hashes)
    if again >= 0:
        raise ValueError(f"word {again} is there twice")
    return slots


def empty_slots(words: int) -> np.ndarray:
    """Return a hash table with room for this many words: shape (slots, 2), uint64, all 0."""
    return np.zeros((1 << max(4, (3 * words // 2).bit_length()), 2), np.uint64)


@numba.njit(nogil=True, cache=True)
def slot_of(slots: np.ndarray, hashed: np.uint64) -> np.uint64:
    """Return the slot that holds a hash, or the empty one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    at = hashed & mask
    while slots[at, 0] != hashed and slots[at, 0] != 0:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(nogil=True, cache=True)
def _fill(slots: np.ndarray, hashes: np.ndarray) -> int:
    for i in range(len(hashes)):
        at = slot_of(slots, hashes[i])
        if slots[at, 0] != 0:
            return i
        slots[at, 0] = hashes[i]
        slots[at, 1] = i + 1
    return -1


@numba.njit(nogil=True, cache=True)
def move(slots: np.ndarray, larger: np.ndarray) -> None:
    """Put all that is in a hash table into a larger one."""
    for i in range(len(slots)):
        if slots[i, 0] != 0:
            at = slot_of(larger, slots[i, 0])
            larger[at, 0] = slots[i, 0]
            larger[at, 1] = slots[i, 1]
