"""Several processes as one command: one configuration for all, and the first error of any of them ends all.

What the processes say to each other before and beside training goes through torchrun's store, not through collectives: a rank
that fails cannot take part in those.
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch.distributed as dist
import xxhash

from bigembed import __version__
from bigembed.config import saved
from bigembed.config.schema import Job
from bigembed.cores import local_rank, local_world_size
from bigembed.errors import UserError, of_the_disk
from bigembed.shared import attach, publish
from bigembed.signals import Stopped

FOREVER = timedelta(days=365)
POLL = 0.5  # seconds between two looks whether another rank has failed
GRACE = 2.0  # seconds in which a rank may end by itself after that
LOST = ("Connection", "closed by peer", "timed out", "NCCL", "Broken pipe", "recvValue", "DistNetwork", "socket")


class Ranks:
    """The process among those of the command.

    Attributes
    ----------
    rank, world : int
        Which process this is, of how many.
    """

    def __init__(self) -> None:
        self.lasting, self.rank, self.world = next(dist.rendezvous("env://", timeout=FOREVER))
        self.lasting.set_timeout(FOREVER)
        self.store = dist.PrefixStore(f"bigembed/{_this_start(self.lasting, self.rank, self.world)}", self.lasting)
        self.host = socket.gethostname()
        self.jobs = self.begun = 0  # trained together; composed by rank 0, finished ones among them
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    @property
    def chief(self) -> bool:
        """Whether this process composes, speaks and writes for all."""
        return self.rank == 0

    def agree(self, facts: dict[str, Any]) -> None:
        """Compare what must be the same everywhere.

        Raises
        ------
        UserError
            On rank 0, naming the first rank that differs and in what.
        """
        self.store.set(f"facts/{self.rank}", json.dumps({"host": self.host, **facts}))
        if not self.chief:
            return
        for rank in range(1, self.world):
            theirs = json.loads(self.store.get(f"facts/{rank}"))
            for name, ours in facts.items():
                if theirs.get(name) != ours:
                    raise UserError(
                        f"rank {rank} on {theirs['host']} differs from rank 0 on {self.host} in {name}: {theirs.get(name)} instead "
                        f"of {ours}; start the same command in the same environment on every host"
                    )

    def lead(self, job: Job, folder: Path) -> dist.Store:
        """Give the next job to the other ranks, and return the store where they meet for it."""
        folder = folder.absolute()
        self.store.set(f"job/{self.jobs}", json.dumps({"job": saved.as_dict(job), "folder": str(folder)}))
        return self.meeting()

    def dismiss(self) -> None:
        """Tell the other ranks that there are no more jobs."""
        self.store.set(f"job/{self.jobs}", json.dumps(None))

    def follow(self) -> Iterator[tuple[Job, Path, dist.Store]]:
        """Yield the jobs that rank 0 gives, each with its folder and the store to meet at.

        Raises
        ------
        UserError
            When the run folder cannot be seen from here.
        """
        while (given := json.loads(self.store.get(f"job/{self.jobs}"))) is not None:
            folder = Path(given["folder"])
            if not (folder / saved.NAME).exists():
                time.sleep(4 * POLL)  # if rank 0 has failed and taken it away, its reason ends this process meanwhile
                raise UserError(
                    f"the run folder {folder} is not there on {self.host}; it must lie on storage that all hosts share"
                )
            yield saved.from_dict(given["job"]), folder, self.meeting()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block on rank 0 first, then on the first rank of every host, then on the others."""
        key = f"turn/{self.jobs}"
        for before in {0, self.rank - local_rank()} - {self.rank}:
            self.store.get(f"{key}/{before}")
        yield
        if local_rank() == 0:
            self.store.set(f"{key}/{self.rank}", "done")

    def once_per_host(self, name: str, make: Callable[[], list[np.ndarray] | None]) -> list[np.ndarray] | None:
        """Return what ``make`` gives on the first rank of this host; the others, which come after it, share its memory."""
        key = f"shared/{self.jobs}/{self.rank - local_rank()}/{name}"
        if local_rank():
            places = json.loads(self.store.get(key))
            return None if places is None else [attach(place) for place in places]
        arrays = make()
        if local_world_size() > 1:
            self.store.set(key, json.dumps(None if arrays is None else [publish(array) for array in arrays]))
        return arrays

    def remember(self, key: str, value: str) -> None:
        """Keep a text for the processes that torchrun starts in our place after a failure."""
        self.lasting.set(f"bigembed/{key}", value)

    def recall(self, key: str) -> str | None:
        """Return what ``remember`` kept; None where there is nothing."""
        key = f"bigembed/{key}"
        return self.lasting.get(key).decode() if self.lasting.check([key]) else None

    def fail(self, error: BaseException) -> None:
        """Tell all ranks and the user of an error of this one, if no other rank was the first."""
        self._ended.set()
        text = f"rank {self.rank} on {self.host}: {_sentence(error)}"
        lost = not isinstance(error, UserError | Stopped) and any(mark in str(error) for mark in LOST)
        with suppress(Exception):  # the store may be gone with its host
            if lost:  # who caused it may be about to say so
                text = f"rank {self.rank} on {self.host} lost contact with another rank, which was killed or ended without a word"
                time.sleep(2 * POLL)
            first = self.store.compare_set("failed", "", text).decode()
            if first != text:
                if self.chief:
                    _tell(f"ended, because of {first}")
                return
        _write_error_file(text)
        if not lost and not isinstance(error, UserError | Stopped):
            traceback.print_exception(error)
        _tell(text)

    def part(self) -> None:
        """Wait on rank 0 until the others are done: it may be the one that holds the store."""
        if self.chief:
            for rank in range(1, self.world):
                self.store.get(f"done/{rank}")
        else:
            self.store.set(f"done/{self.rank}", "done")

    def leave(self) -> None:
        """Stop watching the other ranks: this one ends well."""
        self._ended.set()

    def meeting(self) -> dist.Store:
        """Return the store where the ranks meet for the next job."""
        self.jobs += 1
        return dist.PrefixStore(f"meeting/{self.jobs}", self.store)

    def _watch(self) -> None:
        """End this process when another one has failed, wherever it hangs."""
        with suppress(Exception):
            store = self.store.clone()  # type: ignore[attr-defined]  # of its own: a waiting get of the main thread would block it
            while not self._ended.wait(POLL):
                if store.check(["failed"]):
                    text = store.get("failed").decode()
                    if not self._ended.wait(GRACE):
                        if self.chief:
                            _tell(f"ended, because of {text}")
                        os._exit(1)
                    return
            return
        if not self._ended.wait(GRACE):  # the store's host is gone
            _tell(f"rank {self.rank} on {self.host} lost contact with the host of rank 0")
            os._exit(1)


