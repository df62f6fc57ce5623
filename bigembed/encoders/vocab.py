"""Tables with a vocabulary: the words or values of the training data are counted, and the frequent ones have a row each."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import SubwordTable, VocabTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.counts import NumberCounter, WordCounter
from bigembed.encoders.encoder import Encoded, Ids, in_order
from bigembed.encoders.slots import make_slots, slot_of
from bigembed.encoders.text import Tokenizer
from bigembed.encoders.tokens import TokenEncoder, settings_of_tokens
from bigembed.encoders.values import NUMBERS, Crossed, hashes_of, kind_of
from bigembed.errors import UserError
from bigembed.hashing import combine, reduce
from bigembed.ragged import Ragged


class VocabEncoder(TokenEncoder):
    """Looks words up: row 0 for unknown ones, then the words, the most frequent first, then the buckets of n-grams.

    Parameters
    ----------
    config : VocabTable
        The table.
    learned : dict
        The kind of values.
    words : StringArray, shape (words,)
        The words in the order of their rows; numbers as decimal texts.
    counts : ndarray, shape (words,), int64
        How often each was seen.

    Raises
    ------
    ValueError
        A word is there twice, or is no number where they should be.
    """

    kind = "vocab"
    learns_rows = True
    config: VocabTable

    def __init__(self, config: VocabTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray) -> None:
        first_gram = 1 + len(words)
        super().__init__(config, (first_gram + _grams(config),), learned)
        self.word_rows = (1, first_gram)
        self._slots = make_slots(hashes_of(words, learned["values"]))
        self._words = words
        self._counts = counts

    @classmethod
    def learn(
        cls,
        name: str,
        config: VocabTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "VocabEncoder":
        """Count words and give the frequent ones rows; see ``bigembed.encoders.build``."""
        words, counts = count_words(config, columns, index, threads, progress)
        return cls(config, {"values": kind_of(columns[0])}, *choose_words(name, config, words, counts))

    @classmethod
    def restore(
        cls, config: VocabTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "VocabEncoder":
        """Make the encoder from what it saved: the kind of values, and the words and their counts."""
        return cls(config, learned, words, counts)

    @classmethod
    def settings_of(cls, config: Any) -> dict[str, Any]:
        """Return everything apart from the words that decides which ids a sample has."""
        return settings_of_tokens(config) | {"buckets": _grams(config)}

    @classmethod
    def rows_at_most(cls, config: Any) -> tuple[int, ...] | None:
        """Return the rows of the largest vocabulary that the options allow, with those of n-grams; None where they set no bound."""
        return None if config.max_size is None else (1 + config.max_size + _grams(config),)

    def words(self) -> pa.StringArray:
        """Return the words of the rows ``word_rows``."""
        return self._words

    def counts(self) -> np.ndarray:
        """Return how often each of ``words()`` was seen (int64)."""
        return self._counts

    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes as the rows of words and of n-grams; see ``TokenEncoder``."""
        rows = np.empty(len(hashed.values), dtype)
        _look_up(hashed.values, self._slots, rows)
        ids = Ragged(rows, hashed.offsets)
        if self.config.ngrams > 1:
            ids = self._with_grams(hashed, ids)
        return Encoded((Ids(ids.distinct() if distinct else ids),), hashed.lengths.astype(np.int32))

    def _with_grams(self, hashed: Ragged, words: Ragged) -> Ragged:
        """Return the rows of words, each followed by those of the n-grams that end at it."""
        ngrams, offsets = self.config.ngrams, np.zeros_like(hashed.offsets)
        rows = np.empty(len(words.values) * ngrams, words.values.dtype)
        grams = np.uint64(self.word_rows[1]), np.uint64(_grams(self.config)), ngrams
        _add_grams(hashed.values, hashed.offsets, words.values, *grams, rows, offsets[1:])
        return Ragged(rows[: offsets[-1]], offsets)


