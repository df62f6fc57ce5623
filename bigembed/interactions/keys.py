"""Columns of ids of any type as one of two: whole numbers (int64) or texts, in blocks, without nulls."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError

NUMBERS, TEXTS = pa.int64(), pa.large_string()
BLOCK = 1 << 18  # rows


def type_of(values: pa.ChunkedArray, where: str) -> pa.DataType:
    """Return ``NUMBERS`` or ``TEXTS``, whichever a column of ids holds.

    Raises
    ------
    UserError
        It holds something else; ``where`` is what the message calls it.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):  # all rows are null or there are none: blocks tells
        return NUMBERS
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return TEXTS
    raise UserError(
        f"{where} holds {values.type}, and ids are whole numbers or texts: convert it, or name another column."
    )


def blocks(values: pa.ChunkedArray, kind: pa.DataType, where: str) -> Iterator[pa.Array]:
    """Yield the rows of a column of ids in order as arrays of type ``kind``, at most ``BLOCK`` rows each.

    Raises
    ------
    UserError
        A row is null, or a number does not fit into 64 bits with a sign; ``where`` is what the message calls the column.
    """
    start = 0
    for chunk in values.chunks:
        for begin in range(0, len(chunk), BLOCK):
            block = chunk.slice(begin, BLOCK)
            if pa.types.is_dictionary(block.type):
                block = block.cast(block.type.value_type)
            if block.null_count:
                row = start + pc.index(pc.is_null(block), True).as_py()
                count = max(block.null_count, values.null_count)
                raise UserError(f"Row {row:,} of {where} is null, as are {count:,} of {len(values):,} rows; drop them.")
            try:
                yield block.cast(kind)
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"{where} holds ids beyond 64 bits with a sign ({error}): convert them to texts."
                ) from None
            start += len(block)


def numbers_of(array: pa.Array) -> np.ndarray:
    """Return an array of ``NUMBERS`` without nulls in its own memory, which cannot be written to; Arrow's own way imports pandas."""
    if not len(array):
        return np.empty(0, np.int64)
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: len(array)]


def texts_of(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes (uint8) and the offsets (int64, one more than texts) of an array of ``TEXTS`` without nulls, likewise."""
    if not len(array):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, contents = array.buffers()
    letters = np.empty(0, np.uint8) if contents is None or not contents.size else np.frombuffer(contents, np.uint8)
    return letters, np.frombuffer(offsets, np.int64)[array.offset :][: len(array) + 1]


def as_arrow(numbers: np.ndarray) -> pa.Array:
    """Return int64 numbers as an Arrow array over the same memory."""
    return pa.Array.from_buffers(NUMBERS, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])
