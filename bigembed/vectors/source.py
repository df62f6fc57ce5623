"""The contract of a reader: an opened file of vectors, streamed from front to back, as often as it is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Ngrams:
    """The n-grams of characters that a fastText file has rows for.

    Attributes
    ----------
    min_n, max_n : int
        Characters of the shortest and the longest.
    buckets : int
        What their hashes are taken modulo of.
    rows : int
        Rows that the file has for them; they follow those of the words.
    places : ndarray, shape (buckets,), int32, or None
        Of a pruned file: the row of each bucket, counted from the first n-gram's, and -1 for those without one; None where
        every bucket has its row.
    """

    min_n: int
    max_n: int
    buckets: int
    rows: int
    places: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file, one after another.

    Attributes
    ----------
    first : int
        Number of the first row in the file, from 0 on.
    words : pa.BinaryArray or None
        Their words, bytes as they are in the file, which need not be UTF-8; None where rows stand for no words: those of
        n-grams, which come after all others, or arrays without words.
    rows : ndarray, shape (rows, dim), float32, contiguous
        Finite numbers.
    """

    first: int
    words: pa.BinaryArray | None
    rows: np.ndarray


class Source(ABC):
    """An opened file of vectors (or a table of a run).

    Attributes
    ----------
    path : str
        What messages call it.
    format : str
        The name of its format, for the user: "word2vec", "word2vec-binary", "glove", "fasttext", "numpy", …
    dim : int
        Width of the vectors.
    count : int or None
        Vectors of words (or rows, where there are no words) that it holds, n-grams not counted; None where it does not say.
    has_words : bool
        Whether the rows stand for words.
    ngrams : Ngrams or None
        The rows behind those of the words, where there are any.
    dictionary : pa.BinaryArray or None
        All words, where the file has them apart from the vectors; they are then known before the first block.
    details : dict of str to value
        What else there is to tell a user, by name: {"compression": "gz", "version": 12, …}; values that JSON knows.
    size : int
        Bytes of the file on the disk.
    consumed : int
        How many of them the last call of ``blocks`` or ``words`` has read so far.
    """

    path: str
    format: str
    dim: int
    count: int | None
    has_words: bool = True
    ngrams: Ngrams | None = None
    dictionary: pa.BinaryArray | None = None
    details: dict[str, Any]
    size: int
    consumed: int = 0

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Yield all rows in the order of the file, a few megabytes at a time, first those of words, then those of n-grams.

        Raises
        ------
        UserError
            At whatever is wrong with the file, naming it and the line or byte.
        """

    def words(self) -> Iterator[pa.BinaryArray]:
        """Yield the words in the order of the file, some thousands at a time; cheaper than ``blocks`` where the format allows.

        Raises
        ------
        UserError
            As ``blocks``.
        """
        if self.dictionary is not None:
            yield self.dictionary
            return
        for block in self.blocks():
            if block.words is None:
                return
            yield block.words
