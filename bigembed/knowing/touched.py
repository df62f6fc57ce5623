"""Which rows of a table were looked up: a bit for each."""

import numba
import numpy as np

MOST = 1 << 33  # rows, whose bits take a gibibyte


class Touched:
    """Rows that were looked up.

    Parameters
    ----------
    rows : int
        Rows of the table.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._bits = np.zeros(-(-rows // 8), np.uint8)

    def add(self, rows: np.ndarray) -> None:
        """Note rows (int64 or int32)."""
        _add(rows, self._bits)

    def count(self) -> int:
        """Return how many rows were noted."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def among(self, start: int, stop: int) -> np.ndarray:
        """Return whether each of the rows from ``start``, a multiple of 8, to before ``stop`` was noted: shape (rows,), bool."""
        return np.unpackbits(self._bits[start // 8 : -(-stop // 8)], count=stop - start, bitorder="little").view(bool)


@numba.njit(nogil=True, cache=True)
def _add(rows: np.ndarray, bits: np.ndarray) -> None:
    for i in range(len(rows)):
        bits[rows[i] >> 3] |= np.uint8(1 << (rows[i] & 7))
