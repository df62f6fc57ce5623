"""What all tables of texts share: texts in Arrow's memory become row numbers in one compiled pass.

The ids of a text are, for each of its tokens in turn, the row of the token and then the rows of the n-grams that end at
it, the short ones first; a table of ``distinct`` ids keeps the first of equal ones in a text. An n-gram is hashed from
its tokens in their order, whether these have rows of their own or not, and never reaches over the edge of a text.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import TextTable
from bigembed.encoders.columns import Spans
from bigembed.encoders.encoder import Encoded, Encoder
from bigembed.encoders.text import Rules, TextColumn, Tokenizer, next_token
from bigembed.errors import UserError
from bigembed.hashing import combine, finish, mix, reduce
from bigembed.ragged import Ragged


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


class TextEncoder(Encoder):
    """Turns texts into rows of one table.

    Parameters
    ----------
    config : TextTable
        The table.
    rows : int
        Its rows.
    slots : ndarray, shape (slots, 2), uint64
        The hash table of the words' rows, by ``make_slots``.
    plan : Plan
        How hashes become rows.
    """

    config: TextTable

    def __init__(self, config: TextTable, rows: int, slots: np.ndarray, plan: Plan) -> None:
        super().__init__(config, rows)
        self.tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
        self._slots = slots
        self._plan = plan

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> TextColumn:
        """Return a column of texts."""
        return TextColumn(array, name)

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the texts as they are."""
        return pa.array(texts, pa.large_string())

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
