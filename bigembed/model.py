"""Tables and head: what is trained, knowing nothing of ranks."""

from typing import Any

import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from bigembed import heads
from bigembed.batch import Batch
from bigembed.config.schema import Job, Pooling

POOLING = {Pooling.mean: PoolingType.MEAN, Pooling.sum: PoolingType.SUM}


class Model(nn.Module):
    """Every feature looked up in its table and pooled, side by side, then the head.

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
        self.tables = EmbeddingBagCollection(tables=table_configs(job, rows), device=device)
        torch.manual_seed(job.seed)  # the head's first weights, and dropout from there on
        self.head: Any = heads.build(job.head, sum(job.tables[feature.table].dim for feature in job.features.values()))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return this rank's share of the loss (a scalar), the samples' losses and their scores."""
        scores = self.scores(batch)
        losses = self.head.losses(scores, batch.labels)
        return losses.sum() * batch.weight, losses.detach(), scores.detach()

    def scores(self, batch: Batch) -> torch.Tensor:
        """Return the head's scores of every sample."""
        return self.head(self.tables(batch.features).values())


def table_configs(job: Job, rows: dict[str, int]) -> list[EmbeddingBagConfig]:
    """Return TorchRec's description of the job's tables."""
    configs = []
    for name, table in job.tables.items():
        features = {key: feature for key, feature in job.features.items() if feature.table == name}
        configs.append(
            EmbeddingBagConfig(
                name=name,
                embedding_dim=table.dim,
                num_embeddings=rows[name],
                feature_names=list(features),
                pooling=POOLING[next(iter(features.values())).pooling],
                init_fn=_leave,
            )
        )
    return configs


def _leave(weight: torch.Tensor) -> torch.Tensor:
    """Rows are filled after sharding, by global row id: TorchRec's own two passes over the table would be lost."""
    return weight
