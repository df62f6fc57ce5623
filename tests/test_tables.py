"""What the kinds of tables and their options do: against plain torch, on two ranks, as a user runs them, and with bad data."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ranks import run_ranks
from running import bigembed, start as start_process
from torch import nn
from torchrec import JaggedTensor

from bigembed import encoders, hashing
from bigembed.batch import collate
from bigembed.build import build, fill_rows
from bigembed.config import saved
from bigembed.config.check import check
from bigembed.config.physical import physical
from bigembed.config.schema import (
    AttentionHead,
    BagHead,
    BucketizedTable,
    Combine,
    CompositionalTable,
    DenseOptimConfig,
    DenseOptimizer,
    FeatureConfig,
    FilesData,
    HashedTable,
    IdsTable,
    Job,
    Kind,
    ManagedTable,
    MixedTable,
    NumberConfig,
    OptimConfig,
    Pooling,
    RuntimeConfig,
    Schedule,
    Scheme,
    SubwordTable,
    TableConfig,
    TableOptimConfig,
    TableOptimizer,
    TextTable,
    Tokens,
    TrainerConfig,
    VocabTable,
)
from bigembed.encoders import Encoded, learn_scale
from bigembed.errors import UserError
from bigembed.examples import Examples, open_column, open_examples, table_rows
from bigembed.optim import Optimizers
from bigembed.ragged import Ragged
from bigembed.runtime import start
from bigembed.sharding.rows import weights

LR, DENSE_LR = 0.5, 0.1


def rows_of_all_types(rows: int = 14) -> pa.Table:
    """Rows of every type that tables read; the second has no words and no values, and some are there twice."""
    rng = np.random.default_rng(5)
    words = np.array(["a", "the", "worde", "words", "unword", "é", "zebra", "zebras"])
    texts = [" ".join(rng.choice(words, rng.integers(1, 6), p=[0.3, 0.3, *[0.4 / 6] * 6])) for _ in range(rows)]
    lists = [rng.choice([-(2**63), -1, 0, 7, 2**63 - 1], rng.integers(1, 5)).tolist() for _ in range(rows)]
    small = [rng.integers(0, 35, rng.integers(1, 5)).tolist() for _ in range(rows)]
    texts[1], lists[1], small[1] = "", [], []
    price = [None if row == 3 else float(x) for row, x in enumerate(rng.normal(20, 5, rows))]
    columns = {
        "text": pa.array(texts),
        "text_weights": pa.array([rng.normal(1, 1, len(text.split())).astype("f4") for text in texts]),
        "ids": pa.array(lists, pa.list_(pa.int64())),
        "weights": pa.array([rng.uniform(-1, 3, len(each)).astype("f4") for each in lists]),
        "small": pa.array(small, pa.list_(pa.int64())),
        "small_weights": pa.array([[0.5] * len(each) for each in small], pa.list_(pa.float32())),
        "shop": pa.array([f"shop {row % 3}" for row in range(rows)]),
        "day": pa.array([row % 4 for row in range(rows)], pa.int16()),
        "price": pa.array(price, pa.float64()),
        "label": pa.array(rng.integers(0, 2, rows)),
    }
    return pa.table(columns)


BY_SPACE: dict[str, Any] = {"tokens": Tokens.whitespace, "init_range": 0.5}
NUMBERED: dict[str, Any] = {"init_range": 0.5}
TEXT, TEXT_WEIGHED = FeatureConfig("t"), FeatureConfig("t", weights="text_weights")
LISTS = FeatureConfig("t", "ids", weights="weights")
SMALL, CROSSED = FeatureConfig("t", "small", weights="small_weights"), FeatureConfig("t", "shop", ["day"])
ADD, MULT, CONCAT = Combine.add, Combine.mult, Combine.concat
# A name, a table of some rows, and how it is looked up.
CASES: dict[str, tuple[TableConfig, FeatureConfig]] = {
    "functions": (HashedTable(8, ngrams=2, buckets=19, functions=3, **BY_SPACE), TEXT),
    "sign": (HashedTable(8, buckets=19, sign=True, **BY_SPACE), TEXT),
    "functions sign ngrams": (HashedTable(8, ngrams=2, buckets=9, functions=2, sign=True, **BY_SPACE), TEXT),
    "sign distinct": (HashedTable(8, distinct=True, buckets=19, sign=True, salt=3, **BY_SPACE), TEXT),
    "importance": (HashedTable(8, ngrams=2, buckets=19, functions=2, importance=11, **BY_SPACE), TEXT),
    "importance of 5": (HashedTable(8, buckets=19, functions=5, importance=11, **NUMBERED), LISTS),
    "functions weighed": (HashedTable(8, buckets=19, functions=2, sign=True, **NUMBERED), LISTS),
    "hashed crossed": (HashedTable(8, buckets=19, functions=2, **NUMBERED), CROSSED),
    "add": (CompositionalTable(8, ngrams=2, partitions=[7, 5], combine=ADD, **BY_SPACE), TEXT),
    "mult": (CompositionalTable(8, ngrams=2, partitions=[7, 5], combine=MULT, **BY_SPACE), TEXT),
    "mult of 3 weighed": (CompositionalTable(8, partitions=[5, 4, 3], combine=MULT, **NUMBERED), LISTS),
    "concat": (CompositionalTable(8, ngrams=3, partitions=[7, 5], combine=CONCAT, **BY_SPACE), TEXT),
    "concat of 3 weighed": (CompositionalTable(12, partitions=[5, 4, 3], combine=CONCAT, **NUMBERED), LISTS),
    "add weighed": (CompositionalTable(8, partitions=[5, 4], combine=ADD, **BY_SPACE), TEXT_WEIGHED),
    "values": (CompositionalTable(8, partitions=[7, 5], values=35, **NUMBERED), SMALL),
    "mult crossed": (CompositionalTable(8, partitions=[7, 5], **NUMBERED), CROSSED),
    "mixed": (MixedTable(8, ngrams=2, buckets=6, widths=[12, 8, 4], blocks=[1, 2], **BY_SPACE), TEXT),
    "mixed weighed": (MixedTable(8, widths=[8, 4], blocks=[2], **NUMBERED), LISTS),
    "subword": (SubwordTable(8, min_n=2, max_n=3, buckets=20, min_count=2, **BY_SPACE), TEXT),
    "subword ngrams": (SubwordTable(8, ngrams=2, min_n=3, max_n=6, buckets=20, min_count=2, **BY_SPACE), TEXT),
    "vocab weighed": (VocabTable(8, min_count=2, **BY_SPACE), TEXT_WEIGHED),
    "ids weighed": (IdsTable(8, init_range=0.5, rows=35), SMALL),
    "bucketized": (BucketizedTable(8, init_range=0.5, bins=4), FeatureConfig("t", "price")),
    "managed": (ManagedTable(8, ngrams=2, rows=64, **BY_SPACE), TEXT),
}


def job_with(tables: dict[str, TableConfig], features: dict[str, FeatureConfig], **more: Any) -> Job:
    """A job of plain SGD, with a head that takes what the features are."""
    sequences = any(feature.pooling is Pooling.none for feature in features.values())
    job = Job(
        data=FilesData(),
        tables=tables,
        features=features,
        head=AttentionHead(attention=4) if sequences else BagHead(),
        optim=OptimConfig(
            tables=TableOptimConfig(kind=TableOptimizer.sgd, lr=LR),
            dense=DenseOptimConfig(kind=DenseOptimizer.sgd, lr=DENSE_LR),
            schedule=Schedule.constant,
        ),
        runtime=RuntimeConfig(threads=1, tensorboard=False),
    )
    job = replace(job, **more)
    check(job)
    return job


def examples_of(job: Job, table: pa.Table) -> Examples:
    """The samples of a table, with encoders that have learned from it."""
    known = {}
    for name, config in job.tables.items():
        kind = encoders.KINDS[type(config)]
        columns = [open_column(kind, feature, table) for feature in job.features.values() if feature.table == name]
        known[name] = encoders.build(name, config, columns)
    scales = {name: learn_scale(table[number.column], number) for name, number in job.numbers.items()}
    return open_examples(job, known, scales, table, table["label"].to_numpy(), "train part")


# ---------------------------------------------------------------- the same, in plain torch


def elements_of(ids: list[np.ndarray], row: int, offsets: list[np.ndarray]) -> list[np.ndarray]:
    """The rows of each part that the elements of a sample have; not used for parts of one row an element."""
    return [part[offset[row] : offset[row + 1]] for part, offset in zip(ids, offsets, strict=True)]


def vectors_of(
    table: TableConfig, encoded: Encoded, row: int, matrices: list[torch.Tensor], projections: Any
) -> list[torch.Tensor]:
    """The vector of every element of a sample, from its rows alone."""
    parts = [part.rows.values[part.rows.offsets[row] : part.rows.offsets[row + 1]] for part in encoded.parts]
    own = [matrix[torch.from_numpy(ids.astype(np.int64))] for matrix, ids in zip(matrices, parts, strict=True)]
    if isinstance(table, HashedTable):
        k, vectors = table.functions, []
        signs = None if encoded.signs is None else encoded.signs.values[encoded.signs.offsets[row] :]
        for element in range(len(parts[0]) // k):
            vector = torch.zeros(table.dim)
            for i in range(k):
                counts = 1.0 if signs is None else float(signs[element * k + i])
                if table.importance is not None:
                    counts = own[1][element, i]
                vector = vector + counts * own[0][element * k + i]
            vectors.append(vector)
        return vectors
    if isinstance(table, CompositionalTable):
        combine = {
            ADD: lambda rows: sum(rows[1:], start=rows[0]),
            MULT: lambda rows: torch.stack(rows).prod(0),
            CONCAT: lambda rows: torch.cat(rows),
        }[table.combine]
        return [combine([rows[element] for rows in own]) for element in range(len(parts[0]))]
    sizes = [part.sizes for part in encoded.parts]
    if sizes[0] is None:
        return list(own[0])
    used, vectors = [0] * len(parts), []
    for element in range(sizes[0].offsets[row], sizes[0].offsets[row + 1]):
        found = []
        for part, size in enumerate(sizes):
            count = int(size.values[element])
            rows = own[part][used[part] : used[part] + count]
            used[part] += count
            if count and str(part) in projections:
                rows = rows @ projections[str(part)].weight.T
            found += [each for each in rows]
        assert len(found) == 1 or isinstance(table, SubwordTable)
        mean = sum(found, start=torch.zeros(table.dim)) / max(1, len(found))
        vectors.append(mean)
    return vectors


def pooled_of(
    table: TableConfig, feature: FeatureConfig, encoded: Encoded, given: list[np.ndarray] | None, state: Any, name: str
) -> Any:
    """A feature's pooled vectors, shape (samples, dim); or its sequences."""
    matrices, projections = state
    samples = []
    for row in range(len(encoded.tokens)):
        vectors = vectors_of(table, encoded, row, matrices, projections)
        counts = np.ones(len(vectors)) if given is None else given[row]
        if isinstance(table, SubwordTable) and feature.pooling is not Pooling.none:  # of all rows, not of tokens' means
            (part,) = encoded.parts
            rows = part.rows.values[part.rows.offsets[row] : part.rows.offsets[row + 1]]
            vectors, counts = list(matrices[0][torch.from_numpy(rows.astype(np.int64))]), np.ones(len(rows))
        assert len(vectors) == len(counts)
        samples.append([vector * float(count) for vector, count in zip(vectors, counts, strict=True)])
        if feature.pooling is Pooling.mean and counts.sum():
            samples[-1] = [vector / float(counts.sum()) for vector in samples[-1]]
    if feature.pooling is Pooling.none:
        lengths = torch.tensor([len(vectors) for vectors in samples])
        return JaggedTensor(values=torch.stack([each for vectors in samples for each in vectors]), lengths=lengths)
    return torch.stack([sum(vectors, start=torch.zeros(table.dim)) for vectors in samples])


