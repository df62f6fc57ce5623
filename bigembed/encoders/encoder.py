"""What every encoder of texts can do: texts in Arrow's memory become row numbers of a table, in one compiled pass.

The ids of a text are, for each of its tokens in turn, the row of the token and then the rows of the n-grams that end at
it, the short ones first; a table of ``distinct`` ids keeps the first of equal ones in a text. An n-gram is hashed from
its tokens in their order, whether these have rows of their own or not, and never reaches over the edge of a text.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import TextTable
from bigembed.encoders.text import Rules, Spans, TextColumn, Tokenizer, next_token
from bigembed.errors import UserError
from bigembed.hashing import combine, finish, mix, reduce
from bigembed.ragged import Ragged


@dataclass(frozen=True, slots=True)
class Encoded:
    """Texts as row numbers.

    Attributes
    ----------
    ids : Ragged of int64 or int32
        The rows of the table, text by text.
    tokens : ndarray, shape (rows,), int32
        How many tokens each text has; n-grams do not count.
    """

    ids: Ragged
    tokens: np.ndarray


class Plan(NamedTuple):
    """How hashes become rows; all but ``ngrams`` are uint64.

    Attributes
    ----------
    salt : uint64
        The salt of the words' hash, after ``mix``.
    word_rows : uint64
        Words are hashed into this many rows; 0: they are looked up.
    gram_start, gram_rows : uint64
        N-grams are hashed into ``gram_rows`` rows from ``gram_start`` on.
    ngrams : int
        The longest n-gram.
    """

    salt: np.uint64
    word_rows: np.uint64
    gram_start: np.uint64
    gram_rows: np.uint64
    ngrams: int


class Encoder(ABC):
    """Turns texts into rows of one table.

    Attributes
    ----------
    kind : str
        Name of the kind of table.
    config : TextTable
        The table's options.
    rows : int
        Rows of the table.
    dtype : dtype
        The smallest type that holds every row number: int32 or int64.
    word_rows : tuple of int
        First row that stands for one word of ``words()``, and the row after the last; empty where there are no words.
    """

    kind: ClassVar[str]

    def __init__(self, config: TextTable, rows: int, slots: np.ndarray, plan: Plan) -> None:
        self.config = config
        self.tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
        self.rows = rows
        self.dtype = np.dtype(np.int32 if rows < 1 << 31 else np.int64)
        self.word_rows = (0, 0)
        self._slots = slots
        self._plan = plan

    @classmethod
    @abstractmethod
    def learn(
        cls,
        name: str,
        config: Any,
        columns: Sequence[TextColumn],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "Encoder":
        """Make the encoder of a new table, learning from the texts what there is to learn; see ``encoders.build``."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Any, words: pa.StringArray, counts: np.ndarray) -> "Encoder":
        """Make the encoder from what it saved: its words and their counts, none where it has none."""

    @classmethod
    @abstractmethod
    def settings_of(cls, config: Any) -> dict[str, Any]:
        """Return what decides the ids of a text, apart from the words: a saved encoder is checked by it."""

    def words(self) -> pa.StringArray | None:
        """Return the words of the rows ``word_rows``, or None where rows stand for no word."""
        return None

    def counts(self) -> np.ndarray | None:
        """Return how often each of ``words()`` was seen (int64), or None where there are none."""
        return None

    def encode(self, column: TextColumn, index: np.ndarray, dtype: Any = np.int64) -> Encoded:
        """Return the texts named by ``index`` (int64) as rows of the table, of ``dtype`` int64 or int32.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """
        return self.encode_spans(column.spans(index), dtype)

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return texts in memory as rows of the table, of ``dtype`` int64 or int32."""
        encoded = self._encode_all_ids(spans, dtype)
        return Encoded(encoded.ids.distinct(), encoded.tokens) if self.config.distinct else encoded

    def _encode_all_ids(self, spans: Spans, dtype: Any) -> Encoded:
        spans = self.tokenizer.prepare(spans)
        ngrams = self._plan.ngrams
        # Room for tokens of four bytes, which English has with its spaces; more is made when a text does not fit.
        ids = np.empty((spans.size // 4 + 16) * ngrams, dtype)
        offsets, tokens = np.zeros(len(spans) + 1, np.int64), np.empty(len(spans), np.int32)
        rules, row, used = self.tokenizer.rules, 0, 0
        while True:
            row, used = _encode(
                spans.begin, spans.end, rules, self._slots, self._plan, ids, offsets[1:], tokens, row, used
            )
            if row == len(spans):
                return Encoded(Ragged(ids[:used], offsets), tokens)
            ids = np.concatenate([ids[:used], np.empty(2 * len(ids) - used, dtype)])

    def row_of(self, token: str) -> int:
        """Return the row of a word, or of an n-gram given with spaces between its words.

        Raises
        ------
        UserError
            ``token`` has no row: it is empty, or is cut into more tokens than n-grams have.
        """
        column = TextColumn(pa.array([token], pa.large_string()))
        encoded = self._encode_all_ids(column.spans(np.zeros(1, np.int64)), np.int64)
        count = int(encoded.tokens[0])
        if not 1 <= count <= self._plan.ngrams:
            raise UserError(
                f"'{token}' is {count} tokens as this table cuts texts, and it has rows for 1 to {self._plan.ngrams}"
            )
        return int(encoded.ids.values[-1])


def encode_all(
    encoder: Encoder,
    column: TextColumn,
    index: np.ndarray | None = None,
    threads: int = 1,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Encoded | None:
    """Encode many texts on several threads.

    Parameters
    ----------
    encoder, column : Encoder, TextColumn
        What encodes, and the texts.
    index : ndarray, shape (rows,), int64, optional
        The rows to encode; by default all.
    threads : int
        Threads to use; the result does not depend on it.
    limit : int, optional
        Give up when the result takes more bytes than this.
    progress : callable, optional
        Called with the number of texts done, after every few megabytes.

    Returns
    -------
    Encoded or None
        Ids of ``encoder.dtype`` in the order of ``index``; None if they would go over ``limit``.
    """

    def work(spans: Spans) -> Encoded:
        part = encoder.encode_spans(spans, encoder.dtype)
        # The kernel's array has room to spare, which many parts kept at once would add up.
        return Encoded(Ragged(part.ids.values.copy(), part.ids.offsets), part.tokens)

    parts: deque[Encoded] = deque()
    size = done = 0
    with closing(in_order(work, column.blocks(index), threads)) as encoded:
        for part in encoded:
            parts.append(part)
            done += len(part.tokens)
            size += part.ids.values.nbytes + part.ids.offsets.nbytes + part.tokens.nbytes
            if limit is not None and size > limit:
                return None
            if progress is not None:
                progress(done)
    return _join(parts, done, encoder.dtype)


def in_order(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Generator[Any]:
    """Yield ``work(item)`` for each item, in order, worked on by several threads, few items ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _join(parts: deque[Encoded], rows: int, dtype: np.dtype) -> Encoded:
    """Return all parts as one, letting go of each as soon as it is copied."""
    values = np.empty(sum(len(part.ids.values) for part in parts), dtype)
    offsets, tokens = np.zeros(rows + 1, np.int64), np.empty(rows, np.int32)
    row = 0
    while parts:
        part = parts.popleft()
        start, stop = offsets[row], row + len(part.tokens)
        offsets[row + 1 : stop + 1] = part.ids.offsets[1:] + start
        values[start : offsets[stop]] = part.ids.values
        tokens[row:stop] = part.tokens
        row = stop
    return Encoded(Ragged(values, offsets), tokens)


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
def _encode(
    begin: np.ndarray,
    end: np.ndarray,
    rules: Rules,
    slots: np.ndarray,
    plan: Plan,
    ids: np.ndarray,
    ends: np.ndarray,
    tokens: np.ndarray,
    row: int,
    used: int,
) -> tuple[int, int]:
    """Encode texts from ``row`` on until ``ids`` is full; return the text that did not fit and the ids before it."""
    grams = np.empty(plan.ngrams, np.uint64)
    while row < len(begin):
        at, stop, count, first_id = begin[row], end[row], 0, used
        while True:
            if used + plan.ngrams > len(ids):
                return row, first_id
            first, at, state = next_token(at, stop, rules)
            if first == stop:
                break
            hashed = finish(state, plan.salt)
            if plan.word_rows == 0:
                ids[used] = slots[slot_of(slots, hashed), 1]
            else:
                ids[used] = reduce(hashed, plan.word_rows)
            # grams[k] is the n-gram of k + 1 tokens that ended at the token before.
            longest = min(count, plan.ngrams - 1)
            for k in range(longest, 0, -1):
                grams[k] = combine(grams[k - 1], hashed)
                ids[used + k] = plan.gram_start + reduce(grams[k], plan.gram_rows)
            grams[0] = hashed
            used += 1 + longest
            count += 1
        ends[row] = used
        tokens[row] = count
        row += 1
    return row, used


def make_plan(salt: int, word_rows: int, gram_start: int, gram_rows: int, ngrams: int) -> Plan:
    """Return the plan of these numbers, in the types that the kernel takes."""
    stirred = np.uint64(mix(np.uint64(salt)))
    return Plan(stirred, np.uint64(word_rows), np.uint64(gram_start), np.uint64(gram_rows), ngrams)
