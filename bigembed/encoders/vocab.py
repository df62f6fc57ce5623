"""Tables with a vocabulary: the words of the training data are counted, and the frequent ones have a row each."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import VocabTable
from bigembed.encoders.columns import Spans
from bigembed.encoders.encoder import in_order
from bigembed.encoders.text import Rules, TextColumn, Tokenizer, hash_words, next_token, spell
from bigembed.encoders.tokens import TextEncoder, empty_slots, make_plan, make_slots, slot_of
from bigembed.errors import UserError
from bigembed.hashing import finish


class VocabEncoder(TextEncoder):
    """Looks words up: row 0 for unknown ones, then the words, the most frequent first, then the buckets of n-grams.

    Parameters
    ----------
    config : VocabTable
        The table.
    words : StringArray, shape (words,)
        The words in the order of their rows.
    counts : ndarray, shape (words,), int64
        How often each was seen.

    Raises
    ------
    ValueError
        A word is there twice.
    """

    kind = "vocab"

    def __init__(self, config: VocabTable, words: pa.StringArray, counts: np.ndarray) -> None:
        buckets = config.buckets if config.ngrams > 1 else 0
        first_gram = 1 + len(words)
        plan = make_plan(0, 0, first_gram, buckets, config.ngrams)
        super().__init__(config, first_gram + buckets, make_slots(hash_words(words)), plan)
        self.word_rows = (1, first_gram)
        self._words = words
        self._counts = counts

    @classmethod
    def learn(
        cls,
        name: str,
        config: VocabTable,
        columns: Sequence[TextColumn],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "VocabEncoder":
        """Count the words of texts and give the frequent ones rows; see ``bigembed.encoders.build``."""
        words, counts = count_words(config, columns, index, threads, progress)
        return cls(config, *choose_words(name, config, words, counts))

    @classmethod
    def restore(cls, config: VocabTable, words: pa.StringArray, counts: np.ndarray) -> "VocabEncoder":
        """Make the encoder from its saved words and their counts."""
        return cls(config, words, counts)

    @classmethod
    def settings_of(cls, config: VocabTable) -> dict[str, Any]:
        """Return everything apart from the words that decides which ids a text has."""
        cutting = Tokenizer(config.tokens, config.pattern, config.lower).settings
        return {
            **cutting,
            "ngrams": config.ngrams,
            "distinct": config.distinct,
            "buckets": config.buckets if config.ngrams > 1 else 0,
        }

    def words(self) -> pa.StringArray:
        """Return the words of the rows ``word_rows``."""
        return self._words

    def counts(self) -> np.ndarray:
        """Return how often each of ``words()`` was seen (int64)."""
        return self._counts


def count_words(
    config: VocabTable,
    columns: Sequence[TextColumn],
    index: np.ndarray | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Count the words of texts; what is kept in memory is the different words, not the texts.

    Parameters
    ----------
    config : VocabTable
        How texts are cut; ``min_count`` and ``max_size`` are not applied.
    columns : sequence of TextColumn
        The texts.
    index : ndarray, shape (rows,), int64, optional
        The rows of each column to look at; by default all.
    threads : int
        Threads to use; the result does not depend on it, up to order.
    progress : callable, optional
        Called with the number of texts done, after every few megabytes.

    Returns
    -------
    words : LargeStringArray, shape (words,)
    counts : ndarray, shape (words,), int64
    """
    tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
    free: list[_Counter] = []  # a counter for each thread, lent while it works

    def work(spans: Spans) -> int:
        try:
            counter = free.pop()
        except IndexError:
            counter = _Counter()
        counter.add(tokenizer, spans)
        free.append(counter)
        return len(spans)

    done = 0
    for column in columns:
        with closing(in_order(work, column.blocks(index), threads)) as counted:
            for rows in counted:
                done += rows
                if progress is not None:
                    progress(done)
    counter = free.pop() if free else _Counter()
    while free:
        counter.absorb(free.pop())
    return counter.words(), counter.counts()


