"""Vectors as they stream: a block of words and a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

BLOCK_BYTES = 1 << 21  # what text is made of takes some twenty times as much


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows of a table with the words they stand for.

    Attributes
    ----------
    table : ndarray, shape (table rows, dim), float32
        The whole table, memory-mapped as a rule; or what is indexed like it.
    rows : ndarray or range
        Which of its rows are meant, in order.
    words : pa.StringArray or None
        Their words; None where rows stand for no word.
    """

    table: Any
    rows: np.ndarray | range
    words: pa.StringArray | None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and their width."""
        return len(self.rows), self.table.shape[1]

    def blocks(self) -> Iterator[tuple[pa.StringArray | None, np.ndarray]]:
        """Yield words and float32 rows, some megabytes at a time."""
        size = max(1, BLOCK_BYTES // (4 * self.table.shape[1]))
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            block = self.table[rows.start : rows.stop] if isinstance(rows, range) else self.table[rows]
            words = None if self.words is None else self.words.slice(start, len(rows))
            yield words, np.ascontiguousarray(block, np.float32)


def words_path(path: Path) -> Path:
    """Return the name of the file of words that goes with a file of numbers alone."""
    return path.with_name(path.name + ".words.txt")
