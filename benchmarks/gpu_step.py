"""What a GPU's training step moves in bytes a second, against what the device copies.

    python benchmarks/gpu_step.py

A table of 10M rows × 128 (rowwise Adagrad), batches of 16,384 bags of 50 ids. A step reads the rows of its ids once forward, and
reads and writes the distinct ones backward; that many bytes over the time of the step is compared with a plain copy on the device.
"""

import argparse
import time

import numpy as np
import torch
from torchrec import KeyedJaggedTensor

from bigembed.batch import Batch
from bigembed.build import build, fill_rows
from bigembed.config.schema import BagHead, FeatureConfig, HashedTable, Job, OptimConfig, Pooling, RuntimeConfig
from bigembed.optim import Optimizers
from bigembed.runtime import start

WARM = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16_384)
    parser.add_argument("--bag", type=int, default=50)
    parser.add_argument("--steps", type=int, default=100)
    a = parser.parse_args()
    job = Job(
        tables={"text": HashedTable(dim=a.dim, buckets=a.rows)},
        features={"text": FeatureConfig(pooling=Pooling.sum)},
        head=BagHead(),
        optim=OptimConfig(),
        runtime=RuntimeConfig(),
    )
    with start(job.runtime) as runtime:
        if runtime.device.type != "cuda":
            raise SystemExit("this needs a GPU")
        copied = copy_bandwidth(runtime.device)
        model = build(job, {"text": a.rows}, runtime)
        fill_rows(model, job)
        optimizers = Optimizers(model, job, a.steps)
        batches, moved = make(a.rows, a.batch, a.bag, a.dim, runtime.device)
        for step in range(WARM + a.steps):
            if step == WARM:
                torch.cuda.synchronize()
                began = time.perf_counter()
            optimizers.zero_grad()
            loss, _ = model(batches[step % len(batches)])
            loss.backward()
            optimizers.step()
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / a.steps
        del model, optimizers, loss
    print(f"{torch.cuda.get_device_name()}: {1000 * seconds:.2f} ms a step, {moved / seconds / 1e9:,.0f} GB/s")
    print(f"a plain copy {copied / 1e9:,.0f} GB/s; the step reaches {moved / seconds / copied:.2f} of it")


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes a second, read and written, of a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    for round in range(12):
        if round == 2:
            torch.cuda.synchronize()
            began = time.perf_counter()
        target.copy_(source)
    torch.cuda.synchronize()
    return 10 * 2 * source.numel() / (time.perf_counter() - began)


def make(rows: int, batch: int, bag: int, dim: int, device: torch.device) -> tuple[list[Batch], float]:
    """Return batches on the device, and the bytes that a step with one of them moves on average."""
    rng, batches, moved = np.random.default_rng(0), [], []
    for _ in range(8):
        ids = rng.integers(0, rows, batch * bag)
        features = KeyedJaggedTensor(["text"], torch.from_numpy(ids), lengths=torch.full((batch,), bag))
        labels = torch.from_numpy(rng.integers(0, 2, batch))
        batches.append(
            Batch(
                features,
                None,
                None,
                torch.empty(batch, 0),
                labels,
                torch.zeros(batch, dtype=torch.int64),
                1 / batch,
                np.arange(batch),
                0,
            )
        )
        moved.append(4 * dim * (len(ids) + 2 * len(np.unique(ids))))
    return [each.to(device) for each in batches], float(np.mean(moved))


if __name__ == "__main__":
    main()
