"""Files of plain arrays: .npy and safetensors; the words stand beside them, one a line."""

import io
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors

LINES = 1 << 16  # words written at once
TENSOR = "embedding"  # the name of the array in a safetensors file


def write_numpy(vectors: Vectors) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a .npy file of float32."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": vectors.shape})
    yield header.getvalue()
    for _, rows in vectors.blocks():
        yield rows.data.cast("B")


def write_safetensors(vectors: Vectors) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file with one float32 tensor, "embedding".

    The library writes tensors that are in memory as a whole; this streams. The layout: the header's length in eight
    bytes, the header, the numbers.
    """
    count, width = vectors.shape
    entry = {"dtype": "F32", "shape": [count, width], "data_offsets": [0, 4 * count * width]}
    header = json.dumps({"__metadata__": {"format": "pt"}, TENSOR: entry}).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little") + header
    for _, rows in vectors.blocks():
        yield rows.data.cast("B")


def write_words(vectors: Vectors) -> Iterator[bytes]:
    """Yield the bytes of the file of words that stands beside an array: one word a line, in UTF-8.

    Raises
    ------
    UserError
        When a word holds a line end.
    """
    words = pa.array([], pa.string()) if vectors.words is None else vectors.words
    unfit = pc.filter(words, pc.match_substring_regex(words, r"[\r\n]"))
    if len(unfit):
        raise UserError(f"{unfit[0].as_py()!r} holds a line end, so the words cannot stand one a line beside the array")
    for start in range(0, len(words), LINES):
        yield "".join(f"{word}\n" for word in words.slice(start, LINES).to_pylist()).encode()
