"""What every reader asks of rows: numbers that are finite, and not more of them than a block has room for."""

import numba
import numpy as np

WIDEST = 1 << 20  # numbers of a vector; one row is then as large as a block
EXPONENT = np.uint32(0x7F80_0000)  # all ones in infinities and NaN, and in nothing else (IEEE 754)


@numba.njit(nogil=True, cache=True)
def first_not_finite(rows: np.ndarray) -> int:
    """Return the first row that holds a NaN or an infinity, -1 where none does.

    Parameters
    ----------
    rows : ndarray, shape (n, dim), float32, contiguous

    Returns
    -------
    row : int
    """
    bits = rows.view(np.uint32)
    for row in range(len(bits)):
        wrong = False
        for column in range(bits.shape[1]):
            wrong |= (bits[row, column] & EXPONENT) == EXPONENT
        if wrong:
            return row
    return -1