def names_of(table: TableConfig, name: str) -> list[str]:
    """What the parts of a table are called in a checkpoint."""
    if isinstance(table, HashedTable) and table.importance is not None:
        return [f"{name}-rows", f"{name}-importance"]
    count = {CompositionalTable: "partitions", MixedTable: "widths"}.get(type(table))
    return [name] if count is None else [f"{name}-{i}" for i in range(len(getattr(table, count)))]


@contextmanager
def model_of(job: Job, examples: Examples) -> Iterator[Any]:
    """A model with its first rows, which are gone when the block ends."""
    with start(job.runtime) as runtime:
        built = [build(job, table_rows(job, known_of(job, examples)), runtime)]
        fill_rows(built[0], job)
        yield built
        built.clear()


def known_of(job: Job, examples: Examples) -> dict[str, encoders.Encoder]:
    """The encoders of tables by name."""
    return {job.features[feature.name].table: feature.encoder for feature in examples.features}


def copies_of(model: Any) -> dict[str, np.ndarray]:
    """The rows of every part."""
    return {name: shard.read().copy() for name, (shard,) in weights(model).items()}


def reference_step(
    job: Job, examples: Examples, table: pa.Table, first: dict[str, np.ndarray], model: Any
) -> tuple[torch.Tensor, float, dict[str, np.ndarray]]:
    """Scores, the loss, and the rows after a step of SGD over all samples, by autograd."""
    matrices = {name: torch.from_numpy(rows.copy()).requires_grad_() for name, rows in first.items()}
    pooled, sequences = {}, {}
    for feature in examples.features:
        config = job.features[feature.name]
        kind = job.tables[config.table]
        own = [matrices[name] for name in names_of(kind, config.table)]
        given = None if config.weights is None else [np.array(each) for each in table[config.weights].to_pylist()]
        encoded = feature.encoder.encode(feature.column, np.arange(table.num_rows))
        projections = model.composition.projections[config.table] if isinstance(kind, MixedTable) else {}
        result = pooled_of(kind, config, encoded, given, (own, projections), feature.name)
        (sequences if config.pooling is Pooling.none else pooled)[feature.name] = result
    side_by_side = [pooled[name] for name in model.composition.pooled]
    assert set(model.composition.pooled) == set(pooled) and set(model.composition.sequences) == set(sequences)
    for number in job.numbers.values():
        values = table[number.column].to_pandas().to_numpy(np.float64)
        there = values[~np.isnan(values)]
        scaled = (np.where(np.isnan(values), there.mean(), values) - there.mean()) / there.std()
        side_by_side.append(torch.from_numpy(scaled.astype(np.float32))[:, None])
    together = torch.cat(side_by_side, 1) if side_by_side else None
    scores = model.head(together, sequences, torch.zeros(table.num_rows, dtype=torch.int64))
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.float32))
    loss = nn.functional.binary_cross_entropy_with_logits(scores[:, 0], labels)
    loss.backward()
    after = {
        name: (matrix.detach() - LR * (0 if matrix.grad is None else matrix.grad)).numpy()
        for name, matrix in matrices.items()
    }
    return scores.detach(), loss.item(), after


