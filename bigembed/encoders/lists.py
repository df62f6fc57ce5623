"""Lists in Arrow's memory: where those of a chunk lie, and in which of them a value stands."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bigembed.encoders.columns import Layout, address, refuse_nulls


def is_list(kind: pa.DataType) -> bool:
    """Return whether rows of a type are lists: plain, large, or of a fixed size."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def list_layout(chunk: pa.Array, values: int, item: int) -> Layout:
    """Return where the lists of a chunk lie, whose values begin at ``values`` and take ``item`` bytes each."""
    if pa.types.is_fixed_size_list(chunk.type):
        size = item * chunk.type.list_size
        return Layout(-1, 0, values + size * chunk.offset, size)
    width = _offset_type(chunk).itemsize
    return Layout(width, address(chunk.buffers()[1]) + width * chunk.offset, values, item)


def values_of(chunk: pa.Array) -> pa.Array:
    """Return the values of the rows of a chunk, which may be lists, and no others."""
    if not is_list(chunk.type):
        return chunk
    if pa.types.is_fixed_size_list(chunk.type):
        size = chunk.type.list_size
        return chunk.values.slice(size * chunk.offset, size * len(chunk))
    offsets = _offsets(chunk)
    return chunk.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def rows_of(chunk: pa.Array, places: np.ndarray) -> np.ndarray:
    """Return the rows of a chunk in which some of its ``values_of`` lie."""
    if not is_list(chunk.type):
        return places
    if pa.types.is_fixed_size_list(chunk.type):
        return places // chunk.type.list_size
    offsets = _offsets(chunk)
    return np.searchsorted(offsets, places + offsets[0], "right") - 1


def null_rows(chunk: pa.Array) -> np.ndarray:
    """Return the rows of a chunk that are null; a dictionary may also say so by an entry that is."""
    null = np.flatnonzero(chunk.is_null()) if chunk.null_count else np.empty(0, np.int64)
    if pa.types.is_dictionary(chunk.type) and chunk.dictionary.null_count:
        return np.flatnonzero(chunk.dictionary_decode().is_null())
    return null


def refuse_lists(name: str, chunks: Sequence[pa.Array], what: str) -> None:
    """Refuse the column ``name`` of lists if one is null, or has a null in it: ``what`` that then is missing.

    Raises
    ------
    UserError
        With the number of such rows, and the first of them.
    """
    refuse_nulls(
        name, chunks, [null_rows(chunk) for chunk in chunks], "no list", "fill them, for example with empty lists"
    )
    holes = [np.unique(rows_of(chunk, null_rows(values_of(chunk)))) for chunk in chunks]
    refuse_nulls(name, chunks, holes, f"{what} missing", "leave it out of the list")


def _offset_type(chunk: pa.Array) -> np.dtype:
    return np.dtype(np.int64 if pa.types.is_large_list(chunk.type) else np.int32)


def _offsets(chunk: pa.Array) -> np.ndarray:
    """Return where each list begins in the values, and where the last one ends."""
    kind = _offset_type(chunk)
    return np.frombuffer(chunk.buffers()[1], kind, len(chunk) + 1, kind.itemsize * chunk.offset)
