"""Rows looked up one by one on a CPU, as bags of one id each: FBGEMM's own way back from such rows is serial."""

from itertools import pairwise
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn

from bigembed.sharding.lookups import lookups


def look_up_as_bags(model: nn.Module) -> None:
    """Let every table of a sharded ``model`` that lies on the CPU, and whose rows are not pooled, be looked up as bags of one id."""
    for module in lookups(model):
        if module.pooling_mode is PoolingMode.NONE and module.current_device.type == "cpu":
            module.pooling_mode = PoolingMode.SUM
            module.forward = _Rows(module)


class _Rows:
    """What the module was called as before: ids and offsets of features in, a row for every id out."""

    def __init__(self, module: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self._look_up, self._features = module.forward, len(module.feature_table_map)

    def __call__(self, indices: torch.Tensor, offsets: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the rows of ``indices``, shape (ids, dim); ``offsets`` are those of all samples, one feature after the other."""
        samples = (len(offsets) - 1) // self._features
        spans = list(pairwise(offsets[::samples].tolist()))  # where the ids of each feature begin and end
        counts = [end - begin for begin, end in spans]
        bags = max(1, *counts)  # the same number for every feature: what is beyond its own is empty
        places = [torch.arange(begin, begin + bags).clamp_(max=end) for begin, end in spans]
        bounds = torch.cat([*places, offsets[-1:]]).to(offsets.dtype)
        found = self._look_up(indices, bounds, *args, **kwargs).view(bags, self._features, -1).unbind(1)
        return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])
