"""One checkpoint onto the disk: the chief creates the files, every rank writes its parts into them, the chief commits."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
import xxhash

from bigembed import run
from bigembed.arrays import BLOCK, ArrayEntry, ArrayFile, Block, FileEntry, Manifest, covers, create, in_threads
from bigembed.checkpoint.contents import byte_rows, dtype_of, place
from bigembed.checkpoint.together import Group
from bigembed.errors import UserError
from bigembed.files import sync_folder, write_synced
from bigembed.sharding.rows import Shard
from bigembed.signals import Stopped

Layout = dict[str, tuple[str, tuple[int, ...]]]  # the dtype and shape of arrays, by the names of their files


@dataclass(frozen=True, slots=True)
class Writing:
    """How checkpoints are written.

    Attributes
    ----------
    folder : Path
        Where they lie.
    ranks : Group
        Who writes.
    shared : bool
        Whether they are on several hosts.
    """

    folder: Path
    ranks: Group
    shared: bool


def write(writing: Writing, step: int, shards: dict[str, list[Shard]], small: dict[str, bytes], threads: int) -> None:
    """Write the checkpoint of ``step``: this rank's ``shards`` of arrays by file name, and the chief's ``small`` files.

    All ranks call it together.

    Raises
    ------
    UserError
        When the disk is full or cannot be written, on all ranks; checkpoints written before are untouched.
    """
    ranks, final = writing.ranks, writing.folder / run.name_of(step)
    unfinished = final.with_name(f".{final.name}{run.UNFINISHED}")
    owned = {name: [shard for shard in parts if shard.owner] for name, parts in shards.items()}

    def create_all() -> dict[str, ArrayEntry]:
        with _told(writing.folder, step):
            return _create(unfinished, layouts)

    def write_own() -> dict[str, list[Block]]:
        with _told(writing.folder, step):
            return _write_own(unfinished, entries, owned, writing.shared, threads)

    def commit() -> None:
        with _told(writing.folder, step):
            _commit(unfinished, final, entries, written, small)

    try:
        layouts = ranks.to_chief({name: (dtype_of(own[0]), own[0].shape) for name, own in owned.items() if own})
        entries = ranks.by_chief(create_all)
        written = ranks.to_chief(ranks.together(write_own))
        ranks.by_chief(commit)
    except Exception as error:
        if ranks.chief and not isinstance(error, Stopped):
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _told(folder: Path, step: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the checkpoint of step {step} could not be written to {folder}"
        raise UserError(
            f"{what}: {error.strerror}; earlier ones are untouched; make room and go on with resume=RUN"
        ) from None


def _create(unfinished: Path, layouts: list[Layout]) -> dict[str, ArrayEntry]:
    """Make the folder and the files of all arrays, and return what is known of them before they are written."""
    shutil.rmtree(unfinished, ignore_errors=True)
    entries = {}
    for name, layout in sorted({pair for each in layouts for pair in each.items()}):
        if name in entries:
            raise RuntimeError(f"the ranks have {name} in different shapes")
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        entries[name] = create(unfinished / name, *layout)
    return entries


def _write_own(
    unfinished: Path, entries: dict[str, ArrayEntry], owned: dict[str, list[Shard]], shared: bool, threads: int
) -> dict[str, list[Block]]:
    """Write this rank's shards block by block, and return the blocks with their checksums."""
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(ArrayFile(unfinished / name, entries[name], write=True, shared=shared))
            for name, shards in owned.items()
            if shards
        }
        tasks = [(name, shard, block) for name in files for shard in owned[name] for block in _blocks(shard)]
        blocks = in_threads(lambda task: _write_block(files[task[0]], *task[1:]), tasks, threads)
        for file in files.values():
            file.sync()
    written: dict[str, list[Block]] = {name: [] for name in files}
    for (name, _, _), block in zip(tasks, blocks, strict=True):
        written[name].append(block)
    return written


def _blocks(shard: Shard) -> Iterator[Block]:
    """Yield the blocks of a shard, whole rows of it, with their place in the whole array; their checksum is yet to come."""
    own = byte_rows(shard)
    if own.numel() == 0:
        return
    rows = max(1, BLOCK // own.shape[1])
    row, column = place(shard)
    columns = own.shape[1] // shard.local.element_size()
    for start in range(0, len(own), rows):
        yield Block(row + start, column, min(rows, len(own) - start), columns, "")


def _write_block(file: ArrayFile, shard: Shard, block: Block) -> Block:
    own, digest = byte_rows(shard), xxhash.xxh3_64()
    first = block.row - place(shard)[0]
    staged = None
    for start, rows in file.chunks(block):
        part = own[first + start : first + start + rows]
        if part.device.type != "cpu":
            if staged is None:
                staged = torch.empty(part.shape, dtype=torch.uint8, pin_memory=True)
            part = staged[:rows].copy_(part)
        data = part.contiguous().numpy()
        digest.update(data.data)
        file.write(block.row + start, block.column, data)
    return replace(block, checksum=digest.hexdigest())


def _commit(
    unfinished: Path,
    final: Path,
    entries: dict[str, ArrayEntry],
    written: list[dict[str, list[Block]]],
    small: dict[str, bytes],
) -> None:
    """Write the small files and the manifest, and give the checkpoint its name."""
    arrays = {}
    for name, entry in entries.items():
        blocks = sorted(chain.from_iterable(each.get(name, []) for each in written), key=lambda b: (b.row, b.column))
        if not covers(entry.shape, blocks):
            raise RuntimeError(f"what the ranks hold of {name} is not the whole array, each number once")
        arrays[name] = replace(entry, blocks=tuple(blocks))
    for name, content in small.items():
        write_synced(unfinished / name, content)
    files = {name: FileEntry(len(content), xxhash.xxh3_64_hexdigest(content)) for name, content in small.items()}
    for folder in {(unfinished / name).parent for name in arrays}:
        sync_folder(folder)
    write_synced(unfinished / run.MANIFEST, Manifest(arrays, files).as_json())
    sync_folder(unfinished)
    run.put(unfinished, final)
