"""The rows that this rank holds, of every table and of its optimizer's state, with their place in the whole table."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.sharding.place import TABLES


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
    """

    local: torch.Tensor
    start: tuple[int, ...]
    shape: tuple[int, ...]

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
    """Return this rank's shards of every table's weight, by table name."""
    found = {}
    for key, value in model.state_dict().items():
        if key.startswith(f"{TABLES}.embedding_bags."):
            found[key.removesuffix(".weight").rpartition(".")[2]] = _shards(value)
    return found


def states(model: DistributedModelParallel) -> dict[str, dict[str, list[Shard]]]:
    """Return this rank's shards of every fused optimizer state, by table name and state name ("momentum1")."""
    found: dict[str, dict[str, list[Shard]]] = {}
    for key, state in model.fused_optimizer.state_dict()["state"].items():
        table = key.removesuffix(".weight").rpartition(".")[2]
        found[table] = {name.rpartition(".")[2]: _shards(value) for name, value in state.items()}
    return found


def _shards(value: torch.Tensor | ShardedTensor) -> list[Shard]:
    if not isinstance(value, ShardedTensor):
        return [Shard(value, (0,) * value.dim(), tuple(value.shape))]
    shape = tuple(value.metadata().size)
    return [Shard(part.tensor, tuple(part.metadata.shard_offsets), shape) for part in value.local_shards()]
