"""Tables of words and of the character n-grams that words are made of, numbered as fastText numbers them.

Row ``i`` is the ``i``-th most frequent word. After the words come the buckets, which character n-grams and n-grams of words
share: an n-gram's row is the number of words + its hash modulo the buckets. The character n-grams are those of ``<word>``,
by code points, without the single ``<`` and ``>``; their hash is FNV-1a of 32 bits with every byte extended by its sign.
``</s>``, fastText's end of a line, has none. (Bojanowski et al. 2017; ``Dictionary`` in fastText's source.)

An element is a token, or a run of 2 to ``ngrams`` tokens. A token has the row of its word, where that is known, and then
those of its n-grams, by where these begin and by length; it may have none, if it is unknown and too short. A run has one
row. The runs that end at a token come after it, the short ones first (fastText has all of them at the end of the line).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import SubwordTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import Encoded, Encoder, Ids
from bigembed.encoders.slots import make_slots, slot_of
from bigembed.encoders.text import Rules, Tokenizer, hash_words, next_token, spell, tokenize
from bigembed.encoders.tokens import settings_of_tokens
from bigembed.encoders.values import TEXTS, VALUES, kind_of, open_values
from bigembed.encoders.vocab import choose_words, count_words
from bigembed.errors import UserError
from bigembed.hashing import finish, reduce
from bigembed.ragged import Ragged

END_OF_LINE = "</s>"

_FNV_BASIS, _FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
_RUN = np.uint64(116049371)  # fastText's factor in the hash of a run of words
_BEGIN, _END = b"<>"
_UNSALTED, _HALF, _LOW = np.uint64(0), np.uint64(32), np.uint64(0xFFFFFFFF)
# A word's rows are copied so many at a time, and begin at a multiple of it: two vector instructions, most often no loop.
_BLOCK = 8


class SubwordEncoder(Encoder):
    """Gives a token the row of its word and those of its character n-grams, so that an unseen word has a vector, too.

    Parameters
    ----------
    config : SubwordTable
        The table.
    words : StringArray, shape (words,)
        The words in the order of their rows.
    counts : ndarray, shape (words,), int64
        How often each was seen.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    ValueError
        A word is there twice.
    """

    kind = "subword"
    reads = VALUES
    config: SubwordTable

    def __init__(self, config: SubwordTable, words: pa.StringArray, counts: np.ndarray) -> None:
        super().__init__(config, (len(words) + config.buckets,))
        self.tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
        self.word_rows = (0, len(words))
        self._words = words
        self._counts = counts
        self._plan = _make_plan(config, words, self.dtype)

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> Column:
        """Return a column of texts, or of lists of texts.

        Raises
        ------
        UserError
            It holds anything else: numbers are not made of characters.
        """
        column = open_values(array, name)
        if kind_of(column) != TEXTS:
            raise UserError(
                f"column '{name}' holds {array.type}, and a subword table is made for texts; use a table of another kind, "
                "for example hashed, or convert the column"
            )
        return column

    @classmethod
    def learn(
        cls,
        name: str,
        config: SubwordTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "SubwordEncoder":
        """Count the words of texts and give the frequent ones rows; see ``bigembed.encoders.build``."""
        words, counts = count_words(config, columns, index, threads, progress)
        return cls(config, *choose_words(name, config, words, counts))

    @classmethod
    def restore(
        cls, config: SubwordTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "SubwordEncoder":
        """Make the encoder from its saved words and their counts."""
        return cls(config, words, counts)

    @classmethod
    def settings_of(cls, config: SubwordTable) -> dict[str, Any]:
        """Return everything apart from the words that decides which ids a text has."""
        return settings_of_tokens(config) | {name: getattr(config, name) for name in ("min_n", "max_n", "buckets")}

    @classmethod
    def rows_at_most(cls, config: SubwordTable) -> tuple[int, ...] | None:
        """Return the rows of the table, where the words are bounded."""
        return None if config.max_size is None else (config.max_size + config.buckets,)

    def words(self) -> pa.StringArray:
        """Return the words of the rows ``word_rows``."""
        return self._words

    def counts(self) -> np.ndarray:
        """Return how often each of ``words()`` was seen (int64)."""
        return self._counts

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse crossed columns, whose values are hashes and have no characters.

        Raises
        ------
        UserError
            Naming the feature.
        """
        if kind_of(column) != TEXTS:
            raise UserError(
                f"feature '{feature}' crosses columns, but tables.{table} is of kind subword, which is made for texts; cross "
                "them in a table of kind hashed"
            )

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the texts as they are."""
        return pa.array(texts, pa.large_string())

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return texts in memory as rows of the table, of ``dtype`` int64 or int32."""
        encoded = self._encode_all_rows(spans, dtype)
        if not self.config.distinct:
            return encoded
        (part,) = encoded.parts
        return Encoded((_distinct(part),), encoded.tokens)

    def row_of(self, token: str) -> int:
        """Return the row of a word, or of a run of words given with spaces between them.

        Raises
        ------
        UserError
            ``token`` has no row of its own: it is empty, is unknown, or is cut into more tokens than runs have.
        """
        encoded = self._encode_text(token)
        count, longest = int(encoded.tokens[0]), self.config.ngrams
        if not 1 <= count <= longest:
            raise UserError(f"'{token}' is {count} tokens as this table cuts texts, and it has rows for 1 to {longest}")
        rows = encoded.ids.values
        if count > 1:
            return int(rows[-1])
        if not len(rows) or rows[0] >= len(self._words):
            raise UserError(
                f"'{token}' has no row of its own in this table, only those of its character n-grams; name a word of its vocabulary"
            )
        return int(rows[0])

    def rows_of(self, token: str) -> np.ndarray:
        """Return the rows that a word's vector is the mean of, shape (rows,), int64: of the word, if it is known, and of its n-grams.

        Raises
        ------
        UserError
            ``token`` is not one token as this table cuts texts.
        """
        self._word(token)
        return self._encode_text(token).ids.values

    def pieces_of(self, token: str) -> list[str]:
        """Return the character n-grams of a word, known or not, in the order of their rows.

        Raises
        ------
        UserError
            ``token`` is not one token as this table cuts texts.
        """
        word = self._word(token)
        if word == END_OF_LINE:
            return []
        text, lengths = f"<{word}>", range(self.config.min_n, self.config.max_n + 1)
        # The brackets are no n-grams of their own.
        return [
            text[i : i + n]
            for i in range(len(text))
            for n in lengths
            if i + n <= len(text) and (n > 1 or 0 < i < len(text) - 1)
        ]

    def _word(self, token: str) -> str:
        """Return what the only token of a text is when it is cut."""
        config = self.config
        words = tokenize(token, config.tokens.name, config.pattern, config.lower)
        if len(words) != 1:
            raise UserError(f"'{token}' is {len(words)} tokens as this table cuts texts; name one word")
        return words[0]

    def _encode_text(self, text: str) -> Encoded:
        column = self.open(self.from_texts([text], str), "text")
        return self._encode_all_rows(column.spans(np.zeros(1, np.int64)), np.int64)

    def _encode_all_rows(self, spans: Spans, dtype: Any) -> Encoded:
        """Return texts as rows, those too that a text has already had."""
        first = np.arange(len(spans) + 1) if spans.rows is None else spans.rows
        spans = self.tokenizer.prepare(spans)
        # Room for tokens of four bytes, which English has with its spaces; more is made when a text does not fit.
        room, each = spans.size // 4 + 16, 2 * (self.config.max_n - self.config.min_n + 1)
        samples, longest = len(first) - 1, self.config.ngrams
        ids, sizes = np.empty(room * (each + longest) + _BLOCK, dtype), np.empty(room * longest, np.int32)
        out = _Out(ids, sizes, *(np.zeros(samples + 1, np.int64) for _ in range(2)), np.empty(samples, np.int32))
        done = rows = elements = 0
        while True:
            done, rows, elements = _encode(
                spans.begin, spans.end, first, self.tokenizer.rules, self._plan, out, done, rows, elements
            )
            if done == samples:
                part = Ids(Ragged(out.ids[:rows], out.id_ends), Ragged(out.sizes[:elements], out.size_ends))
                return Encoded((part,), out.tokens)
            out = out._replace(ids=_doubled(out.ids, rows), sizes=_doubled(out.sizes, elements))


