"""Training steps against independent ones: plain torch modules and numpy, from the same first rows and the same batches."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from bigembed import hashing
from bigembed.batch import Batch
from bigembed.build import build, fill_rows
from bigembed.config.schema import (
    BagHead,
    DenseOptimConfig,
    DenseOptimizer,
    FeatureConfig,
    HashedTable,
    Job,
    OptimConfig,
    Pooling,
    RuntimeConfig,
    Schedule,
    TableOptimConfig,
    TableOptimizer,
)
from bigembed.optim import EPS, Optimizers, factor
from bigembed.runtime import start
from bigembed.sharding.rows import weights

ROWS, DIM, STEPS, LR, DENSE_LR = 50, 8, 12, 0.2, 0.05
TABLE_EPS = 1e-4  # with less, Adagrad would blow up the rounding of clipped gradients that cancel each other


def job_of(kind: TableOptimizer, dense: DenseOptimizer, pooling: Pooling, clip: float | None, classes: int = 2) -> Job:
    return Job(
        tables={"text": HashedTable(dim=DIM, buckets=ROWS)},
        features={"text": FeatureConfig(pooling=pooling)},
        head=BagHead(classes=classes),
        optim=OptimConfig(
            tables=TableOptimConfig(kind=kind, lr=LR, eps=TABLE_EPS),
            dense=DenseOptimConfig(kind=dense, lr=DENSE_LR),
            schedule=Schedule.cosine,
            warmup_steps=3,
            clip_value=clip,
        ),
        runtime=RuntimeConfig(threads=1),
    )


def batches(classes: int) -> list[Batch]:
    """Bags of 0 to 6 rows, some rows several times; the last batch is smaller."""
    rng = np.random.default_rng(7)
    made = []
    for size in [16] * (STEPS - 1) + [5]:
        lengths = torch.from_numpy(rng.integers(0, 7, size))
        values = torch.from_numpy(rng.integers(0, ROWS, int(lengths.sum())))
        labels = torch.from_numpy(rng.integers(0, classes, size))
        features = KeyedJaggedTensor(keys=["text"], values=values, lengths=lengths)
        made.append(
            Batch(
                features,
                None,
                None,
                torch.empty(size, 0),
                labels,
                torch.arange(size),
                1 / size,
                np.arange(size),
                len(values),
            )
        )
    return made


def ours(job: Job) -> tuple[np.ndarray, np.ndarray, nn.Module, list[float]]:
    """Return first rows, last rows, the head as it began, and the losses."""
    with start(job.runtime) as runtime:
        model = build(job, {"text": ROWS}, runtime)
        fill_rows(model, job)
        (shard,) = weights(model)["text"]
        first, head = shard.read().copy(), copy.deepcopy(model.module.head)
        optimizers, losses = Optimizers(model, job, STEPS), []
        for step, batch in enumerate(batches(job.head.classes)):
            optimizers.schedule(step)
            optimizers.zero_grad()
            loss, _ = model(batch)
            loss.backward()
            optimizers.step()
            losses.append(loss.item())
        last = shard.read().copy()
        del model, optimizers, shard, loss, batch
    return first, last, head, losses


def plain_step(
    table: torch.Tensor, sums: torch.Tensor, config: OptimConfig, gradient: torch.Tensor, scale: float
) -> None:
    """Update a dense table as FBGEMM's kernels are documented to: per row, with the learning rate of the step."""
    lr = config.tables.lr * scale
    if config.tables.kind is TableOptimizer.sgd:
        table -= lr * gradient
    elif config.tables.kind is TableOptimizer.adagrad:
        sums += gradient**2
        table -= lr * gradient / (sums.sqrt() + TABLE_EPS)
    else:
        sums += (gradient**2).mean(1, keepdim=True)
        table -= lr * gradient / (sums.sqrt() + TABLE_EPS)


