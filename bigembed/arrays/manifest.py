"""What a checkpoint consists of: the size and checksum of every file, for arrays block by block."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bigembed.errors import UserError

NAME = "manifest.json"
FORMAT = 2
CHECKSUM = "xxh3_64"
STORED_AS = {"bfloat16": "uint16"}  # numpy has no bfloat16: its bits are stored


class Damaged(UserError):
    """A checkpoint that is not what was written; the one before it may be whole."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}; the checkpoint is damaged, use another one")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between ranks as the finished sentence."""
        return _rebuilt, (str(self),)


def _rebuilt(text: str) -> Damaged:
    error = Damaged.__new__(Damaged)
    error.args = (text,)
    return error


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of an array, and the checksum (XXH3, 64 bit, hexadecimal) of its numbers row by row."""

    row: int
    column: int
    rows: int
    columns: int
    checksum: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A small file: its bytes and their checksum."""

    size: int
    checksum: str

    def read(self, path: Path) -> bytes:
        """Return the content of the file.

        Raises
        ------
        Damaged
            When it is missing, cut or changed.
        """
        check_size(path, self.size)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror})") from None
        if xxhash.xxh3_64_hexdigest(content) != self.checksum:
            raise Damaged(path, "is not what was written (its checksum differs)")
        return content

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain values."""
        return {"bytes": self.size, CHECKSUM: self.checksum}


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """A .npy file of an array with up to two dimensions.

    Attributes
    ----------
    size : int
        The bytes of the file.
    header : str
        The checksum of what stands before the numbers.
    dtype : str
        What the numbers are: numpy's name, or "bfloat16".
    shape : tuple of int
        The shape of the array.
    blocks : tuple of Block
        Rectangles that together are the array, each number in one of them.
    """

    size: int
    header: str
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain values, the blocks' places with as many numbers as the array has dimensions."""
        count = len(self.shape)
        blocks = [
            {
                "start": [block.row, block.column][:count],
                "shape": [block.rows, block.columns][:count],
                CHECKSUM: block.checksum,
            }
            for block in self.blocks
        ]
        return {
            "bytes": self.size,
            "header": self.header,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "blocks": blocks,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a checkpoint by their names."""

    arrays: dict[str, ArrayEntry]
    files: dict[str, FileEntry]

    def as_json(self) -> bytes:
        """Return the content of manifest.json."""
        entries = {name: array.as_dict() for name, array in self.arrays.items()}
        entries |= {name: file.as_dict() for name, file in self.files.items()}
        return json.dumps({"format": FORMAT, "files": entries}, indent=1).encode()

    @staticmethod
    def load(path: Path) -> "Manifest":
        """Return the manifest of the checkpoint at ``path``.

        Raises
        ------
        Damaged
            When there is none, or it is none.
        UserError
            When the checkpoint is of another format.
        """
        try:
            content = json.loads((path / NAME).read_bytes())
            if content["format"] != FORMAT:
                raise UserError(
                    f"{path} is a checkpoint of format {content['format']}; this bigembed reads format {FORMAT}"
                )
            arrays = {name: _array(entry) for name, entry in content["files"].items() if "blocks" in entry}
            files = {
                str(name): FileEntry(int(entry["bytes"]), str(entry[CHECKSUM]))
                for name, entry in content["files"].items()
                if name not in arrays
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise Damaged(path, f"has no readable {NAME}") from None
        return Manifest(arrays, files)

    def file(self, path: Path, name: str) -> bytes:
        """Return the content of a small file of the checkpoint at ``path``.

        Raises
        ------
        Damaged
            When it is missing, cut or changed.
        """
        if name not in self.files:
            raise Damaged(path / NAME, f"does not name {name}")
        return self.files[name].read(path / name)


def check_size(path: Path, size: int) -> None:
    """Refuse a file that is missing or not of ``size`` bytes, as Damaged."""
    try:
        found = path.stat().st_size
    except OSError:
        raise Damaged(path, "is missing") from None
    if found != size:
        raise Damaged(path, f"has {found:,} bytes instead of {size:,}")


def stored_dtype(dtype: str) -> np.dtype:
    """Return the numbers by which those of ``dtype`` are stored."""
    return np.dtype(STORED_AS.get(dtype, dtype))


def rectangle(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of an array of at most two dimensions; a list of numbers is a column."""
    rows, columns = (*shape, 1, 1)[:2]
    return rows, columns


def covers(shape: tuple[int, ...], blocks: Iterable[Block]) -> bool:
    """Whether blocks hold every number of an array of ``shape`` once."""
    rows, columns = rectangle(shape)
    area, beside = 0, list[Block]()  # those that reach down to the present row
    for block in sorted(blocks, key=lambda block: (block.row, block.column)):
        if min(block.row, block.column) < 0 or min(block.rows, block.columns) < 1:
            return False
        if block.row + block.rows > rows or block.column + block.columns > columns:
            return False
        beside = [other for other in beside if other.row + other.rows > block.row]
        if any(
            other.column < block.column + block.columns and block.column < other.column + other.columns
            for other in beside
        ):
            return False
        beside.append(block)
        area += block.rows * block.columns
    return area == rows * columns


def _array(entry: dict[str, Any]) -> ArrayEntry:
    shape = tuple(map(int, entry["shape"]))
    blocks = tuple(_block(block) for block in entry["blocks"])
    if len(shape) > 2 or not covers(shape, blocks):
        raise ValueError("the blocks are not the array")
    stored_dtype(entry["dtype"])  # TypeError where there is none of that name
    return ArrayEntry(int(entry["bytes"]), str(entry["header"]), str(entry["dtype"]), shape, blocks)


def _block(entry: dict[str, Any]) -> Block:
    row, column = (*map(int, entry["start"]), 0, 0)[:2]
    rows, columns = rectangle(tuple(map(int, entry["shape"])))
    return Block(row, column, rows, columns, str(entry[CHECKSUM]))
