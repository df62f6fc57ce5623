"""Checkpoints while training goes on: the rank's part is copied, and a thread writes the copy."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import run
from bigembed.checkpoint.contents import DENSE, arrays, dense
from bigembed.checkpoint.together import Group
from bigembed.checkpoint.write import Writing, write
from bigembed.cores import threads_here
from bigembed.errors import UserError
from bigembed.optim import Optimizers
from bigembed.runtime import PATIENCE, Runtime
from bigembed.sharding.rows import Shard

MIB = 1 << 20
THREADS = 8  # of one rank, at most: more do not make a disk faster


class Saver:
    """Writes the checkpoints of a run, one at a time; all ranks make and call it together.

    Parameters
    ----------
    folder : Path
        Where the checkpoints lie.
    runtime : Runtime
        The ranks.
    save_memory_mib : int
        Host memory (MiB, per rank) that a copy of this rank's part may take. If it suffices on every rank, training goes on while
        the copy is written; otherwise ``save`` returns when all is written.
    """

    def __init__(self, folder: Path, runtime: Runtime, save_memory_mib: int) -> None:
        # Of its own: what the thread says must not come between what the loop says.
        group = dist.new_group(backend="gloo", timeout=PATIENCE) if runtime.world > 1 else None
        self._writing = Writing(folder, Group(group), shared=runtime.world != runtime.local_world)
        self._alone, self._memory = runtime.world == 1, save_memory_mib * MIB
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._copies: bool | None = None  # decided when the first checkpoint tells how large they are
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}

    def save(
        self,
        step: int,
        state: dict[str, Any],
        model: DistributedModelParallel,
        optimizers: Optimizers,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the checkpoint of ``step``, or begin to; ``state`` is plain values. The chief calls ``after`` when it is committed.

        Raises
        ------
        UserError
            When this one, or the one before that was still being written, could not be written; earlier ones are untouched.
        """
        small = {}
        if self._writing.ranks.chief:
            small = {DENSE: save(dense(model, optimizers)), run.STATE: json.dumps(state, indent=1).encode()}
        self.begin(step, arrays(model, optimizers), small, after)

    def begin(
        self,
        step: int,
        shards: dict[str, list[Shard]],
        small: dict[str, bytes],
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Do as ``save`` with ``shards`` of arrays by file name, and the chief's ``small`` files.

        Raises
        ------
        UserError
            As ``save``.
        """
        self.wait()
        if self._copies is None:
            self._copies = all(self._writing.ranks.everyone(0 < self._memory >= _bytes(shards)))
        if self._copies:
            self._pending = self._thread.submit(self._write, step, self._copied(shards), small, after, 1)
        else:
            self._write(step, shards, small, after, min(THREADS, threads_here()))

    def look(self) -> None:
        """Raise the error of a write that has failed meanwhile.

        On several ranks ``save`` and ``wait`` do it, which all ranks call after the same step.
        """
        if self._alone and self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was begun is written.

        Raises
        ------
        UserError
            When it could not be written, on all ranks.
        """
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                if self._pending.done():  # else a signal ended the waiting
                    self._pending = None

    def close(self) -> None:
        """Let what was begun come to its end; its error, which ``wait`` raises, is not told again."""
        try:
            with suppress(UserError, RuntimeError):
                self.wait()
        finally:
            self._thread.shutdown(wait=False)

    def _write(
        self,
        step: int,
        shards: dict[str, list[Shard]],
        small: dict[str, bytes],
        after: Callable[[], None],
        threads: int,
    ) -> None:
        write(self._writing, step, shards, small, threads)
        self._writing.ranks.by_chief(lambda: self._finish(after))

    def _finish(self, after: Callable[[], None]) -> None:
        try:
            after()
        except OSError as error:
            where = error.filename or self._writing.folder
            raise UserError(
                f"{where}: {error.strerror}; the checkpoint is written, an old one could not be dropped"
            ) from None

    def _copied(self, shards: dict[str, list[Shard]]) -> dict[str, list[Shard]]:
        """Return the owned shards on copies in host memory, the same memory at every call."""
        copies: dict[str, list[Shard]] = {}
        for name, parts in shards.items():
            copies[name] = []
            for number, shard in enumerate(part for part in parts if part.owner):
                local = shard.local.detach()
                on_gpu = local.device.type != "cpu"
                buffer = self._buffers.get((name, number))
                if buffer is None:
                    buffer = torch.empty(local.shape, dtype=local.dtype, pin_memory=on_gpu)
                    self._buffers[name, number] = buffer
                copies[name].append(replace(shard, local=buffer.copy_(local, non_blocking=on_gpu)))
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return copies


def _bytes(shards: dict[str, list[Shard]]) -> int:
    return sum(shard.local.nbytes for parts in shards.values() for shard in parts if shard.owner)
