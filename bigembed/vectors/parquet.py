"""Parquet files: a column of words, and one of lists of numbers or many of a number each."""

import io
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.finite import WIDEST, first_not_finite
from bigembed.vectors.parquet_columns import Columns, is_text
from bigembed.vectors.shown import shown
from bigembed.vectors.source import Block, Source
from bigembed.vectors.streams import Stream

MAGIC = b"PAR1"
WORD, VECTOR = "word", "vector"  # the columns that are written
WORD_NAMES = (WORD, "words", "token", "tokens")  # one of these is meant where there are several columns of text
VECTOR_NAMES = (VECTOR, "vectors", "embedding", "embeddings")  # … of lists
ROW_GROUP = 1 << 24  # bytes of numbers written at once
BLOCK = 1 << 22  # bytes of numbers read at once
ROWS = 1 << 15  # rows read at once, at most: their words have no bound of their own
NAMED = 12  # columns in a message


def begins(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` is a Parquet file."""
    return head.startswith(MAGIC)


def write_parquet(vectors: Vectors) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file: columns "word" (where there are words) and "vector", lists of float32 of one length."""
    sink = _Sink()
    kind = pa.list_(pa.field("element", pa.float32(), False), vectors.shape[1])
    fields = [] if vectors.words is None else [pa.field(WORD, pa.string(), False)]
    schema = pa.schema([*fields, pa.field(VECTOR, kind, False)])
    packing = {WORD: "zstd", f"{VECTOR}.list.element": "none"}  # numbers hardly pack
    with pq.ParquetWriter(sink, schema, compression=packing, use_dictionary=False, write_page_checksum=True) as writer:
        waiting, held = list[pa.RecordBatch](), 0
        for words, rows in vectors.blocks():
            numbers = pa.Array.from_buffers(pa.float32(), rows.size, [None, pa.py_buffer(rows)])
            lists = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
            columns = [lists] if words is None else [words.cast(pa.string()), lists]
            waiting.append(pa.record_batch(columns, schema))
            held += rows.nbytes
            if held >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting, held = [], 0
                yield from sink.taken()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    yield from sink.taken()


class _Sink(io.RawIOBase):
    """What a Parquet file is written to; what there is of it is taken from time to time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        self._place += len(self._parts[-1])
        return len(self._parts[-1])

    def taken(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        return parts


def open_parquet(stream: Stream, word_list: str | None = None) -> Source:
    """Open a Parquet file of vectors.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        Of no use here: the words are a column.

    Raises
    ------
    UserError
        When the file is packed or damaged, or its columns do not tell which of them the words and the vectors are.
    """
    if stream.file is None:
        raise UserError(
            f"{stream.path} is Parquet inside of {stream.compression}, which cannot be read from front to back; unpack it first"
        )
    return ParquetSource(stream.path, stream.size, Columns(stream.path, stream.file))


class ParquetSource(Source):
    """A Parquet file of vectors, opened.

    Parameters
    ----------
    path : str
    size : int
        Bytes of the file.
    columns : Columns
        What is in it.
    """

    format = "parquet"

    def __init__(self, path: str, size: int, columns: Columns) -> None:
        self.path, self.size, self._columns = path, size, columns
        self._word, self._numbers = _choose(columns.schema, path)
        self._listed = _is_list(columns.schema.field(self._numbers[0]).type)
        self.has_words = self._word is not None
        self.count: int = sum(columns.groups)
        self.details = {"columns": [*filter(None, [self._word]), *self._numbers][:NAMED]}
        self.dim = self._width()
        if not 1 <= self.dim <= WIDEST:
            raise UserError(f"{path}: its vectors have {self.dim:,} numbers; 1 to {WIDEST:,} can be read")
        if self._word is not None:
            columns.check_words(self._word)
        self._rows = max(1, min(ROWS, BLOCK // (4 * self.dim)))

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, some megabytes at a time."""
        first = 0
        for group in range(len(self._columns.groups)):
            size = self._rows
            words: Iterator[pa.BinaryArray | None] = repeat(None)
            if self._word is not None:
                size = self._columns.rows_of_words(self._word, group, size)
                words = self._columns.words(self._word, group, size)
            for rows in self._vectors(group, size):
                wrong = first_not_finite(rows)
                if wrong >= 0:
                    raise UserError(
                        f"{self.path}: row {first + wrong + 1:,} holds a number that is not finite in float32 (NaN, infinite or too large)"
                    )
                self.consumed = self.size * (first + len(rows)) // self.count
                yield Block(first, next(words), rows)
                first += len(rows)

    def words(self) -> Iterator[pa.BinaryArray]:
        """Yield the words; the numbers are not read."""
        if self._word is not None:
            for group in range(len(self._columns.groups)):
                size = self._columns.rows_of_words(self._word, group, ROWS)
                yield from self._columns.words(self._word, group, size)

    def _width(self) -> int:
        """Return how many numbers a vector has."""
        width = self._columns.width(self._numbers)
        if not self._listed:
            if width not in (None, len(self._numbers)):
                raise UserError(f"{self.path}: its columns have not one number in every row")
            return len(self._numbers)
        kind = self._columns.schema.field(self._numbers[0]).type
        if width is None and not pa.types.is_fixed_size_list(kind):
            raise UserError(f"{self.path} holds no vectors, so that their width is unknown")
        return kind.list_size if width is None else width

    def _vectors(self, group: int, size: int) -> Iterator[np.ndarray]:
        if self._listed:
            return self._columns.lists(self._numbers[0], group, size, self.dim)
        return self._columns.side_by_side(self._numbers, group, size)


def _choose(schema: pa.Schema, path: str) -> tuple[str | None, list[str]]:
    """Return the column of the words, if there is one, and that of the vectors, or those of a number each."""
    words = _meant([field.name for field in schema if is_text(field.type)], WORD_NAMES)
    lists = _meant([field.name for field in schema if _is_list(field.type)], VECTOR_NAMES)
    numbers = lists or [field.name for field in schema if pa.types.is_floating(field.type)]
    clear = len(words) < 2 and len(lists) < 2 and numbers
    if not clear or len({*words, *numbers}) < len(words) + len(numbers):
        said = ", ".join(f"{shown(field.name)} ({shown(field.type)})" for field in list(schema)[:NAMED])
        said += ", …" if len(schema) > NAMED else ""
        raise UserError(
            f"{path} does not tell which columns are meant; give it one of text, '{WORD}', and one of lists of floats, '{VECTOR}', or "
            f"only columns of a float each besides; it has: {said or 'none'}"
        )
    return words[0] if words else None, numbers


def _meant(names: list[str], usual: tuple[str, ...]) -> list[str]:
    """Return the only name, or those of several that are usual; all, where none is."""
    return names if len(names) < 2 else [name for name in names if name.lower() in usual] or names


def _is_list(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and pa.types.is_floating(kind.value_type)
