"""fastText's numbering of words and n-grams, compiled: texts in memory become rows; ``subword`` says which.

The rows of the words of a vocabulary are made once and copied; those of other words are made where these are met.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import SubwordTable
from bigembed.encoders.columns import Spans
from bigembed.encoders.encoder import Encoded, Ids
from bigembed.encoders.slots import make_slots, slot_of
from bigembed.encoders.text import Rules, hash_words, next_token, spell
from bigembed.hashing import finish, reduce
from bigembed.ragged import Ragged

BASIS32, _PRIME32 = np.uint32(2166136261), np.uint32(16777619)
_RUN = np.uint64(116049371)  # fastText's factor in the hash of a run of words
_BEGIN, _END = b"<>"
_UNSALTED, _HALF, _LOW = np.uint64(0), np.uint64(32), np.uint64(0xFFFFFFFF)
# A word's rows are copied so many at a time, and begin at a multiple of it: two vector instructions, most often no loop.
_BLOCK = 8


class Known(NamedTuple):
    """The rows of the words of the vocabulary.

    Attributes
    ----------
    slots : ndarray, shape (slots, 2), uint64
        By hash of a word: the block in ``rows`` where its rows begin, shifted by 32 bits, and how many they are.
    rows : ndarray, shape (blocks x _BLOCK,), int64 or int32
        The rows of every word, its own first.
    hashes : ndarray, shape (words,), int32
        fastText's hash of every word.
    """

    slots: np.ndarray
    rows: np.ndarray
    hashes: np.ndarray


class Shape(NamedTuple):
    """How n-grams become rows; apart from the arrays, whose references numba would count wherever a tuple is given.

    Attributes
    ----------
    words : int
        Known words: the row of the first bucket.
    buckets, magic : uint64
        The buckets, and 2**64 / buckets, rounded up (modulo 2**64), by which remainders are found without a division.
    min_n, max_n, ngrams : int
        Lengths of the n-grams of characters, and of the longest run of words.
    """

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


def shape_of(config: SubwordTable, words: int) -> Shape:
    """Return how n-grams become rows of a table of so many words."""
    magic = np.uint64(((1 << 64) // config.buckets + 1) % (1 << 64))
    return Shape(words, np.uint64(config.buckets), magic, config.min_n, config.max_n, config.ngrams)


def known_rows(shape: Shape, words: pa.StringArray, dtype: np.dtype) -> Known:
    """Return the rows (of ``dtype`` int64 or int32) of all words of the vocabulary, which are made only once.

    Raises
    ------
    ValueError
        A word is there twice.
    """
    found_by = hash_words(words)
    characters = pc.utf8_length(words).to_numpy(zero_copy_only=False).astype(np.int64) + 2
    most = 1 + sum(np.maximum(characters - n + 1, 0) for n in range(shape.min_n, shape.max_n + 1))
    blocks = np.zeros(len(words) + 1, np.int64)
    np.cumsum(-(-most // _BLOCK), out=blocks[1:])
    known = Known(make_slots(found_by), np.empty(blocks[-1] * _BLOCK, dtype), np.empty(len(words), np.int32))
    _fill(*_letters(words), found_by, blocks, shape, known)
    return known


def encode(spans: Spans, rules: Rules, shape: Shape, known: Known, dtype: Any) -> Encoded:
    """Return texts, prepared for ``rules``, as rows of ``dtype`` int64 or int32."""
    first = np.arange(len(spans) + 1) if spans.rows is None else spans.rows
    # Room for tokens of four bytes, which English has with its spaces; more is made when a text does not fit.
    room, each = spans.size // 4 + 16, 3 * (shape.max_n - shape.min_n + 1)
    ids, sizes = np.empty(room * (each + shape.ngrams) + _BLOCK, dtype), np.empty(room * shape.ngrams, np.int32)
    ends, tokens = np.zeros((2, len(first)), np.int64), np.empty(len(first) - 1, np.int32)
    out, done, rows, elements = _Out(ids, sizes, ends[0], ends[1], tokens), 0, 0, 0
    while True:
        done, rows, elements = _encode(spans.begin, spans.end, first, rules, shape, known, out, done, rows, elements)
        if done == len(tokens):
            part = Ids(Ragged(out.ids[:rows], out.id_ends), Ragged(out.sizes[:elements], out.size_ends))
            return Encoded((part,), tokens)
        out = out._replace(ids=_doubled(out.ids, rows), sizes=_doubled(out.sizes, elements))


def distinct(part: Ids) -> Ids:
    """Return the rows of every sample without repeats, the first of each staying; elements with none left are dropped."""
    assert part.sizes is not None
    rows = part.rows.distinct()
    sizes, ends = np.empty_like(part.sizes.values), np.zeros_like(part.sizes.offsets)
    used = _sizes_of(part.rows.values, part.sizes.values, part.sizes.offsets, rows.values, rows.offsets, sizes, ends)
    return Ids(rows, Ragged(sizes[:used], ends))


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


@numba.njit(nogil=True, cache=True)
def feed32(hashed: np.uint32, byte: np.uint8) -> np.uint32:
    """Return fastText's hash, at first ``BASIS32``, after one more byte."""
    return np.uint32((hashed ^ np.uint32(np.int8(byte))) * _PRIME32)


