"""Counts of the words and numbers seen so far, each known by its hash and written out once, when it is first seen."""

import numba
import numpy as np
import pyarrow as pa

from bigembed.encoders.columns import Spans
from bigembed.encoders.ids import read
from bigembed.encoders.slots import empty_slots, move, slot_of
from bigembed.encoders.text import Rules, Tokenizer, next_token, spell
from bigembed.encoders.values import hash_numbers
from bigembed.hashing import finish


class Counter:
    """What both counters share: ``slots`` hold hash and count, ``hashes`` the values in the order of their discovery."""

    def __init__(self) -> None:
        self.known = 0
        self.slots = empty_slots(1 << 14)
        self.hashes = np.empty(len(self.slots) // 2, np.uint64)

    def counts(self) -> np.ndarray:
        """Return how often each value was seen (int64), in the order of their discovery."""
        counts = np.empty(self.known, np.int64)
        _counts_of(self.slots, self.hashes, counts)
        return counts

    def _grow(self) -> None:
        self.hashes = _grown(self.hashes, 2 * len(self.hashes))
        slots = np.zeros((2 * len(self.slots), 2), np.uint64)
        move(self.slots, slots)
        self.slots = slots


class WordCounter(Counter):
    """Counts the tokens of texts; word ``i`` is ``letters[ends[i]:ends[i + 1]]``."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = np.zeros(len(self.hashes) + 1, np.int64)
        self.letters = np.empty(1 << 18, np.uint8)

    def add(self, tokenizer: Tokenizer, spans: Spans) -> None:
        """Count the tokens of ``spans``."""
        spans = tokenizer.prepare(spans)
        row = at = 0
        while row < len(spans.begin):
            row, at, self.known, size = _count_words(
                *(spans.begin, spans.end, tokenizer.rules, self.slots, self.hashes, self.ends, self.letters),
                *(row, at, self.known),
            )
            self._make_room(size)

    def absorb(self, other: "WordCounter") -> None:
        """Add the words of another counter and their counts."""
        counts, at = other.counts(), 0
        while at < other.known:
            at, self.known, size = _absorb_words(
                *(self.slots, self.hashes, self.ends, self.letters, self.known),
                *(other.hashes, counts, other.ends, other.letters, at),
            )
            self._make_room(size)

    def words(self) -> pa.LargeStringArray:
        """Return the words in the order of their discovery."""
        letters = self.letters[: self.ends[self.known]]
        return pa.LargeStringArray.from_buffers(self.known, pa.py_buffer(self.ends), pa.py_buffer(letters))

    def _make_room(self, size: int) -> None:
        if size > len(self.letters):
            self.letters = _grown(self.letters, max(size, 2 * len(self.letters)))
        if self.known == len(self.hashes):
            self._grow()
            self.ends = _grown(self.ends, len(self.hashes) + 1)


class NumberCounter(Counter):
    """Counts whole numbers, which it keeps as int64, and writes out as uint64 of the same bits if ``unsigned``."""

    def __init__(self, unsigned: bool) -> None:
        super().__init__()
        self.unsigned = unsigned
        self.numbers = np.empty(len(self.hashes), np.int64)

    def add(self, tokenizer: Tokenizer, spans: Spans) -> None:
        """Count the numbers of ``spans``, which no tokenizer cuts."""
        numbers = read(spans).values
        self._add(numbers, np.ones(len(numbers), np.int64))

    def absorb(self, other: "NumberCounter") -> None:
        """Add the numbers of another counter and their counts."""
        self._add(other.numbers[: other.known], other.counts())

    def words(self) -> pa.LargeStringArray:
        """Return the numbers as decimal texts in the order of their discovery."""
        numbers = self.numbers[: self.known]
        return pa.array(numbers.view(np.uint64) if self.unsigned else numbers).cast(pa.large_string())

    def _add(self, numbers: np.ndarray, times: np.ndarray) -> None:
        hashed, at = hash_numbers(numbers), 0
        while True:
            at, self.known = _count_numbers(
                numbers, hashed, times, self.slots, self.hashes, self.numbers, at, self.known
            )
            if at == len(numbers):
                return
            self._grow()
            self.numbers = _grown(self.numbers, len(self.hashes))


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    larger = np.empty(size, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True)
def _count_words(
    begin: np.ndarray,
    end: np.ndarray,
    rules: Rules,
    slots: np.ndarray,
    hashes: np.ndarray,
    ends: np.ndarray,
    letters: np.ndarray,
    row: int,
    at: int,
    known: int,
) -> tuple[int, int, int, int]:
    """Count words from an address in a text on (0: its beginning), until there is no room for one more.

    Return where to go on, how many words are known, and the bytes that ``letters`` should have at least.
    """
    salt = np.uint64(0)
    while row < len(begin):
        if at == 0:
            at = begin[row]
        stop = end[row]
        while True:
            first, at, state = next_token(at, stop, rules)
            if first == stop:
                break
            hashed = finish(state, salt)
            slot = slot_of(slots, hashed)
            if slots[slot, 0] == 0:
                size = ends[known] + 3 * (at - first)
                if known == len(hashes) or size > len(letters):
                    return row, first, known, size
                slots[slot, 0] = hashed
                hashes[known] = hashed
                ends[known + 1] = spell(first, at, rules, letters, ends[known])
                known += 1
            slots[slot, 1] += np.uint64(1)
        row += 1
        at = 0
    return row, at, known, 0


@numba.njit(nogil=True, cache=True)
def _absorb_words(
    slots: np.ndarray,
    hashes: np.ndarray,
    ends: np.ndarray,
    letters: np.ndarray,
    known: int,
    other_hashes: np.ndarray,
    other_counts: np.ndarray,
    other_ends: np.ndarray,
    other_letters: np.ndarray,
    at: int,
) -> tuple[int, int, int]:
    """Add another counter's words from ``at`` on, as ``_count_words`` adds those of texts."""
    while at < len(other_counts):
        slot = slot_of(slots, other_hashes[at])
        if slots[slot, 0] == 0:
            start, stop = other_ends[at], other_ends[at + 1]
            size = ends[known] + stop - start
            if known == len(hashes) or size > len(letters):
                return at, known, size
            slots[slot, 0] = other_hashes[at]
            hashes[known] = other_hashes[at]
            letters[ends[known] : size] = other_letters[start:stop]
            ends[known + 1] = size
            known += 1
        slots[slot, 1] += np.uint64(other_counts[at])
        at += 1
    return at, known, 0


@numba.njit(nogil=True, cache=True)
def _count_numbers(
    values: np.ndarray,
    hashed: np.ndarray,
    times: np.ndarray,
    slots: np.ndarray,
    hashes: np.ndarray,
    numbers: np.ndarray,
    at: int,
    known: int,
) -> tuple[int, int]:
    """Count numbers from ``at`` on, each so many times, until there is no room; return where to go on, and how many are known."""
    while at < len(values):
        slot = slot_of(slots, hashed[at])
        if slots[slot, 0] == 0:
            if known == len(hashes):
                return at, known
            slots[slot, 0] = hashed[at]
            hashes[known] = hashed[at]
            numbers[known] = values[at]
            known += 1
        slots[slot, 1] += np.uint64(times[at])
        at += 1
    return at, known


@numba.njit(nogil=True, cache=True)
def _counts_of(slots: np.ndarray, hashes: np.ndarray, counts: np.ndarray) -> None:
    for i in range(len(counts)):
        counts[i] = slots[slot_of(slots, hashes[i]), 1]
