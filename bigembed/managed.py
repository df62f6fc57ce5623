"""Managed tables in TorchRec's form: a managed collision module that keeps who has which row, and rows that begin anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingCollection, JaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.mc_embedding import (
    ManagedCollisionEmbeddingCollectionSharder,
    ShardedManagedCollisionEmbeddingCollection,
)
from torchrec.distributed.mc_embeddingbag import (
    ManagedCollisionEmbeddingBagCollectionSharder,
    ShardedManagedCollisionEmbeddingBagCollection,
)
from torchrec.modules.embedding_configs import BaseEmbeddingConfig
from torchrec.modules.mc_embedding_modules import (
    ManagedCollisionEmbeddingBagCollection,
    ManagedCollisionEmbeddingCollection,
)
from torchrec.modules.mc_modules import ManagedCollisionCollection, ManagedCollisionModule

from bigembed import hashing
from bigembed.admission import GROUP, Admission, Rules, rows_of


class Residents(ManagedCollisionModule):
    """Turns the values of a table's features into rows: each step of training changes who has which, asking does not.

    The state is numpy's, in the host's memory, and in no ``state_dict``. A module for the whole table has none, until ``look_up_in``
    gives it one to read; TorchRec makes one with a state of its own for the rows of each rank.

    Parameters
    ----------
    table : str
        Name of the table.
    rows : int
        Rows, a multiple of ``admission.GROUP``.
    rules : Rules
        Who gets a row.
    fresh : FreshRows
        The rows' first values.
    first, whole : int
        The row of the whole table where this part of it begins, and rows of the whole; by default the part is the whole.
    """

    def __init__(
        self, table: str, rows: int, rules: Rules, fresh: "FreshRows", first: int = 0, whole: int | None = None
    ) -> None:
        super().__init__(torch.device("cpu"), output_segments=[0, rows])
        self._buffers.clear()  # TorchRec's own notes, which would be taken for tables
        self.table, self.rules, self.fresh = table, rules, fresh
        self.rows, self.first, self.whole = rows, first, rows if whole is None else whole
        self.admission: Admission | None = None
        self._ids: np.ndarray | None = None
        self._taken: np.ndarray | None = None

    def look_up_in(self, ids: np.ndarray) -> None:
        """Read the rows' values (int64, shape (rows,)) from an array, which stays as it is."""
        self._ids = np.asarray(ids)  # not as memory-mapped: to numba that is another type

    def rebuild_with_output_id_range(
        self, output_id_range: tuple[int, int], output_segments: list[int], device: torch.device | None = None
    ) -> "Residents":
        """Return the module of a rank: of the rows from the first to before the second of ``output_id_range``, all of them free."""
        start, end = output_id_range
        part = Residents(self.table, end - start, self.rules, self.fresh, start, self.whole)
        part.admission = Admission(part.rows, part.first, part.whole, part.rules)
        part.look_up_in(part.admission.ids)
        return part

    def profile(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        """Return the features as they are: ``remap`` counts values and looks them up in one go."""
        return features

    def remap(
        self,
        features: dict[str, JaggedTensor],
        mutate_miss_lengths: bool = True,
        write_weights: torch.Tensor | None = None,
    ) -> dict[str, JaggedTensor]:
        """Return the features with rows of the whole table in place of values; in training this is a step."""
        ((name, feature),) = features.items()
        rows = self._rows(feature.values().cpu().numpy())
        return {
            name: JaggedTensor(
                torch.from_numpy(rows).to(feature.values().device),
                lengths=feature.lengths(),
            )
        }

    def forward(self, features: dict[str, JaggedTensor], mutate_miss_lengths: bool = True) -> dict[str, JaggedTensor]:
        """Do as ``remap``; TorchRec calls this where nothing is sharded."""
        return self.remap(features)

    def evict(self) -> torch.Tensor | None:
        """Return the rows of the whole table that the last step took from one value for another; None where there are none."""
        taken, self._taken = self._taken, None
        return torch.from_numpy(taken) if taken is not None and len(taken) else None

    def output_size(self) -> int:
        """Return the number of rows."""
        return self.rows

    def input_size(self) -> int:
        """Return 0: TorchRec then sends a value to the rank that holds group ``value % buckets()``."""
        return 0

    def buckets(self) -> int:
        """Return the groups of the whole table."""
        return self.whole // GROUP

    def validate_state(self) -> None:
        """Accept any ``state_dict``: nothing of the state is in it."""

    def _rows(self, values: np.ndarray) -> np.ndarray:
        threads = torch.get_num_threads()
        if self.training:
            assert self.admission is not None, "a managed table is trained sharded"
            rows, self._taken = self.admission.step(values, threads)
            return rows
        assert self._ids is not None, "nothing to look up in"
        return rows_of(values, self._ids, self.first, self.whole, threads)


class FreshRows:
    """The first values of a table's rows, as ``build.fill_rows`` draws them, for any rows.

    Parameters
    ----------
    table : str
        Name of the table.
    dim : int
        Width of a row.
    seed : int
        The job's.
    low, high : float
        Values lie in [low, high).
    """

    def __init__(self, table: str, dim: int, seed: int, low: float, high: float) -> None:
        self.dim, self.low, self.high = dim, low, high
        self._numbers = np.uint64(seed & hashing.MASK), np.uint64(hashing.stream_of(table))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the first values, shape (count, dim), float32, of ``rows`` (int64) of the whole table."""
        out = np.empty((len(rows), self.dim), np.float32)
        _fill(out, rows, *self._numbers, np.uint64(self.dim), self.low, self.high)
        return out


@numba.njit(nogil=True, cache=True)
def _fill(
    out: np.ndarray, rows: np.ndarray, seed: np.uint64, stream: np.uint64, width: np.uint64, low: float, high: float
) -> None:
    for i in range(len(rows)):
        hashing.fill_block(out[i : i + 1], seed, stream, np.uint64(rows[i]) * width, width, low, high)


def bags(tables: EmbeddingBagCollection, residents: Mapping[str, Residents]) -> ManagedCollisionEmbeddingBagCollection:
    """Return pooled ``tables``, managed by ``residents``; called with features it returns the pooled vectors, and None."""
    return ManagedCollisionEmbeddingBagCollection(tables, _collisions(tables.embedding_bag_configs(), residents))


def sequences(tables: EmbeddingCollection, residents: Mapping[str, Residents]) -> ManagedCollisionEmbeddingCollection:
    """Return ``tables`` of sequences, managed by ``residents``; called with features it returns the vectors by feature, and None."""
    return ManagedCollisionEmbeddingCollection(tables, _collisions(tables.embedding_configs(), residents))


def _collisions(
    configs: Sequence[BaseEmbeddingConfig], residents: Mapping[str, Residents]
) -> ManagedCollisionCollection:
    modules: dict[str, ManagedCollisionModule] = {config.name: residents[config.name] for config in configs}
    return ManagedCollisionCollection(modules, configs, need_preprocess=False)  # which would lose the values' weights


def residents_of(model: nn.Module) -> dict[str, Residents]:
    """Return what keeps who has which row, by table; of a sharded model this rank's part."""
    return {module.table: module for module in model.modules() if isinstance(module, Residents)}


class _BeginAnew:
    """Overwrites rows that have another value now: with their first values, and no optimizer state. TorchRec would take zeros."""

    _managed_collision_collection: Any
    _table_to_tbe_and_index: dict[str, Any]

    def _evict(self, evictions_per_table: dict[str, torch.Tensor | None]) -> None:
        collisions = self._managed_collision_collection
        for table, rows in evictions_per_table.items():
            if rows is None:
                continue
            tbe, index = self._table_to_tbe_and_index[table]
            weight = tbe.split_embedding_weights()[int(index)].detach()
            values = collisions._managed_collision_modules[table].fresh(
                (rows + collisions._table_to_offset[table]).numpy()
            )
            rows = rows.to(weight.device)
            weight[rows] = torch.from_numpy(values).to(weight.device, weight.dtype)
            states = tbe.split_optimizer_states()  # empty for SGD
            for state in states[int(index)] if states else ():
                state[rows] = 0


class _ShardedBags(_BeginAnew, ShardedManagedCollisionEmbeddingBagCollection):
    pass


class _ShardedSequences(_BeginAnew, ShardedManagedCollisionEmbeddingCollection):
    pass


class BagSharder(ManagedCollisionEmbeddingBagCollectionSharder):
    """The sharder of ``bags``, by the sharder of pooled tables that are not managed."""

    def __init__(self, sharder: EmbeddingBagCollectionSharder) -> None:
        super().__init__(sharder, qcomm_codecs_registry=sharder.qcomm_codecs_registry)

    def shard(
        self, module: Any, params: Any, env: Any, device: torch.device | None = None, module_fqn: str | None = None
    ) -> _ShardedBags:
        """Return the sharded module."""
        return _ShardedBags(module, params, self._e_sharder, self._mc_sharder, env, device)


class SequenceSharder(ManagedCollisionEmbeddingCollectionSharder):
    """The sharder of ``sequences``, by the sharder of tables that are looked up row by row and not managed."""

    def __init__(self, sharder: EmbeddingCollectionSharder) -> None:
        super().__init__(sharder, qcomm_codecs_registry=sharder.qcomm_codecs_registry)

    def shard(
        self, module: Any, params: Any, env: Any, device: torch.device | None = None, module_fqn: str | None = None
    ) -> _ShardedSequences:
        """Return the sharded module."""
        return _ShardedSequences(module, params, self._e_sharder, self._mc_sharder, env, device)
