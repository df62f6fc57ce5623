"""Words that are looked for among others, block by block: compiled, and with the same word as often as it is asked for."""

from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.encoders.text import hash_words


class Index(NamedTuple):
    """Finds words by their hashes.

    Attributes
    ----------
    hashes : ndarray, shape (words,), uint64
    slots : ndarray, shape (slots,), int32
        The last word of a hash, -1 where there is none; a slot is found by the hash, and the next ones are looked at.
    same : ndarray, shape (words,), int32
        The word before that is the same; -1 for the first.
    """

    hashes: np.ndarray
    slots: np.ndarray
    same: np.ndarray


def make_index(words: pa.BinaryArray) -> Index:
    """Return what finds ``words``."""
    hashes, same = hash_words(words), np.empty(len(words), np.int32)
    slots = np.full(1 << max(4, (3 * len(words) // 2).bit_length()), -1, np.int32)
    _enter(hashes, slots, same)
    return Index(hashes, slots, same)


def look(index: Index, words: pa.BinaryArray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the indexed words are among ``words``, and where there; mark them, and leave out those marked before."""
    hashes = hash_words(words)
    found = np.empty((2, _find(hashes, *index, known, np.empty((2, 0), np.int32))), np.int32)
    used = _find(hashes, *index, known, found)  # fewer, where one of ``words`` is there twice
    return found[0, :used], found[1, :used]


@numba.njit(nogil=True, cache=True)
def _enter(hashes: np.ndarray, slots: np.ndarray, same: np.ndarray) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hashes)):
        at = hashes[i] & mask
        while slots[at] >= 0 and hashes[slots[at]] != hashes[i]:
            at = (at + np.uint64(1)) & mask
        same[i] = slots[at]
        slots[at] = i


@numba.njit(nogil=True, cache=True)
def _find(
    wanted: np.ndarray, hashes: np.ndarray, slots: np.ndarray, same: np.ndarray, known: np.ndarray, found: np.ndarray
) -> int:
    """Return how many unmarked words there are of the hashes ``wanted``; where ``found`` has room, write which, and mark them."""
    mask, used = np.uint64(len(slots) - 1), 0
    for i in range(len(wanted)):
        at = wanted[i] & mask
        while slots[at] >= 0 and hashes[slots[at]] != wanted[i]:
            at = (at + np.uint64(1)) & mask
        word = slots[at]
        while word >= 0:
            if not known[word]:
                if used < found.shape[1]:
                    found[0, used], found[1, used] = word, i
                    known[word] = True
                used += 1
            word = same[word]
    return used
