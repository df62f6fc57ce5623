"""Rows held in memory, or, where they are many, written once to an Arrow file and memory-mapped."""

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from bigembed.data.rows import Rows
from bigembed.errors import UserError
from bigembed.files import sync_folder

Say = Callable[[str], None]


def held(target: Path, open_rows: Callable[[], Rows], limit: int, what: str, say: Say) -> pa.Table:
    """Return rows in memory, or those of ``target`` if they are there or turn out to take more than ``limit`` bytes.

    Parameters
    ----------
    target : Path
        The file; its name must tell these rows from all others.
    open_rows : callable
        Opens the rows, once, if ``target`` is not there.
    limit : int
        Bytes that may stay in memory.
    what : str
        What takes time where that is long, for ``say``.
    say : callable
        Told what takes longer than a second.

    Raises
    ------
    UserError
        The file cannot be written, or whatever is wrong with the rows.
    """
    table = _map(target)
    if table is not None:
        return table
    rows = open_rows()
    begun: deque[pa.RecordBatch] = deque()
    size = 0
    tell = _Teller(say, what, rows.size)
    if rows.size <= limit:
        for batch in rows.batches:
            begun.append(batch)
            size += batch.nbytes
            tell(size)
            if size > limit:
                break
        else:
            return pa.Table.from_batches(begun, rows.schema)
    return _convert(target, rows, begun, say)


def work_folder(given: str | None) -> Path:
    """Return where converted files lie: the given folder, or one in the user's cache."""
    if given is not None:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bigembed"


def _convert(target: Path, rows: Rows, begun: "deque[pa.RecordBatch]", say: Say) -> pa.Table:
    """Write ``begun`` and then the rest of ``rows`` to ``target``, unless another process did meanwhile, and map it."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, say):
            table = _map(target)
            if table is not None:
                return table
            for left in target.parent.glob(f".{target.name}.*.unfinished"):
                left.unlink()  # by a process that was killed: the lock is ours
            try:
                _write(unfinished, rows, begun, say)
                os.replace(unfinished, target)
                sync_folder(target.parent)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"The data is too large for memory (data.in_memory_mib) and cannot be converted in {target.parent}: "
            f"{error.strerror or error}; make room, or set data.work_dir to another folder."
        ) from None
    table = _map(target)
    assert table is not None
    return table


def _write(path: Path, rows: Rows, begun: "deque[pa.RecordBatch]", say: Say) -> None:
    tell = _Teller(say, "converting to an Arrow file, once", rows.size)
    size = 0
    with path.open("wb") as file:
        with pa.ipc.new_file(file, rows.schema) as writer:
            while begun:
                writer.write_batch(begun.popleft())
            for batch in rows.batches:
                writer.write_batch(batch)
                size += batch.nbytes
                tell(size)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(target: Path, say: Say) -> Iterator[None]:
    """Hold the right to write ``target``; the lock goes with the process, however that ends."""
    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that converts to {target}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _map(path: Path) -> pa.Table | None:
    """Return a converted file, memory-mapped, or None where there is none (or none that can be read)."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException):
        return None


class _Teller:
    """Says how far a long reading has come, about once a second and not in the first."""

    def __init__(self, say: Say, what: str, size: int) -> None:
        self._say, self._what, self._size = say, what, size
        self._next = time.monotonic() + 1.0

    def __call__(self, done: int) -> None:
        if time.monotonic() >= self._next:
            of = f" of about {max(self._size, done) >> 20}" if self._size else ""
            self._say(f"{self._what}: {done >> 20}{of} MiB")
            self._next = time.monotonic() + 1.0
