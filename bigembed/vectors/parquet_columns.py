"""Columns of a Parquet file, a row group at a time and in bounded memory, or refused in one sentence."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigembed.errors import UserError
from bigembed.vectors.parquet_pages import look_at, row_groups
from bigembed.vectors.word2vec import LONGEST

# Of a page unpacked, and of the words of a row group; most programs write pages of 1 MB, DuckDB up to 100.
LARGEST = 1 << 27
BUFFER = 1 << 20  # bytes of a column in the file read at once
BLOCK_WORD_BYTES = 1 << 26  # of the words of a block
FREE, GROWTH = 1 << 26, 32  # bytes of numbers that a file may hold: these, or so many times its own
TOGETHER = 16  # columns of a number each that are read at once; their pages may take some megabytes each


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
        try:
            file = pa.OSFile(str(disk))
            footer = pq.read_metadata(file)
            self.schema: pa.Schema = footer.schema.to_arrow_schema()
            leaves = [footer.schema.column(leaf).path for leaf in range(footer.num_columns)]
            self._file = pq.ParquetFile(
                file,
                metadata=footer,
                buffer_size=BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,  # where the file has checksums
                # As a dictionary, a long word that many rows mean is in memory once.
                read_dictionary=[field.name for field in self.schema if is_text(field.type)],
            )
        except Exception as error:
            raise self._damaged(error) from None
        self._leaves: dict[str, list[int]] = {}
        for leaf, name in enumerate(leaves):
            for end in [place for place, letter in enumerate(name) if letter == "."] + [len(name)]:
                self._leaves.setdefault(name[:end], []).append(leaf)
        if any(len(chunks) != len(leaves) for chunks in self._chunks):
            raise self._damaged("its list of columns contradicts itself")

    def width(self, names: list[str]) -> int | None:
        """Return how many numbers a row has in a column of lists, or in columns of one each; None where there are no rows."""
        width, numbers, bytes_of_all = None, 0, 0
        for group, rows in enumerate(self.groups):
            for name in names if rows else []:
                values, _, packed = self._pages(name, group, LARGEST // min(len(names), TOGETHER))
                width = values // rows if width is None else width
                if values != width * rows:
                    raise UserError(f"{self.path}: the rows of column '{name}' differ in width, or some are missing")
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
                raise self._damaged(f"column '{name}' has {values:,} words for {rows:,} rows")
            if unpacked > LARGEST:
                raise UserError(
                    f"{self.path}: the words of a row group take {unpacked:,} bytes, more than the {LARGEST:,} that are read "
                    f"at once; write it with smaller row groups"
                )

    def words(self, name: str, group: int, size: int) -> Iterator[pa.BinaryArray]:
        """Yield the words of a row group, ``size`` at a time."""
        first = sum(self.groups[:group])
        waiting, held = list[pa.BinaryArray](), 0
        for (column,) in self._batches([name], group, size):
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
        first = sum(self.groups[:group])
        for (column,) in self._batches([name], group, size):
            if column.null_count or column.flatten().null_count:
                raise UserError(
                    f"{self.path}: one of the rows {first + 1:,} to {first + len(column):,} has no vector, or one with a gap"
                )
            if not pa.types.is_fixed_size_list(column.type):
                lengths = np.diff(column.offsets.to_numpy())
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
        first = sum(self.groups[:group])
        with tempfile.TemporaryFile() as spool:
            for left in range(0, width, TOGETHER):
                done = 0
                for columns in self._batches(names[left : left + TOGETHER], group, size):
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

    def _batches(self, names: list[str], group: int, size: int) -> Iterator[list[pa.Array]]:
        """Yield columns of a row group, ``size`` rows at a time."""
        batches = self._file.iter_batches(size, row_groups=[group], columns=names, use_threads=False)
        done = 0
        while True:
            try:
                batch = next(batches, None)
                columns = [] if batch is None else [batch.column(name) for name in names]
            except Exception as error:
                raise self._damaged(error) from None
            if batch is None:
                break
            done += len(batch)
            yield columns
        if done != self.groups[group]:
            raise self._damaged(f"{done:,} rows of {self.groups[group]:,} are there")

    def _pages(self, name: str, group: int, largest: int) -> tuple[int, int, int]:
        """Return how many values a column has in a row group, and its bytes, unpacked and in the file."""
        if len(self._leaves.get(name, [])) != 1:
            raise self._damaged(f"column '{name}' is not one column")
        chunk = self._chunks[group][self._leaves[name][0]]
        with self._disk.open("rb", buffering=0) as file:
            unpacked = look_at(file, chunk, largest, self.path)
        return chunk.values, unpacked, chunk.end - chunk.start

    def _as_binary(self, column: pa.DictionaryArray, first: int) -> pa.BinaryArray:
        """Return words, whose first stands in row ``first`` of the file, as they are."""
        where = f"one of the rows {first + 1:,} to {first + len(column):,}"
        if column.null_count or column.dictionary.null_count:
            raise UserError(f"{self.path}: {where} has no word")
        words = column.dictionary.cast(pa.binary())
        index, lengths = column.indices.to_numpy(), pc.binary_length(words).to_numpy()
        if len(index) and not 0 <= index.min() <= index.max() < len(words):
            raise self._damaged(f"{where} has a word of a number that there is not")
        taken = lengths[index]
        if taken.max(initial=0) > LONGEST or taken.sum(dtype=np.int64) > BLOCK_WORD_BYTES:
            raise UserError(f"{self.path}: {where} has a word that is too long, or they are so together")
        return words.take(column.indices)

    def _damaged(self, reason: Any) -> UserError:
        said = " ".join(str(reason).split())[:200].rstrip(".")
        return UserError(f"{self.path}: cannot be read as Parquet: {said}; the file is damaged, or was cut")


def _as_float32(column: pa.Array) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return column.to_numpy().astype(np.float32)


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
