"""Files of vectors written as another format, block by block: memory holds the words, and some megabytes of numbers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from bigembed.commands.writing import WITH_NGRAMS, check_out, write_vectors
from bigembed.errors import UserError
from bigembed.pretrained.composing import compose
from bigembed.pretrained.forms import valid_utf8
from bigembed.report import reading
from bigembed.run_vectors import RunSource
from bigembed.vectors import Source
from bigembed.vectors.blocks import Vectors

OF_BYTES = ("word2vec", "word2vec-binary", "glove", "fasttext")  # formats whose words need not be UTF-8
MOST_BYTES = 1 << 31  # of words: their places in Arrow's text arrays have 32 bits


def convert(source: Source, out: Path, form: str) -> None:
    """Write all vectors of a source to a file; one that stops half-way leaves none.

    Words with n-grams are put together of their rows, unless the format keeps these.

    Parameters
    ----------
    source : Source
        The file, or table of a run.
    out : Path
        The file to write.
    form : str
        One of ``vectors.WRITERS``.

    Raises
    ------
    UserError
        The source is damaged, cannot be held by the format, or the file cannot be written.
    """
    check_out(out)
    read = [Path(each) for each in (source.path, source.path.partition("::")[0])]
    if out.exists() and any(each.exists() and out.samefile(each) for each in read):
        raise UserError(f"out={out} is the file that is read; write to another one")
    keeps_ngrams = form == WITH_NGRAMS and source.ngrams is not None
    if isinstance(source, RunSource) and not keeps_ngrams:
        write_vectors(out, form, source.vectors())
        return
    words = _words(source, form)
    if source.ngrams is not None and not keeps_ngrams:
        _put_together(source, out, form, words)
        return
    rows = _InOrder(source, _count(source, words))
    write_vectors(out, form, Vectors(rows, range(len(rows)), words), source.ngrams, rows.rest(), rows.tell)


def _put_together(source: Source, out: Path, form: str, words: pa.StringArray | None) -> None:
    """Write the vectors of words that are made of several rows; they are added up in a file that has no name."""
    assert source.dictionary is not None
    shape = len(source.dictionary), source.dim
    with _unnamed(out, 4 * shape[0] * shape[1]) as file:
        table = np.memmap(file, np.float32, shape=shape) if shape[0] else np.empty(shape, np.float32)
        tell = reading(source.path, source.size)
        compose(source, source.dictionary, table, lambda: tell(source.consumed, shape[0]))
        write_vectors(out, form, Vectors(table, range(len(table)), words))


def _unnamed(out: Path, size: int) -> IO[bytes]:
    """Return a file of zeros beside ``out`` that is gone when it is closed, its room on the disk taken."""
    try:
        file = tempfile.TemporaryFile(dir=out.parent)  # noqa: SIM115 - closed by the caller
        if size:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return file


class _InOrder:
    """The rows of a source as an array that is read from front to back: each slice begins where the one before ended.

    Parameters
    ----------
    source : Source
        What is read.
    count : int
        Rows that it has before those of n-grams.
    """

    def __init__(self, source: Source, count: int) -> None:
        self.shape = count, source.dim
        self._source, self._blocks = source, source.blocks()
        self._left, self._done = np.empty((0, source.dim), np.float32), 0
        self._tell = reading(source.path, source.size)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the next rows, shape (rows, dim), float32.

        Raises
        ------
        UserError
            The file has fewer rows than it had, or more.
        """
        block, filled = np.empty((rows.stop - rows.start, self.shape[1]), np.float32), 0
        while filled < len(block):
            if not len(self._left) and not self._read():
                raise self._changed()
            some = self._left[: len(block) - filled]
            block[filled : filled + len(some)] = some
            self._left, filled = self._left[len(some) :], filled + len(some)
        self._done += len(block)
        if self._done == len(self) and self._source.ngrams is None and (len(self._left) or self._read()):
            raise self._changed()
        return block

    def rest(self) -> Iterator[np.ndarray]:
        """Yield what comes behind, block by block."""
        while len(self._left) or self._read():
            yield self._left
            self._left = self._left[:0]

    def tell(self) -> None:
        """Say how far the reading is, now and then."""
        self._tell(self._source.consumed, self._done)

    def _read(self) -> bool:
        """Take the next block that is not empty; return whether there is one."""
        for block in self._blocks:
            if len(block.rows):
                self._left = block.rows
                return True
        return False

    def _changed(self) -> UserError:
        return UserError(
            f"{self._source.path} does not hold {len(self):,} vectors any more; do not write to it meanwhile"
        )


def _count(source: Source, words: pa.StringArray | None) -> int:
    if words is not None:
        return len(words)
    if source.count is None:
        raise UserError(f"{source.path} does not tell how many vectors it has")
    return source.count


def _words(source: Source, form: str) -> pa.StringArray | None:
    """Return all words; for formats of bytes as they are, UTF-8 or not."""
    if not source.has_words:
        return None
    words = source.dictionary
    if words is None:
        parts, tell, done = [], reading(f"words of {source.path}", source.size), 0
        for part in source.words():
            parts.append(part)
            done += len(part)
            tell(source.consumed, done)
        if sum(part.nbytes for part in parts) >= MOST_BYTES:
            raise UserError(f"the words of {source.path} take more than 2 GiB, more than can be written")
        words = pa.concat_arrays(parts) if parts else pa.array([], pa.binary())
    if form not in OF_BYTES:
        return _utf8(source, form, words)
    return pa.StringArray.from_buffers(len(words), *words.buffers()[1:], offset=words.offset)


def _utf8(source: Source, form: str, words: pa.BinaryArray) -> pa.StringArray:
    """Return words as texts, or refuse the first that is none."""
    valid = valid_utf8(words)
    if valid.all():
        return words.cast(pa.string())
    raise UserError(
        f"{source.path} has the word {words[int(valid.argmin())].as_py()!r}, which is no UTF-8, and format={form} holds texts alone; "
        f"choose one of {', '.join(OF_BYTES)}"
    )
