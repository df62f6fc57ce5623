"""How many different values a stream has, in a few kilobytes: HyperLogLog on 64-bit hashes."""

import math

import numba
import numpy as np

from bigembed.hashing import mix

PRECISION = 14
_BITS = 64
_STIR = np.uint64(0x6A09E667F3BCC908)  # rows are told by the same hashes, and are to say nothing of the sketch's error


class HyperLogLog:
    """Counts different values; Flajolet et al. 2007, with the estimator of Ertl 2017 (arXiv:1702.01284), which needs no corrections.

    Parameters
    ----------
    precision : int
        2**precision registers of a byte each.
    """

    def __init__(self, precision: int = PRECISION) -> None:
        self.precision = precision
        self.registers = np.zeros(1 << precision, np.uint8)

    @property
    def standard_error(self) -> float:
        """The standard deviation of the estimate, as a share of the number of values."""
        return 1.0389 / math.sqrt(len(self.registers))

    def add(self, hashes: np.ndarray) -> None:
        """Add values by their hashes (uint64)."""
        _add(hashes, self.precision, self.registers)

    def estimate(self) -> float:
        """Return about how many different values were added."""
        longest, size = _BITS - self.precision, len(self.registers)
        counts = np.bincount(self.registers, minlength=longest + 2).tolist()
        if counts[0] == size:
            return 0.0
        total = size * _tau(1 - counts[longest + 1] / size)
        for length in range(longest, 0, -1):
            total = 0.5 * (total + counts[length])
        total += size * _sigma(counts[0] / size)
        return size * size / (2 * math.log(2) * total)


def _sigma(share: float) -> float:
    """Return the part that empty registers have in the estimate."""
    power, weight, total, before = share, 1.0, share, -1.0
    while total != before:
        power, before = power * power, total
        total += power * weight
        weight *= 2
    return total


def _tau(share: float) -> float:
    """Return the part that full registers have in the estimate."""
    if share in (0.0, 1.0):
        return 0.0
    weight, total, before = 1.0, 1 - share, -1.0
    while total != before:
        share, before = math.sqrt(share), total
        weight *= 0.5
        total -= (1 - share) ** 2 * weight
    return total / 3


@numba.njit(nogil=True, cache=True)
def _add(hashes: np.ndarray, precision: int, registers: np.ndarray) -> None:
    shift, longest = np.uint64(64 - precision), 65 - precision
    for i in range(len(hashes)):
        hashed = mix(hashes[i] ^ _STIR)
        at = hashed >> shift
        rest, length = hashed << np.uint64(precision), 1
        while length < longest and rest >> np.uint64(63) == 0:
            rest <<= np.uint64(1)
            length += 1
        if registers[at] < length:
            registers[at] = length
