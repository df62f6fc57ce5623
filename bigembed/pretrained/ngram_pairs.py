"""Pairs of n-gram and word, in the order of the n-grams' rows, for as many rows at a time as there is room for; compiled.

A file has the rows of its n-grams in an order that no word knows, and is read once; all pairs of a vocabulary of two million
words would take half a gigabyte. So they are counted first; then the words are gone through once for each range of rows.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.encoders.subword_rows import Shape, write_pieces
from bigembed.vectors.source import Block, Ngrams

PAIRS = 1 << 23  # in memory, 8 bytes each
AT_ONCE = 1 << 18  # given at once
BINS = 1 << 21  # parts of the n-grams' rows whose pairs are counted
BEGIN, END = b"<>"


class Texts(NamedTuple):
    """Words as they are in memory, and how fastText numbers their n-grams.

    Attributes
    ----------
    letters : ndarray, shape (bytes,), uint8
    bounds : ndarray, shape (words + 1,), int32
        Word ``i`` is ``letters[bounds[i]:bounds[i + 1]]``.
    shape : Shape
    places : ndarray, shape (buckets,) or (0,), int32
        As in ``Ngrams``; empty where every bucket has its row.
    longest : int
        Bytes of the longest word.
    """

    letters: np.ndarray
    bounds: np.ndarray
    shape: Shape
    places: np.ndarray
    longest: int


class Tally(NamedTuple):
    """How many pairs there are.

    Attributes
    ----------
    of_words : ndarray, shape (words,), int32
        N-grams with rows of each word.
    of_bins : ndarray, shape (bins,), int64
        Pairs of each ``2 ** shift`` rows of n-grams.
    shift : int
    """

    of_words: np.ndarray
    of_bins: np.ndarray
    shift: int


def texts_of(ngrams: Ngrams, words: pa.BinaryArray) -> Texts:
    """Return words as the kernels take them."""
    _, offsets, letters = words.buffers()
    bounds = np.zeros(1, np.int32) if offsets is None else np.frombuffer(offsets, np.int32)
    bounds = bounds[words.offset : words.offset + len(words) + 1]
    longest = int(np.diff(bounds).max(initial=0))
    magic = np.uint64(((1 << 64) // ngrams.buckets + 1) % (1 << 64))
    shape = Shape(0, np.uint64(ngrams.buckets), magic, ngrams.min_n, ngrams.max_n, 1)
    places = np.empty(0, np.int32) if ngrams.places is None else ngrams.places
    values = np.empty(0, np.uint8) if letters is None else np.frombuffer(letters, np.uint8)
    return Texts(values, bounds, shape, places, longest)


def count_pairs(texts: Texts, ngrams: Ngrams) -> Tally:
    """Return how many pairs of n-gram and word there are."""
    shift = max(0, (ngrams.rows - 1).bit_length() - (BINS.bit_length() - 1))
    of_words = np.zeros(len(texts.bounds) - 1, np.int32)
    of_bins = np.zeros(((ngrams.rows - 1) >> shift) + 1, np.int64)
    _count(texts, shift, of_words, of_bins)
    return Tally(of_words, of_bins, shift)


def pairs(blocks: Iterable[Block], texts: Texts, tally: Tally) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield which words have which rows of n-grams.

    Parameters
    ----------
    blocks : iterable of Block
        The n-grams' rows, in order.
    texts : Texts
    tally : Tally

    Yields
    ------
    words, places : ndarray, shape (at most AT_ONCE,), int32
        Word ``words[i]`` has the n-gram of row ``places[i]`` of ``rows``; as often as it has it.
    rows : ndarray, shape (n, dim), float32
    """
    edges = _edges(tally.of_bins)
    for number, parts in groupby(_cut(blocks, edges << tally.shift), itemgetter(0)):
        counts, start = tally.of_bins[edges[number] : edges[number + 1]], int(edges[number]) << tally.shift
        pieces: Iterable[tuple[int, np.ndarray]] = ((first - start, rows) for _, first, rows in parts)
        starts, total = np.cumsum(counts) - counts, int(counts.sum())
        room = min(total, max(PAIRS, int(tally.of_words.max(initial=0))))
        if room < total:  # even the fewest rows have too many pairs: some words at a time, with these rows kept
            pieces = _joined(pieces)
        of_rows, of_words, word = np.empty(room, np.int32), np.empty(room, np.int32), 0
        while total and word < len(tally.of_words):
            ends = starts.copy()
            word = _gather(texts, start, tally.shift, word, ends, of_rows, of_words)
            for first, rows in pieces:
                begin, end = starts[first >> tally.shift], ends[(first + len(rows) - 1) >> tally.shift]
                for at in range(begin, end, AT_ONCE):
                    some = slice(at, min(at + AT_ONCE, end))
                    places = of_rows[some] - np.int32(first)
                    inside = (places >= 0) & (places < len(rows))  # a bin may lie across two blocks
                    yield of_words[some][inside], places[inside], rows


