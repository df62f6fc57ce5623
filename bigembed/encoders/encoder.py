"""What every encoder can do: the values of a column become row numbers of a table."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from bigembed.config.schema import TableConfig
from bigembed.encoders.columns import Column, Spans
from bigembed.ragged import Ragged


@dataclass(frozen=True, slots=True)
class Encoded:
    """Values of a column as row numbers.

    Attributes
    ----------
    ids : Ragged of int64 or int32
        The rows of the table, sample by sample.
    tokens : ndarray, shape (rows,), int32
        How many tokens (or given ids) each sample has; n-grams do not count.
    """

    ids: Ragged
    tokens: np.ndarray


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
    config : TableConfig
        The table's options.
    rows : int
        Rows of the table.
    dtype : dtype
        The smallest type that holds every row number: int32 or int64.
    word_rows : tuple of int
        First row that stands for one word of ``words()``, and the row after the last; empty where there are no words.
    """

    kind: ClassVar[str]
    reads: ClassVar[pa.DataType] = pa.string()
    copies: ClassVar[bool] = False

    def __init__(self, config: TableConfig, rows: int) -> None:
        self.config = config
        self.rows = rows
        self.dtype = np.dtype(np.int32 if rows < 1 << 31 else np.int64)
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
    def restore(cls, config: Any, words: pa.StringArray, counts: np.ndarray) -> "Encoder":
        """Make the encoder from what it saved: its words and their counts, none where it has none."""

    @classmethod
    @abstractmethod
    def settings_of(cls, config: Any) -> dict[str, Any]:
        """Return what decides the ids, apart from the words: a saved encoder is checked by it."""

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
        part = encoder.encode_spans(spans, encoder.dtype)
        # The kernel's array has room to spare, which many parts kept at once would add up.
        return Encoded(Ragged(part.ids.values.copy(), part.ids.offsets), part.tokens)

    parts: deque[Encoded] = deque()
    size = done = 0
    with closing(in_order(work, column.blocks(index), threads)) as encoded:
        for part in encoded:
            parts.append(part)
            done += len(part.tokens)
            size += part.ids.values.nbytes + part.ids.offsets.nbytes + part.tokens.nbytes
            if limit is not None and size > limit:
                return None
            if progress is not None:
                progress(done)
    return _join(parts, done, encoder.dtype)


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


def _join(parts: deque[Encoded], rows: int, dtype: np.dtype) -> Encoded:
    """Return all parts as one, letting go of each as soon as it is copied."""
    values = np.empty(sum(len(part.ids.values) for part in parts), dtype)
    offsets, tokens = np.zeros(rows + 1, np.int64), np.empty(rows, np.int32)
    row = 0
    while parts:
        part = parts.popleft()
        start, stop = offsets[row], row + len(part.tokens)
        offsets[row + 1 : stop + 1] = part.ids.offsets[1:] + start
        values[start : offsets[stop]] = part.ids.values
        tokens[row:stop] = part.tokens
        row = stop
    return Encoded(Ragged(values, offsets), tokens)
