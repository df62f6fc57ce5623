"""Reading and writing rectangles of an array in a .npy file, each as bytes: shape (rows, bytes of a row's part), uint8."""

import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import xxhash

from bigembed.arrays.manifest import ArrayEntry, Block, Damaged, check_size, rectangle, stored_dtype

BLOCK = 1 << 26  # bytes that have one checksum, at most
CHUNK = 1 << 20  # bytes read or written at once: they are still in the core's cache when their checksum is taken
# Linux 5.14: touch all pages of a mapping now. A page that the disk does not give or has no room for is an error then; touched
# later it would be a signal that kills the process.
POPULATE_READ, POPULATE_WRITE = 22, 23


def create(path: Path, dtype: str, shape: tuple[int, ...]) -> ArrayEntry:
    """Write the header of an array and leave room for its numbers; return what is known of the file, without blocks."""
    header = io.BytesIO()
    described = np.lib.format.dtype_to_descr(stored_dtype(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": described, "fortran_order": False, "shape": shape})
    size = len(header.getvalue()) + stored_dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    return ArrayEntry(size, xxhash.xxh3_64_hexdigest(header.getvalue()), dtype, shape, ())


class ArrayFile:
    """An array on the disk, opened.

    Parameters
    ----------
    path : Path
        The file.
    entry : ArrayEntry
        What it is.
    write : bool
        Whether it is to be written.
    shared : bool
        Whether processes of other hosts write into it at the same time.
    """

    def __init__(self, path: Path, entry: ArrayEntry, write: bool = False, shared: bool = False) -> None:
        self.path, self._writes = path, write
        self._item = stored_dtype(entry.dtype).itemsize
        rows, columns = rectangle(entry.shape)
        self._row_bytes = columns * self._item
        self._offset = entry.size - rows * self._row_bytes  # the numbers stand last
        # A page that was read or mapped is sent over the network as a whole: of two hosts that write into one, the later undoes what
        # the other wrote. Of a file that cannot be read only the bytes that were written are sent.
        self._maps = not shared
        access = os.O_RDONLY if not write else os.O_WRONLY if shared else os.O_RDWR
        self._descriptor = os.open(path, access | os.O_CLOEXEC)

    @classmethod
    def to_read(cls, path: Path, entry: ArrayEntry) -> "ArrayFile":
        """Open a file and compare all but its numbers with its entry.

        Raises
        ------
        Damaged
            When it is missing, cut, or begins differently.
        """
        check_size(path, entry.size)
        try:
            file = cls(path, entry)
            header = os.pread(file._descriptor, max(0, file._offset), 0)
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror})") from None
        if xxhash.xxh3_64_hexdigest(header) != entry.header:
            file.close()
            raise Damaged(path, "is not what was written (the checksum of its header differs)")
        return file

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)

    def __enter__(self) -> "ArrayFile":
        """Return the file."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def sync(self) -> None:
        """Wait until what this process wrote is on the disk."""
        os.fsync(self._descriptor)

    def write(self, row: int, column: int, data: np.ndarray) -> None:
        """Write a rectangle that begins at ``row`` and ``column``; ``data`` is contiguous."""
        at = self._offset + row * self._row_bytes + column * self._item
        if data.shape[1] == self._row_bytes:
            self._write(data.reshape(-1), at)
            return
        mapped = self._mapped(at, *data.shape)
        if mapped is not None:
            np.copyto(mapped, data)
            return
        for number, piece in enumerate(data):
            self._write(piece, at + number * self._row_bytes)

    def read(self, row: int, column: int, data: np.ndarray) -> None:
        """Fill ``data``, which is contiguous, with the rectangle that begins at ``row`` and ``column``."""
        at = self._offset + row * self._row_bytes + column * self._item
        if data.shape[1] == self._row_bytes:
            self._read(data.reshape(-1), at)
            return
        mapped = self._mapped(at, *data.shape)
        if mapped is not None:
            np.copyto(data, mapped)
            return
        for number, piece in enumerate(data):
            self._read(piece, at + number * self._row_bytes)

    def chunks(self, block: Block) -> Iterator[tuple[int, int]]:
        """Yield the first row, counted from the block's, and the number of rows of what is read or written at once."""
        rows = max(1, CHUNK // (block.columns * self._item))
        for start in range(0, block.rows, rows):
            yield start, min(rows, block.rows - start)

    def check(self, block: Block, checksum: str) -> None:
        """Refuse a block that has another checksum than the manifest says, as Damaged."""
        if checksum != block.checksum:
            rows = f"{block.row:,} to {block.row + block.rows - 1:,}"
            raise Damaged(self.path, f"is not what was written (the checksum of rows {rows} differs)")

    def verify(self, block: Block) -> None:
        """Compare a block with its checksum.

        Raises
        ------
        Damaged
            When it is another, or cannot be read.
        """
        digest, scratch = xxhash.xxh3_64(), None
        for start, rows in self.chunks(block):
            if scratch is None:
                scratch = np.empty((rows, block.columns * self._item), np.uint8)
            self.read(block.row + start, block.column, scratch[:rows])
            digest.update(scratch[:rows].data)
        self.check(block, digest.hexdigest())

    def _write(self, data: np.ndarray, at: int) -> None:
        done = 0
        while done < len(data):  # a full disk takes a part, and gives its error then
            done += os.pwrite(self._descriptor, data[done:].data, at + done)

    def _read(self, data: np.ndarray, at: int) -> None:
        done = 0
        while done < len(data):
            try:
                count = os.preadv(self._descriptor, [data[done:].data], at + done)
            except OSError as error:
                raise Damaged(self.path, f"cannot be read ({error.strerror})") from None
            if count == 0:
                raise Damaged(self.path, "was cut while it was read")
            done += count

    def _mapped(self, at: int, rows: int, width: int) -> np.ndarray | None:
        """Return parts of rows as mapped memory, shape (rows, width); None where that is not safe, or the kernel is too old."""
        if not self._maps:
            return None
        start = at // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = at - start + (rows - 1) * self._row_bytes + width
        access = mmap.ACCESS_WRITE if self._writes else mmap.ACCESS_READ
        try:
            window = mmap.mmap(self._descriptor, length, access=access, offset=start)
            window.madvise(POPULATE_WRITE if self._writes else POPULATE_READ)
        except (OSError, ValueError):  # row by row the same error, if it is one, has its name
            return None
        flat = np.frombuffer(window, np.uint8, offset=at - start)
        return np.lib.stride_tricks.as_strided(flat, (rows, width), (self._row_bytes, 1), writeable=self._writes)
