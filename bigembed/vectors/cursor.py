"""A binary file read from front to back, which knows where it is, and refuses what would lie behind the file's end."""

import struct
from typing import Any

import numpy as np

from bigembed.errors import UserError
from bigembed.vectors.streams import Stream


class Cursor:
    """Where the reading of a stream stands; a context manager.

    Parameters
    ----------
    stream : Stream
        Is opened at its first byte.

    Attributes
    ----------
    path : str
        What messages call it.
    position : int
        The next byte, counted in what the stream unpacks to.
    """

    def __init__(self, stream: Stream) -> None:
        self.path = stream.path
        self.position = 0
        self._stream = stream
        self._reader = stream.open()
        self._held = b""  # was read and put back

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def need(self, count: int, what: str) -> None:
        """Refuse a file that cannot hold ``count`` more bytes.

        Raises
        ------
        UserError
            ``what`` would end behind the file's end, or behind any that a packed file of this size can have.
        """
        end = self.position + count
        if end > self._stream.most:
            size = f"{'' if self._stream.file else 'at most '}{self._stream.most:,} bytes"
            raise UserError(
                f"{self.path}: {what} would end at byte {end:,}, and the file holds {size}: it was cut short, or is damaged; "
                "take another copy"
            )

    def some(self, most: int) -> bytes:
        """Return the next bytes, ``most`` or fewer; none at the end."""
        found = self._held or self._reader.read(most)
        self._held = b""
        self.position += len(found)
        return found

    def put_back(self, rest: bytes) -> None:
        """Let ``rest``, the last bytes that were read, be the next again."""
        self._held = rest + self._held
        self.position -= len(rest)

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        """Return the next numbers, little-endian, in the form that ``struct`` describes.

        Raises
        ------
        UserError
            The file ends before.
        """
        taken = np.empty(struct.calcsize("<" + form), np.uint8)
        self.fill(taken, what)
        return struct.unpack("<" + form, taken.tobytes())

    def fill(self, array: np.ndarray, what: str) -> None:
        """Read the next bytes into a contiguous array.

        Raises
        ------
        UserError
            The file ends before the array is full.
        """
        self.need(array.nbytes, what)
        room = array.reshape(-1).view(np.uint8)
        held = np.frombuffer(self._held, np.uint8)[: len(room)]
        room[: len(held)] = held
        self._held = self._held[len(held) :]
        self._moved(len(held) + self._reader.readinto(room[len(held) :]), len(room), what)

    def skip(self, count: int, what: str) -> None:
        """Pass over ``count`` bytes.

        Raises
        ------
        UserError
            The file ends before.
        """
        self.need(count, what)
        held = min(count, len(self._held))
        self._held = self._held[held:]
        self._moved(held + self._reader.skip(count - held), count, what)

    def finish(self) -> None:
        """Read what is left, if it is packed: the checksum is at its end.

        Raises
        ------
        UserError
            It is damaged.
        """
        self._reader.finish()

    def _moved(self, by: int, wanted: int, what: str) -> None:
        self.position += by
        if by < wanted:
            raise UserError(
                f"{self.path}: ends at byte {self.position:,}, in {what}: it was cut short, or is damaged; take another copy"
            )