def _this_start(store: dist.Store, rank: int, world: int) -> str:
    """Return a name that all ranks of this start share and no earlier start had.

    torchrun keeps its store over restarts, and with it what was said before; its count of them differs between hosts.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("bigembed/start", mine)
        here = {other: store.get(f"bigembed/{mine}/{other}").decode() for other in range(1, world)}
        store.set(f"bigembed/{mine}/go", json.dumps(here))
        return mine
    while True:  # until the start is one that knows us: an earlier one does not
        start = store.get("bigembed/start").decode()
        store.set(f"bigembed/{start}/{rank}", mine)
        go = f"bigembed/{start}/go"
        if store.check([go]) and json.loads(store.get(go)).get(str(rank)) == mine:
            return start
        time.sleep(0.02)


def together(arguments: list[str], work: Callable[[Ranks], None]) -> int:
    """Do ``work`` on every rank, all of them started with the same ``arguments``; return the exit code."""
    ranks = Ranks()
    try:
        ranks.agree({"its arguments": " ".join(map(quote, arguments)), **environment()})
        work(ranks)
        ranks.part()
    except (Exception, KeyboardInterrupt) as error:
        error = of_the_disk(error) or error
        ranks.fail(error)
        return 2 if isinstance(error, UserError) else 1
    ranks.leave()
    return 0


def environment() -> dict[str, Any]:
    """Return what must be the same on every rank: the versions, and the checksum of our own code."""
    package = Path(__file__).parent
    code = xxhash.xxh3_64()
    for path in sorted(package.rglob("*.py")):
        code.update(path.read_bytes())
    names = ("torch", "torchrec", "numpy")
    return {
        "the version of bigembed": __version__,
        "the code of bigembed": code.hexdigest(),
        "the version of Python": ".".join(map(str, sys.version_info[:2])),
        **{f"the version of {name}": version(name) for name in names},
    }


def _tell(text: str) -> None:
    print(f"bigembed: {text}", file=sys.stderr, flush=True)


def _sentence(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Stopped):
        return f"stopped by signal {error.number}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _write_error_file(text: str) -> None:
    """Tell torchrun, whose own summary then names the rank and the sentence."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
