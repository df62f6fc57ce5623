"""The vectors of a run's table as a file of vectors is read: the same contract, so that one run may start another. No torch."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed import encoders, run
from bigembed.composed import composed, is_composed
from bigembed.config import saved
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import ManagedTable, MixedTable, SubwordTable, Which
from bigembed.errors import UserError
from bigembed.vectors import Block, Ngrams, Source, open_source
from bigembed.vectors.blocks import Vectors


def open_vectors(path: str, word_list: str | None = None, table: str | None = None, own: str | None = None) -> Source:
    """Open a file of vectors, or a table of a run.

    Parameters
    ----------
    path : str
        File, member of an archive (ARCHIVE::MEMBER), or run folder.
    word_list : str, optional
        The words of a file of numbers alone; what has its own leaves it.
    table : str, optional
        Table of a run; null: the one called ``own``, or the only one.
    own : str, optional
        Name of the table that is to be filled.

    Returns
    -------
    Source

    Raises
    ------
    UserError
        It cannot be read, is of no known format, or is a folder that holds no run.
    """
    path = os.path.expanduser(path)
    folder = Path(path)
    if not folder.is_dir():
        if table is not None:
            raise UserError(f"{path} is no run folder, so it has no table '{table}'; leave table out")
        return open_source(path, word_list)
    if not (folder / saved.NAME).exists():
        raise UserError(f"{path} is a folder, but holds no run; give a file of vectors or a run folder")
    return RunSource(folder, table, own=own)


class RunSource(Source):
    """A table of a run, as a file of vectors.

    Of a vocabulary, words and their rows; of a table of n-grams, the rows of words and then those of n-grams, as a fastText
    file has them; of tables whose rows stand for no words, the rows alone.

    Parameters
    ----------
    folder : Path
        The run folder.
    table : str, optional
        The table; by default ``own`` if the run has it, or the only one.
    checkpoint : Which, optional
        By default the one that training judged by.
    own : str, optional
        Name of the table that is to be filled.

    Raises
    ------
    UserError
        There is no such table, or the run is damaged.
    """

    format = "run"

    def __init__(
        self, folder: Path, table: str | None = None, checkpoint: Which | None = None, own: str | None = None
    ) -> None:
        self.job, self._checkpoint = run.open_run(folder, checkpoint)
        self.name = _table_name(list(self.job.tables), table, own)
        self.config = self.job.tables[self.name]
        self.encoder = encoders.load(self.config, folder / run.ENCODERS / self.name)
        names = [part_name(self.name, part) for part in parts(self.config)]
        self._arrays = [run.read_array(self._checkpoint / "tables" / f"{name}.weight.npy") for name in names]
        words = self.encoder.words()
        self.path, self.dim = str(folder), self.config.dim
        self.has_words = words is not None
        self.dictionary = None if words is None else words.cast(pa.binary())
        if isinstance(self.config, SubwordTable):
            config = self.config
            self.ngrams = Ngrams(config.min_n, config.max_n, config.buckets, config.buckets)
        self.count = len(words) if words is not None else None if is_composed(self.config) else len(self._arrays[0])
        self.details = {"table": self.name, "kind": self.encoder.kind, "checkpoint": self._checkpoint.name}
        self.size = sum(_bytes_of(array) for array in self._arrays)

    def blocks(self) -> Iterator[Block]:
        """Yield words with their rows, then the rows of n-grams.

        Raises
        ------
        UserError
            A vector is put together of several rows, and the table does not know of which words.
        """
        self.consumed = first = 0
        whole = (self.count or 0) + (0 if self.ngrams is None else self.ngrams.rows)
        of_words = self.vectors() if self.ngrams is None else self.own_rows()
        blocks = of_words.blocks() if self.ngrams is None else chain(of_words.blocks(), self._of_ngrams().blocks())
        for words, rows in blocks:
            yield Block(first, None if words is None else words.cast(pa.binary()), rows)
            first += len(rows)
            self.consumed = int(self.size * first / whole)

    def vectors(self, words: pa.StringArray | None = None) -> Vectors:
        """Return the vectors of words, by default of all that the table knows; of a table without words, its rows.

        Each is put together of its rows, where it has several.

        Raises
        ------
        UserError
            A word is not in the vocabulary or is no single token (or found to be so when its block is asked for); or the table
            needs words, and none are given.
        """
        if not is_composed(self.config):
            if words is None:
                return self.own_rows()
            return Vectors(self._arrays[0], np.array([self._row(word) for word in words.to_pylist()], np.int64), words)
        words = self.encoder.words() if words is None else words
        if words is None:
            raise UserError(
                f"the vectors of table '{self.name}' are not plain rows of it; say of which words or values, one a line, with words=FILE"
            )
        vectors = composed(self.job, self.name, self._checkpoint, self.encoder, words)
        return Vectors(vectors, range(len(words)), words)

    def own_rows(self) -> Vectors:
        """Return the rows of the words themselves, of a table that has one for each; of one without words, its rows."""
        words = self.encoder.words()
        rows = range(len(self._arrays[0])) if words is None else range(*self.encoder.word_rows)
        return Vectors(self._arrays[0], rows, words)

    def ngram_rows(self) -> Iterator[np.ndarray]:
        """Yield the rows of the buckets of n-grams, where there are some, float32, some megabytes at a time."""
        for _, rows in self._of_ngrams().blocks():
            yield rows

    def _of_ngrams(self) -> Vectors:
        return Vectors(self._arrays[0], range(self.encoder.word_rows[1], len(self._arrays[0])), None)

    def parts(self, encoder: encoders.Encoder) -> list[Any] | None:
        """Return the rows of every part, memory-mapped, if another table has the same ones; else None.

        The other table must be of this kind, give every value the rows that it has here, and have parts of the same shape. Rows of
        a managed table say nothing without who has them, nor those of a mixed one without its projections: None, too.
        """
        here, there = self.encoder, encoder
        if isinstance(self.config, ManagedTable | MixedTable) or type(here) is not type(there):
            return None
        own, other = here.words(), there.words()
        alike = (
            here.settings_of(self.config) == there.settings_of(there.config)
            and here.learned == there.learned
            and here.rows == there.rows
            and _shapes(self.config) == _shapes(there.config)
            and (own is other or (own is not None and other is not None and own.equals(other)))
        )
        return self._arrays if alike else None

    def _row(self, word: str) -> int:
        row = self.encoder.row_of(word)
        if self.has_words and not self.encoder.word_rows[0] <= row:
            raise UserError(f"'{word}' is not in the vocabulary of the table; take it out of the file of words=")
        return row


def _table_name(names: list[str], table: str | None, own: str | None) -> str:
    if table is None:
        table = own if own in names else names[0] if len(names) == 1 else None
    if table not in names:
        raise UserError(f"table= must name one of the tables of the run: {', '.join(names)}")
    return table


def _shapes(config: Any) -> list[Any]:
    """Return what tells whether rows of one table mean the same in another: the parts, and how they become a vector."""
    return [
        getattr(config, "combine", None),
        *((part.suffix, part.dim, part.per_element, part.centre) for part in parts(config)),
    ]


def _bytes_of(array: Any) -> int:
    return int((array.bits if hasattr(array, "bits") else array).nbytes)
