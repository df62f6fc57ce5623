"""What every encoder can do: the values of a column become row numbers of a table."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from bigembed.config.schema import TableConfig
from bigembed.encoders.columns import Column, Spans
from bigembed.ragged import Ragged, concatenate


@dataclass(frozen=True, slots=True)
class Ids:
    """Values of a column as row numbers of one part of a table.

    Attributes
    ----------
    rows : Ragged of int64 or int32
        The rows of the part, sample by sample.
    sizes : Ragged of int32, or None
        How many of them each element (token, n-gram, value) has, sample by sample; None: every element has the same number.
    """

    rows: Ragged
    sizes: Ragged | None = None

    def take(self, index: np.ndarray) -> "Ids":
        """Return the samples named by ``index`` (int64), copied, in that order."""
        return Ids(self.rows.take(index), None if self.sizes is None else self.sizes.take(index))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Values of a column as row numbers of every part of a table.

    Attributes
    ----------
    parts : tuple of Ids
        One for each part of the table, in the order of ``config.physical.parts``.
    tokens : ndarray, shape (rows,), int32
        How many tokens (or values) each sample has; n-grams do not count.
    signs : Ragged of int8, or None
        What each row of the first part counts, 1 or -1; None: all count 1.
    """

    parts: tuple[Ids, ...]
    tokens: np.ndarray
    signs: Ragged | None = None

    @property
    def ids(self) -> Ragged:
        """The rows of the only part."""
        (part,) = self.parts
        return part.rows

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in to_arrays(self))

    def take(self, index: np.ndarray) -> "Encoded":
        """Return the samples named by ``index`` (int64), copied, in that order."""
        signs = None if self.signs is None else self.signs.take(index)
        return Encoded(tuple(part.take(index) for part in self.parts), self.tokens[index], signs)


def to_arrays(encoded: Encoded) -> list[np.ndarray]:
    """Return what ``from_arrays`` makes the ids of again: first what there is, then tokens, rows, sizes and signs."""
    pairs = [ragged for part in encoded.parts for ragged in (part.rows, part.sizes)] + [encoded.signs]
    there = [ragged for ragged in pairs if ragged is not None]
    marks = np.array([ragged is not None for ragged in pairs])
    return [marks, encoded.tokens, *(array for ragged in there for array in (ragged.values, ragged.offsets))]


def from_arrays(arrays: Iterator[np.ndarray]) -> Encoded:
    """Return the ids that ``to_arrays`` made arrays of, taken from an iterator over those of many."""
    marks, tokens = next(arrays), next(arrays)
    pairs = [Ragged(next(arrays), next(arrays)) if mark else None for mark in marks.tolist()]
    parts = tuple(Ids(rows, sizes) for rows, sizes in zip(pairs[:-1:2], pairs[1:-1:2], strict=True) if rows is not None)
    return Encoded(parts, tokens, pairs[-1])


