"""Checkpoints: a folder of plain arrays, written under another name, checked, and renamed last.

``tables/TABLE.weight.npy`` and ``tables/TABLE.STATE.npy`` hold whole tables (every rank writes its own rows into the same file),
``dense.safetensors`` the rest of the model, its optimizer's state and the random states, ``state.json`` where the run stands,
``manifest.json`` the size and checksum (XXH3, 64 bit) of every file. A folder without a manifest is no checkpoint.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.errors import UserError
from bigembed.files import sync_folder, write_synced
from bigembed.optim import Optimizers
from bigembed.run import CHUNK, FORMAT, MANIFEST, UNFINISHED, checksum, name_of, put, read_array, read_state
from bigembed.runtime import Runtime
from bigembed.sharding.place import TABLES
from bigembed.sharding.rows import Shard, states, weights


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    model: DistributedModelParallel,
    optimizers: Optimizers,
    runtime: Runtime,
) -> Path:
    """Write the checkpoint of ``step`` into ``folder`` and return its path; all ranks call it together.

    Raises
    ------
    UserError
        When the disk is full or cannot be written; checkpoints written before are untouched.
    """
    final = folder / name_of(step)
    unfinished = folder / f".{final.name}{UNFINISHED}"
    try:
        if runtime.chief:
            shutil.rmtree(unfinished, ignore_errors=True)
            (unfinished / "tables").mkdir(parents=True)
        for path, shards in _arrays(unfinished, model):
            _write_array(path, shards, runtime)
        if runtime.chief:
            write_synced(unfinished / "dense.safetensors", save(_dense(model, optimizers)))
            write_synced(unfinished / "state.json", json.dumps(state, indent=1).encode())
            _write_manifest(unfinished)
            put(unfinished, final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise UserError(
            f"the checkpoint of step {step} could not be written to {folder}: {error.strerror}; earlier ones are untouched"
        ) from None
    _barrier(runtime)
    return final


def load_checkpoint(path: Path, model: DistributedModelParallel, optimizers: Optimizers | None) -> dict[str, Any]:
    """Put the checkpoint at ``path`` into ``model`` (and ``optimizers``), and return its state.

    Every rank reads the rows it holds, whatever ranks wrote them. The files must have been verified.

    Raises
    ------
    UserError
        When a file is missing, cut, changed, or does not fit the model.
    """
    for file, shards in _arrays(path, model):
        if ".weight" not in file.name and optimizers is None:
            continue
        whole = read_array(file)
        for shard in shards:
            if whole.shape != shard.shape:
                raise UserError(
                    f"{file} has the shape {whole.shape}, the model wants {shard.shape}; the run and its files do not belong together"
                )
            shard.write(whole[shard.window])
    _load_dense(path / "dense.safetensors", model, optimizers)
    return read_state(path)


def _arrays(folder: Path, model: DistributedModelParallel) -> Iterator[tuple[Path, list[Shard]]]:
    """Yield the file of every weight and fused optimizer state, and this rank's shards of it; the same files on all ranks."""
    state = states(model)
    for table, shards in weights(model).items():
        yield folder / "tables" / f"{table}.weight.npy", shards
        for name, parts in sorted(state.get(table, {}).items()):
            yield folder / "tables" / f"{table}.{name}.npy", parts


def _write_array(path: Path, shards: list[Shard], runtime: Runtime) -> None:
    if runtime.chief:
        dtype = shards[0].read().dtype
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shards[0].shape}
            )
            file.truncate(file.tell() + dtype.itemsize * int(np.prod(shards[0].shape)))
    _barrier(runtime)
    for shard in shards:
        _write_shard(path, shard)
    _barrier(runtime)


def _write_shard(path: Path, shard: Shard) -> None:
    rows = np.ascontiguousarray(shard.read())
    whole = np.load(path, mmap_mode="r+", allow_pickle=False)
    if rows.shape[1:] != shard.shape[1:]:  # some columns of every row
        whole[shard.window] = rows
        whole.flush()
        return
    at = whole.offset + shard.start[0] * rows.itemsize * int(np.prod(rows.shape[1:]))
    del whole
    with path.open("r+b") as file:  # whole rows lie side by side: writing is faster than touching mapped pages
        file.seek(at)
        for block in _blocks(rows):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _blocks(rows: np.ndarray) -> Iterator[memoryview]:
    view = rows.data.cast("B") if rows.size else memoryview(b"")
    for start in range(0, len(view), CHUNK):
        yield view[start : start + CHUNK]


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "xxh3_64": checksum(path)} for path in files
    }
    sync_folder(folder / "tables")
    write_synced(folder / MANIFEST, json.dumps({"format": FORMAT, "files": entries}, indent=1).encode())
    sync_folder(folder)


def _dense(model: DistributedModelParallel, optimizers: Optimizers) -> dict[str, torch.Tensor]:
    tensors = {f"model.{name}": value for name, value in _dense_model(model).items()}
    tensors |= {f"optim.{name}": value for name, value in optimizers.dense_state().items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _load_dense(path: Path, model: DistributedModelParallel, optimizers: Optimizers | None) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    wanted = _dense_model(model)
    if {f"model.{name}" for name in wanted} != {name for name in tensors if name.startswith("model.")}:
        raise UserError(
            f"{path} holds other parameters than the model has; the run and its files do not belong together"
        )
    with torch.no_grad():
        for name, value in wanted.items():
            stored = tensors[f"model.{name}"]
            if stored.shape != value.shape:
                raise UserError(
                    f"{path} holds {name} of shape {tuple(stored.shape)}, the model wants {tuple(value.shape)}; "
                    "the run and its files do not belong together"
                )
            value.copy_(stored)
    if optimizers is None:
        return
    optimizers.load_dense_state(
        {key.removeprefix("optim."): value for key, value in tensors.items() if key.startswith("optim.")}
    )
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _dense_model(model: DistributedModelParallel) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith(f"{TABLES}.")}


def _barrier(runtime: Runtime) -> None:
    if runtime.world > 1:
        dist.barrier()
