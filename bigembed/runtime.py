"""The processes of a run: one, or those that torchrun started; gloo on CPUs, NCCL on GPUs."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torchrec.distributed import comm

from bigembed.config.schema import Device, RuntimeConfig
from bigembed.cores import local_rank, local_world_size, threads_here, world_size
from bigembed.errors import UserError

PATIENCE = timedelta(days=7)  # a lost rank is noticed otherwise: waiting for a slow one is no error


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process of the run.

    Attributes
    ----------
    rank, world : int
        Which process this is, of how many.
    device : torch.device
        Where its shards lie.
    local_world : int
        How many of the processes are on this host.
    control : ProcessGroup or None
        A gloo group for what the loop agrees on beside the training step; None where there is one process.
    """

    rank: int
    world: int
    device: torch.device
    local_world: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def chief(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> slice:
        """Return which of ``count`` things, in order, are those of a rank (default: of this one)."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.world, count * (rank + 1) // self.world)

    @property
    def hosts(self) -> int:
        """How many hosts the processes are spread over."""
        return self.world // self.local_world


@contextmanager
def start(config: RuntimeConfig, store: dist.Store | None = None) -> Iterator[Runtime]:
    """Join the process group and leave it cleanly at the end.

    ``store`` is where several processes meet; by default the one that torchrun's environment names. Models must be out of scope
    when the block ends: what TorchRec keeps of the group is collected before it is destroyed.
    """
    for call in ("broadcast_buffers", r"torch\.distributed\.\w+"):  # said of TorchRec's own calls
        warnings.filterwarnings("ignore", f"`{call}` is deprecated", FutureWarning)
    gc.freeze()  # what was imported stays: later collections, and the one at the end, need not look at it
    device = _device(config.device)
    world, rank = world_size(), int(os.environ.get("RANK", "0"))
    torch.set_num_threads(config.threads or threads_here())
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    control = None
    if world == local_world_size():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo looks the host's name up, which can fail
    if world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        store = next(dist.rendezvous("env://"))[0] if store is None else store
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Runtime(rank, world, device, local_world_size(), control)
    finally:
        gc.collect()
        comm._INTRA_PG = comm._CROSS_PG = (
            None  # TorchRec keeps the groups of hosts for the next job, to which they are strangers
        )
        dist.destroy_process_group()
        gc.unfreeze()


def _device(wished: Device) -> torch.device:
    if wished is Device.cpu or (wished is Device.auto and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("runtime.device is cuda, but torch sees no GPU here; use runtime.device=cpu or auto")
    return torch.device("cuda", local_rank())
