"""What this process has: its cores, and the processes beside it, as torchrun tells them."""

import os
from pathlib import Path


def available_cores() -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        return cores


def world_size() -> int:
    """Return how many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def by_torchrun() -> bool:
    """Whether torchrun started this process, with others or alone."""
    return world_size() > 1 or "TORCHELASTIC_RUN_ID" in os.environ


def local_world_size() -> int:
    """Return how many of them are on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return which of the processes of this host this one is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def threads_here() -> int:
    """Return the share of the cores that belongs to this process."""
    return max(1, available_cores() // local_world_size())
