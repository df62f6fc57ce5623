"""Models of fastText's own format, from words and rows; ``fasttext`` describes the layout, the new one of version 12."""

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.fasttext import MAGIC, SETTINGS
from bigembed.vectors.source import Ngrams

LINES = 1 << 16  # entries of the dictionary written at once
NOTHING = bytes(1 << 20)


def write_fasttext(
    vectors: Vectors, ngrams: Ngrams | None = None, ngram_rows: Iterable[np.ndarray] = ()
) -> Iterator[bytes | memoryview | pa.Buffer]:
    """Yield the bytes of a .bin file, unsupervised skip-gram, that fastText and gensim read.

    Words are said to be as frequent as their order has them, since readers sort by frequency. The weights of the output,
    which no vector is made of, are zeros, as they are before training.

    Parameters
    ----------
    vectors : Vectors
        Words and their own rows: a word's vector will be the mean of its row and those of its n-grams.
    ngrams : Ngrams or None
        The n-grams of characters; None where words stand for themselves.
    ngram_rows : iterable of ndarray, each of shape (n, dim), float32
        Rows of the buckets, in order; is asked for after all words.

    Raises
    ------
    UserError
        When rows stand for no words, a word is there twice or holds a zero byte, or the n-grams are those of a pruned file.
    """
    count, dim = vectors.shape
    buckets, min_n, max_n = (ngrams.buckets, ngrams.min_n, ngrams.max_n) if ngrams else (0, 0, 0)
    words = _fit_words(vectors, ngrams)
    tokens = count * (count + 1) // 2
    yield struct.pack("<2i", MAGIC, 12)
    yield struct.pack("<" + SETTINGS, dim, 5, 5, 1, 5, 1, 2, 2, buckets, min_n, max_n, 100, 1e-4)
    yield struct.pack("<3i2q", count, count, 0, tokens, -1)
    yield from _entries(words)
    yield struct.pack("<B2q", 0, count + buckets, dim)
    written = 0
    for rows in _all_rows(vectors, ngram_rows):
        written += len(rows)
        yield np.ascontiguousarray(rows, np.float32).data.cast("B")
    assert written == count + buckets, f"{written} rows for {count} words and {buckets} buckets"
    yield struct.pack("<B2q", 0, count, dim)
    left = 4 * count * dim
    while left:
        yield NOTHING[:left]
        left -= min(left, len(NOTHING))


def _all_rows(vectors: Vectors, ngram_rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for _, rows in vectors.blocks():
        yield rows
    yield from ngram_rows


def _fit_words(vectors: Vectors, ngrams: Ngrams | None) -> pa.BinaryArray:
    """Return the words as bytes.

    Raises
    ------
    UserError
        When they, or the n-grams, cannot stand in the format.
    """
    if vectors.words is None:
        raise UserError(
            "the rows of this table stand for no words, which fastText's format needs; give words=FILE, or use "
            "format=safetensors or numpy"
        )
    if ngrams is not None and (ngrams.places is not None or ngrams.rows != ngrams.buckets):
        raise UserError(
            "fastText's .bin has no place for the n-grams of a pruned file, only a quantised one has; use format=word2vec, which "
            "keeps the words' vectors"
        )
    words = vectors.words.cast(pa.binary())
    zero = pc.filter(words, pc.match_substring(words, b"\0"))
    if len(zero):
        raise UserError(
            f"{_readable(zero[0])} holds a zero byte, at which words of fastText's format end; use format=safetensors or numpy"
        )
    if pc.count_distinct(words).as_py() < len(words):
        found = pc.value_counts(words)
        twice = pc.filter(found.field("values"), pc.greater(found.field("counts"), 1))
        raise UserError(
            f"{_readable(twice[0])} is there more than once, which a word of fastText's format cannot be; use "
            "format=word2vec-binary, safetensors or numpy"
        )
    return words


def _readable(word: pa.BinaryScalar) -> str:
    return repr(word.as_py().decode(errors="replace"))


def _entries(words: pa.BinaryArray) -> Iterator[pa.Buffer]:
    """Yield the dictionary: a word, a zero byte, how often it was seen, and a zero byte, since it is no label."""
    empty = pa.scalar(b"", pa.binary())
    for start in range(0, len(words), LINES):
        part = words.slice(start, LINES)
        tails = np.zeros(len(part), [("zero", "u1"), ("count", "<i8"), ("kind", "u1")])
        tails["count"] = np.arange(len(words) - start, len(words) - start - len(part), -1)
        width = tails.dtype.itemsize
        behind = pa.Array.from_buffers(pa.binary(width), len(part), [None, pa.py_buffer(tails)]).cast(pa.binary())
        joined = pc.binary_join_element_wise(part, behind, empty)
        offsets = np.frombuffer(joined.buffers()[1], np.int32)
        first, last = offsets[joined.offset], offsets[joined.offset + len(joined)]
        yield joined.buffers()[2].slice(int(first), int(last - first))
