"""Files of plain arrays: .npy and safetensors; the words stand beside them, one a line."""

import ast
import io
import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.vectors.array_source import BFLOAT16, ArraySource
from bigembed.vectors.blocks import Vectors
from bigembed.vectors.shown import shown
from bigembed.vectors.source import Source
from bigembed.vectors.streams import Stream

LINES = 1 << 16  # words written at once
TENSOR = "embedding"  # the name of the array in a safetensors file

NPY_MAGIC = b"\x93NUMPY"
NPY_HEADER = 1 << 16  # bytes; a header of two numbers takes some hundred
NPY_FLOATS = re.compile(r"[<>=]?f[248]")
TENSORS_HEADER_ALLOWED = 100_000_000  # bytes, by the library
TENSORS_HEADER = 1 << 22  # that are read; as Python objects they take some twenty times as much
TENSOR_FLOATS = {"F16": "<f2", "BF16": BFLOAT16, "F32": "<f4", "F64": "<f8"}
# What a table of vectors is called where it is not alone: by us, model2vec, torch.
USUAL = (TENSOR, "embeddings", "embedding.weight", "embeddings.weight", "weight", "vectors")
NAMED = 8  # tensors in a message


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


def begins_npy(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` is a .npy file."""
    return head.startswith(NPY_MAGIC)


def open_npy(stream: Stream, word_list: str | None = None) -> Source:
    """Open a .npy file of floats.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        The file of its words; None: what lies beside it, if any.

    Raises
    ------
    UserError
        When it is no array of float16, float32 or float64 with two dimensions, stored row by row, or it was cut.
    """
    with stream.open() as reader:
        version = reader.read(len(NPY_MAGIC) + 2)[-2:]
        wide = 2 if version == b"\x01\x00" else 4  # bytes of the header's length
        size = int.from_bytes(reader.read(wide), "little")
        text = reader.read(size) if version in (b"\x01\x00", b"\x02\x00", b"\x03\x00") and size <= NPY_HEADER else b""
    descr, by_columns, shape = _npy_header(stream.path, text)
    if not isinstance(descr, str) or not NPY_FLOATS.fullmatch(descr):
        raise UserError(
            f"{stream.path} holds numbers of the type '{shown(descr)}'; vectors are float16, float32 or float64: save it as one of these"
        )
    if by_columns and len(shape) > 1:
        raise UserError(f"{stream.path} is stored column by column; save numpy.ascontiguousarray of the array")
    return ArraySource(stream, "numpy", shape, descr, len(NPY_MAGIC) + 2 + wide + size, 0, word_list, {})


def _npy_header(path: str, text: bytes) -> tuple[Any, bool, tuple[int, ...]]:
    """Return the type, whether columns are stored and not rows, and the shape, from a dictionary as Python writes it."""
    try:
        if b"\\" in text:  # which no header has, and Python warns of
            raise ValueError
        # Python 2 wrote an L behind large numbers.
        header = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text.decode("latin-1")).strip(" \t\n"))
        descr, by_columns, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        descr, by_columns, shape = None, None, None
    if not isinstance(by_columns, bool) or not _are_counts(shape, tuple):
        raise UserError(f"{path}: the header of this .npy file cannot be read; the file is damaged")
    return descr, by_columns, shape


def begins_safetensors(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins with ``head`` is a safetensors file: the length of its header, then an object of JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= TENSORS_HEADER_ALLOWED


def open_safetensors(stream: Stream, word_list: str | None = None) -> Source:
    """Open the table of vectors in a safetensors file: the only one of floats, or the only one with a usual name.

    Parameters
    ----------
    stream : Stream
    word_list : str or None
        The file of its words; None: what lies beside it, if any.

    Raises
    ------
    UserError
        When there is no such table, or more than one, or the file was cut or is damaged.
    """
    tensors, start, size = _tensors(stream)
    tables = [name for name, entry in tensors.items() if entry["dtype"] in TENSOR_FLOATS and len(entry["shape"]) == 2]
    chosen = tables if len(tables) == 1 else [name for name in tables if name in USUAL]
    if len(chosen) != 1:
        known = [
            f"{shown(name)} ({shown(tensors[name]['dtype'])}, {shown(tensors[name]['shape'])})"
            for name in islice(tensors, NAMED)
        ]
        said = "; ".join(known) + ("; …" if len(tensors) > NAMED else "")
        raise UserError(
            f"{stream.path} does not tell which tensor holds the vectors; save it alone, or as '{TENSOR}', with two dimensions of "
            f"F16, BF16, F32 or F64; there are: {said or 'none'}"
        )
    entry = tensors[chosen[0]]
    begin, end = entry["data_offsets"]
    return ArraySource(
        stream,
        "safetensors",
        tuple(entry["shape"]),
        TENSOR_FLOATS[entry["dtype"]],
        start + begin,
        size - end,
        word_list,
        {"tensor": chosen[0]},
    )


def _tensors(stream: Stream) -> tuple[dict[str, dict[str, Any]], int, int]:
    """Return what the header says of every tensor, the byte from which it counts their places, and the bytes of all."""
    with stream.open() as reader:
        size = int.from_bytes(reader.read(8), "little")
        if size > TENSORS_HEADER:
            raise UserError(
                f"{stream.path}: the header of this safetensors file is to take {size:,} bytes; up to {TENSORS_HEADER:,} are read"
            )
        text = reader.read(size)
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        known = all(map(_is_tensor, tensors.values()))
    except (ValueError, TypeError, AttributeError, RecursionError):
        known = False
    if not known:
        raise UserError(
            f"{stream.path}: the header of this safetensors file cannot be read; the file is damaged or was cut"
        )
    numbers = _end_of(tensors, stream.path)
    end = 8 + size + numbers
    if end > stream.most or (stream.file is not None and end < stream.size):
        raise UserError(
            f"{stream.path}: its header says that it ends at byte {end:,}, but it has {stream.size:,}: it was cut, or is damaged"
        )
    return tensors, 8 + size, numbers


def _is_tensor(entry: Any) -> bool:
    """Whether an entry of the header is one of a tensor, whose place has room for its numbers."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    shape, place = entry["shape"], entry["data_offsets"]
    if (
        not _are_counts(shape, list)
        or not _are_counts(place, list)
        or len(place) != 2
        or not isinstance(entry["dtype"], str)
    ):
        return False
    bits = re.search(r"\d+", entry["dtype"])
    return bits is None or 8 * (place[1] - place[0]) == math.prod(shape) * int(bits[0])


def _end_of(tensors: dict[str, dict[str, Any]], path: str) -> int:
    """Return where the last tensor ends; one lies behind the other, without a gap."""
    places: list[list[int]] = [entry["data_offsets"] for entry in tensors.values()]
    end = 0
    for begin, following in sorted(places):
        if begin != end or following < begin:
            raise UserError(
                f"{path}: its header has tensors that overlap or leave a gap at byte {end:,}; the file is damaged"
            )
        end = following
    return end


def _are_counts(numbers: Any, kind: type[list[Any]] | type[tuple[Any, ...]]) -> bool:
    return isinstance(numbers, kind) and all(type(number) is int and 0 <= number < 1 << 48 for number in numbers)
