"""From opened files of vectors to the steps that fill a table's rows."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigembed.config.schema import HashedTable, IdsTable, SubwordTable, TableConfig, TokenizerTable, VocabTable
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.pretrained.by_rows import refuse_rows, steps_of_rows
from bigembed.pretrained.by_words import refuse_words, steps_of_words
from bigembed.pretrained.fitting import places, slices
from bigembed.pretrained.matching import EXACT, MISSING
from bigembed.pretrained.steps import Put, Step
from bigembed.run_vectors import RunSource
from bigembed.vectors.source import Source

Progress = Callable[[Source, int], Any]


@dataclass(slots=True)
class Placing:
    """What fills a table, and afterwards how it was filled.

    Attributes
    ----------
    names : tuple of str
        The ways in which words can be found: exact, the fall-backs as the options list them, missing.
    ways : ndarray, shape (words,), uint8, or None
        Once ``steps`` is exhausted: for each of the encoder's words an index into ``names``; None where rows stand for no words.
    told : dict of str to int
        Once ``steps`` is exhausted, of tables without words: how many words (or vectors) the files have, how many were placed, and
        so on, by what these figures are called.
    """

    names: tuple[str, ...]
    _steps: Callable[["Placing"], Iterator[Step]]
    ways: np.ndarray | None = None
    told: dict[str, int] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """Yield what is to be done to the rows, in order.

        Raises
        ------
        UserError
            At whatever is wrong with a file, or does not go together with the table.
        """
        return self._steps(self)


def place(
    name: str,
    table: TableConfig,
    encoder: Encoder,
    sources: Sequence[Source],
    seed: int,
    progress: Progress | None = None,
) -> Placing:
    """Return what fills a table from files of vectors.

    Parameters
    ----------
    name, table, encoder : str, TableConfig, Encoder
        The table.
    sources : sequence of Source
        The files, opened, in the order of ``pretrained.path`` and ``pretrained.others``.
    seed : int
        What random vectors are drawn from, with the name.
    progress : callable, optional
        Called after every block with its source and the number of words of it that were read.

    Returns
    -------
    Placing

    Raises
    ------
    UserError
        The files do not fit the table or its options.
    """
    tell = progress or (lambda source, words: None)
    copied = copied_parts(table, encoder, sources)
    if copied is not None:
        return Placing((EXACT, MISSING), lambda placing: _copied(encoder, sources[0], copied, placing, tell))
    kind = type(table)
    if kind not in (VocabTable, TokenizerTable, SubwordTable, HashedTable, IdsTable):
        raise UserError(
            f"table '{name}' is of kind {encoder.kind}, whose rows are no vectors of words, and starts only from a run's table of the same "
            f"options: leave out tables.{name}.pretrained.path, or take another kind"
        )
    places(name, table, sources)
    if kind in (HashedTable, IdsTable):
        refuse_rows(name, table, encoder, sources)
        return Placing((), lambda placing: _by_rows(placing, steps_of_rows(name, table, encoder, sources, tell)))
    refuse_words(name, table, sources)
    names = (EXACT, *(each.value for each in table.pretrained.fallback), MISSING)
    return Placing(names, lambda placing: _by_words(placing, steps_of_words(name, table, encoder, sources, seed, tell)))


def _by_words(placing: Placing, steps: Generator[Step, None, np.ndarray]) -> Iterator[Step]:
    placing.ways = yield from steps


def _by_rows(placing: Placing, steps: Generator[Step, None, dict[str, int]]) -> Iterator[Step]:
    placing.told = yield from steps


def copied_parts(table: TableConfig, encoder: Encoder, sources: Sequence[Source]) -> list[Any] | None:
    """Return the rows of all parts of a run's table that is like this one, where they are taken as they are; else None."""
    config = table.pretrained
    source = sources[0]
    changed = len(sources) > 1 or config.centre or config.remove_components or config.normalise
    return source.parts(encoder) if isinstance(source, RunSource) and not changed else None


def _copied(encoder: Encoder, source: Source, parts: Sequence[Any], placing: Placing, tell: Progress) -> Iterator[Step]:
    """Yield the rows of all parts as they are; those before the words', of unknown ones, do not count as given."""
    for number, array in enumerate(parts):
        first = encoder.word_rows[0]
        for offset, rows in ((0, array[:first]), (first, array[first:])):
            for some in slices(len(rows), array.shape[1]):
                vectors = np.asarray(rows[some], np.float32)
                yield Put(offset + np.arange(some.start, some.stop), vectors, given=offset == first, part=number)
                tell(source, offset + some.stop)
    words = encoder.words()
    placing.ways = None if words is None else np.zeros(len(words), np.uint8)
    placing.told = {} if words is not None else {"rows given": sum(len(array) for array in parts)}