def _edges(of_bins: np.ndarray) -> np.ndarray:
    """Return the bins at which ranges begin, and the end of the last: as few as hold no more than ``PAIRS`` each, or one bin."""
    ends, edges = np.cumsum(of_bins), [0]
    while edges[-1] < len(of_bins):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + PAIRS, "right"))))
    return np.array(edges)


def _cut(blocks: Iterable[Block], edges: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield number of the range, first n-gram and rows, of blocks cut where ranges end."""
    before = None
    for block in blocks:
        before = block.first if before is None else before
        first, last = block.first - before, block.first - before + len(block.rows)
        while first < last:
            number = int(np.searchsorted(edges, first, "right")) - 1
            end = min(last, int(edges[number + 1]))
            yield number, first, block.rows[first - (block.first - before) :][: end - first]
            first = end


def _joined(pieces: Iterable[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    firsts, parts = zip(*pieces, strict=True)
    return [(firsts[0], np.concatenate(parts))]


@numba.njit(nogil=True, cache=True)
def _ngrams_of(texts: Texts, word: int, text: np.ndarray, ids: np.ndarray) -> int:
    """Write the rows of a word's n-grams, counted from the first n-gram's; return how many."""
    begin, size = texts.bounds[word], texts.bounds[word + 1] - texts.bounds[word]
    text[0], text[size + 1] = BEGIN, END
    text[1 : size + 1] = texts.letters[begin : begin + size]
    count = write_pieces(text, size + 2, texts.shape, ids, 0)
    if len(texts.places) == 0:
        return count
    kept = 0
    for i in range(count):
        row = texts.places[ids[i]]
        if row >= 0:
            ids[kept] = row
            kept += 1
    return kept


@numba.njit(nogil=True, cache=True)
def _room(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return where a word in its brackets finds room, and the rows of its n-grams."""
    size = texts.longest + 2
    lengths = min(size, texts.shape.max_n - texts.shape.min_n + 1)
    return np.empty(size + 1, np.uint8), np.empty(size * lengths, np.int64)


@numba.njit(nogil=True, cache=True)
def _count(texts: Texts, shift: int, of_words: np.ndarray, of_bins: np.ndarray) -> None:
    text, ids = _room(texts)
    for word in range(len(of_words)):
        of_words[word] = _ngrams_of(texts, word, text, ids)
        for i in range(of_words[word]):
            of_bins[ids[i] >> shift] += 1


@numba.njit(nogil=True, cache=True)
def _gather(
    texts: Texts, start: int, shift: int, word: int, ends: np.ndarray, of_rows: np.ndarray, of_words: np.ndarray
) -> int:
    """Write the pairs of ``len(ends)`` bins and the words from ``word`` on, as far as there is room; return the next word.

    Those of a bin go where ``ends`` says, which is moved on; rows are counted from ``start``.
    """
    text, ids = _room(texts)
    used = 0
    while word < len(texts.bounds) - 1:
        count, inside = _ngrams_of(texts, word, text, ids), 0
        for i in range(count):
            row = ids[i] - start
            if row >= 0 and row >> shift < len(ends):
                ids[inside] = row
                inside += 1
        if used + inside > len(of_rows):
            break
        for i in range(inside):
            place = ids[i] >> shift
            of_rows[ends[place]], of_words[ends[place]] = ids[i], word
            ends[place] += 1
        used += inside
        word += 1
    return word