@numba.njit(nogil=True, cache=True)
def _fnv(letters: np.ndarray, begin: int, end: int) -> np.uint32:
    """Return fastText's hash of some bytes."""
    hashed = BASIS32
    for i in range(begin, end):
        hashed = feed32(hashed, letters[i])
    return hashed


@numba.njit(nogil=True, cache=True)
def _ends_line(letters: np.ndarray, size: int) -> bool:
    """Return whether a word in its brackets is ``</s>``."""
    return size == 6 and letters[1] == 60 and letters[2] == 47 and letters[3] == 115 and letters[4] == 62


@numba.njit(nogil=True, cache=True)
def write_pieces(letters: np.ndarray, size: int, shape: Shape, ids: np.ndarray, used: int) -> int:
    """Write the rows of the n-grams of the word in its brackets, ``letters[:size]``, from ``used`` on; return where they end.

    ``letters`` has room for one more byte.
    """
    if _ends_line(letters, size):
        return used
    letters[size] = 0  # begins a character, so that the last one ends
    for i in range(size):
        if letters[i] & 0xC0 == 0x80:
            continue
        at, hashed = i, BASIS32
        for n in range(1, shape.max_n + 1):
            if at == size:
                break
            while True:
                hashed = feed32(hashed, letters[at])
                at += 1
                if letters[at] & 0xC0 != 0x80:
                    break
            if n >= shape.min_n and (n > 1 or (i > 0 and at < size)):
                # Lemire's remainder (arXiv:1902.01961): exact for 32 bits.
                ids[used] = shape.words + np.int64(reduce(shape.magic * np.uint64(hashed), shape.buckets))
                used += 1
    return used


@numba.njit(nogil=True, cache=True)
def _fill(
    values: np.ndarray, bounds: np.ndarray, found_by: np.ndarray, blocks: np.ndarray, shape: Shape, known: Known
) -> None:
    """Write the rows of the known words, and in the slots of their hashes where they are."""
    letters = np.empty(0, np.uint8)
    for i in range(shape.words):
        size = bounds[i + 1] - bounds[i] + 2
        if size >= len(letters):
            letters = np.empty(2 * size, np.uint8)
        letters[0], letters[size - 1] = _BEGIN, _END
        letters[1 : size - 1] = values[bounds[i] : bounds[i + 1]]
        start, last = blocks[i] * _BLOCK, blocks[i + 1] * _BLOCK
        known.rows[start] = i
        end = write_pieces(letters, size, shape, known.rows, start + 1)
        known.rows[end:last] = 0  # is copied, and written over
        known.hashes[i] = np.int32(_fnv(letters, 1, size - 1))
        known.slots[slot_of(known.slots, found_by[i]), 1] = np.uint64(blocks[i]) << _HALF | np.uint64(end - start)


