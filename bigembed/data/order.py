"""Which training row comes when: shuffles that take no memory, can be continued anywhere, and do not know of ranks."""

import numpy as np

from bigembed.hashing import hash_integers, permuted

_SPLIT, _EPOCH = 0x51, 0xE9  # salts that keep the keys of the split and of the epochs apart


class Order:
    """The split of the training rows into training and validation, and the order of both.

    The order is a function of these arguments alone, so a cursor (epoch and samples seen) is all that a continued run
    needs, and every rank can take its own slice of a batch.

    Parameters
    ----------
    rows : int
        Rows of the training part, at least 1.
    validation_fraction : float
        Which part of them is set aside, in ``[0, 1)``; above 0 at least one row is, if there are two.
    seed : int
        Another seed gives another split and another order.

    Attributes
    ----------
    train_size, validation_size : int
        Rows to train on, at least 1, and rows set aside; together ``rows``.
    """

    def __init__(self, rows: int, validation_fraction: float, seed: int) -> None:
        if rows < 1 or not 0.0 <= validation_fraction < 1.0:
            raise ValueError(
                f"Order takes at least 1 row and a fraction in [0, 1), got {rows} and {validation_fraction}"
            )
        wished = max(1, round(validation_fraction * rows)) if validation_fraction > 0.0 else 0
        self.validation_size = min(wished, rows - 1)
        self.train_size = rows - self.validation_size
        self._rows = rows
        self._seed = seed

    def train_rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions ``start`` to ``stop`` of an epoch's order, shape (stop - start,), int64.

        Raises
        ------
        ValueError
            The positions do not lie in ``[0, train_size]``.
        """
        _check(start, stop, self.train_size)
        positions = permuted(np.arange(start, stop), self.train_size, self._key(_EPOCH, epoch))
        return self._split(positions + self.validation_size)

    def validation_rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows at positions ``start`` to ``stop`` of the validation part, shape (stop - start,), int64.

        Raises
        ------
        ValueError
            The positions do not lie in ``[0, validation_size]``.
        """
        _check(start, stop, self.validation_size)
        return self._split(np.arange(start, stop))

    def _split(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at places of a shuffle of all rows; its first ``validation_size`` places are set aside."""
        if self.validation_size == 0:
            return positions
        return permuted(positions, self._rows, self._key(_SPLIT, 0))

    def _key(self, salt: int, number: int) -> int:
        """Return a key of 64 bits from the seed, a salt and a number, each of which changes it altogether."""
        inner = hash_integers(np.array([number]), salt)
        return int(hash_integers(inner.view(np.int64), self._seed)[0])


def _check(start: int, stop: int, size: int) -> None:
    if not 0 <= start <= stop <= size:
        raise ValueError(f"positions {start} to {stop} do not lie in [0, {size}]")
