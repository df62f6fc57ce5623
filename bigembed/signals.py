"""Ctrl-C and SIGTERM: finish the step, save, end; a second one ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):
    """The run was asked to end.

    Parameters
    ----------
    number : int
        The signal that asked.
    message : str
        Where the run stands, for the user.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


@dataclass(slots=True)
class Stop:
    """Whether somebody asked the run to end.

    Attributes
    ----------
    number : int or None
        The first signal that came.
    patient : bool
        Whether the signal may wait for the step to finish; otherwise it ends the run where it is.
    """

    number: int | None = None
    patient: bool = False

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.number is not None:
            raise Stopped(self.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.number = self.number is None, number
        if not (first and self.patient):
            raise Stopped(number)


@contextmanager
def watch() -> Iterator[Stop]:
    """Watch for SIGINT and SIGTERM while the block runs."""
    stop = Stop()
    before = {number: signal.signal(number, stop._receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
