"""Columns of weights: a number for each value of another column."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.encoders.columns import Column
from bigembed.encoders.encoder import Encoder
from bigembed.errors import UserError
from bigembed.ragged import Ragged


class Weights:
    """Weights by row; see ``open_weights``."""

    def __init__(self, name: str, weights: Ragged) -> None:
        self.name, self._weights = name, weights

    def take(self, rows: np.ndarray) -> Ragged:
        """Return the weights (float32) of ``rows`` (int64)."""
        return self._weights.take(rows)

    def contents(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        """Yield the lengths (int64) and the weights (float32) of all rows, for a checksum."""
        yield self._weights.lengths, [self._weights.values]

    def check(self, encoder: Encoder, column: Column, feature: str, part: str) -> None:
        """Refuse weights that are not one for each value of ``column``.

        Raises
        ------
        UserError
            Naming the first row where they are not.
        """
        row, lengths = 0, self._weights.lengths
        for spans in column.blocks():
            values = encoder.encode_spans(spans, encoder.dtype).tokens
            wrong = np.flatnonzero(values != lengths[row : row + len(values)])
            if len(wrong):
                first = row + int(wrong[0])
                raise UserError(
                    f"feature '{feature}': row {first} of the {part} has {lengths[first]} weights in column '{self.name}' for "
                    f"{values[wrong[0]]} values in column '{column.name}'; give one for each value"
                )
            row += len(values)


def open_weights(array: pa.Array | pa.ChunkedArray, name: str) -> Weights:
    """Return a column of weights: of numbers, or of lists of numbers.

    Raises
    ------
    UserError
        It is of another type; or there are nulls, or numbers that are not finite.
    """
    whole: Any = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(whole, pa.ChunkedArray):  # without chunks
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    if whole.null_count:
        raise UserError(f"column '{name}' has no weights (null) in {whole.null_count} of {len(whole)} rows; fill them")
    types = pa.types
    if types.is_list(whole.type) or types.is_large_list(whole.type) or types.is_fixed_size_list(whole.type):
        lengths = whole.value_lengths() if not types.is_fixed_size_list(whole.type) else None
        counts = (
            np.full(len(whole), whole.type.list_size)
            if lengths is None
            else np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
        )
        values = whole.flatten()
    else:
        values, counts = whole, np.ones(len(whole), np.int64)
    if not (types.is_floating(values.type) or types.is_integer(values.type)):
        raise UserError(
            f"column '{name}' holds {whole.type}, not weights; name a column of numbers, or of lists of them"
        )
    numbers = np.asarray(values.cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    if not np.isfinite(numbers).all():
        row = int(np.searchsorted(offsets, np.flatnonzero(~np.isfinite(numbers))[0], "right")) - 1
        raise UserError(f"column '{name}' has a weight in row {row} that is missing or not finite; mend it")
    return Weights(name, Ragged(numbers, offsets))
