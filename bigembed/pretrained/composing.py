"""Vectors that fastText puts together: the mean of a word's own row, where it has one, and of the rows of its n-grams."""

from collections.abc import Callable, Iterator
from itertools import chain

import numba
import numpy as np
import pyarrow as pa

from bigembed.pretrained.ngram_pairs import AT_ONCE, Tally, Texts, count_pairs, pairs, texts_of
from bigembed.pretrained.steps import Add
from bigembed.pretrained.word_index import look, make_index
from bigembed.vectors.source import Source


def composable(source: Source, words: pa.Array) -> np.ndarray:
    """Return which words have a vector: they are words of the source, or have an n-gram with a row.

    Parameters
    ----------
    source : Source
    words : pa.StringArray or pa.BinaryArray

    Returns
    -------
    ndarray, shape (words,), bool

    Raises
    ------
    UserError
        What is wrong with the file.
    """
    words = words.cast(pa.binary())
    _, tally = _prepared(source, words)
    has = np.zeros(len(words), bool) if tally is None else tally.of_words > 0
    if not has.all():
        index = make_index(words)
        for part in source.words():
            look(index, part, has)
    return has


def sums(source: Source, words: pa.Array, rows: np.ndarray, weights: np.ndarray | None = None) -> Iterator[Add]:
    """Yield what adds the vectors of words to rows, in one pass over the source.

    Parameters
    ----------
    source : Source
        With n-grams or without; a word that is there twice has its first row.
    words : pa.StringArray or pa.BinaryArray
        May hold the same word several times.
    rows : ndarray, shape (words,), int64
        The row that word ``i`` is added to.
    weights : ndarray, shape (words,), float32, or None
        What its vector is multiplied by; None: 1.

    Yields
    ------
    Add
        At most ``AT_ONCE`` rows and weights, and a block of the source. Words that are not ``composable`` are in none.

    Raises
    ------
    UserError
        What is wrong with the file.
    """
    words = words.cast(pa.binary())
    weights = np.ones(len(words), np.float32) if weights is None else weights.astype(np.float32, copy=False)
    texts, tally = _prepared(source, words)
    of_words = np.zeros(len(words), np.int32) if tally is None else tally.of_words
    index, known, blocks = make_index(words), np.zeros(len(words), bool), source.blocks()
    scale = weights / (of_words + 1).astype(np.float32)
    for block in blocks:
        if block.words is None:
            break
        found, places = look(index, block.words, known)
        for start in range(0, len(found), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            yield Add(rows[found[some]], places[some], scale[found[some]], block.rows)
    else:
        return
    if texts is None or tally is None:
        return
    del index  # makes room for the pairs
    scale = weights / np.maximum(of_words + known, 1).astype(np.float32)
    for some_words, places, vectors in pairs(chain([block], blocks), texts, tally):
        yield Add(rows[some_words], places, scale[some_words], vectors)


def compose(
    source: Source, words: pa.Array, out: np.ndarray | None = None, tell: Callable[[], None] | None = None
) -> np.ndarray:
    """Return the vectors of words, zeros for those that are not ``composable``.

    Parameters
    ----------
    source : Source
    words : pa.StringArray or pa.BinaryArray
    out : ndarray, shape (words, dim), float32, or None
        Zeros that the vectors are added to, and which is returned; may be a file mapped into memory.
    tell : callable, optional
        Called after every step.

    Returns
    -------
    ndarray, shape (words, dim), float32

    Raises
    ------
    UserError
        What is wrong with the file.
    """
    vectors = np.zeros((len(words), source.dim), np.float32) if out is None else out
    for add in sums(source, words, np.arange(len(words))):
        _add(np.asarray(vectors), add.rows, add.sources, add.weights, add.vectors)
        if tell is not None:
            tell()
    return vectors


def _prepared(source: Source, words: pa.BinaryArray) -> tuple[Texts, Tally] | tuple[None, None]:
    """Return the words and how many n-grams they have in the source; None where it has none."""
    if source.ngrams is None:
        return None, None
    texts = texts_of(source.ngrams, words)
    return texts, count_pairs(texts, source.ngrams)


@numba.njit(nogil=True, cache=True)
def _add(out: np.ndarray, rows: np.ndarray, sources: np.ndarray, weights: np.ndarray, vectors: np.ndarray) -> None:
    for i in range(len(rows)):
        row, source, weight = rows[i], sources[i], weights[i]
        for column in range(vectors.shape[1]):
            out[row, column] += weight * vectors[source, column]
