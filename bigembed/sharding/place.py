"""The model spread out over the ranks as a plan says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen as TableBatched,
)
from torch import nn
from torchrec.distributed.batched_embedding_kernel import BaseBatchedEmbedding, BaseBatchedEmbeddingBag
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import CacheParams, ShardingPlan

from bigembed.config.placement import cache_load_factor_of
from bigembed.config.schema import Job, Kernel, Rounding
from bigembed.optim import collections
from bigembed.runtime import Runtime
from bigembed.sharding.plan import Plan, to_torchrec
from bigembed.sharding.sharders import sharders
from bigembed.sharding.single_rows import look_up_as_bags


def distribute(model: nn.Module, plan: Plan, job: Job, runtime: Runtime) -> DistributedModelParallel:
    """Return ``model`` with its tables sharded as ``plan`` says; their rows are left unset.

    The tables must be on the meta device and the fused ones have their optimizer attached.
    """
    modules = {}
    for module, collection in collections(model).items():
        tables = {name: plan.tables[name] for name in table_names(collection)}
        extras = {name: _extras(job, name, plan.tables[name].kernel) for name in tables}
        modules[module] = to_torchrec(tables, plan.device, plan.local_world_size, extras)
    with _rows_left_unset():
        placed = DistributedModelParallel(
            model,
            device=torch.device(runtime.device),
            plan=ShardingPlan(plan=modules),
            sharders=sharders(job, runtime.world),
        )
    look_up_as_bags(placed)
    return placed


@contextmanager
def _rows_left_unset() -> Iterator[None]:
    """Keep FBGEMM from clearing tables in the host's memory, and TorchRec from drawing all rows on one core, when a shard is made.

    All rows are set by global row id afterwards, which is then the only time that their memory is gone over.
    """
    apply_split = TableBatched._apply_split

    def without_clearing(kernel: Any, split: Any, prefix: str, dtype: Any, *others: Any, **named: Any) -> None:
        if prefix == "weights" and split.host_size > 0:
            named["preallocated_host_buffer"] = torch.empty(split.host_size, dtype=dtype, device=kernel.current_device)
        apply_split(kernel, split, prefix, dtype, *others, **named)

    replaced = [
        (TableBatched, "_apply_split", without_clearing),
        (BaseBatchedEmbedding, "init_parameters", _leave),
        (BaseBatchedEmbeddingBag, "init_parameters", _leave),
    ]
    before = [getattr(kind, name) for kind, name, _ in replaced]
    try:
        for kind, name, method in replaced:
            setattr(kind, name, method)
        yield
    finally:
        for (kind, name, _), method in zip(replaced, before, strict=True):
            setattr(kind, name, method)


def _leave(kernel: Any) -> None:
    """Set nothing."""


def has_caches(model: DistributedModelParallel) -> bool:
    """Whether a table of the sharded ``model`` has a cache on the GPU."""
    shardings = [sharding for module in model.plan.plan.values() for sharding in module.values()]
    return any(sharding.compute_kernel == Kernel.fused_uvm_caching.value for sharding in shardings)


def table_names(module: nn.Module) -> list[str]:
    """Return the names of the tables of an EmbeddingBagCollection or EmbeddingCollection, managed or not."""
    module = getattr(module, "_embedding_module", module)
    configs = getattr(module, "embedding_bag_configs", None) or module.embedding_configs
    return [config.name for config in configs()]  # type: ignore[operator]


def _extras(job: Job, name: str, kernel: Kernel) -> dict[str, Any]:
    if kernel is Kernel.dense:
        return {}
    extras: dict[str, Any] = {"stochastic_rounding": job.tables[name].rounding is Rounding.stochastic}
    if kernel is Kernel.fused_uvm_caching:
        extras["cache_params"] = CacheParams(load_factor=cache_load_factor_of(job, name))
    return extras
