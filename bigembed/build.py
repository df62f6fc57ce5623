"""A model ready to train or to ask: the order in which TorchRec wants things done, in one function."""

from pathlib import Path

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import hashing
from bigembed.config.schema import Job, TableOptimizer
from bigembed.errors import UserError
from bigembed.model import Model
from bigembed.optim import fuse
from bigembed.runtime import Runtime
from bigembed.sharding.place import distribute
from bigembed.sharding.rows import weights

BLOCK = 1 << 20  # rows filled at once where the device is not the host


def build(job: Job, rows: dict[str, int], runtime: Runtime) -> DistributedModelParallel:
    """Return the sharded model of ``job`` with tables of ``rows`` rows, whose values are yet to be set.

    Tables on meta, optimizer into the backward pass, then sharding: in another order TorchRec does something else in silence.
    """
    check_room(job, rows, runtime)
    model = Model(job, rows, torch.device("meta"))
    fuse(model.tables, job.optim.tables)
    return distribute(model, runtime, job.optim.clip_value)


def check_room(job: Job, rows: dict[str, int], runtime: Runtime) -> None:
    """Refuse tables that the memory has no room for: the system would kill the process without a word.

    Raises
    ------
    UserError
        Naming the largest table, and what is needed and there.
    """
    state = {  # numbers a row
        TableOptimizer.rowwise_adagrad: lambda dim: 1,
        TableOptimizer.adagrad: lambda dim: dim,
        TableOptimizer.sgd: lambda dim: 0,
    }[job.optim.tables.kind]
    sizes = {name: 4 * count * (job.tables[name].dim + state(job.tables[name].dim)) for name, count in rows.items()}
    room = _free_memory(runtime)
    needed = sum(sizes.values()) // runtime.world
    if room is not None and needed > room:
        name = max(sizes, key=lambda table: sizes[table])
        raise UserError(
            f"the tables and their optimizer's state need {needed / 2**30:,.1f} GiB, but {room / 2**30:,.1f} GiB are free; the "
            f"largest is tables.{name}, {rows[name]:,} rows × {job.tables[name].dim}: fewer buckets, a smaller max_size or dim"
        )


def _free_memory(runtime: Runtime) -> int | None:
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # only Linux tells
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def fill_rows(model: DistributedModelParallel, job: Job) -> None:
    """Draw the rows of every table, uniform in [-init_range, init_range): by seed, table and global row id, on any number of ranks."""
    for table, shards in weights(model).items():
        config = job.tables[table]
        reach = config.init_range or 1 / config.dim
        for shard in shards:
            rows = len(shard.local)
            for start in range(0, rows, BLOCK):
                part = shard.local[start : start + BLOCK]
                on_host = part.detach().numpy() if part.device.type == "cpu" else np.empty(part.shape, np.float32)
                hashing.fill_uniform(
                    on_host,
                    seed=job.seed,
                    stream=hashing.stream_of(table),
                    row_start=shard.start[0] + start,
                    col_start=shard.start[1],
                    width=shard.shape[1],
                    low=-reach,
                    high=reach,
                )
                if part.device.type != "cpu":
                    part.copy_(torch.from_numpy(on_host))