class Encoder(ABC):
    """Turns the values of columns into rows of one table.

    Attributes
    ----------
    kind : str
        Name of the kind of table.
    reads : DataType
        What ``data.open_data`` is asked for in its columns.
    copies : bool
        Whether encoding is as cheap as reading ids that were kept.
    learns_rows : bool
        Whether only the data tells how many rows there are.
    config : TableConfig
        The table's options.
    rows : tuple of int
        Rows of every part of the table.
    learned : dict
        What was learned from the data besides words, as JSON values; saved with the encoder.
    dtype : dtype
        The smallest type that holds every row number: int32 or int64.
    word_rows : tuple of int
        First row that stands for one word of ``words()``, and the row after the last; empty where there are no words.
    """

    kind: ClassVar[str]
    reads: ClassVar[pa.DataType] = pa.string()
    copies: ClassVar[bool] = False
    learns_rows: ClassVar[bool] = False

    def __init__(self, config: TableConfig, rows: tuple[int, ...], learned: dict[str, Any] | None = None) -> None:
        self.config = config
        self.rows = rows
        self.learned = learned or {}
        self.dtype = np.dtype(np.int32 if max(rows) < 1 << 31 else np.int64)
        self.word_rows = (0, 0)

    @classmethod
    @abstractmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> Column:
        """Return the column that a table of this kind reads; ``name`` is for messages.

        Raises
        ------
        UserError
            It is of another type, or holds nulls.
        """

    @classmethod
    @abstractmethod
    def learn(
        cls,
        name: str,
        config: Any,
        columns: Sequence[Any],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "Encoder":
        """Make the encoder of a new table, learning from the columns what there is to learn; see ``encoders.build``."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Any, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray) -> "Encoder":
        """Make the encoder from what it saved: what it learned, its words and their counts, none where it has none."""

    @classmethod
    @abstractmethod
    def settings_of(cls, config: Any) -> dict[str, Any]:
        """Return what decides the ids, apart from the words: a saved encoder is checked by it."""

    @classmethod
    @abstractmethod
    def rows_at_most(cls, config: Any) -> tuple[int, ...] | None:
        """Return the most rows that each part of such a table has; None where only the data tells."""

    def words(self) -> pa.StringArray | None:
        """Return the words of the rows ``word_rows``, or None where rows stand for no word."""
        return None

    def counts(self) -> np.ndarray | None:
        """Return how often each of ``words()`` was seen (int64), or None where there are none."""
        return None

    def check(self, column: Column, feature: str, table: str, part: str) -> None:  # noqa: B027 - most values have one
        """Refuse values that have no row, in a sentence that names feature, table and part of the data.

        Raises
        ------
        UserError
            With the first such value and its row.
        """

    @abstractmethod
    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return values that somebody typed, one a text, as an array for ``open``; ``name`` calls text ``i`` in messages.

        Raises
        ------
        UserError
            A text is no value of such a column.
        """

    def encode(self, column: Column, index: np.ndarray, dtype: Any = np.int64) -> Encoded:
        """Return the values named by ``index`` (int64) as rows of the table, of ``dtype`` int64 or int32.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """
        return self.encode_spans(column.spans(index), dtype)

    @abstractmethod
    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return values in memory as rows of the table, of ``dtype`` int64 or int32."""

    @abstractmethod
    def row_of(self, token: str) -> int:
        """Return the row of what somebody typed.

        Raises
        ------
        UserError
            ``token`` has no row.
        """


def encode_all(
    encoder: Encoder,
    column: Column,
    index: np.ndarray | None = None,
    threads: int = 1,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Encoded | None:
    """Encode many values on several threads.

    Parameters
    ----------
    encoder, column : Encoder, Column
        What encodes, and the values.
    index : ndarray, shape (rows,), int64, optional
        The rows to encode; by default all.
    threads : int
        Threads to use; the result does not depend on it.
    limit : int, optional
        Give up when the result takes more bytes than this.
    progress : callable, optional
        Called with the number of rows done, after every few megabytes.

    Returns
    -------
    Encoded or None
        Ids of ``encoder.dtype`` in the order of ``index``; None if they would go over ``limit``.
    """

    def work(spans: Spans) -> Encoded:
        block = encoder.encode_spans(spans, encoder.dtype)
        # A kernel's array has room to spare, which many blocks kept at once would add up.
        return Encoded(
            tuple(Ids(_trimmed(part.rows), part.sizes and _trimmed(part.sizes)) for part in block.parts),
            block.tokens,
            block.signs,
        )

    blocks: list[Encoded] = []
    size = done = 0
    with closing(in_order(work, column.blocks(index), threads)) as encoded:
        for block in encoded:
            blocks.append(block)
            done += len(block.tokens)
            size += block.nbytes
            if limit is not None and size > limit:
                return None
            if progress is not None:
                progress(done)
    return _join(blocks) if blocks else encoder.encode_spans(column.spans(np.empty(0, np.int64)), encoder.dtype)


def in_order(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Generator[Any]:
    """Yield ``work(item)`` for each item, in order, worked on by several threads, few items ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _trimmed(ragged: Ragged) -> Ragged:
    base = ragged.values.base
    whole = not isinstance(base, np.ndarray) or base.nbytes == ragged.values.nbytes
    return ragged if whole else Ragged(ragged.values.copy(), ragged.offsets)


def _join(blocks: list[Encoded]) -> Encoded:
    """Return all blocks as one, letting go of what each has as soon as it is copied."""
    tokens = np.concatenate([block.tokens for block in blocks])
    signs = _joined([block.signs for block in blocks])
    rows = [deque(block.parts[part].rows for block in blocks) for part in range(len(blocks[0].parts))]
    sizes = [_joined([block.parts[part].sizes for block in blocks]) for part in range(len(rows))]
    blocks.clear()
    return Encoded(tuple(Ids(concatenate(each), size) for each, size in zip(rows, sizes, strict=True)), tokens, signs)


def _joined(parts: list[Ragged | None]) -> Ragged | None:
    there = deque(part for part in parts if part is not None)
    return concatenate(there) if there else None
