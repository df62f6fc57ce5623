"""What of a model goes into a checkpoint: the tables and their optimizer's states as arrays, everything else as tensors by name."""

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.errors import UserError
from bigembed.optim import OF_TABLES, Optimizers
from bigembed.sharding.rows import Shard, residents, states, weights

DENSE = "dense.safetensors"
UNFIT = "the run and its files do not belong together"


def arrays(model: DistributedModelParallel, optimizers: Optimizers | None) -> dict[str, list[Shard]]:
    """Return this rank's shards by the name of the file: every table's weight, who has which row, and, with optimizers, the states."""
    found = {f"tables/{table}.weight.npy": shards for table, shards in weights(model).items()}
    for table, entries in [*residents(model).items(), *(states(model, optimizers) if optimizers else {}).items()]:
        found |= {f"tables/{table}.{name}.npy": shards for name, shards in entries.items()}
    return found


def byte_rows(shard: Shard) -> torch.Tensor:
    """Return a shard's own memory as bytes, shape (rows, bytes of its columns), uint8."""
    local = shard.local.detach()
    local = local.reshape(1, 1) if local.dim() == 0 else local.unsqueeze(1) if local.dim() == 1 else local
    return local.view(torch.uint8)


def place(shard: Shard) -> tuple[int, int]:
    """Return the row and column of the whole array where a shard begins."""
    row, column = (*shard.start, 0, 0)[:2]
    return row, column


def dtype_of(shard: Shard) -> str:
    """Return the name of a shard's numbers, as the manifest has it."""
    return str(shard.local.dtype).removeprefix("torch.")


def dense(model: DistributedModelParallel, optimizers: Optimizers) -> dict[str, torch.Tensor]:
    """Return the parameters that are no tables ("model.…") and their optimizer's state ("optim.…"), on the host."""
    tensors = {f"model.{name}": value for name, value in _parameters(model).items()}
    tensors |= {f"optim.{name}": value for name, value in optimizers.dense_state().items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def put_dense(
    tensors: dict[str, torch.Tensor], where: object, model: DistributedModelParallel, optimizers: Optimizers | None
) -> None:
    """Put back what ``dense`` returned; ``where`` it comes from is for the error.

    Raises
    ------
    UserError
        When the model has other parameters.
    """
    wanted = _parameters(model)
    if {f"model.{name}" for name in wanted} != {name for name in tensors if name.startswith("model.")}:
        raise UserError(f"{where} holds other parameters than the model has; {UNFIT}")
    for name, value in wanted.items():
        stored = tensors[f"model.{name}"]
        if stored.shape != value.shape:
            shapes = f"of shape {tuple(stored.shape)}, the model wants {tuple(value.shape)}"
            raise UserError(f"{where} holds {name} {shapes}; {UNFIT}")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[f"model.{name}"])
    if optimizers is not None:
        prefix = "optim."
        optimizers.load_dense_state(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )


def _parameters(model: DistributedModelParallel) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith(OF_TABLES)}
