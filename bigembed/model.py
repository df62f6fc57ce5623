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
from bigembed.composition import Composition, feature_keys
from bigembed.config.physical import physical
from bigembed.config.placement import is_sequence
from bigembed.config.schema import DType, Job

WEIGHTED = "w"  # ends the name of a module whose ids have weights
DTYPES = {DType.fp32: DataType.FP32, DType.fp16: DataType.FP16, DType.bf16: DataType.BF16}


class Model(nn.Module):
    """Every feature looked up in its table, pooled or as a sequence, then the head.

    Parameters
    ----------
    job : Job
        The configuration.
    rows : dict of str to int
        The number of rows of every table of ``config.physical.physical(job)``.
    device : torch.device
        Where the tables lie; the meta device leaves them to be sharded.

    Attributes
    ----------
    tables, weighted : EmbeddingBagCollection or None
        The tables whose rows are added up, without and with a weight for every id.
    sequences : ModuleDict of EmbeddingCollection
        The tables whose rows are looked up one by one, by width: TorchRec wants one in each.
    """

    def __init__(self, job: Job, rows: dict[str, int], device: torch.device) -> None:
        super().__init__()
        there = physical(job)
        weighted = {there.features[key].table for key in feature_keys(job, weighted=True)}
        bags: dict[bool, list[Any]] = {False: [], True: []}
        sequences: dict[str, list[Any]] = {}
        for name in there.tables:
            config = _config(there, name, rows[name])
            if is_sequence(there, name):
                sequences.setdefault(f"{config.embedding_dim}{WEIGHTED * (name in weighted)}", []).append(config)
            else:
                bags[name in weighted].append(config)
        self.tables = EmbeddingBagCollection(tables=bags[False], device=device) if bags[False] else None
        self.weighted = (
            EmbeddingBagCollection(tables=bags[True], is_weighted=True, device=device) if bags[True] else None
        )
        self.sequences = nn.ModuleDict(
            {name: EmbeddingCollection(tables=configs, device=device) for name, configs in sequences.items()}
        )
        torch.manual_seed(job.seed)  # the first weights of projections and head
        order = [config for each in (False, True) for config in bags[each]]
        self.composition = Composition(
            job, [(feature, config.embedding_dim) for config in order for feature in config.feature_names]
        )
        self.head: Any = heads.build(job.head, self.composition.width, self.composition.sequences)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return this rank's share of the loss (a scalar); and, of the samples that count, losses and scores."""
        scores = self.scores(batch)
        losses = self.head.losses(scores, batch.labels)[: batch.samples]
        return losses.sum() * batch.weight, (losses.detach(), scores.detach()[: batch.samples])

    def scores(self, batch: Batch) -> torch.Tensor:
        """Return the head's scores of every sample."""
        sums, looked_up = [], []
        if self.tables is not None:
            sums.append(self.tables(batch.features).values())
        if self.weighted is not None:
            sums.append(self.weighted(batch.weighted).values())
        for name, module in self.sequences.items():
            looked_up.append(module(batch.weighted if name.endswith(WEIGHTED) else batch.features))
        vectors = self.composition(sums, looked_up, batch)
        return self.head(vectors[0], vectors[1], batch.seeds)


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