def reference(job: Job, first: np.ndarray, head: nn.Module) -> tuple[np.ndarray, list[float]]:
    table, losses = torch.from_numpy(first.copy()), []
    sums = torch.zeros(ROWS, 1 if job.optim.tables.kind is TableOptimizer.rowwise_adagrad else DIM)
    kinds = {
        DenseOptimizer.sgd: torch.optim.SGD,
        DenseOptimizer.adam: torch.optim.Adam,
        DenseOptimizer.adagrad: torch.optim.Adagrad,
    }
    options = {} if job.optim.dense.kind is DenseOptimizer.sgd else {"eps": EPS}
    dense = kinds[job.optim.dense.kind](head.parameters(), lr=DENSE_LR, **options)
    for step, batch in enumerate(batches(job.head.classes)):
        scale = factor(job.optim, step, STEPS)
        dense.param_groups[0]["lr"] = DENSE_LR * scale
        weight = table.clone().requires_grad_()
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), batch.features.lengths().cumsum(0)])
        pooled = nn.functional.embedding_bag(
            batch.features.values(), weight, offsets, mode="sum", include_last_offset=True
        )
        if job.optim.clip_value is not None:  # what every id's row gets
            pooled.register_hook(lambda gradient: gradient.clamp(-job.optim.clip_value, job.optim.clip_value))
        if job.features["text"].pooling is Pooling.mean:
            pooled = pooled / batch.features.lengths().clamp(min=1)[:, None]
        (layer,) = head.layers
        scores = layer(pooled)
        if job.head.classes == 2:
            loss = nn.functional.binary_cross_entropy_with_logits(scores[:, 0], batch.labels.float())
        else:
            loss = nn.functional.cross_entropy(scores, batch.labels)
        dense.zero_grad()
        loss.backward()
        if job.optim.clip_value is not None:
            nn.utils.clip_grad_value_(head.parameters(), job.optim.clip_value)
        dense.step()
        with torch.no_grad():
            plain_step(table, sums, job.optim, weight.grad, scale)
        losses.append(loss.item())
    return table.numpy(), losses


@pytest.mark.parametrize("clip", [None, 0.003])
@pytest.mark.parametrize("pooling", [Pooling.mean, Pooling.sum])
@pytest.mark.parametrize("dense", list(DenseOptimizer))
@pytest.mark.parametrize("kind", list(TableOptimizer))
def test_steps_equal_those_of_plain_torch(kind, dense, pooling, clip):
    job = job_of(kind, dense, pooling, clip)
    first, last, head, losses = ours(job)
    expected, expected_losses = reference(job, first, head)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(last, expected, atol=2e-6)
    assert np.abs(last - first).max() > 1e-3  # it moved


def test_several_classes_train_a_softmax():
    job = job_of(TableOptimizer.rowwise_adagrad, DenseOptimizer.adam, Pooling.mean, None, classes=4)
    first, last, head, losses = ours(job)
    expected, expected_losses = reference(job, first, head)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(last, expected, atol=2e-6)


def test_first_rows_are_those_of_seed_table_and_row_alone():
    job = job_of(TableOptimizer.sgd, DenseOptimizer.sgd, Pooling.mean, None)
    first, _, _, _ = ours(job)
    expected = np.empty((10, DIM), np.float32)
    reach = 1 / DIM
    hashing.fill_uniform(
        expected, seed=0, stream=hashing.stream_of("text"), row_start=20, col_start=0, width=DIM, low=-reach, high=reach
    )
    assert np.array_equal(first[20:30], expected)
    assert -reach <= first.min() < -0.9 * reach and 0.9 * reach < first.max() < reach


def test_schedules_warm_up_from_above_zero_and_fall_to_zero():
    steps = 20
    for schedule in Schedule:
        config = OptimConfig(schedule=schedule, warmup_steps=4)
        factors = [factor(config, step, steps) for step in range(steps + 1)]
        assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8]) and factors[4] == 1
        assert factors[-1] == pytest.approx(1 if schedule is Schedule.constant else 0, abs=1e-9)
        assert all(before >= after for before, after in pairwise(factors[4:]))