def step_is_that_of_plain_torch(job: Job, table: pa.Table) -> dict[str, np.ndarray]:
    """Compare scores, loss, every row and every dense parameter after a step; return how far the rows of each part moved."""
    examples = examples_of(job, table)
    rows = np.arange(table.num_rows)
    with model_of(job, examples) as built:
        (model,) = built
        first, plain = (
            copies_of(model),
            copy.deepcopy(nn.ModuleDict({"c": inner(model).composition, "h": inner(model).head})),
        )
        batch, optimizers = collate(examples, rows, weight=1 / len(rows)), Optimizers(model, job.optim, 10)
        scores = inner(model).scores(batch).detach()
        optimizers.schedule(0)
        optimizers.zero_grad()
        loss, _ = model(batch)
        loss.backward()
        optimizers.step()
        last = copies_of(model)
        dense = [
            value.detach().clone()
            for value in (*inner(model).composition.parameters(), *inner(model).head.parameters())
        ]
        loss = loss.item()
        del model, optimizers
    reference = type("", (), {"composition": plain["c"], "head": plain["h"]})
    expected_scores, expected_loss, expected = reference_step(job, examples, table, first, reference)
    torch.testing.assert_close(scores, expected_scores, atol=2e-6, rtol=1e-5)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert set(last) == set(expected) == set(physical(job).tables)
    for name in last:
        np.testing.assert_allclose(last[name], expected[name], atol=2e-6, err_msg=name)
    for value, (name, parameter) in zip(
        dense, [*plain["c"].named_parameters(), *plain["h"].named_parameters()], strict=True
    ):
        assert parameter.grad is not None, name
        torch.testing.assert_close(value, parameter.detach() - DENSE_LR * parameter.grad, atol=2e-6, rtol=1e-5)
    return {name: np.abs(last[name] - first[name]).max() for name in last}


