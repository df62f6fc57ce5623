"""The norms of a table's rows, and which rows were never trained: one pass over an array of a checkpoint, in blocks."""

from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

from bigembed import hashing
from bigembed.arrays import Bfloat16

_BITS = 20  # of a norm in float32 that a bin is told by: its sign, its exponent, 11 bits of its mantissa
_BLOCK = 1 << 24  # bytes read at once


@dataclass(slots=True)
class Norms:
    """Norms of rows, in bins half a thousandth wide.

    Attributes
    ----------
    rows : int
        How many.
    least, greatest : float
        Of the norms.
    """

    rows: int = 0
    least: float = float("inf")
    greatest: float = 0.0
    _bins: np.ndarray = field(default_factory=lambda: np.zeros(1 << _BITS, np.int64))

    def add(self, norms: np.ndarray) -> None:
        """Add norms (float32)."""
        if len(norms):
            self.rows += len(norms)
            self.least, self.greatest = min(self.least, float(norms.min())), max(self.greatest, float(norms.max()))
            np.add.at(self._bins, norms.view(np.uint32) >> (32 - _BITS), 1)

    def quantile(self, share: float) -> float:
        """Return the norm that this share of the rows does not surpass, to half a thousandth."""
        at = int(np.searchsorted(np.cumsum(self._bins), max(1, share * self.rows)))
        return float(np.clip(_middle(np.array([at]))[0], self.least, self.greatest))

    def histogram(self, bars: int = 40) -> tuple[list[float], list[int]]:
        """Return the edges of ``bars`` equal steps from 0 to the greatest norm, and the rows in each."""
        filled = np.flatnonzero(self._bins)
        edges = np.linspace(0, self.greatest or 1.0, bars + 1)
        middle = np.clip(_middle(filled), 0, edges[-1])
        return edges.tolist(), np.histogram(middle, edges, weights=self._bins[filled])[0].astype(int).tolist()


@dataclass(frozen=True, slots=True)
class First:
    """How the rows of a table began: uniform in [low, high) by the seed and the table's stream; see ``hashing.fill_uniform``."""

    seed: int
    stream: int
    low: float
    high: float


@dataclass(slots=True)
class Weights:
    """What an array of a checkpoint tells: norms of rows that the data has, and of others, and rows as they began, of both."""

    touched: Norms = field(default_factory=Norms)
    untouched: Norms = field(default_factory=Norms)
    first_touched: int = 0
    first_untouched: int = 0


def read_weights(table: Any, first: First, touched: Any) -> Weights:
    """Read all rows.

    Parameters
    ----------
    table : ndarray or Bfloat16, shape (rows, dim)
        The rows, memory-mapped.
    first : First
        How they began.
    touched : callable
        From the first row and the one after the last of a block to whether the data has each, shape (rows,), bool.

    Returns
    -------
    Weights
    """
    rows, dim = table.shape
    found, step = Weights(), max(8, _BLOCK // (4 * dim) // 8 * 8)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        block = np.ascontiguousarray(table[start:stop], np.float32)
        began = np.empty_like(block)
        hashing.fill_uniform(began, first.seed, first.stream, start, 0, dim, first.low, first.high)
        as_begun = np.all(block == _rounded(began, table), axis=1)
        norms, has = (
            np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64)).astype(np.float32),
            touched(start, stop),
        )
        found.touched.add(norms[has])
        found.untouched.add(norms[~has])
        found.first_touched += int((as_begun & has).sum())
        found.first_untouched += int((as_begun & ~has).sum())
    return found


def _rounded(values: np.ndarray, table: Any) -> np.ndarray:
    """Return values as the numbers of the table hold them."""
    if isinstance(table, Bfloat16):
        _to_bfloat16(values.view(np.uint32).reshape(-1))
        return values
    return values if table.dtype == np.float32 else values.astype(table.dtype).astype(np.float32)


def _middle(bins: np.ndarray) -> np.ndarray:
    """Return the middle of bins (float32)."""
    half = np.uint32(1 << (31 - _BITS))
    return (
        (bins.astype(np.uint32) << np.uint32(32 - _BITS) | np.where(bins, half, np.uint32(0)))
        .astype(np.uint32)
        .view(np.float32)
    )


@numba.njit(nogil=True, cache=True)
def _to_bfloat16(bits: np.ndarray) -> None:
    """Round float32 numbers, given by their bits, to the nearest that bfloat16 has, of two the even one."""
    for i in range(len(bits)):
        odd = (bits[i] >> np.uint32(16)) & np.uint32(1)
        bits[i] = (bits[i] + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
