"""FBGEMM's modules in a sharded model: TorchRec keeps them in plain lists, where ``modules()`` does not see them."""

from collections.abc import Iterator

from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn


def lookups(model: nn.Module) -> Iterator[SplitTableBatchedEmbeddingBagsCodegen]:
    """Yield the modules in which a rank's fused tables lie."""
    for module in model.modules():
        for lookup in getattr(module, "_lookups", ()):
            yield from (each for each in lookup.modules() if isinstance(each, SplitTableBatchedEmbeddingBagsCodegen))
