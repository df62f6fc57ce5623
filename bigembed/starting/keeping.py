"""What keeps the rows near what they started as: those that are frozen train after a while, others are pulled back."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.config.physical import physical
from bigembed.config.schema import Freeze, Job
from bigembed.optim import Optimizers, factor, rates
from bigembed.sharding.rows import START, Shard, forget_caches, states, weights

PULL_EVERY = 16  # steps: to go over a table costs its bytes


def keep_starts(
    job: Job, model: DistributedModelParallel, optimizers: Optimizers, besides: Collection[str] = ()
) -> None:
    """Keep what its rows are now beside every table that is pulled back, but those ``besides``; checkpoints have that too."""
    tables = physical(job).tables
    for name, shards in weights(model).items():
        if tables[name].pretrained.pull and name not in besides:
            optimizers.starts[name] = [shard.local.detach().clone() for shard in shards]


def pull_back(job: Job, model: DistributedModelParallel, optimizers: Optimizers, step: int) -> None:
    """Pull rows toward their start after ``step`` steps, where that is due: each of the last steps by learning rate × ``pull``.

    That is L2 to the start, decoupled from the gradient as in AdamW (Loshchilov & Hutter 2019), for several steps at once.
    """
    last = step == optimizers.steps
    if not optimizers.starts or not (last or step % PULL_EVERY == 0):
        return
    since = step - 1 - (step - 1) % PULL_EVERY
    tables, of_table, own = physical(job).tables, rates(job), weights(model)
    for name, starts in optimizers.starts.items():
        shares = [
            of_table[name].at(each, factor(job.optim, each, optimizers.steps)) * tables[name].pretrained.pull
            for each in range(since, step)
        ]
        share = 1 - math.prod(max(0.0, 1 - each) for each in shares)
        for shard, start in zip(own[name], starts, strict=True):
            shard.local.detach().lerp_(start, share)
    forget_caches(model)


def release(job: Job, model: DistributedModelParallel, optimizers: Optimizers) -> None:
    """Let rows train that were frozen in the run that this one grew from, where this one does not freeze rows."""
    tables = physical(job).tables
    for name, kept in states(model, optimizers).items():
        if tables[name].pretrained.freeze is not Freeze.rows:
            _let_go(kept)


def thaw(job: Job, model: DistributedModelParallel, optimizers: Optimizers, step: int) -> None:
    """Let rows that were frozen for ``step`` steps train from here on, as if their optimizer began now."""
    due = {
        name: table.pretrained.freeze
        for name, table in physical(job).tables.items()
        if table.pretrained.freeze is not Freeze.none and table.pretrained.freeze_steps == step
    }
    if not due:
        return
    kept = states(model, optimizers)
    for name, freeze in due.items():
        _let_go(kept.get(name, {}), freeze is Freeze.table)
    forget_caches(model)


def _let_go(kept: Mapping[str, Sequence[Shard]], whole: bool = False) -> None:
    """Make the optimizer's state of a table's frozen rows, or of all, one that begins; ``kept`` is by the state's name."""
    for state, shards in kept.items():
        for shard in shards if state != START else ():
            local = shard.local.detach()
            if whole:
                local.zero_()
            else:
                local.masked_fill_(torch.isinf(local), 0.0)
