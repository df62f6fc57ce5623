"""A checkpoint into a model, whatever ranks wrote it: every rank reads the blocks that it needs, once, and verifies them on the way."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import run
from bigembed.arrays import ArrayFile, Block, Damaged, Manifest, in_threads
from bigembed.checkpoint.contents import DENSE, UNFIT, arrays, byte_rows, dtype_of, place, put_dense
from bigembed.checkpoint.together import Group
from bigembed.cores import threads_here
from bigembed.errors import UserError
from bigembed.optim import Optimizers
from bigembed.runtime import Runtime
from bigembed.sharding.rows import Shard, forget_caches

THREADS = 8  # of one rank, at most


def load_checkpoint(
    path: Path,
    model: DistributedModelParallel,
    optimizers: Optimizers | None,
    runtime: Runtime | None = None,
    check: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Put the checkpoint at ``path`` into ``model`` (and ``optimizers``), and return its state.

    All ranks of ``runtime`` (None: this process alone) call it together; ``check`` is called before anything is overwritten.

    Raises
    ------
    Damaged
        When a file is missing, cut or changed, on all ranks; the model is then overwritten in part.
    UserError
        When the checkpoint does not fit the model, on all ranks.
    """

    def read() -> dict[str, Any]:
        if check is not None:
            check()
        manifest = Manifest.load(path)
        state = run.read_state(path)
        try:
            dense = load(manifest.file(path, DENSE))
        except SafetensorError as error:
            raise Damaged(path / DENSE, f"cannot be read ({error})") from None
        read_arrays(path, manifest, arrays(model, optimizers), min(THREADS, threads_here()))
        forget_caches(model)
        put_dense(dense, path / DENSE, model, optimizers)
        return state

    return Group(runtime.control if runtime else None).together(read)


def read_arrays(path: Path, manifest: Manifest, shards: dict[str, list[Shard]], threads: int) -> None:
    """Fill this rank's ``shards`` of arrays, by file name, from the checkpoint at ``path``.

    Raises
    ------
    Damaged, UserError
        As ``load_checkpoint``.
    """
    with ExitStack() as stack:
        tasks = []
        for name, parts in shards.items():
            if not parts:
                continue
            _check_fits(path / name, manifest, name, parts)
            file = stack.enter_context(ArrayFile.to_read(path / name, manifest.arrays[name]))
            targets = [_Target(shard) for shard in parts]
            for block in manifest.arrays[name].blocks:
                meeting = [target for target in targets if target.meets(block)]
                if meeting:
                    tasks.append((file, block, meeting))
        in_threads(lambda task: _read_block(*task), tasks, threads)


def _check_fits(file: Path, manifest: Manifest, name: str, shards: list[Shard]) -> None:
    if name not in manifest.arrays:
        raise UserError(f"{file} is no part of the checkpoint, but the model wants it; {UNFIT}")
    entry, dtype, shape = manifest.arrays[name], dtype_of(shards[0]), tuple(shards[0].shape)
    if entry.shape != shape:
        raise UserError(f"{file} has the shape {entry.shape}, the model wants {shape}; {UNFIT}")
    if entry.dtype != dtype:
        raise UserError(f"{file} holds {entry.dtype}, the model wants {dtype}; {UNFIT}")


class _Target:
    """A shard that is filled: its bytes by row, and where they begin in the whole array."""

    def __init__(self, shard: Shard) -> None:
        self.bytes, self.item = byte_rows(shard), shard.local.element_size()
        self.row, self.column = place(shard)

    def meets(self, block: Block) -> bool:
        """Whether a block holds something of the shard."""
        rows, width = self.bytes.shape
        begin, end = (block.column - self.column) * self.item, (block.column + block.columns - self.column) * self.item
        return self.row < block.row + block.rows and block.row < self.row + rows and begin < width and end > 0

    def holds(self, block: Block) -> bool:
        """Whether a block is whole rows of the shard, and these lie side by side in the host's memory."""
        rows, width = self.bytes.shape
        inside = self.row <= block.row and block.row + block.rows <= self.row + rows
        same = self.column == block.column and width == block.columns * self.item
        return inside and same and self.bytes.is_contiguous() and self.bytes.device.type == "cpu"

    def rows(self, row: int, count: int) -> torch.Tensor:
        """Return the bytes of rows of the whole array."""
        return self.bytes[row - self.row : row - self.row + count]

    def take(self, row: int, column: int, data: torch.Tensor) -> None:
        """Copy what belongs to the shard out of a rectangle of the whole array that begins at ``row`` and ``column``."""
        rows, width = self.bytes.shape
        first, last = max(row, self.row), min(row + len(data), self.row + rows)
        shift = (self.column - column) * self.item
        begin, end = max(0, shift), min(data.shape[1], shift + width)
        if first < last:
            part = data[first - row : last - row, begin:end]
            self.bytes[first - self.row : last - self.row, begin - shift : end - shift].copy_(part)


def _read_block(file: ArrayFile, block: Block, targets: list[_Target]) -> None:
    """Read a block, straight into the shard that has it whole, else by way of a small buffer; verify it."""
    digest, width = xxhash.xxh3_64(), block.columns * targets[0].item
    whole = next((target for target in targets if target.holds(block)), None)
    others = [target for target in targets if target is not whole]
    buffer = None
    for start, rows in file.chunks(block):
        row = block.row + start
        if whole is not None:
            part = whole.rows(row, rows)
        else:
            if buffer is None:
                buffer = torch.empty(rows, width, dtype=torch.uint8, pin_memory=others[0].bytes.device.type != "cpu")
            part = buffer[:rows]
        data = part.numpy()
        file.read(row, block.column, data)
        digest.update(data.data)
        for target in others:
            target.take(row, block.column, part)
    file.check(block, digest.hexdigest())
