"""Columns of a Parquet file, a row group at a time and in bounded memory, or refused in one sentence."""

import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigembed.errors import UserError
from bigembed.vectors.parquet_pages import look_at, row_groups
from bigembed.vectors.shown import shown
from bigembed.vectors.word2vec import LONGEST

# Of a page unpacked, and of the words of a row group; most programs write pages of 1 MB, DuckDB up to 100.
LARGEST = 1 << 27
BUFFER = 1 << 20  # bytes of a column in the file read at once
BLOCK_WORD_BYTES = 1 << 24  # of the words of a block
FREE, GROWTH = 1 << 26, 32  # bytes of numbers that a file may hold: these, or so many times its own
TOGETHER = 8  # columns of a number each that are read at once; their pages may take some megabytes each


class Columns:
    """A Parquet file, opened.

    Parameters
    ----------
    path : str
        What messages call it.
    disk : Path
        The file.

    Attributes
    ----------
    schema : pa.Schema
    groups : list of int
        Rows of every row group.

    Raises
    ------
    UserError
        When it is damaged; from every method.
    """

    def __init__(self, path: str, disk: Path) -> None:
        self.path, self._disk = path, disk
        with disk.open("rb", buffering=0) as file:
            groups = row_groups(file, path)
        self.groups, self._chunks = [rows for rows, _ in groups], [chunks for _, chunks in groups]
        self._firsts = list(accumulate(self.groups, initial=0))
        try:
            file = pa.OSFile(str(disk))
            footer = pq.read_metadata(file)
            self.schema: pa.Schema = footer.schema.to_arrow_schema()
            leaves = [footer.schema.column(leaf).path for leaf in range(footer.num_columns)]
            texts = [field.name for field in self.schema if is_text(field.type)]
            self._file, self._dictionaries = (
                pq.ParquetFile(
                    file,
                    metadata=footer,
                    buffer_size=BUFFER,
                    pre_buffer=False,
                    page_checksum_verification=True,  # where the file has checksums
                    read_dictionary=as_dictionary,
                )
                for as_dictionary in ([], texts)
            )
        except Exception as error:
            raise self._damaged(error) from None
        self._leaves = sorted((name, leaf) for leaf, name in enumerate(leaves))
        empty = [chunk for rows, chunks in groups if not rows for chunk in chunks]
        if (
            any(len(chunks) != len(leaves) for chunks in self._chunks)
            or footer.num_rows != sum(self.groups)
            or any(chunk.values for chunk in empty)
        ):
            raise self._damaged("its list of columns contradicts itself")

    def width(self, names: list[str]) -> int | None:
        """Return how many numbers a row has in a column of lists, or in columns of one each; None where there are no rows."""
        width, numbers, bytes_of_all = None, 0, 0
        for group, rows in enumerate(self.groups):
            for name in names if rows else []:
                values, _, packed = self._pages(name, group, LARGEST // min(len(names), TOGETHER))
                width = values // rows if width is None else width
                if values != width * rows:
                    raise UserError(
                        f"{self.path}: the rows of column '{shown(name)}' differ in width, or some are missing"
                    )
                numbers, bytes_of_all = numbers + values, bytes_of_all + packed
        if 4 * numbers > max(FREE, GROWTH * bytes_of_all):
            raise UserError(
                f"{self.path}: {numbers:,} numbers stand in {bytes_of_all:,} bytes, which is too few for vectors; write them without "
                f"a dictionary or compression if they are meant so"
            )
        return width and width * len(names)

    def check_words(self, name: str) -> None:
        """Refuse a column whose words do not fit into memory, or that has not one in every row."""
        for group, rows in enumerate(self.groups):
            values, unpacked, _ = self._pages(name, group, LARGEST) if rows else (0, 0, 0)
            if values != rows:
                raise self._damaged(f"column '{shown(name)}' has {values:,} words for {rows:,} rows")
            if unpacked > LARGEST:
                raise UserError(
                    f"{self.path}: the words of a row group take {unpacked:,} bytes, more than the {LARGEST:,} that are read "
                    f"at once; write it with smaller row groups"
                )

    def rows_of_words(self, name: str, group: int, size: int) -> int:
        """Return how many rows may be read at once, up to ``size``, as many of them may mean a long word in a dictionary."""
        # To read all words as a dictionary would not do: Arrow keeps those that are in none until the row group ends.
        columns = next(self._batches(self._dictionaries, [name], group, 1), None)
        longest = 0 if columns is None else pc.max(pc.binary_length(columns[0].dictionary)).as_py() or 0
        return max(1, min(size, BLOCK_WORD_BYTES // max(1, longest)))

    def words(self, name: str, group: int, size: int) -> Iterator[pa.BinaryArray]:
        """Yield the words of a row group, ``size`` at a time."""
        first = self._firsts[group]
        waiting, held = list[pa.BinaryArray](), 0
        for (column,) in self._batches(self._file, [name], group, size):
            words = self._as_binary(column, first)
            first += len(words)
            while held + len(words) >= size:
                yield pa.concat_arrays([*waiting, words.slice(0, size - held)])
                words = words.slice(size - held)
                waiting, held = [], 0
            waiting.append(words)
            held += len(words)
        if held:
            yield pa.concat_arrays(waiting)

    def lists(self, name: str, group: int, size: int, width: int) -> Iterator[np.ndarray]:
        """Yield the lists of a row group as float32 of shape (``size``, ``width``), the last with fewer rows."""
        first = self._firsts[group]
        for (column,) in self._batches(self._file, [name], group, size):
            if column.null_count or column.flatten().null_count:
                raise UserError(
                    f"{self.path}: one of the rows {first + 1:,} to {first + len(column):,} has no vector, or one with a gap"
                )
            if not pa.types.is_fixed_size_list(column.type):
                lengths = np.diff(_numbers(column.offsets))
                wrong = np.flatnonzero(lengths != width)
                if len(wrong):
                    raise UserError(
                        f"{self.path}: the vector of row {first + int(wrong[0]) + 1:,} has {lengths[wrong[0]]:,} numbers, where "
                        f"{width:,} are expected"
                    )
            yield _as_float32(column.flatten()).reshape(len(column), width)
            first += len(column)

    def side_by_side(self, names: list[str], group: int, size: int) -> Iterator[np.ndarray]:
        """Yield columns of a number each as rows of float32 of shape (``size``, columns), the last with fewer rows.

        Every column has its own place in the row group, and its pages take memory. So a few are read at a time, and a
        temporary file holds the row group until all are.
        """
        rows, width = self.groups[group], len(names)
        first = self._firsts[group]
        with tempfile.TemporaryFile() as spool:
            for left in range(0, width, TOGETHER):
                done = 0
                for columns in self._batches(self._file, names[left : left + TOGETHER], group, size):
                    if any(column.null_count for column in columns):
                        raise UserError(
                            f"{self.path}: one of the rows {first + done + 1:,} to {first + done + len(columns[0]):,} has a gap"
                        )
                    part = np.stack([_as_float32(column) for column in columns], 1)
                    spool.seek(4 * (done * width + len(part) * left))
                    spool.write(part.data)
                    done += len(part)
            spool.seek(0)
            for done in range(0, rows, size):
                block = np.empty((min(size, rows - done), width), np.float32)
                for left in range(0, width, TOGETHER):
                    part = np.empty((len(block), min(TOGETHER, width - left)), np.float32)
                    spool.readinto(part.data)
                    block[:, left : left + TOGETHER] = part
                yield block

    def _batches(self, file: pq.ParquetFile, names: list[str], group: int, size: int) -> Iterator[list[pa.Array]]:
        """Yield columns of a row group, ``size`` rows at a time."""
        batches = file.iter_batches(size, row_groups=[group], columns=names, use_threads=False)
        done = 0
        while True:
            try:
                batch = next(batches, None)
                columns = [] if batch is None else [batch.column(name) for name in names]
            except Exception as error:
                raise self._damaged(error) from None
            if batch is None:
                break
            # Only words may come in parts that are smaller.
            if len(batch) != min(size, self.groups[group] - done) and not is_text(columns[0].type):
                raise self._damaged(f"{len(batch):,} rows came where {size:,} were asked for")
            done += len(batch)
            yield columns
        if done != self.groups[group]:
            raise self._damaged(f"{done:,} rows of {self.groups[group]:,} are there")

    def _pages(self, name: str, group: int, largest: int) -> tuple[int, int, int]:
        """Return how many values a column has in a row group, and its bytes, unpacked and in the file."""
        chunk = self._chunks[group][self._leaf(name)]
        with self._disk.open("rb", buffering=0) as file:
            unpacked = look_at(file, chunk, largest, self.path)
        return chunk.values, unpacked, chunk.end - chunk.start

    def _leaf(self, name: str) -> int:
        """Return which of the file's columns is meant; pyarrow reads all whose names begin with a name and a dot."""
        same = bisect_left(self._leaves, (name, -1))
        below = bisect_left(self._leaves, (f"{name}.", -1))
        found = [leaf for path, leaf in self._leaves[same : same + 2] if path == name]
        found += [leaf for path, leaf in self._leaves[below : below + 2] if path.startswith(f"{name}.")]
        if len(found) != 1:
            raise UserError(
                f"{self.path}: there are several columns by the name '{shown(name)}', or below it; give them other names"
            )
        return found[0]

    def _as_binary(self, column: pa.Array, first: int) -> pa.BinaryArray:
        """Return words, whose first stands in row ``first`` of the file, as they are."""
        where = f"one of the rows {first + 1:,} to {first + len(column):,}"
        if pa.types.is_dictionary(column.type):  # pandas' categories
            column = column.dictionary_decode()
        if column.null_count:
            raise UserError(f"{self.path}: {where} has no word")
        words = column.cast(pa.binary())
        if (pc.max(pc.binary_length(words)).as_py() or 0) > LONGEST:
            raise UserError(f"{self.path}: {where} has a word of more than {LONGEST:,} bytes")
        return words

    def _damaged(self, reason: Any) -> UserError:
        said = shown(" ".join(str(reason).split()), 200).rstrip(".").replace(". ", "; ")
        return UserError(f"{self.path}: cannot be read as Parquet: {said}; the file is damaged, or was cut")


def _as_float32(column: pa.Array) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is refused
        return _numbers(column).astype(np.float32)


def _numbers(column: pa.Array) -> np.ndarray:
    """Return numbers without gaps, not copied; Arrow's own to_numpy imports pandas."""
    dtype = np.dtype({"halffloat": "f2", "float": "f4", "double": "f8"}.get(str(column.type), str(column.type)))
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, or bytes."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(test(kind) for test in texts)
