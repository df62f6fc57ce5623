"""The checkpoint of a run into the model of another one that grows from it: rows by what they mean, the head by its inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import encoders, run
from bigembed.arrays import Manifest
from bigembed.checkpoint.contents import DENSE, arrays, dense, dtype_of, put_dense
from bigembed.checkpoint.head import Heads
from bigembed.checkpoint.together import Group
from bigembed.config import saved
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import Job, TableOptimizer
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.examples import table_rows
from bigembed.growth import Segment, Told, rows_of, sources
from bigembed.growth.rows import MOST_ROWS, fresh
from bigembed.optim import Optimizers
from bigembed.runtime import Runtime
from bigembed.sharding.rows import Shard, forget_caches

BLOCK = 1 << 24  # bytes of rows copied at once
Rules = dict[str, list[Segment]]  # where the rows of a table of ``config.physical`` come from


def load_grown(
    job: Job,
    known: Mapping[str, Encoder],
    model: DistributedModelParallel,
    optimizers: Optimizers,
    runtime: Runtime,
) -> Told:
    """Put what ``job`` keeps of the run that it grows from into ``model`` and ``optimizers``, whose first values are drawn already.

    All ranks call it together; each reads the rows that it holds. Only the chief verifies the checkpoint, before it is read.

    Parameters
    ----------
    job : Job
        The new run; ``job.grow`` names the other one.
    known : mapping of str to Encoder
        The new run's encoders, by table.
    model, optimizers, runtime
        What is filled, and the ranks.

    Returns
    -------
    Told
        What was kept, and what was not.

    Raises
    ------
    UserError
        When the other run or its checkpoint is damaged, on all ranks.
    """
    folder, group = Path(str(job.grow)), Group(runtime.control)
    path = group.by_chief(lambda: run.open_run(folder, None)[1])

    def read() -> Told:
        before, manifest = saved.load(folder), Manifest.load(path)
        old = {name: encoders.load(table, folder / run.ENCODERS / name) for name, table in before.tables.items()}
        old_rows, new_rows, rules = table_rows(before, old), table_rows(job, known), _rules(job, old, known)
        _fill(path, manifest, rules, arrays(model, optimizers))
        forget_caches(model)
        heads = Heads(before, old_rows, job, new_rows)
        tensors = {name: value.clone() for name, value in dense(model, optimizers).items()}
        heads.carry(load(manifest.file(path, DENSE)), tensors)
        put_dense(tensors, path / DENSE, model, optimizers)
        told = Told(str(path), features=heads.told())
        kinds = before.optim.tables.kind, job.optim.tables.kind
        _tell_tables(told, old_rows, new_rows, rules, kinds[0] is not kinds[1] is not TableOptimizer.sgd)
        return told

    return group.together(read)


def _rules(job: Job, old: Mapping[str, Encoder], known: Mapping[str, Encoder]) -> Rules:
    """Return where rows come from, of the tables that both runs have."""
    rules: Rules = {}
    for name, table in job.tables.items():
        if name in old:
            of_parts = rows_of(old[name], known[name])
            rules |= {part_name(name, part): each for part, each in zip(parts(table), of_parts, strict=True)}
    return rules


def _fill(path: Path, manifest: Manifest, rules: Rules, shards: Mapping[str, list[Shard]]) -> None:
    """Fill this rank's shards of arrays, by file name; a state of another optimizer stays as it is."""
    for name, own in shards.items():
        table = Path(name).name.partition(".")[0]
        if table not in rules or not own:
            continue
        entry = manifest.arrays.get(name)
        if entry is not None and (entry.dtype, entry.shape[1:]) == (dtype_of(own[0]), tuple(own[0].shape[1:])):
            for shard in own:
                _fill_shard(path / name, shard, rules[table])


def _fill_shard(file: Path, shard: Shard, segments: Sequence[Segment]) -> None:
    """Overwrite the rows of a shard that come from an array's rows, block by block."""
    local = shard.local.detach()
    try:
        mapped = np.load(file, mmap_mode="c", allow_pickle=False)  # private to us: torch wants arrays that it may write
    except (OSError, ValueError) as error:  # it was whole a moment ago
        raise UserError(f"{file} cannot be read: {error}; is that run being trained? wait for its end") from None
    whole = torch.from_numpy(mapped)
    whole = whole.view(torch.bfloat16) if local.dtype is torch.bfloat16 else whole
    if local.dim() == 2:
        whole = whole[:, shard.start[1] : shard.start[1] + local.shape[1]]
    step = max(1, min(MOST_ROWS, BLOCK // (local[:1].nbytes or 1)))
    for start in range(0, len(local), step):
        part = local[start : start + step]
        first = shard.start[0] + start
        places = torch.from_numpy(sources(segments, first, first + len(part)))
        there = places >= 0
        if there.all():
            part.copy_(whole.index_select(0, places))
        elif there.any():
            on_host = part.cpu()
            on_host[there] = whole.index_select(0, places[there])
            part.copy_(on_host)


def _tell_tables(
    told: Told, old_rows: Mapping[str, int], new_rows: Mapping[str, int], rules: Rules, anew: bool
) -> None:
    """Tell of every table of either run, part by part."""
    for name, rows in new_rows.items():
        notes = ["the optimizer's state starts anew"] if anew and name in rules else []
        told.table(name, old_rows[name] if name in rules else 0, rules.get(name, [fresh(rows)]), notes)
    for name, rows in old_rows.items():
        if name not in new_rows:
            told.table(name, rows, [])
