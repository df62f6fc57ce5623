"""The machines that tables are planned for: as the configuration describes them, and for the rest as they are found here."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bigembed.config.schema import Device, Job
from bigembed.errors import UserError

GIB, GB = 2**30, 10**9
GPU_BANDWIDTH = 897 * GIB  # bytes/s, TorchRec's defaults: a V100's memory,
NVLINK_BANDWIDTH = 600 * GIB  # an A100's NVLink,
DDR_BANDWIDTH = 51 * GIB  # a host's memory,
NETWORK_BANDWIDTH = 12.5 * GIB  # and 100 Gbit/s between hosts.
LOOPBACK_BANDWIDTH = 4 * GB  # what gloo moves between two processes of one host, in its order of magnitude
GPUS_A_HOST = 8


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal hosts with equal ranks.

    Attributes
    ----------
    world_size, local_world_size : int
        Ranks, and those of one host.
    device : str
        "cpu" or "cuda".
    hbm : int
        Bytes of one GPU; 0 on CPUs.
    ddr : int
        Bytes of one host.
    hbm_bandwidth, ddr_bandwidth, intra_bandwidth, inter_bandwidth : float
        Bytes a second: of a GPU's memory, of a host's, between two ranks of a host, between two ranks of different hosts.
    reserve : float
        Part of every memory that is left free.
    """

    world_size: int
    local_world_size: int
    device: str
    hbm: int
    ddr: int
    hbm_bandwidth: float
    ddr_bandwidth: float
    intra_bandwidth: float
    inter_bandwidth: float
    reserve: float

    @property
    def hosts(self) -> int:
        """How many hosts there are."""
        return self.world_size // self.local_world_size

    @property
    def room(self) -> tuple[int, int]:
        """Bytes that a rank has for tables, in its GPU's memory and in its share of the host's."""
        left = 1 - self.reserve
        return int(left * self.hbm), int(left * self.ddr / self.local_world_size)


def cluster_of(job: Job, world: int, local_world: int) -> Cluster:
    """Return the cluster that ``plan.*`` describes for ranks that run, what is null taken from this machine.

    On CPUs and without ``plan.ddr_gib`` the room is the memory that is free now, so ranks may see different numbers: one of them plans.

    Raises
    ------
    UserError
        When ``plan.*`` speaks of another number of ranks, or of another device, than there is.
    """
    plan = job.plan
    for name, wished, there in (
        ("world_size", plan.world_size, world),
        ("local_world_size", plan.local_world_size, local_world),
    ):
        if wished not in (None, there):
            raise UserError(
                f"plan.{name} is {wished}, but here it is {there}; leave it out, or plan on paper with bigembed plan"
            )
    device = _device(job.runtime.device)
    if plan.device not in (Device.auto, Device[device]):
        raise UserError(
            f"plan.device is {plan.device.name}, but this run computes on {device}; leave the choice of plan out, or plan "
            "on paper with bigembed plan"
        )
    return _described(job, world, local_world, device)


def cluster_on_paper(job: Job) -> Cluster:
    """Return the cluster that ``plan.*`` describes, which need not be here: without ``plan.world_size`` one rank.

    Raises
    ------
    UserError
        When what cannot be found out here is missing, or the ranks do not divide into hosts.
    """
    plan = job.plan
    world = plan.world_size or 1
    local_world = min(world, plan.local_world_size or GPUS_A_HOST)
    if world % local_world:
        raise UserError(
            f"plan.world_size={world} ranks do not fill hosts of plan.local_world_size={local_world}; every host has as many"
        )
    device = _device(job.runtime.device) if plan.device is Device.auto else plan.device.name
    return _described(job, world, local_world, device)


def _described(job: Job, world: int, local_world: int, device: str) -> Cluster:
    plan, gpu = job.plan, device == "cuda"
    return Cluster(
        world_size=world,
        local_world_size=local_world,
        device=device,
        hbm=_bytes(plan.hbm_gib, _free_gpu_memory) if gpu else 0,
        ddr=_bytes(plan.ddr_gib, _free_memory),
        hbm_bandwidth=_rate(plan.hbm_gb_s, GPU_BANDWIDTH),
        ddr_bandwidth=_rate(plan.ddr_gb_s, DDR_BANDWIDTH),
        intra_bandwidth=_rate(plan.intra_gb_s, NVLINK_BANDWIDTH if gpu else LOOPBACK_BANDWIDTH),
        inter_bandwidth=_rate(plan.inter_gb_s, NETWORK_BANDWIDTH),
        reserve=plan.reserve,
    )


def _device(wished: Device) -> str:
    if wished is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wished.name


def _bytes(gib: float | None, found: Callable[[], int]) -> int:
    return found() if gib is None else int(gib * GIB)


def _rate(gb_s: float | None, otherwise: float) -> float:
    return otherwise if gb_s is None else gb_s * GB


def _free_gpu_memory() -> int:
    if not torch.cuda.is_available():
        raise UserError(
            "plan.hbm_gib is missing, and there is no GPU here to ask; give it, or choose a GPU, e.g. plan=h100"
        )
    return torch.cuda.mem_get_info()[0]


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # only Linux tells what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
