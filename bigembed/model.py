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

from bigembed import heads, managed
from bigembed.admission import Rules
from bigembed.batch import Batch
from bigembed.composition import Composition, feature_keys
from bigembed.config.physical import first_values, physical
from bigembed.config.placement import is_sequence
from bigembed.config.schema import DType, Job, ManagedTable, RetrievalHead

WEIGHTED = "w"  # ends the name of a module whose ids have weights
MANAGED = "m"  # ends, or stands before that, where rows change hands
# Whether rows change hands, and whether ids have weights, by the model's attribute; sums come in this order.
BAGS = {
    "tables": (False, False),
    "weighted": (False, True),
    "managed": (True, False),
    "managed_weighted": (True, True),
}
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
    managed, managed_weighted : ManagedCollisionEmbeddingBagCollection or None
        Those of them whose rows change hands.
    sequences : ModuleDict of EmbeddingCollection and ManagedCollisionEmbeddingCollection
        The tables whose rows are looked up one by one, by width: TorchRec wants one in each.
    """

    tables: Any
    weighted: Any
    managed: Any
    managed_weighted: Any

    def __init__(self, job: Job, rows: dict[str, int], device: torch.device) -> None:
        super().__init__()
        there = physical(job)
        weighted = {there.features[key].table for key in feature_keys(job, weighted=True)}
        bags: dict[tuple[bool, bool], list[Any]] = {key: [] for key in BAGS.values()}
        sequences: dict[str, list[Any]] = {}
        residents = {}
        for name, table in there.tables.items():
            config, of = _config(there, name, rows[name]), (isinstance(table, ManagedTable), name in weighted)
            if isinstance(table, ManagedTable):
                residents[name] = _residents(job, name, table, rows[name])
            if is_sequence(there, name):
                sequences.setdefault(f"{config.embedding_dim}{MANAGED * of[0]}{WEIGHTED * of[1]}", []).append(config)
            else:
                bags[of].append(config)
        for attribute, (changing, with_weights) in BAGS.items():
            configs = bags[changing, with_weights]
            tables = (
                EmbeddingBagCollection(tables=configs, is_weighted=with_weights, device=device) if configs else None
            )
            setattr(self, attribute, managed.bags(tables, residents) if tables and changing else tables)
        self.sequences = nn.ModuleDict()
        for name, configs in sequences.items():
            collection = EmbeddingCollection(tables=configs, device=device)
            self.sequences[name] = managed.sequences(collection, residents) if MANAGED in name else collection
        torch.manual_seed(job.seed)  # the first weights of projections and head
        order = [config for configs in bags.values() for config in configs]
        self.composition = Composition(
            job, [(feature, config.embedding_dim) for config in order for feature in config.feature_names]
        )
        self.retrieves = isinstance(job.head, RetrievalHead)
        self.head: Any = heads.build(job.head, self.composition.layout)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return this rank's share of the loss (a scalar); and, of the samples that count, losses and scores."""
        scores = self.scores(batch)
        losses = self.head.losses(scores, batch.labels)[: batch.samples]
        return losses.sum() * batch.weight, (losses.detach(), scores.detach()[: batch.samples])

    def scores(self, batch: Batch) -> torch.Tensor:
        """Return the head's scores of every sample; of a retrieval head the losses."""
        pooled, sequences = self.vectors(batch)
        if self.retrieves:
            return self.head(pooled, batch.seeds, batch.extras)
        return self.head(pooled, sequences, batch.seeds)

    def users(self, batch: Batch) -> torch.Tensor:
        """Return the vectors of a batch's users, shape (samples, dim), for dot products with those of items."""
        return self.head.users(self.vectors(batch)[0], batch.extras)

    def items(self, batch: Batch) -> torch.Tensor:
        """Return the vectors of a batch's items, shape (slots, dim)."""
        return self.head.items(self.vectors(batch)[0])

    def vectors(self, batch: Batch) -> tuple[torch.Tensor | None, Any]:
        """Return the features' vectors: the pooled ones side by side, shape (slots, width), and the sequences by feature."""
        sums, looked_up = [], []
        if self.tables is not None:
            sums.append(self.tables(batch.features))
        if self.weighted is not None:
            sums.append(self.weighted(batch.weighted))
        if self.managed is not None:
            sums.append(self.managed(batch.features)[0])
        if self.managed_weighted is not None:
            sums.append(self.managed_weighted(batch.weighted)[0])
        for name, module in self.sequences.items():
            found = module(batch.weighted if name.endswith(WEIGHTED) else batch.features)
            looked_up.append(found[0] if MANAGED in name else found)
        return self.composition(sums, looked_up, batch)


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


def _residents(job: Job, name: str, table: ManagedTable, rows: int) -> managed.Residents:
    rules = Rules(table.policy, table.decay, table.min_count)
    return managed.Residents(name, rows, rules, managed.FreshRows(name, table.dim, job.seed, *first_values(table)))


def _leave(weight: torch.Tensor) -> torch.Tensor:
    """Rows are filled after sharding, by global row id: TorchRec's own two passes over the table would be lost."""
    return weight
