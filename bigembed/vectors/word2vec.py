"""word2vec's files: a line "count dim", then a word and its numbers, as text or as float32 (Mikolov et al. 2013)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError
from bigembed.vectors.blocks import Vectors

# What Unicode or Python's str.split() takes for white space: readers of these files split at one or the other.
UNFIT = r"[\s\v\x1c-\x1f\x{85}\p{Z}]|^$"


def write_text(vectors: Vectors) -> Iterator[bytes | pa.Buffer]:
    """Yield the bytes of the text file; every number is the shortest that reads back as the same float32.

    Raises
    ------
    UserError
        When the rows have no words, or a word cannot stand in the format.
    """
    yield _header(vectors)
    for words, rows in vectors.blocks():
        assert words is not None  # the header has seen to that
        numbers = [pc.cast(pa.array(column), pa.string()) for column in rows.T]
        yield _joined([words.cast(pa.string()), *numbers], pa.string())


def write_binary(vectors: Vectors) -> Iterator[bytes | pa.Buffer]:
    """Yield the bytes of the binary file.

    Raises
    ------
    UserError
        When the rows have no words, or a word cannot stand in the format.
    """
    yield _header(vectors)
    for words, rows in vectors.blocks():
        assert words is not None
        width = rows.shape[1] * 4
        numbers = pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])
        yield _joined([words.cast(pa.binary()), numbers.cast(pa.binary())], pa.binary())


def _header(vectors: Vectors) -> bytes:
    if vectors.words is None:
        raise UserError(
            "the rows of this table stand for no words, which word2vec's formats need; give words=FILE, or use "
            "format=safetensors or numpy"
        )
    unfit = pc.filter(vectors.words, pc.match_substring_regex(vectors.words, UNFIT))
    if len(unfit):
        raise UserError(
            f"{unfit[0].as_py()!r} is empty or holds white space, which a word of word2vec's formats cannot; use "
            f"format=safetensors or numpy"
        )
    return "{} {}\n".format(*vectors.shape).encode()


def _joined(columns: list[pa.Array], kind: pa.DataType) -> pa.Buffer:
    """Return the columns' entries with spaces between and a line end behind, as one run of bytes."""
    space, newline, nothing = (pa.scalar(text).cast(kind) for text in (" ", "\n", ""))
    lines = pc.binary_join_element_wise(*columns, space)
    lines = pc.binary_join_element_wise(lines, newline, nothing)
    lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    offsets = np.frombuffer(lines.buffers()[1], np.int32)
    start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return lines.buffers()[2].slice(int(start), int(end - start))