def choose_words(
    name: str, config: VocabTable, words: pa.LargeStringArray, counts: np.ndarray
) -> tuple[pa.StringArray, np.ndarray]:
    """Return the words that have rows and their counts: by count from high to low, then by their UTF-8 bytes.

    Raises
    ------
    UserError
        None is left, or they are too many to be kept.
    """
    frequent = np.flatnonzero(counts >= config.min_count)
    if not len(frequent):
        why = "the texts hold no words: look at the column, and at how the table cuts texts"
        if len(words):
            why = f"all {len(words)} different words were seen fewer than {config.min_count} times, lower min_count"
        raise UserError(f"the vocabulary of table '{name}' would be empty, {why}")
    table = pa.table({"word": words.take(frequent), "count": counts[frequent]})
    table = table.sort_by([("count", "descending"), ("word", "ascending")]).slice(0, config.max_size)
    size = pc.sum(pc.binary_length(table["word"])).as_py()
    if size >= 1 << 31:
        raise UserError(f"the words of table '{name}' take {size} bytes, more than 2 GiB: raise min_count")
    return table["word"].cast(pa.string()).combine_chunks(), table["count"].to_numpy()


class _Counter:
    """Counts of the words seen so far, by their hashes; words are written out once, when first seen.

    ``slots`` hold hash and count, ``hashes`` the words in the order of their discovery; word ``i`` is
    ``letters[ends[i]:ends[i + 1]]``.
    """

    def __init__(self) -> None:
        self.known = 0
        self.slots = empty_slots(1 << 14)
        self.hashes = np.empty(len(self.slots) // 2, np.uint64)
        self.ends = np.zeros(len(self.hashes) + 1, np.int64)
        self.letters = np.empty(1 << 18, np.uint8)

    def add(self, tokenizer: Tokenizer, spans: Spans) -> None:
        spans = tokenizer.prepare(spans)
        row = at = 0
        while row < len(spans):
            row, at, self.known, size = _count(
                *(spans.begin, spans.end, tokenizer.rules, self.slots, self.hashes, self.ends, self.letters),
                *(row, at, self.known),
            )
            self._make_room(size)

    def absorb(self, other: "_Counter") -> None:
        """Add the words of another counter and their counts."""
        counts, at = other.counts(), 0
        while at < other.known:
            at, self.known, size = _absorb(
                *(self.slots, self.hashes, self.ends, self.letters, self.known),
                *(other.hashes, counts, other.ends, other.letters, at),
            )
            self._make_room(size)

    def counts(self) -> np.ndarray:
        counts = np.empty(self.known, np.int64)
        _counts_of(self.slots, self.hashes, counts)
        return counts

    def words(self) -> pa.LargeStringArray:
        letters = self.letters[: self.ends[self.known]]
        return pa.LargeStringArray.from_buffers(self.known, pa.py_buffer(self.ends), pa.py_buffer(letters))

    def _make_room(self, size: int) -> None:
        if size > len(self.letters):
            self.letters = _grown(self.letters, max(size, 2 * len(self.letters)))
        if self.known < len(self.hashes):
            return
        self.hashes = _grown(self.hashes, 2 * len(self.hashes))
        self.ends = _grown(self.ends, len(self.hashes) + 1)
        slots = np.zeros((2 * len(self.slots), 2), np.uint64)
        _move(self.slots, slots)
        self.slots = slots


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    larger = np.empty(size, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True)
def _count(
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
def _absorb(
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
    """Add another counter's words from ``at`` on, as ``_count`` adds those of texts."""
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
def _move(slots: np.ndarray, larger: np.ndarray) -> None:
    for i in range(len(slots)):
        if slots[i, 0] != 0:
            at = slot_of(larger, slots[i, 0])
            larger[at, 0] = slots[i, 0]
            larger[at, 1] = slots[i, 1]


@numba.njit(nogil=True, cache=True)
def _counts_of(slots: np.ndarray, hashes: np.ndarray, counts: np.ndarray) -> None:
    for i in range(len(counts)):
        counts[i] = slots[slot_of(slots, hashes[i]), 1]
