"""A model ready to train or to ask: the order in which TorchRec wants things done, in one function."""

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import hashing
from bigembed.config.schema import Job
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
    model = Model(job, rows, torch.device("meta"))
    fuse(model.tables, job.optim.tables)
    return distribute(model, runtime, job.optim.clip_value)


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
