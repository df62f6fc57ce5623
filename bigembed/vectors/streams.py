"""A file of vectors as a stream of bytes, whatever it is packed in: gz, bz2, xz, zst, zip and tar, told by their first bytes.

A packed file is read with bounded memory, and refused where it grows without measure: a few kilobytes can be made to stand for as
many terabytes.
"""

import io
import lzma
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bigembed.errors import UserError
from bigembed.vectors import tar
from bigembed.vectors.shown import shown

STEP = 1 << 20  # bytes asked for at a time
FREE = 256 << 20  # what any packed file may hold
GROWTH = 300  # times its size on the disk that it may hold beyond that; text of numbers packs to a third
DEEPEST = 4  # a tar in a zip is two
NAME = 200  # characters of a member's name in a message
XZ_STEP = 1 << 16
XZ_PARTS = 1 << 12
XZ_MEMORY = 160 << 20  # xz -9 takes 65 MiB
DIRECTORY = 1 << 20  # bytes of a zip's list of members

_MAGIC = {
    b"\x1f\x8b\x08": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}


@dataclass(slots=True)
class Stream:
    """The bytes of a file of vectors, unpacked.

    Attributes
    ----------
    path : str
        What messages call it: FILE, or ARCHIVE::MEMBER.
    disk : Path
        The file on the disk.
    size : int
        Its bytes, as it is.
    layers : tuple of (kind, member)
        What it is packed in, from the outside in; the member's name is empty where there are no members.
    consumed : int
        Bytes of the file on the disk that the last reader has read so far.
    """

    path: str
    disk: Path
    size: int
    layers: tuple[tuple[str, str], ...] = ()
    consumed: int = 0

    @property
    def compression(self) -> str | None:
        """What it is packed in, as the ending of a name has it ("tar.gz"); None for a plain file."""
        return ".".join(kind for kind, _ in reversed(self.layers)) or None

    @property
    def file(self) -> Path | None:
        """The file, where its bytes are on the disk as they are."""
        return None if self.layers else self.disk

    @property
    def most(self) -> int:
        """How many bytes it may hold; a header that promises more lies."""
        return max(FREE, GROWTH * self.size) if self.layers else self.size

    def open(self) -> "Reader":
        """Return a reader at the first byte.

        Raises
        ------
        UserError
            When the file cannot be opened or unpacked.
        """
        return Reader(self)