class _Plan(NamedTuple):
    """How tokens become rows.

    Attributes
    ----------
    slots : ndarray, shape (slots, 2), uint64
        By hash of a word: the block in ``rows`` where its rows begin, shifted by 32 bits, and how many they are.
    rows : ndarray, shape (blocks x _BLOCK,), int64 or int32
        The rows of every known word, its own first.
    hashes : ndarray, shape (words,), int32
        fastText's hash of every known word.
    words : int
        How many they are: the row of the first bucket.
    buckets, magic : uint64
        The buckets, and 2**64 / buckets, rounded up (modulo 2**64), by which remainders are found without a division.
    min_n, max_n, ngrams : int
        Lengths of the n-grams of characters, and of the longest run of words.
    """

    slots: np.ndarray
    rows: np.ndarray
    hashes: np.ndarray
    words: int
    buckets: np.uint64
    magic: np.uint64
    min_n: int
    max_n: int
    ngrams: int


class _Out(NamedTuple):
    """What is written: ids and sizes (with room to spare), where those of each sample end, and its number of tokens."""

    ids: np.ndarray
    sizes: np.ndarray
    id_ends: np.ndarray
    size_ends: np.ndarray
    tokens: np.ndarray


def _make_plan(config: SubwordTable, words: pa.StringArray, dtype: np.dtype) -> _Plan:
    """Return the plan of a table: the rows of all its words are made here, once."""
    found_by = hash_words(words)
    characters = pc.utf8_length(words).to_numpy(zero_copy_only=False).astype(np.int64) + 2
    most = 1 + sum(np.maximum(characters - n + 1, 0) for n in range(config.min_n, config.max_n + 1))
    blocks = np.zeros(len(words) + 1, np.int64)
    np.cumsum(-(-most // _BLOCK), out=blocks[1:])
    magic = np.uint64(((1 << 64) // config.buckets + 1) % (1 << 64))
    plan = _Plan(
        *(make_slots(found_by), np.empty(blocks[-1] * _BLOCK, dtype), np.empty(len(words), np.int32), len(words)),
        *(np.uint64(config.buckets), magic, config.min_n, config.max_n, config.ngrams),
    )
    _fill(*_letters(words), found_by, blocks, plan)
    return plan


def _letters(words: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of words, and where those of each begin and those of the last one end."""
    _, offsets, letters = words.buffers()
    if offsets is None or letters is None:
        return np.empty(0, np.uint8), np.zeros(len(words) + 1, np.int32)
    return np.frombuffer(letters, np.uint8), np.frombuffer(offsets, np.int32)[words.offset :][: len(words) + 1]


def _doubled(array: np.ndarray, used: int) -> np.ndarray:
    larger = np.empty(2 * len(array), array.dtype)
    larger[:used] = array[:used]
    return larger


def _distinct(part: Ids) -> Ids:
    """Return the rows of every sample without repeats, the first of each staying; elements with none left are dropped."""
    assert part.sizes is not None
    rows = part.rows.distinct()
    sizes, ends = np.empty_like(part.sizes.values), np.zeros_like(part.sizes.offsets)
    used = _sizes_of(part.rows.values, part.sizes.values, part.sizes.offsets, rows.values, rows.offsets, sizes, ends)
    return Ids(rows, Ragged(sizes[:used], ends))


@numba.njit(nogil=True, cache=True)
def _fnv(letters: np.ndarray, begin: int, end: int) -> np.uint32:
    """Return fastText's hash of some bytes."""
    hashed = _FNV_BASIS
    for i in range(begin, end):
        hashed = (hashed ^ np.uint32(np.int8(letters[i]))) * _FNV_PRIME
    return hashed


@numba.njit(nogil=True, cache=True)
def _ends_line(letters: np.ndarray, size: int) -> bool:
    """Return whether a word in its brackets is ``</s>``."""
    return size == 6 and letters[1] == 60 and letters[2] == 47 and letters[3] == 115 and letters[4] == 62


@numba.njit(nogil=True, cache=True)
def _write_pieces(letters: np.ndarray, size: int, plan: _Plan, ids: np.ndarray, used: int) -> int:
    """Write the rows of the n-grams of the word in its brackets, ``letters[:size]``, from ``used`` on; return where they end.

    ``letters`` has room for one more byte.
    """
    if _ends_line(letters, size):
        return used
    letters[size] = 0  # begins a character, so that the last one ends
    for i in range(size):
        if letters[i] & 0xC0 == 0x80:
            continue
        at, hashed = i, _FNV_BASIS
        for n in range(1, plan.max_n + 1):
            if at == size:
                break
            while True:
                hashed = (hashed ^ np.uint32(np.int8(letters[at]))) * _FNV_PRIME
                at += 1
                if letters[at] & 0xC0 != 0x80:
                    break
            if n >= plan.min_n and (n > 1 or (i > 0 and at < size)):
                # Lemire's remainder (arXiv:1902.01961): exact for 32 bits.
                ids[used] = plan.words + np.int64(reduce(plan.magic * np.uint64(hashed), plan.buckets))
                used += 1
    return used


@numba.njit(nogil=True, cache=True)
def _fill(values: np.ndarray, bounds: np.ndarray, found_by: np.ndarray, blocks: np.ndarray, plan: _Plan) -> None:
    """Write the rows of the known words, and in the slots of their hashes where they are."""
    letters = np.empty(0, np.uint8)
    for i in range(plan.words):
        size = bounds[i + 1] - bounds[i] + 2
        if size >= len(letters):
            letters = np.empty(2 * size, np.uint8)
        letters[0], letters[size - 1] = _BEGIN, _END
        letters[1 : size - 1] = values[bounds[i] : bounds[i + 1]]
        start, last = blocks[i] * _BLOCK, blocks[i + 1] * _BLOCK
        plan.rows[start] = i
        end = _write_pieces(letters, size, plan, plan.rows, start + 1)
        plan.rows[end:last] = 0  # is copied, and written over
        plan.hashes[i] = np.int32(_fnv(letters, 1, size - 1))
        plan.slots[slot_of(plan.slots, found_by[i]), 1] = np.uint64(blocks[i]) << _HALF | np.uint64(end - start)


@numba.njit(nogil=True, cache=True)
def _copy(rows: np.ndarray, start: int, count: int, ids: np.ndarray, used: int) -> None:
    """Copy ``count`` rows and what lies behind them in the last block."""
    for k in range(0, count, _BLOCK):
        # All are read before one is written: the compiler cannot know that the arrays do not overlap.
        a, b, c, d = rows[start + k], rows[start + k + 1], rows[start + k + 2], rows[start + k + 3]
        e, f, g, h = rows[start + k + 4], rows[start + k + 5], rows[start + k + 6], rows[start + k + 7]
        ids[used + k], ids[used + k + 1], ids[used + k + 2], ids[used + k + 3] = a, b, c, d
        ids[used + k + 4], ids[used + k + 5], ids[used + k + 6], ids[used + k + 7] = e, f, g, h


@numba.njit(nogil=True, cache=True)
def _encode(
    begin: np.ndarray,
    end: np.ndarray,
    first: np.ndarray,
    rules: Rules,
    plan: _Plan,
    out: _Out,
    sample: int,
    used: int,
    elements: int,
) -> tuple[int, int, int]:
    """Encode samples from ``sample`` on until there is no room; return the one that did not fit, and what was used before it."""
    letters, runs = np.empty(256, np.uint8), np.empty(plan.ngrams, np.uint64)
    widths = plan.max_n - plan.min_n + 1
    while sample < len(out.tokens):
        count, used_before, elements_before = 0, used, elements
        for span in range(first[sample], first[sample + 1]):
            at, stop = begin[span], end[span]
            while True:
                start, at, state = next_token(at, stop, rules)
                if start == stop:
                    break
                entry = plan.slots[slot_of(plan.slots, finish(state, _UNSALTED)), 1]
                size = np.int64(entry & _LOW) if entry != 0 else (at - start + 2) * widths
                room = plan.ngrams + _BLOCK
                if used + size + room > len(out.ids) or elements + room > len(out.sizes):
                    return sample, used_before, elements_before
                hashed = np.uint64(0)
                if entry != 0:
                    place = np.int64(entry >> _HALF) * _BLOCK
                    _copy(plan.rows, place, size, out.ids, used)
                    if plan.ngrams > 1:
                        hashed = np.uint64(np.int64(plan.hashes[plan.rows[place]]))
                else:
                    if 3 * (at - start) + 3 > len(letters):
                        letters = np.empty(6 * (at - start), np.uint8)
                    letters[0] = _BEGIN
                    brackets = spell(start, at, rules, letters, 1)
                    letters[brackets] = _END
                    size = _write_pieces(letters, brackets + 1, plan, out.ids, used) - used
                    if plan.ngrams > 1:
                        hashed = np.uint64(np.int64(np.int32(_fnv(letters, 1, brackets))))
                used += size
                out.sizes[elements] = size
                # runs[k] is the run of k + 1 tokens that ended at the token before.
                longest = min(count, plan.ngrams - 1)
                for k in range(longest, 0, -1):
                    runs[k] = runs[k - 1] * _RUN + hashed
                    out.ids[used + k - 1] = plan.words + np.int64(runs[k] % plan.buckets)
                    out.sizes[elements + k] = 1
                runs[0] = hashed
                used += longest
                elements += 1 + longest
                count += 1
        sample += 1
        out.id_ends[sample], out.size_ends[sample], out.tokens[sample - 1] = used, elements, count
    return sample, used, elements


@numba.njit(nogil=True, cache=True)
def _sizes_of(
    rows: np.ndarray,
    sizes: np.ndarray,
    size_ends: np.ndarray,
    kept: np.ndarray,
    kept_ends: np.ndarray,
    out: np.ndarray,
    out_ends: np.ndarray,
) -> int:
    """Write how many rows each element keeps of those that its sample keeps, where any; return the number of elements."""
    at = used = 0
    for sample in range(len(size_ends) - 1):
        next_kept, stop = kept_ends[sample], kept_ends[sample + 1]
        for element in range(size_ends[sample], size_ends[sample + 1]):
            size = 0
            for _ in range(sizes[element]):
                # Those kept are in the order of their first place, so the next one is met there first.
                if next_kept < stop and rows[at] == kept[next_kept]:
                    next_kept += 1
                    size += 1
                at += 1
            if size:
                out[used] = size
                used += 1
        out_ends[sample + 1] = used
    return used
