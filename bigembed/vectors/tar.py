"""The files of a tar, read from front to back and in bounded memory: POSIX's ustar and pax, and GNU's long names.

Python's own reader keeps what the headers say and calls itself for each; a small file can make it take hours and gigabytes.
The layout: blocks of 512 bytes, a header (POSIX.1-1988, "ustar") before each file's bytes, which are filled up to a whole block. A
header of the kind x (POSIX.1-2001, "pax") or L (GNU) tells in the bytes behind it what does not fit into the next one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from bigembed.errors import UserError
from bigembed.vectors.shown import shown

BLOCK = 512
STEP = 1 << 20  # bytes passed over at a time
HEADERS = 1 << 24  # bytes of all headers, up to the file that is meant
TOLD = 1 << 16  # bytes in which a header tells of the next one
REGULAR, SPARSE = b"\x00" + b"07", b"S"
LONG_NAME, TELLING = b"L", b"LxX"  # of the next entry
WITHOUT_BYTES = b"123456"  # links, devices, folders, pipes
HOLES = b"GNU.sparse"


class Header(NamedTuple):
    """What the header of an entry says."""

    name: bytes
    size: int
    kind: bytes


def header_of(block: bytes) -> Header | None:
    """Return what a block of 512 bytes says as a header; None where it is none."""
    magic, kind = block[257:263], block[156:157]
    said, size = _number(block[148:156]), _number(block[124:136])
    if len(block) < BLOCK or magic[:5] != b"ustar" or said is None or size is None:
        return None
    if said != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
        return None
    name, prefix = _text(block[:100]), _text(block[345:500]) if magic[5:] == b"\0" else b""
    return Header(prefix + b"/" + name if prefix else name, size, kind)


def files(inner: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of every file; ``inner`` then stands at its first byte, from where nobody else may move it.

    Parameters
    ----------
    inner : file
        Stands at the first header; is read, and where it is a plain file moved, forward alone.
    path : str
        What messages call it.

    Raises
    ------
    ValueError
        An entry is damaged or cut off.
    UserError
        There are too many entries, or a file has holes.
    """
    told, used = dict[bytes, bytes](), 0
    while (block := _exactly(inner, BLOCK, True)) and block.strip(b"\0"):
        header = header_of(block)
        if header is None:
            raise ValueError("what should be the header of an entry is none")
        name, size, used = header.name, header.size, used + BLOCK
        if header.kind in TELLING:
            used += size
            if size > TOLD:
                raise ValueError(f"the name of a member takes {size:,} bytes")
            content = _exactly(inner, size + -size % BLOCK)[:size]
            told |= {b"path": _text(content)} if header.kind == LONG_NAME else _pax(content)
        else:
            if header.kind == SPARSE or HOLES in told:
                raise UserError(
                    f"{path}: its member '{shown(name.decode(errors='replace'))}' is stored with holes (sparse); unpack it first"
                )
            name, size = told.get(b"path", name), int(told.get(b"size", size))
            size = 0 if header.kind in WITHOUT_BYTES else size
            told = {}
            if header.kind in REGULAR and not name.endswith(b"/"):
                yield name.decode("utf-8", "surrogateescape"), size
            _pass(inner, size + -size % BLOCK)
        if used > HEADERS:
            raise UserError(f"{path}: is a tar of so many files that only an unpacked one can be read; unpack it")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int | None:
    """Return a number, in octal digits or (GNU's, for large ones) as in memory; None where it is none, or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = _text(field).strip(b" ") or b"0"
    return None if digits.strip(b"01234567") else int(digits, 8)


def _pax(content: bytes) -> dict[bytes, bytes]:
    """Return what lines "length key=value" tell of a name, of how many bytes, and of holes."""
    found, place = dict[bytes, bytes](), 0
    while place < len(content):
        digits, space, _ = content[place : place + 9].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[place : place + length]
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        if not space or len(record) < max(length, 1) or (key == b"size" and not value.isdigit()):
            raise ValueError("what a header tells of the next one is damaged")
        if key in (b"path", b"size"):
            found[key] = value
        elif key.startswith(HOLES):
            found[HOLES] = value
        place += length
    return found


def _exactly(inner: Any, count: int, may_end: bool = False) -> bytes:
    """Return the next bytes, or none where the file ends there and may."""
    parts, left = [], count
    while left and (part := inner.read(left)):
        parts.append(part)
        left -= len(part)
    if left and not (may_end and left == count):
        raise ValueError("it ends within an entry")
    return b"".join(parts)


def _pass(inner: Any, count: int) -> None:
    if inner.seekable() and count:
        inner.seek(count - 1, 1)
        count = 1
    while count:
        count -= len(_exactly(inner, min(count, STEP)))
