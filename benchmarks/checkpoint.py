"""Saving and loading a table on several ranks, against plain writing (with fsync) and reading of as many bytes by as many processes.

python benchmarks/checkpoint.py --gib 5 --folder DIR

Everything is done in one run, in turns, and the mean times are compared. What is read comes from the disk first, then from the
page cache. The memory is the peak of a rank beyond its shard while it saves and loads.
"""

import argparse
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

NEEDED, ALLOWED_MIB = 0.7, 512
WEIGHT, STATE = "tables/text.weight.npy", "tables/text.momentum1.npy"
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=5.0, help="size of the table")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--columns", action="store_true", help="the ranks hold columns of all rows, instead of rows")
    parser.add_argument("--repeats", type=int, default=4, help="an even number: what comes first alternates")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for temporary files")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=a.folder) as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        context = get_context("spawn")
        answers = context.SimpleQueue()
        ranks = [
            context.Process(target=rank_main, args=(a, rank, port, Path(folder), answers)) for rank in range(a.ranks)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        assert all(process.exitcode == 0 for process in ranks)
        results = [answers.get() for _ in ranks]
    tell(a, results)


def tell(a: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    size = results[0]["bytes"]
    print(
        f"{size / GIB:.2f} GiB, {a.ranks} ranks with {'columns' if a.columns else 'rows'}; GiB/s, mean of {a.repeats}"
    )
    means = {name: statistics.mean(times) for name, times in results[0]["seconds"].items()}
    for name, plain in (("save", "write"), ("load", "read"), ("load cached", "read cached")):
        ratio = means[plain] / means[name]
        speeds = f"{size / GIB / means[name]:.2f}, plain {plain} {size / GIB / means[plain]:.2f}"
        print(f"{name:<12}{speeds}, ratio {ratio:.2f} (asked: {NEEDED})")
    beyond = max(result["beyond"] for result in results) / 2**20
    print(f"memory beyond the shard {beyond:,.0f} MiB (asked: at most {ALLOWED_MIB})")


def rank_main(a: argparse.Namespace, rank: int, port: int, folder: Path, answers: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(a.ranks),
        "LOCAL_WORLD_SIZE": str(a.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    from bigembed.config.schema import Device, RuntimeConfig
    from bigembed.runtime import start

    with start(RuntimeConfig(device=Device.cpu)) as runtime:
        answers.put(measure(a, runtime, folder))


def measure(a: argparse.Namespace, runtime: Any, folder: Path) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from bigembed import run
    from bigembed.arrays import Manifest
    from bigembed.checkpoint import Saver
    from bigembed.checkpoint.load import read_arrays
    from bigembed.cores import threads_here

    shards, size = make_shards(a, runtime)
    saver, saved, own = Saver(folder, runtime, 0), folder / run.name_of(1), folder / f"plain-{runtime.rank}"
    seconds: dict[str, list[float]] = {}
    beyond = [0]

    def timed(name: str, work: Callable[[], object], ours: bool) -> None:
        dist.barrier()
        before = reset_peak()
        began = time.perf_counter()
        work()
        dist.barrier()
        seconds.setdefault(name, []).append(time.perf_counter() - began)
        if ours:
            beyond.append(memory("VmHWM") - before)

    def compare_writing(ours: bool) -> None:
        if ours:
            timed("save", lambda: saver.begin(1, shards, {}), True)
        else:
            timed("write", lambda: plain_write(own, shards), False)

    def compare_reading(ours: bool, kind: str) -> None:
        kept = [part.local[:1000].clone() for (part,) in shards.values()]
        for (part,) in shards.values():
            part.local.zero_()
        if ours:
            timed(f"load{kind}", lambda: read_arrays(saved, Manifest.load(saved), shards, threads_here()), True)
        else:
            timed(f"read{kind}", lambda: plain_read(own, shards), False)
        assert all(torch.equal(part.local[:1000], rows) for (part,), rows in zip(shards.values(), kept, strict=True))

    for turn in range(a.repeats):
        order = (True, False) if turn % 2 else (False, True)  # a disk may be fast for the first bytes only
        for ours in order:
            compare_writing(ours)
        dist.barrier()
        forget(own, *(saved / name for name in shards))
        for kind in ("", " cached"):
            for ours in order:
                compare_reading(ours, kind)
        dist.barrier()
        if runtime.chief:
            shutil.rmtree(saved)
    saver.close()
    return {"bytes": size, "seconds": seconds, "beyond": max(beyond)}


def make_shards(a: argparse.Namespace, runtime: Any) -> tuple[dict[str, list[Any]], int]:
    """Return this rank's part of a table and its rowwise state, with numbers, and the bytes of the whole."""
    import torch

    from bigembed.sharding.rows import Shard

    world, rank = runtime.world, runtime.rank
    rows = int(a.gib * GIB) // (4 * a.dim) // world * world
    own_rows, width = (rows, a.dim // world) if a.columns else (rows // world, a.dim)
    weight = torch.empty(own_rows, width)
    for block in weight.split(1 << 18):
        block.uniform_()
    start = (0, rank * width) if a.columns else (rank * own_rows, 0)
    state = torch.rand(rows // world)
    shards = {
        WEIGHT: [Shard(weight, start, (rows, a.dim))],
        STATE: [Shard(state, (rank * len(state),), (rows,))],
    }
    return shards, 4 * rows * (a.dim + 1)


def plain_write(path: Path, shards: dict[str, list[Any]]) -> None:
    with path.open("wb", buffering=0) as file:
        for (part,) in shards.values():
            view = memoryview(part.local.numpy()).cast("B")
            for start in range(0, len(view), 1 << 22):
                file.write(view[start : start + (1 << 22)])
        os.fsync(file.fileno())


def plain_read(path: Path, shards: dict[str, list[Any]]) -> None:
    with path.open("rb", buffering=0) as file:
        for (part,) in shards.values():
            view, done = memoryview(part.local.numpy()).cast("B"), 0
            while done < len(view):
                done += file.readinto(view[done : done + (1 << 22)])


def forget(*paths: Path) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def reset_peak() -> int:
    """Let the peak of this process's memory begin anew, and return its memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


if __name__ == "__main__":
    main()
