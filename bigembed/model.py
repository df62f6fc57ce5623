"""Tables and head: what is trained, knowing nothing of ranks."""

from typing import Any

import torch
from torch import nn
from torchrec import (
    DataType,
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_configs import BaseEmbeddingConfig

from bigembed import heads
from bigembed.batch import Batch
from bigembed.config.placement import is_sequence
from bigembed.config.schema import DType, Job, Pooling

DTYPES = {DType.fp32: DataType.FP32, DType.fp16: DataType.FP16, DType.bf16: DataType.BF16}


class Model(nn.Module):
    """Every feature looked up in its table, pooled or as a sequence, then the head.

    Parameters
    ----------
    job : Job
        The configuration.
    rows : dict of str to int
        The number of rows of every table.
    device : torch.device
        Where the tables lie; the meta device leaves them to be sharded.
    """

    def __init__(self, job: Job, rows: dict[str, int], device: torch.device) -> None:
        super().__init__()
        bags = [_config(job, name, rows[name]) for name in job.tables if not is_sequence(job, name)]
        sequences = [_config(job, name, rows[name]) for name in job.tables if is_sequence(job, name)]
        self.tables = EmbeddingBagCollection(tables=bags, device=device) if bags else None
        self.sequences = EmbeddingCollection(tables=sequences, device=device) if sequences else None
        self.mean = Mean(job, bags) if bags else None
        torch.manual_seed(job.seed)  # the head's first weights
        width = sum(config.embedding_dim * len(config.feature_names) for config in bags)
        of_sequences = {name: config.embedding_dim for config in sequences for name in config.feature_names}
        self.head: Any = heads.build(job.head, width, of_sequences)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return this rank's share of the loss (a scalar); and, of the samples that count, losses and scores."""
        scores = self.scores(batch)
        losses = self.head.losses(scores, batch.labels)[: batch.samples]
        return losses.sum() * batch.weight, (losses.detach(), scores.detach()[: batch.samples])

    def scores(self, batch: Batch) -> torch.Tensor:
        """Return the head's scores of every sample."""
        pooled = None if self.mean is None else self.mean(self.tables(batch.features).values(), batch.features)  # type: ignore[misc]
        sequences = None if self.sequences is None else self.sequences(batch.features)
        return self.head(pooled, sequences, batch.seeds)


class Mean(nn.Module):
    """The sums of the features' rows, those of features with mean pooling divided by their lengths.

    TorchRec looks up sums alone: its means are wrong in grid sharding, and clipped in another place in every kind.
    """

    widths: torch.Tensor
    divided: torch.Tensor

    def __init__(self, job: Job, configs: list[EmbeddingBagConfig]) -> None:
        super().__init__()
        order = list(job.features)
        names = [name for config in configs for name in config.feature_names]  # as TorchRec puts them side by side
        mean = [job.features[name].pooling is Pooling.mean for name in names]
        self.features, self.names = len(order), [order.index(name) for name in names]
        self.any, self.all = any(mean), all(mean)
        widths = [config.embedding_dim for config in configs for _ in config.feature_names]
        self.single = len(names) == 1
        self.register_buffer("widths", torch.tensor(widths), persistent=False)
        self.register_buffer("divided", torch.tensor(mean), persistent=False)

    def forward(self, sums: torch.Tensor, features: Any) -> torch.Tensor:
        """Return the pooled vectors, shape (samples, width), of ``sums`` of that shape."""
        sums = sums.float()  # looked up in halves outside of training
        if not self.any:
            return sums
        lengths = features.lengths().view(self.features, -1)
        if self.single:
            return sums / lengths[self.names[0]].clamp(min=1).unsqueeze(1)
        divisors = lengths[self.names].clamp(min=1)
        divisors = divisors if self.all else torch.where(self.divided.unsqueeze(1), divisors, 1)
        return sums / divisors.t().repeat_interleave(self.widths, dim=1)


def _config(job: Job, name: str, rows: int) -> BaseEmbeddingConfig:
    """Return TorchRec's description of a table."""
    table = job.tables[name]
    options: dict[str, Any] = {
        "name": name,
        "embedding_dim": table.dim,
        "num_embeddings": rows,
        "feature_names": [key for key, feature in job.features.items() if feature.table == name],
        "data_type": DTYPES[table.dtype],
        "init_fn": _leave,
    }
    return (
        EmbeddingConfig(**options) if is_sequence(job, name) else EmbeddingBagConfig(pooling=PoolingType.SUM, **options)
    )


def _leave(weight: torch.Tensor) -> torch.Tensor:
    """Rows are filled after sharding, by global row id: TorchRec's own two passes over the table would be lost."""
    return weight