def inner(model: Any) -> Any:
    """The model below what shards it and averages its gradients."""
    while not hasattr(model, "composition"):
        model = model.module
    return model


POOLINGS = [Pooling.mean, Pooling.sum, Pooling.none]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_plain_torch(name: str, pooling: Pooling) -> None:
    table, feature = CASES[name]
    job = job_with({"t": copy.deepcopy(table)}, {"f": replace(feature, pooling=pooling)})
    moved = step_is_that_of_plain_torch(job, rows_of_all_types())
    assert len(moved) == len(names_of(table, "t")) and min(moved.values()) > 1e-3


def test_kinds_of_tables_together_with_numbers_and_shared_tables_step_as_plain_torch() -> None:
    tables = {name.replace(" ", "_"): copy.deepcopy(table) for name, (table, _) in CASES.items()}
    features = {}
    for number, (name, (_, feature)) in enumerate(CASES.items()):
        own = name.replace(" ", "_")
        features[f"f{number}"] = replace(feature, table=own, pooling=POOLINGS[number % 3])
    # A table that two features share, one with weights and sums, the other with neither.
    features["shared"] = FeatureConfig("functions_weighed", "small", pooling=Pooling.mean)
    features["f6"].pooling = Pooling.sum
    features["again"] = FeatureConfig("mult", "text", pooling=features["f9"].pooling)
    numbers = {"price": NumberConfig("price")}
    job = job_with(tables, features, numbers=numbers)
    moved = step_is_that_of_plain_torch(job, rows_of_all_types())
    assert len(moved) == len(physical(job).tables) == 24 + 2 + 9 + 3
    assert min(moved.values()) > 1e-4
