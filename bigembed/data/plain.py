"""Numbers between Arrow and numpy, sharing their memory; Arrow's own ways import pandas, which takes longer than most data."""

import numpy as np
import pyarrow as pa


def as_arrow(values: np.ndarray, there: np.ndarray | None = None) -> pa.Array:
    """Return numbers as an Arrow array.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Numbers; copied where they do not lie side by side.
    there : ndarray, shape (n,), bool, optional
        Which of them are not null; by default all.
    """
    valid = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))]
    )


def as_numpy(array: pa.Array) -> np.ndarray:
    """Return the numbers of an Arrow array without nulls; they cannot be written to."""
    dtype = np.dtype(array.type.to_pandas_dtype())  # a type of numpy
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def texts(words: list[str]) -> pa.Array:
    """Return an Arrow array of texts."""
    letters = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, letters)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(ends), pa.py_buffer(b"".join(letters)))
