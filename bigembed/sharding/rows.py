"""The rows that this rank holds, of every table and of its optimizer's state, with their place in the whole table."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.managed import residents_of
from bigembed.optim import DENSE_STATES, OF_TABLES, Optimizers, table_of
from bigembed.sharding.lookups import lookups

START = "start"


@dataclass(frozen=True, slots=True)
class Shard:
    """A rectangle of a whole array.

    Attributes
    ----------
    local : Tensor
        This rank's part; it shares memory with the model.
    start : tuple of int
        Where the part begins in the whole, per dimension.
    shape : tuple of int
        The shape of the whole.
    owner : bool
        Whether this rank speaks for the part; of one that every rank holds, one does.
    """

    local: torch.Tensor
    start: tuple[int, ...]
    shape: tuple[int, ...]
    owner: bool = True

    @property
    def window(self) -> tuple[slice, ...]:
        """The part as an index into the whole."""
        return tuple(slice(at, at + size) for at, size in zip(self.start, self.local.shape, strict=True))

    def write(self, rows: np.ndarray) -> None:
        """Overwrite the part with ``rows``, an array of its shape."""
        if self.local.device.type == "cpu":
            np.copyto(self.local.detach().numpy(), rows)
        else:
            self.local.copy_(torch.from_numpy(np.array(rows)))

    def read(self) -> np.ndarray:
        """Return the part in host memory; on a CPU without a copy."""
        return self.local.detach().cpu().numpy()


def weights(model: DistributedModelParallel) -> dict[str, list[Shard]]:
    """Return this rank's shards of every table's weight, by table name; the same names on all ranks."""
    found = {}
    for key, value in model.state_dict().items():
        if key.startswith(OF_TABLES):
            found[table_of(key)] = _shards(value)
    return found


def states(model: DistributedModelParallel, optimizers: Optimizers) -> dict[str, dict[str, list[Shard]]]:
    """Return this rank's shards of what training keeps beside the tables, by table and name, whatever the kernel.

    That is every state of their optimizer ("momentum1"), and what rows that are pulled back started as (``START``).
    """
    found: dict[str, dict[str, list[Shard]]] = {}
    for key, state in model.fused_optimizer.state_dict()["state"].items():
        found[table_of(key)] = {name.rpartition(".")[2]: _shards(value) for name, value in state.items()}
    unfused = {table_of(name) for name, _ in optimizers.unfused}
    for table, shards in weights(model).items():
        if table in unfused:
            found[table] = _unfused_states(table, shards, optimizers)
        if table in optimizers.starts:
            starts = zip(shards, optimizers.starts[table], strict=True)
            found.setdefault(table, {})[START] = [replace(shard, local=start) for shard, start in starts]
    return found


def _unfused_states(table: str, shards: list[Shard], optimizers: Optimizers) -> dict[str, list[Shard]]:
    """Return the states that a dense optimizer keeps of a table's parameters, as shards of the fused ones' names and shapes."""
    parameters = [parameter for name, parameter in optimizers.unfused if table_of(name) == table]
    found: dict[str, list[Shard]] = {name: [] for name in optimizers.unfused_states()}
    assert optimizers.tables is not None
    for shard in shards:
        (parameter,) = [each for each in parameters if each.data_ptr() == shard.local.data_ptr()]
        for name, entry in found.items():
            state = optimizers.tables.state[parameter][DENSE_STATES[name]]
            by_row = state.shape != shard.local.shape  # one number a row
            local = state.view(-1) if by_row else state
            dimensions = 1 if by_row else 2
            entry.append(replace(shard, local=local, start=shard.start[:dimensions], shape=shard.shape[:dimensions]))
    return found


def _shards(value: torch.Tensor | ShardedTensor) -> list[Shard]:
    if not isinstance(value, ShardedTensor):  # every rank holds it
        return [Shard(value, (0,) * value.dim(), tuple(value.shape), torch.distributed.get_rank() == 0)]
    shape = tuple(value.metadata().size)
    return [Shard(part.tensor, tuple(part.metadata.shard_offsets), shape) for part in value.local_shards()]


def residents(model: DistributedModelParallel) -> dict[str, dict[str, list[Shard]]]:
    """Return this rank's shards of who has which row, by managed table and name ("ids"); the clock is everyone's."""
    found: dict[str, dict[str, list[Shard]]] = {}
    for table, module in residents_of(model).items():
        part = module.admission
        assert part is not None
        found[table] = {
            name: [
                Shard(torch.from_numpy(array), (0,), (1,), torch.distributed.get_rank() == 0)
                if array is part.clock
                else Shard(torch.from_numpy(array), (part.first,), (part.whole,))
            ]
            for name, array in part.state().items()
        }
    return found


def forget_caches(model: DistributedModelParallel) -> None:
    """Empty the caches that a GPU keeps of rows in the host's memory: after those were overwritten they are old."""
    for module in lookups(model):
        module.reset_cache_states()