class Reader:
    """Bytes of a stream from front to back; a context manager.

    Raises
    ------
    UserError
        From every method, where the file cannot be read or unpacked, with the byte.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._stack = stream, ExitStack()
        self._file: Any = None
        try:
            self._inner = self.guarded(stream.compression, self._open)
        except UserError:
            self.close()
            raise
        stream.consumed = 0

    def read(self, count: int) -> bytes:
        """Return the next bytes: as many as asked for, fewer at the end of the stream alone."""
        parts = []
        while count > 0:
            part = bytearray(min(count, STEP))
            got = self.readinto(part)
            parts.append(bytes(part[:got]) if got < len(part) else bytes(part))
            count = count - got if got == len(part) else 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes and return how many they are; fewer than fit at the end of the stream alone."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            got = self.guarded(self._stream.compression, self._inner.readinto, view[done : done + STEP])
            if not got:
                break
            done += got
        self._stream.consumed = self._file.tell()
        return done

    def skip(self, count: int) -> int:
        """Pass over bytes and return how many there were."""
        if not self._stream.layers:
            here = self._file.tell()
            self._file.seek(min(here + count, max(here, self._stream.size)))
            self._stream.consumed = self._file.tell()
            return self._file.tell() - here
        waste, done = bytearray(min(count, STEP)), 0
        while done < count:
            got = self.readinto(memoryview(waste)[: count - done])
            done += got
            if not got:
                break
        return done

    def finish(self) -> None:
        """Read what is left, if it is packed: the checksum, behind all of it, is then looked at."""
        while self._stream.layers and self.skip(STEP):
            pass

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Any:
        inner: Any = self._stack.enter_context(io.FileIO(self._stream.disk))
        self._file = inner
        for kind, member in self._stream.layers:
            unpacked = _UNPACK[kind](inner, member)
            self._stack.callback(unpacked.close)
            inner = _Bounded(unpacked, self._stream)
        return inner

    def names(self, kind: str, member: str) -> list[str]:
        """Return the names of the files in the archive that the stream is, up to the member that is meant."""
        packed = ".".join(filter(None, (kind, self._stream.compression)))
        return self.guarded(packed, _names, kind, self._inner, member)

    def guarded(self, packed: str | None, act: Callable[..., Any], *arguments: Any) -> Any:
        """Return what an action returns; what Python's and Arrow's unpacking raises on damage is no fixed list."""
        stream = self._stream
        try:
            return act(*arguments)
        except UserError:
            raise
        except Exception as error:
            reason = shown(getattr(error, "strerror", None) or str(error) or type(error).__name__, 100).rstrip(".")
            if packed is None or self._file is None:
                raise UserError(f"{stream.path}: cannot be read: {reason}") from None
            byte = self._file.tell()
            raise UserError(
                f"{stream.path}: cannot be unpacked ({packed}) near byte {byte:,} of {stream.size:,}: {reason}; "
                f"the file is damaged or cut short, so fetch it again"
            ) from None


def open_stream(path: str) -> Stream:
    """Return the stream of a file, or of ARCHIVE::MEMBER; nothing but its first bytes (and an archive's members) is read.

    Raises
    ------
    UserError
        When there is no such file, it cannot be unpacked, or an archive does not tell which of its files is meant.
    """
    disk, member = _split(path)
    try:
        status = os.stat(disk)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file, and it is read more than once"
        raise UserError(f"{path}: is {what}; name a file of vectors")
    stream = Stream(path, Path(disk), status.st_size)
    for _ in range(DEEPEST + 1):
        with stream.open() as reader:
            kind = _kind(reader.read(512))
        if kind is None:
            if member:
                raise UserError(f"{path}: {disk} is no archive, so it has no members; leave {'::' + member!r} away")
            stream.consumed = 0
            return stream
        chosen = ""
        if kind in ("zip", "tar"):
            chosen, member = _choose(stream, kind, member), ""
            stream.path = f"{disk}::{shown(chosen, NAME)}"
        stream.layers += ((kind, chosen),)
    raise UserError(f"{path}: is packed more than {DEEPEST} times over; unpack it first")


def _split(path: str) -> tuple[str, str]:
    """Return the file and the member that ARCHIVE::MEMBER names; a file's own name may have colons."""
    archive, colons, member = path.partition("::")
    while colons and not os.path.lexists(path):
        if os.path.lexists(archive):
            return archive, member
        more, colons, member = member.partition("::")
        archive = f"{archive}::{more}"
    return path, ""


def _kind(head: bytes) -> str | None:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return None if tar.header_of(head) is None else "tar"


def _choose(stream: Stream, kind: str, member: str) -> str:
    """Return the name of the file in an archive that is meant: the one that is named, or the only one."""
    with stream.open() as reader:
        names = reader.names(kind, member)
    if any(name.endswith("data.pkl") for name in names):
        raise UserError(
            f"{stream.path}: was written by torch.save; pickles are not read, as they may run any code: save the array with "
            f"safetensors or numpy.save, and its words one a line beside it"
        )
    if member in names:
        return member
    files = [name for name in names if not _beside(name)] or names
    if len(files) == 1 and not member:
        return files[0]
    if not files:
        raise UserError(f"{stream.path}: is an archive without files")
    named = ", ".join(shown(name, NAME) for name in files[:10]) + (", …" if len(files) > 10 else "")
    wrong = f"has no member {member!r}" if member else f"is an archive of {len(files)} files"
    raise UserError(f"{stream.path}: {wrong}; name one of them as {stream.disk}::MEMBER: {named}")


def _beside(name: str) -> bool:
    """Whether a file of an archive is not what the archive is for."""
    last = name.rpartition("/")[2].upper()
    return (
        name.startswith("__MACOSX/") or last.startswith((".", "README", "LICENSE", "COPYING")) or last.endswith(".MD")
    )


def _names(kind: str, inner: Any, member: str) -> list[str]:
    """Return the names of the files of an archive, up to the one that is meant."""
    if kind == "zip":
        return [info.filename for info in _zip(inner).infolist() if not info.is_dir()]
    names = []
    for name, _ in tar.files(inner, _path(inner)):
        names.append(name)
        if name == member:
            break
    return names


def _path(inner: Any) -> str:
    return inner.stream.path if isinstance(inner, _Bounded) else inner.name


def _zip(inner: Any) -> zipfile.ZipFile:
    if isinstance(inner, _Bounded):
        raise UserError(f"{inner.stream.path}: is a zip inside of another archive; unpack the outer one first")
    return zipfile.ZipFile(_Listed(inner))


def _unzip(inner: Any, member: str) -> Any:
    archive = _zip(inner)
    info, where = archive.getinfo(member), f"{inner.name}::{shown(member, NAME)}"
    if info.flag_bits & 1:
        raise UserError(f"{where}: is encrypted; unpack it first")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks as much of the others at once as the file likes: gigabytes out of a few bytes.
        raise UserError(f"{where}: is packed in a way that zips seldom are ({info.compress_type}); unpack it first")
    return archive.open(info)


def _untar(inner: Any, member: str) -> Any:
    for name, size in tar.files(inner, _path(inner)):
        if name == member:
            return _Member(inner, size)
    raise ValueError(f"{member!r} is no longer in it")


def _arrow(codec: str) -> Callable[[Any, str], Any]:
    return lambda inner, _: pa.CompressedInputStream(pa.PythonFile(inner, "r"), codec)


class _Xz(io.RawIOBase):
    """The unpacked bytes of an xz file; lzma.LZMAFile takes whatever memory the file asks for.

    Several of them may follow one another, with zeros between.
    """

    def __init__(self, inner: Any) -> None:
        self._inner, self._packed, self._parts = inner, inner.read(XZ_STEP), 0
        self._next()

    def _next(self) -> None:
        self._unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        self._parts += 1
        if self._parts > XZ_PARTS:
            raise ValueError(f"it is more than {XZ_PARTS:,} of them in one")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._unpacker.eof:
                self._packed = self._unpacker.unused_data.lstrip(b"\0")
                while not self._packed:
                    packed = self._inner.read(XZ_STEP)
                    if not packed:
                        return 0
                    self._packed = packed.lstrip(b"\0")
                self._next()
            elif self._unpacker.needs_input and not self._packed:
                self._packed = self._inner.read(XZ_STEP)
                if not self._packed:
                    raise EOFError("it ends before its end mark")
            data = self._unpacker.decompress(self._packed, len(view))
            self._packed = b""
            if data:
                view[: len(data)] = data
                return len(data)


class _Bounded(io.RawIOBase):
    """Unpacked bytes, as long as they are not out of all proportion to the packed ones."""

    def __init__(self, inner: Any, stream: Stream) -> None:
        self.inner, self.stream, self.total = inner, stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self.inner.readinto(buffer)
        self.total += got
        most = max(FREE, GROWTH * self.stream.size)
        if self.total > most:
            raise UserError(
                f"{self.stream.path}: holds more than {most:,} bytes, {GROWTH} times its size, which no vectors do; unpack it "
                f"first if it is meant so"
            )
        return got


class _Member(io.RawIOBase):
    """The bytes of a file in a tar, and at its end those behind it: what the tar is packed in has its checksum there."""

    def __init__(self, inner: Any, size: int) -> None:
        self._inner, self._left = inner, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._inner.readinto(memoryview(buffer).cast("B")[: self._left]) if self._left else 0
        if self._left and not got:
            raise EOFError("it ends within a member")
        self._left -= got
        while not got and isinstance(self._inner, _Bounded) and self._inner.read(STEP):
            pass
        return got


class _Listed(io.RawIOBase):
    """What zipfile reads from: the list of members at once, as an object for each."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._inner.seek(place, whence)

    def read(self, count: int = -1) -> bytes:
        data = self._inner.read(min(count, DIRECTORY + 1) if count >= 0 else DIRECTORY + 1)
        if len(data) > DIRECTORY:
            raise UserError(
                f"{self._inner.name}: is a zip of so many files that only an unpacked one can be read; unpack it"
            )
        return data


_UNPACK: dict[str, Callable[[Any, str], Any]] = {
    "gz": _arrow("gzip"),
    "bz2": _arrow("bz2"),
    "zst": _arrow("zstd"),
    "xz": lambda inner, _: _Xz(inner),
    "zip": _unzip,
    "tar": _untar,
}
