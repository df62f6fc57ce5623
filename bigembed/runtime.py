"""The processes of a run: one, or those that torchrun started; gloo on CPUs, NCCL on GPUs."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from bigembed.config.schema import Device, RuntimeConfig
from bigembed.cores import available_cores
from bigembed.errors import UserError


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process of the run.

    Attributes
    ----------
    rank, world : int
        Which process this is, of how many.
    device : torch.device
        Where its shards lie.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def chief(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


@contextmanager
def start(config: RuntimeConfig) -> Iterator[Runtime]:
    """Join the process group and leave it cleanly at the end.

    Models must be out of scope when the block ends: what TorchRec keeps of the group is collected before it is destroyed.
    """
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # said of TorchRec's own call
    gc.freeze()  # what was imported stays: later collections, and the one at the end, need not look at it
    device = _device(config.device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(config.threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo looks the host's name up, which can fail
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend)
    try:
        yield Runtime(rank, world, device)
    finally:
        gc.collect()
        dist.destroy_process_group()
        gc.unfreeze()


def _device(wished: Device) -> torch.device:
    if wished is Device.cpu or (wished is Device.auto and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("runtime.device is cuda, but torch sees no GPU here; use runtime.device=cpu or auto")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
