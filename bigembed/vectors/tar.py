"""The files of a tar, read from front to back and in bounded memory: POSIX's ustar and pax, and GNU's long names.

Python's own reader keeps what the headers say and calls itself for each; a small file can make it take hours and gigabytes.
The layout: blocks of 512 bytes, a header (POSIX.1-1988, "ustar") before each file's bytes, which are filled up to a whole block. A
header of the kind x (POSIX.1-2001, "pax") or L (GNU) tells in the bytes behind it what does not fit into the next one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

BLOCK = 512
STEP = 1 << 20  # bytes passed over at a time
HEADERS = 1 << 24  # bytes of all headers, up to the file that is meant
TOLD = 1 << 16  # bytes in which a header tells of the next one
REGULAR, SPARSE, LONG_NAME, PAX = b"0\0" + b"7", b"S", b"L", b"x"
WITHOUT_BYTES = b"123456"  # links, devices, folders, pipes


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


def files(inner: Any) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of every file; ``inner`` then stands at its first byte, from where nobody else may move it.

    Parameters
    ----------
    inner : file
        Stands at the first header; is read, and where it is a plain file moved, forward alone.

    Raises
    ------
    ValueError
        An entry is damaged, cut off, of a kind that is not read, or there are too many of them.
    """
    told, used = dict[bytes, bytes](), 0
    while (block := _exactly(inner, BLOCK, True)) and block.strip(b"\0"):
        header = header_of(block)
        if header is None:
            raise ValueError("what should be the header of an entry is none")
        name, size, used = header.name, header.size, used + BLOCK
        if header.kind in (LONG_NAME, PAX):
            used += size
            if size > TOLD:
                raise ValueError(f"the name of a member takes {size:,} bytes")
            content = _exactly(inner, size + -size % BLOCK)[:size]
            told |= {b"path": _text(content)} if header.kind == LONG_NAME else _pax(content)
        else:
            name = told.get(b"path", name)
            if b"size" in told:
                size = int(told[b"size"])
            if header.kind == SPARSE or any(key.startswith(b"GNU.sparse") for key in told):
                raise ValueError("a member has holes (sparse)")
            told = {}
            size = 0 if header.kind in WITHOUT_BYTES else size
            if header.kind in REGULAR and not name.endswith(b"/"):
                yield name.decode("utf-8", "surrogateescape"), size
            _pass(inner, size + -size % BLOCK)
        if used > HEADERS:
            raise ValueError(f"the names of its members take more than {HEADERS:,} bytes")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int | None:
    """Return a number, in octal digits or (GNU's, for large ones) as it is in memory; None where it is none or negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(_text(field).strip() or b"0", 8)
    except ValueError:
        return None


def _pax(content: bytes) -> dict[bytes, bytes]:
    """Return records "length key=value\\n" by their keys: what is told of name, bytes and holes."""
    found, place = dict[bytes, bytes](), 0
    while place < len(content):
        digits, _, _ = content[place : place + 8].partition(b" ")
        if not digits.isdigit() or not (record := content[place : place + int(digits)]).endswith(b"\n"):
            raise ValueError("what a header tells of the next one is damaged")
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            found[key] = value
        place += int(digits)
    if not found.get(b"size", b"0").isdigit():
        raise ValueError("what a header tells of the next one is damaged")
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
