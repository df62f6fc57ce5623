"""Files of plain arrays: .npy and safetensors; the words stand beside them, one a line."""

import io
import json
from collections.abc import Iterator

import numpy as np

from bigembed.vectors.blocks import Vectors

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
