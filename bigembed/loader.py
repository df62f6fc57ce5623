"""Batches made in advance, beside the training step, by a thread of their own."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from bigembed.batch import Batch

AHEAD = 4  # batches made in advance: enough to bridge an uneven batch, few enough to cost no memory


@dataclass(slots=True)
class Waiting:
    """Seconds that the training step waited for data, and that the data waited for the training step."""

    step: float = 0.0
    data: float = 0.0


@dataclass(slots=True)
class Ahead:
    """An iterator over ``make(*item)`` for each of ``items``, made in advance by a thread.

    An error of the thread is raised where the result would have been taken. ``close`` ends the thread.
    """

    make: Callable[..., Batch]
    items: Iterable[tuple[Any, ...]]
    waiting: Waiting = field(default_factory=Waiting)
    _queue: queue.Queue[Any] = field(default_factory=lambda: queue.Queue(AHEAD))
    _closed: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Start the thread and yield its results in order."""
        thread = threading.Thread(target=self._produce, name="loader", daemon=True)
        thread.start()
        try:
            while True:
                started = time.perf_counter()
                result = self._queue.get()
                self.waiting.step += time.perf_counter() - started
                if result is None:
                    return
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._closed.set()
            thread.join()

    def _produce(self) -> None:
        try:
            for item in self.items:
                if not self._put(self.make(*item)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, result: object) -> bool:
        started = time.perf_counter()
        while not self._closed.is_set():
            try:
                self._queue.put(result, timeout=0.1)
                self.waiting.data += time.perf_counter() - started
                return True
            except queue.Full:
                continue
        return False