@numba.njit(nogil=True, cache=True)
def _copy(rows: np.ndarray, start: np.int64, count: np.int64, ids: np.ndarray, used: int) -> int:
    """Copy ``count`` rows, and over them what lies behind in the last block; return where they end."""
    for k in range(0, count, _BLOCK):
        # All are read before one is written: the compiler cannot know that the arrays do not overlap.
        a, b, c, d = rows[start + k], rows[start + k + 1], rows[start + k + 2], rows[start + k + 3]
        e, f, g, h = rows[start + k + 4], rows[start + k + 5], rows[start + k + 6], rows[start + k + 7]
        ids[used + k], ids[used + k + 1], ids[used + k + 2], ids[used + k + 3] = a, b, c, d
        ids[used + k + 4], ids[used + k + 5], ids[used + k + 6], ids[used + k + 7] = e, f, g, h
    return used + count  # type: ignore[return-value]


@numba.njit(nogil=True, cache=True)
def _write_runs(
    hashed: np.int32, longest: int, runs: np.ndarray, shape: Shape, ids: np.ndarray, sizes: np.ndarray
) -> None:
    """Write the rows of the runs of 2 to ``longest + 1`` tokens that end at the token of this hash, each an element.

    ``runs[k]`` is the run of ``k + 1`` tokens that ended at the token before, and is moved on.
    """
    last = np.uint64(np.int64(hashed))
    for k in range(longest, 0, -1):
        runs[k] = runs[k - 1] * _RUN + last
        ids[k - 1] = shape.words + np.int64(runs[k] % shape.buckets)
        sizes[k - 1] = 1
    runs[0] = last


@numba.njit(nogil=True, cache=True)
def _encode(
    begin: np.ndarray,
    end: np.ndarray,
    first: np.ndarray,
    rules: Rules,
    shape: Shape,
    known: Known,
    out: _Out,
    sample: int,
    used: int,
    elements: int,
) -> tuple[int, int, int]:
    """Encode samples from ``sample`` on until there is no room; return the one that did not fit, and what was used before it.

    Sample ``i`` has the spans ``first[i]`` to ``first[i + 1]``.
    """
    letters, runs = np.empty(256, np.uint8), np.empty(shape.ngrams, np.uint64)
    lengths, spare = shape.max_n - shape.min_n + 1, 1 + shape.ngrams + _BLOCK
    while sample < len(out.tokens):
        count, used_before, elements_before = 0, used, elements
        for span in range(first[sample], first[sample + 1]):
            at, stop = begin[span], end[span]
            while True:
                start, at, state = next_token(at, stop, rules)
                if start == stop:
                    break
                found = known.slots[slot_of(known.slots, finish(state, _UNSALTED)), 1]
                # A word has no more characters than bytes.
                if used + (at - start + 2) * lengths + spare > len(out.ids) or elements + spare > len(out.sizes):
                    return sample, used_before, elements_before
                hashed = np.int32(0)
                if found != 0:
                    place = np.int64(found >> _HALF) * _BLOCK
                    after = _copy(known.rows, place, np.int64(found & _LOW), out.ids, used)
                    if shape.ngrams > 1:
                        hashed = known.hashes[known.rows[place]]
                else:
                    if 3 * (at - start) + 3 > len(letters):
                        letters = np.empty(6 * (at - start), np.uint8)
                    last = spell(start, at, rules, letters, 1)
                    letters[0], letters[last] = _BEGIN, _END
                    after = write_pieces(letters, last + 1, shape, out.ids, used)
                    if shape.ngrams > 1:
                        hashed = np.int32(_fnv(letters, 1, last))
                out.sizes[elements] = after - used
                used = after
                elements += 1
                if shape.ngrams > 1:
                    longest = min(count, shape.ngrams - 1)
                    _write_runs(hashed, longest, runs, shape, out.ids[used:], out.sizes[elements:])
                    used += longest
                    elements += longest
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
