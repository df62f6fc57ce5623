"""The vectors of a few words of any file of vectors, or of a run."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.pretrained.composing import composable, compose
from bigembed.run_vectors import RunSource
from bigembed.vectors import Source


def look_up(
    source: Source, words: Sequence[str], tell: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of words, as they stand in a file or as a run's table makes them, in one pass over the file.

    A word that is there twice has its first vector. Where there are n-grams, a word is put together of its own row and of theirs,
    and unseen words have a vector, too.

    Parameters
    ----------
    source : Source
        The opened file, or table of a run.
    words : sequence of str
        What is asked for; bytes that are no UTF-8 as Python has them in arguments ("surrogateescape").
    tell : callable, optional
        Called with the bytes read and the rows looked at, now and then.

    Returns
    -------
    found : ndarray, shape (words,), bool
    vectors : ndarray, shape (words, dim), float32
        Zeros for words that were not found.

    Raises
    ------
    UserError
        The file is damaged, or its rows stand for no words.
    """
    if isinstance(source, RunSource):
        return _of_run(source, words)
    if not source.has_words:
        raise UserError(f"{source.path} holds numbers without words; give their words, one a line, with word_list=FILE")
    wanted = pa.array([word.encode("utf-8", "surrogateescape") for word in words], pa.binary())
    if source.ngrams is None:
        return _first_rows(source, wanted, tell)
    found = composable(source, wanted)
    vectors = np.zeros((len(words), source.dim), np.float32)
    if found.any():
        step = None if tell is None else lambda: tell(source.consumed, len(words))
        vectors[found] = compose(source, wanted.filter(pa.array(found)), tell=step)
    return found, vectors


def _first_rows(
    source: Source, wanted: pa.BinaryArray, tell: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which words the rows of a file stand for, and the first row of each."""
    different = wanted.unique()
    found, vectors = np.zeros(len(different), bool), np.zeros((len(different), source.dim), np.float32)
    for block in source.blocks():
        places = pc.fill_null(pc.index_in(block.words, value_set=different), -1).to_numpy()
        hits = np.flatnonzero(places >= 0)
        hits = hits[~found[places[hits]]][::-1]  # of equal words in a block the last one written stays: the first
        vectors[places[hits]] = block.rows[hits]
        found[places[hits]] = True
        if tell is not None:
            tell(source.consumed, block.first + len(block.rows))
        if found.all():
            break
    where = pc.index_in(wanted, value_set=different).to_numpy()
    return found[where], vectors[where]


def _of_run(source: RunSource, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run's table makes of each word, one by one: one without a vector does not keep others from theirs."""
    found, vectors = np.zeros(len(words), bool), np.zeros((len(words), source.dim), np.float32)
    for place, word in enumerate(words):
        try:
            ((_, rows),) = source.vectors(pa.array([word], pa.string())).blocks()
        except (UserError, UnicodeEncodeError):
            continue
        vectors[place], found[place] = rows[0], True
    return found, vectors
