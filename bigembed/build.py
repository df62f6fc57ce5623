"""A model ready to train or to ask: the order in which TorchRec wants things done, in one function."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import hashing
from bigembed.admission import check_shared
from bigembed.config.physical import first_values, physical
from bigembed.config.placement import check_placement, kernels_of
from bigembed.config.schema import Job, Kernel, Kind, ManagedTable
from bigembed.errors import UserError
from bigembed.model import Model
from bigembed.optim import fuse
from bigembed.runtime import Runtime
from bigembed.sharding import plan as plans
from bigembed.sharding.cluster import cluster_of
from bigembed.sharding.place import distribute
from bigembed.sharding.plan import Plan
from bigembed.sharding.planner import make_plan
from bigembed.sharding.rows import forget_caches, weights

BLOCK = 1 << 20  # rows filled at once where the device is not the host


def build(job: Job, rows: dict[str, int], runtime: Runtime) -> DistributedModelParallel:
    """Return the sharded model of ``job`` with tables of ``rows`` rows, whose values are yet to be set.

    Tables on meta, optimizer into the backward pass, then the plan, then sharding: in another order TorchRec does something else
    in silence.

    Raises
    ------
    UserError
        When the tables have no room, or cannot be sharded as the job says.
    """
    device = runtime.device.type
    model = Model(job, rows, torch.device("meta"))
    job = physical(job)
    check_placement(job, device)
    given = None if job.sharding.plan is None else given_plan(job, rows, runtime)
    if given is None:
        fuse(model, job, {name for name in job.tables if Kernel.dense in kernels_of(job, name, device)})
        plan = make_plan(model, job, cluster_of(job, runtime.world, runtime.local_world)).plan
        plan = _agreed(plan, runtime)
    else:
        fuse(model, job, {name for name, table in given.tables.items() if table.kernel is Kernel.dense})
        plan = given
    return distribute(model, plan, job, runtime)


def given_plan(job: Job, rows: dict[str, int], runtime: Runtime) -> Plan:
    """Return the plan that the job names, which must be one for its tables and for these ranks.

    Raises
    ------
    UserError
        Naming what differs.
    """
    path = Path(str(job.sharding.plan))
    plan = plans.load(path)
    where = f"sharding.plan={path}"
    planned, here = (
        (plan.world_size, plan.local_world_size, plan.device),
        (
            runtime.world,
            runtime.local_world,
            runtime.device.type,
        ),
    )
    if planned != here:
        told = "{} ranks, {} a host, on {}"
        raise UserError(f"{where} is for {told.format(*planned)}, but here are {told.format(*here)}; plan anew")
    if set(plan.tables) != set(rows):
        raise UserError(
            f"{where} is for other tables: {', '.join(plan.tables)}, while the job has {', '.join(rows)}; plan anew"
        )
    for name, table in plan.tables.items():
        config = job.tables[name]
        if (table.rows, table.dim, table.dtype) != (rows[name], config.dim, config.dtype):
            raise UserError(
                f"{where} has tables.{name} with {table.rows:,} rows × {table.dim} of {table.dtype.name}, but the job has "
                f"{rows[name]:,} × {config.dim} of {config.dtype.name}; plan anew"
            )
        plans.check_layout(name, plan, where)
        if isinstance(config, ManagedTable):
            check_shared(name, table.rows, plan.world_size)
        check_planned(job, name, table.kind, table.kernel, plan.device)
    return plan


def check_planned(job: Job, name: str, kind: Kind, kernel: Kernel, device: str) -> None:
    """Refuse a planned kind and kernel that would be refused if they were asked for."""
    asked = plans.with_placement(job, name, kind, kernel)
    try:
        check_placement(asked, device)
    except UserError as error:
        raise UserError(f"sharding.plan={job.sharding.plan} does not go with this job: {error}") from None


def _agreed(plan: Plan, runtime: Runtime) -> Plan:
    """Return the plan of rank 0: free memory, by which each rank plans, is not the same everywhere."""
    if runtime.world == 1:
        return plan
    shared = [plan.as_dict()]
    dist.broadcast_object_list(shared, device=runtime.device)
    return plans.from_dict(shared[0])


def fill_rows(model: DistributedModelParallel, job: Job) -> None:
    """Draw the rows of every table, uniform in [-init_range, init_range): by seed, table and global row id, on any number of ranks."""
    tables = physical(job).tables
    for table, shards in weights(model).items():
        low, high = first_values(tables[table])
        for shard in shards:
            rows = len(shard.local)
            for start in range(0, rows, BLOCK):
                part = shard.local[start : start + BLOCK]
                direct = part.device.type == "cpu" and part.dtype == torch.float32
                on_host = part.detach().numpy() if direct else np.empty(part.shape, np.float32)
                hashing.fill_uniform(
                    on_host,
                    seed=job.seed,
                    stream=hashing.stream_of(table),
                    row_start=shard.start[0] + start,
                    col_start=shard.start[1],
                    width=shard.shape[1],
                    low=low,
                    high=high,
                    threads=torch.get_num_threads(),
                )
                if not direct:
                    part.copy_(torch.from_numpy(on_host))
    forget_caches(model)
