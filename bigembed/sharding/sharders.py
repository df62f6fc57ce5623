"""TorchRec's sharders, as the planner and DistributedModelParallel both take them."""

from typing import Any

from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.types import ModuleSharder, ShardingType

from bigembed import managed
from bigembed.config.schema import Job, Precision

COMMUNICATION = {
    Precision.fp32: CommType.FP32,
    Precision.fp16: CommType.FP16,
    Precision.bf16: CommType.BF16,
    Precision.int8: CommType.INT8,
}


class _Unprejudiced:
    """Offers every kind and kernel on every device: ``config.placement`` knows what is right, TorchRec's own lists leave some out."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [kind.value for kind in ShardingType]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        if sharding_type == ShardingType.DATA_PARALLEL.value:
            return [EmbeddingComputeKernel.DENSE.value]
        return [
            EmbeddingComputeKernel.FUSED.value,
            EmbeddingComputeKernel.FUSED_UVM.value,
            EmbeddingComputeKernel.FUSED_UVM_CACHING.value,
        ]


class BagSharder(_Unprejudiced, EmbeddingBagCollectionSharder):
    """The sharder of pooled tables."""


class SequenceSharder(_Unprejudiced, EmbeddingCollectionSharder):
    """The sharder of tables that are looked up row by row."""


def sharders(job: Job, world_size: int) -> list[ModuleSharder[nn.Module]]:
    """Return the sharders of ``job``: with its clipping, and the precisions in which its ranks talk to each other."""
    fused: dict[str, Any] = {}
    if job.optim.clip_value is not None:  # of the gradient that an id's row gets, before the optimizer
        fused = {"gradient_clipping": True, "max_gradient": job.optim.clip_value}
    codecs = _codecs(job) if world_size > 1 else None
    bags = BagSharder(fused_params=fused, qcomm_codecs_registry=codecs)
    sequences = SequenceSharder(fused_params=fused, qcomm_codecs_registry=codecs)
    return [bags, sequences, managed.BagSharder(bags), managed.SequenceSharder(sequences)]


def _codecs(job: Job) -> dict[str, Any] | None:
    if job.sharding.forward is Precision.fp32 and job.sharding.backward is Precision.fp32:
        return None
    return get_qcomm_codecs_registry(
        QCommsConfig(
            forward_precision=COMMUNICATION[job.sharding.forward],
            backward_precision=COMMUNICATION[job.sharding.backward],
        )
    )
