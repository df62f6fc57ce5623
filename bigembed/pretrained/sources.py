"""The files of vectors that a table names, opened, and their words alone."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bigembed.config.schema import Job, TableConfig
from bigembed.errors import UserError
from bigembed.pretrained.fitting import places
from bigembed.report import reading
from bigembed.run_vectors import open_vectors
from bigembed.vectors import Source

BLOCK_WORDS = 1 << 16


def open_sources(name: str, table: TableConfig) -> list[Source]:
    """Open what a table starts from: ``pretrained.path``, then ``pretrained.others``.

    Parameters
    ----------
    name : str
        The table; of a run without ``pretrained.table``, the one of this name is meant, or the only one.
    table : TableConfig
        Its options; ``pretrained.path`` is given.

    Raises
    ------
    UserError
        A file cannot be read, or is of no known format; or a run has no such table.
    """
    pretrained = table.pretrained
    assert pretrained.path is not None
    for option, path in (("path", pretrained.path), *(("others", path) for path in pretrained.others)):
        if not (Path(path).exists() or Path(path.partition("::")[0]).exists()):
            raise UserError(f"tables.{name}.pretrained.{option}: {path} does not exist")
    first = open_vectors(pretrained.path, pretrained.word_list, pretrained.table, name)
    return [first, *(open_vectors(path, own=name) for path in pretrained.others)]


def check_sources(job: Job) -> None:
    """Refuse, by the heads of the files alone, those that no table of a job can start from.

    Raises
    ------
    UserError
        A file cannot be read, is of no known format, or its vectors are of another width than the table.
    """
    for name, table in job.tables.items():
        if table.pretrained.path is not None:
            places(name, table, open_sources(name, table))


def read_words(name: str, source: Source) -> Iterator[pa.BinaryArray]:
    """Yield the words of a file for a table of this name, some thousands at a time, and tell now and then how far it is.

    Raises
    ------
    UserError
        It has none, or cannot be read.
    """
    if not source.has_words:
        raise UserError(
            f"{source.path} has rows without words, so that nothing tells whose they are; name a file of their words, "
            f"one a line, with tables.{name}.pretrained.word_list=FILE"
        )
    tell, done = reading(f"table {name}: words of {source.path}", source.size), 0
    for words in source.words():
        for start in range(0, len(words), BLOCK_WORDS):
            block = words.slice(start, BLOCK_WORDS)
            yield block
            done += len(block)
            tell(source.consumed, done)
