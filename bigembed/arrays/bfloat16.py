"""Numbers that numpy does not know."""

from typing import Any

import numpy as np


class Bfloat16:
    """An array of bfloat16 numbers, indexed like one of float32.

    Parameters
    ----------
    bits : ndarray, uint16
        The numbers' bits, the upper halves of those of the same numbers in float32; memory-mapped as a rule.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, bits: np.ndarray) -> None:
        self.bits = bits

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.bits.shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.bits)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return the chosen numbers as float32."""
        return (np.asarray(self.bits[key]).astype(np.uint32) << 16).view(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all numbers, as float32 unless ``dtype`` says otherwise."""
        if copy is False:
            raise ValueError("numbers of bfloat16 become float32 by a copy")
        whole = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)
