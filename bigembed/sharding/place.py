"""Which rank holds which rows, and the model spread out accordingly."""

import torch
from torch import nn
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise, table_wise
from torchrec.distributed.types import ShardingPlan

from bigembed.runtime import Runtime

TABLES = "tables"  # the attribute under which every model holds its EmbeddingBagCollection


def distribute(model: nn.Module, runtime: Runtime, clip_value: float | None) -> DistributedModelParallel:
    """Return ``model`` with its tables sharded: whole on a single rank, by rows over several.

    The tables must be on the meta device and have their optimizer attached; their rows are left unset.
    FBGEMM clamps the gradients of the pooled vectors to ``clip_value``.
    """
    tables = getattr(model, TABLES)
    kernel = "fused"
    per_table = {
        config.name: table_wise(rank=0, compute_kernel=kernel)
        if runtime.world == 1
        else row_wise(compute_kernel=kernel)
        for config in tables.embedding_bag_configs()
    }
    plan = construct_module_sharding_plan(
        tables, per_table, local_size=runtime.world, world_size=runtime.world, device_type=runtime.device.type
    )
    fused = {} if clip_value is None else {"gradient_clipping": True, "max_gradient": clip_value}
    return DistributedModelParallel(
        model,
        device=torch.device(runtime.device),
        plan=ShardingPlan(plan={TABLES: plan}),
        sharders=[EmbeddingBagCollectionSharder(fused_params=fused)],
    )