def count_words(
    config: VocabTable | SubwordTable,
    columns: Sequence[Column],
    index: np.ndarray | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Count the words of texts, or values; what is kept in memory is the different ones, not the data.

    Parameters
    ----------
    config : VocabTable or SubwordTable
        How texts are cut; ``min_count`` and ``max_size`` are not applied.
    columns : sequence of Column
        All of texts, or all of whole numbers; or of lists of these.
    index : ndarray, shape (rows,), int64, optional
        The rows of each column to look at; by default all.
    threads : int
        Threads to use; the result does not depend on it, up to order.
    progress : callable, optional
        Called with the number of rows done, after every few megabytes.

    Returns
    -------
    words : LargeStringArray, shape (words,)
        Numbers as decimal texts.
    counts : ndarray, shape (words,), int64

    Raises
    ------
    UserError
        Some columns hold texts and others numbers, or one is crossed.
    """
    tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
    counter_of = _counter_of(columns)
    free: list[Any] = []  # a counter for each thread, lent while it works

    def work(spans: Spans) -> int:
        try:
            counter = free.pop()
        except IndexError:
            counter = counter_of()
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
    counter = free.pop() if free else counter_of()
    while free:
        counter.absorb(free.pop())
    return counter.words(), counter.counts()


def choose_words(
    name: str, config: VocabTable | SubwordTable, words: pa.LargeStringArray, counts: np.ndarray
) -> tuple[pa.StringArray, np.ndarray]:
    """Return the words that have rows and their counts: by count from high to low, then by their UTF-8 bytes.

    Raises
    ------
    UserError
        None is left, or they are too many to be kept.
    """
    frequent = np.flatnonzero(counts >= config.min_count)
    if not len(frequent):
        why = "the data holds no words or values: look at the column, and at how the table cuts texts"
        if len(words):
            why = f"all {len(words)} different words were seen fewer than {config.min_count} times, lower min_count"
        raise UserError(f"the vocabulary of table '{name}' would be empty, {why}")
    table = pa.table({"word": words.take(frequent), "count": counts[frequent]})
    table = table.sort_by([("count", "descending"), ("word", "ascending")]).slice(0, config.max_size)
    size = pc.sum(pc.binary_length(table["word"])).as_py()
    if size >= 1 << 31:
        raise UserError(f"the words of table '{name}' take {size} bytes, more than 2 GiB: raise min_count")
    return table["word"].cast(pa.string()).combine_chunks(), table["count"].to_numpy()


def _grams(config: VocabTable) -> int:
    """Return the rows that n-grams have."""
    return config.buckets if config.ngrams > 1 else 0


def _counter_of(columns: Sequence[Column]) -> Callable[[], Any]:
    """Return what makes a counter of what columns hold; refuse those that no vocabulary can be made of."""
    for column in columns:
        if isinstance(column, Crossed):
            raise UserError(
                f"column '{column.name}' is crossed, and a vocabulary keeps no combinations: look it up in a table of kind hashed"
            )
        if kind_of(column) != kind_of(columns[0]):
            raise UserError(
                f"columns '{columns[0].name}' and '{column.name}' share a table, but hold {kind_of(columns[0])} and "
                f"{kind_of(column)}, which have nothing in common: give each a table of its own, or convert one"
            )
    if columns and kind_of(columns[0]) == NUMBERS:
        return partial(NumberCounter, any(column.dtype == np.uint64 for column in columns))  # type: ignore[attr-defined]
    return WordCounter


@numba.njit(nogil=True, cache=True)
def _look_up(hashes: np.ndarray, slots: np.ndarray, rows: np.ndarray) -> None:
    """Write the rows of words, 0 for unknown ones."""
    for i in range(len(hashes)):
        rows[i] = slots[slot_of(slots, hashes[i]), 1]


@numba.njit(nogil=True, cache=True)
def _add_grams(
    hashes: np.ndarray,
    offsets: np.ndarray,
    words: np.ndarray,
    first_gram: np.uint64,
    gram_rows: np.uint64,
    ngrams: int,
    rows: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Write the rows of words, each followed by those of the n-grams that end at it, and where those of each sample end."""
    grams = np.empty(ngrams, np.uint64)
    used = 0
    for row in range(len(ends)):
        for i in range(offsets[row], offsets[row + 1]):
            rows[used] = words[i]
            # grams[k] is the n-gram of k + 1 tokens that ended at the token before.
            longest = min(i - offsets[row], ngrams - 1)
            for k in range(longest, 0, -1):
                grams[k] = combine(grams[k - 1], hashes[i])
                rows[used + k] = first_gram + reduce(grams[k], gram_rows)
            grams[0] = hashes[i]
            used += 1 + longest
        ends[row] = used
