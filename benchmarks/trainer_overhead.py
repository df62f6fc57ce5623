"""What the trainer costs over a loop written by hand: 1M rows × 128, batches of 4,096 bags of 20 ids, in one run.

    python benchmarks/trainer_overhead.py

The loop by hand is TorchRec's own way: DistributedModelParallel at world size 1 on gloo, fused rowwise Adagrad, a linear head,
batches made beforehand. The trainer reads Parquet, encodes, shuffles, schedules, checks every loss, counts and reports. Both work
on the same table in turn, several times; the figures are medians of the seconds a step.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.distributed.types import ShardingPlan
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from bigembed.cli import main as bigembed
from bigembed.config.schema import RuntimeConfig
from bigembed.runtime import start

ROWS, DIM, BATCH, BAG = 1_000_000, 128, 4096, 20
ALLOWED = 1.10


class ByHand(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = EmbeddingBagConfig(
            name="text", embedding_dim=DIM, num_embeddings=ROWS, feature_names=["text"], pooling=PoolingType.MEAN
        )
        self.tables = EmbeddingBagCollection(tables=[config], device=torch.device("meta"))
        self.head = torch.nn.Linear(DIM, 1)

    def forward(self, features: KeyedJaggedTensor, labels: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.tables(features).values()).squeeze(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)


def by_hand(steps: int) -> float:
    """Return the seconds a step of the loop by hand."""
    with start(RuntimeConfig()):
        model = ByHand()
        _apply_optimizer_in_backward(RowWiseAdagrad, model.tables.parameters(), {"lr": 0.1, "eps": 1e-8})
        plan = construct_module_sharding_plan(
            model.tables,
            {"text": table_wise(rank=0, compute_kernel="fused")},
            local_size=1,
            world_size=1,
            device_type="cpu",
        )
        sharded = DistributedModelParallel(
            model,
            device=torch.device("cpu"),
            plan=ShardingPlan(plan={"tables": plan}),
            sharders=[EmbeddingBagCollectionSharder()],
        )
        dense = torch.optim.Adagrad(model.head.parameters(), lr=0.1)
        rng = np.random.default_rng(0)
        lengths = torch.full((BATCH,), BAG)
        batches = [
            (
                KeyedJaggedTensor(["text"], torch.from_numpy(rng.integers(0, ROWS, BATCH * BAG)), lengths=lengths),
                torch.from_numpy(rng.integers(0, 2, BATCH)).float(),
            )
            for _ in range(steps)
        ]
        seconds = []
        for features, labels in batches:
            began = time.perf_counter()
            dense.zero_grad(set_to_none=True)
            loss = sharded(features, labels)
            loss.backward()
            dense.step()
            seconds.append(time.perf_counter() - began)
        del sharded, model, dense, loss
    return sum(seconds[5:]) / len(seconds[5:])


def by_trainer(data: Path, folder: Path, steps: int) -> float:
    """Return the seconds a step of the trainer, everything between two steps included, without its first five."""
    options = [
        "data=files",
        f"data.path={data}",
        "data.test=null",
        "data.validation_fraction=0",
        "data.cache_mib=4096",
        "table@tables.text=hashed",
        f"tables.text.buckets={ROWS}",
        f"tables.text.dim={DIM}",
        "tables.text.ngrams=1",
        f"trainer.batch_size={BATCH}",
        f"trainer.steps={steps}",
        "trainer.report_every=5",
        f"hydra.run.dir={folder}",
    ]
    assert bigembed(["train", *options]) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if line["part"] == "train"][1:]
    return statistics.mean(BATCH / rate for rate in rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        words = rng.integers(0, 1 << 40, (BATCH * a.steps, BAG))
        texts = [" ".join(map(str, row)) for row in words.tolist()]
        pq.write_table(pa.table({"text": texts, "label": rng.integers(0, 2, len(texts))}), f"{folder}/train.parquet")
        hand, ours = [], []
        for repeat in range(a.repeats):
            hand.append(by_hand(a.steps))
            ours.append(by_trainer(Path(folder), Path(folder) / f"run{repeat}", a.steps))
            print(f"by hand {hand[-1] * 1e3:.1f} ms a step, trainer {ours[-1] * 1e3:.1f} ms", flush=True)
    ratio = statistics.median(ours) / statistics.median(hand)
    print(
        f"medians: by hand {statistics.median(hand) * 1e3:.1f} ms, trainer {statistics.median(ours) * 1e3:.1f} ms a step"
    )
    print(f"ratio {ratio:.2f} × (asked: at most {ALLOWED:.2f})")


if __name__ == "__main__":
    main()
