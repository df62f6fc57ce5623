"""What the kinds of tables and their options do: against plain torch, on two ranks, as a user runs them, and with bad data."""

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ranks import run_ranks
from running import bigembed, tables_of
from test_topology import train_variants, whole
from torch import nn
from torchrec import JaggedTensor

from bigembed import encoders, hashing
from bigembed.batch import collate
from bigembed.build import build, fill_rows
from bigembed.config import kinds, saved
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
    ManagedTable,
    MixedTable,
    NumberConfig,
    OptimConfig,
    Pooling,
    RuntimeConfig,
    Schedule,
    SubwordTable,
    TableConfig,
    TableOptimConfig,
    TableOptimizer,
    Tokens,
    TrainerConfig,
    VocabTable,
)
from bigembed.encoders import Encoded, HashedEncoder, learn_scale
from bigembed.errors import UserError
from bigembed.examples import Examples, alone, open_column, open_examples, table_rows
from bigembed.optim import Optimizers
from bigembed.ragged import Ragged
from bigembed.runtime import start
from bigembed.sharding.rows import weights
from bigembed.weighing import weigh

LR, DENSE_LR = 4.0, 0.1


def rows_of_all_types(rows: int = 14) -> pa.Table:
    """Rows of every type that tables read; the second has no words and no values, and some are there twice."""
    rng = np.random.default_rng(5)
    words = np.array(["a", "the", "worde", "words", "unword", "é", "zebra", "zebras"])
    texts = [" ".join(rng.choice(words, rng.integers(1, 6), p=[0.3, 0.3, *[0.4 / 6] * 6])) for _ in range(rows)]
    lists = [rng.choice([-(2**63), -1, 0, 7, 2**63 - 1], rng.integers(1, 5)).tolist() for _ in range(rows)]
    small = [rng.integers(0, 35, rng.integers(1, 5)).tolist() for _ in range(rows)]
    texts[1], lists[1], small[1] = "", [], []
    given = [rng.uniform(-1, 3, len(each)).astype("f4") for each in lists]
    lists[0], given[0] = [0, 7], np.array([1, -1], np.float32)  # there is no mean by weights whose sum is 0
    price = [None if row == 3 else float(x) for row, x in enumerate(rng.normal(20, 5, rows))]
    columns = {
        "text": pa.array(texts),
        "text_weights": pa.array([rng.normal(1, 1, len(text.split())).astype("f4") for text in texts]),
        "ids": pa.array(lists, pa.list_(pa.int64())),
        "weights": pa.array(given),
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
    "mixed": (MixedTable(8, ngrams=2, buckets=6, widths=[12, 8, 4], blocks=[2, 2], **BY_SPACE), TEXT),
    "mixed weighed": (MixedTable(8, widths=[8, 4], blocks=[2], **NUMBERED), LISTS),
    "subword": (SubwordTable(8, min_n=2, max_n=3, buckets=20, min_count=2, **BY_SPACE), TEXT),
    "subword ngrams": (SubwordTable(8, ngrams=2, min_n=3, max_n=6, buckets=20, min_count=2, **BY_SPACE), TEXT),
    "vocab weighed": (VocabTable(8, min_count=2, **BY_SPACE), TEXT_WEIGHED),
    "ids weighed": (IdsTable(8, init_range=0.5, rows=35), SMALL),
    "bucketized": (BucketizedTable(8, init_range=0.5, bins=4), FeatureConfig("t", "price")),
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
    table: TableConfig, feature: FeatureConfig, encoded: Encoded, given: list[np.ndarray] | None, state: Any
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
        result = pooled_of(kind, config, encoded, given, (own, projections))
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
        batch, optimizers = collate(examples, rows, weight=1 / len(rows)), Optimizers(model, job, 10)
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
    reference = SimpleNamespace(composition=plain["c"], head=plain["h"])
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
    assert len(moved) == len(physical(job).tables) == 23 + 2 + 10 + 3
    assert min(moved.values()) > 1e-4


@pytest.mark.parametrize("first", POOLINGS)
def test_samples_without_any_value_are_zeros_for_every_kind(first: Pooling) -> None:
    cases = [(table, feature) for table, feature in CASES.values() if feature.column not in ("shop", "price")]
    turn = POOLINGS.index(first)
    features = {
        f"f{number}": replace(feature, table=f"t{number}", pooling=POOLINGS[(number + turn) % 3])
        for number, (_, feature) in enumerate(cases)
    }
    job = job_with({f"t{number}": copy.deepcopy(table) for number, (table, _) in enumerate(cases)}, features)
    examples = examples_of(job, rows_of_all_types())
    with model_of(job, examples) as built:
        batch = collate(examples, np.array([1, 1]), size=3, weight=0.5)  # row 1 has none; one sample more fills up
        loss, (losses, scores) = built[0](batch)
        loss.backward()
        bias = inner(built[0]).head.layers[0].bias.detach()
        assert torch.equal(scores, bias.expand(2, 1)) and torch.isfinite(losses).all() and len(losses) == 2
        assert all(torch.isfinite(value.grad).all() for value in inner(built[0]).head.parameters())
        for rows in copies_of(built[0]).values():
            assert np.isfinite(rows).all()
        del loss, losses, scores
    assert len(cases) == 20


def test_first_rows_of_every_part_are_those_of_seed_part_and_row_alone() -> None:
    names = ["importance", "mult of 3 weighed", "add", "concat", "mixed", "subword"]
    tables = {f"t{number}": copy.deepcopy(CASES[name][0]) for number, name in enumerate(names)}
    tables["t2"].init_range = None
    features = {f"f{number}": replace(CASES[name][1], table=f"t{number}") for number, name in enumerate(names)}
    job = job_with(tables, features, seed=3)
    examples = examples_of(job, rows_of_all_types())
    with model_of(job, examples) as built:
        first = copies_of(built[0])
    centres = {"t1-1": 1.0, "t1-2": 1.0}
    assert (first.pop("t0-importance") == 1).all()
    for name, rows in first.items():
        reach = 1 / 8 if name.startswith("t2") else 0.5
        expected = np.empty_like(rows)
        centre = centres.get(name, 0.0)
        place = {"seed": 3, "stream": hashing.stream_of(name), "row_start": 0, "col_start": 0, "width": rows.shape[1]}
        hashing.fill_uniform(expected, **place, low=centre - reach, high=centre + reach)
        assert np.array_equal(rows, expected), name
        assert np.abs(rows - centre).max() <= reach and np.abs(rows - centre).max() > reach / 2
    assert len(first) == 1 + 3 + 2 + 2 + 3 + 1
    assert {name: rows.shape[1] for name, rows in first.items()} == {
        **{"t0-rows": 8, "t1-0": 8, "t1-1": 8, "t1-2": 8, "t2-0": 8, "t2-1": 8, "t3-0": 4, "t3-1": 4},
        **{"t4-0": 12, "t4-1": 8, "t4-2": 4, "t5": 8},
    }


@pytest.mark.parametrize("kept", ["small first", "huge first"])
def test_ids_of_small_and_of_huge_tables_go_into_one_batch(kept: str) -> None:
    tables = {"small": HashedTable(8, buckets=19), "huge": HashedTable(8, buckets=2**40), "managed": ManagedTable(8)}
    order = ["small", "huge", "managed"] if kept == "small first" else ["managed", "huge", "small"]
    job = job_with(tables, {f"of_{name}": FeatureConfig(name) for name in order})
    examples = examples_of(job, rows_of_all_types())
    rows = np.arange(14)
    before = collate(examples, rows).features
    examples.cache(1 << 20, 1, alone)
    kept_in_memory = {feature.name: feature.cached is not None for feature in examples.features}
    after = collate(examples, rows).features
    assert all(kept_in_memory.values()) and before is not None and after is not None
    assert torch.equal(after.values(), before.values()) and torch.equal(after.lengths(), before.lengths())
    assert before["of_huge"].values().max() > 2**32 and before["of_huge"].values().min() >= 0


# ---------------------------------------------------------------- two ranks


def test_two_ranks_train_every_kind_as_one_does(tmp_path: Path) -> None:
    names = ["functions sign ngrams", "importance", "functions weighed", "add", "mult", "concat of 3 weighed", "values"]
    names += ["mixed", "mixed weighed", "subword", "subword ngrams", "vocab weighed", "bucketized"]
    tables = {f"t{number}": copy.deepcopy(CASES[name][0]) for number, name in enumerate(names)}
    features = {
        f"f{number}": replace(CASES[name][1], table=f"t{number}", pooling=POOLINGS[number % 3])
        for number, name in enumerate(names)
    }
    for part, rows in (("train", 40), ("test", 11)):
        pq.write_table(rows_of_all_types(rows), tmp_path / f"{part}.parquet")
    job = job_with(
        tables,
        features,
        data=FilesData(path=str(tmp_path)),
        numbers={"price": NumberConfig("price")},
        trainer=TrainerConfig(epochs=2, batch_size=9),
    )
    job.optim.tables.lr = 0.5
    (tmp_path / "encoders").mkdir()
    values = saved.as_dict(job)
    (expected,) = train_variants(values, str(tmp_path), [[]])
    ways = ["row_wise", "table_wise"]
    ranks = run_ranks(train_variants, 2, values, str(tmp_path), [[f"sharding.kind={kind}"] for kind in ways])
    assert len(expected["losses"]) == 8 and max(expected["losses"]) - min(expected["losses"]) > 0.1
    before, after = whole([expected], "initial"), whole([expected], "final")
    assert len(after) == len(physical(job).tables) == 13 + 1 + 1 + 1 + 2 + 1 + 2 + 1
    for number, kind in enumerate(ways):
        of_kind = [rank[number] for rank in ranks]
        assert set(of_kind[0]["kinds"].values()) == {kind}
        initial, final = whole(of_kind, "initial"), whole(of_kind, "final")
        for name in after:
            np.testing.assert_array_equal(initial[name], before[name], err_msg=f"{kind} {name}")
            np.testing.assert_allclose(final[name], after[name], atol=1e-5, err_msg=f"{kind} {name}")
            assert not np.array_equal(final[name], initial[name]), name
        for result in of_kind:
            np.testing.assert_allclose(result["losses"], expected["losses"], rtol=1e-5, err_msg=kind)
            assert result["figures"]["loss"] == pytest.approx(expected["figures"]["loss"], rel=1e-5)


# ---------------------------------------------------------------- as a user runs them

# A kind's table and feature, as they are typed.
TYPED = {
    "vocab": (["tokens=whitespace", "min_count=2", "ngrams=1"], ["weights=text_weights"]),
    "hashed": (["buckets=40", "functions=2", "importance=11", "ngrams=2"], []),
    "ids": (["rows=35"], ["column=small", "weights=small_weights", "pooling=sum"]),
    "compositional": (
        ["partitions=[7,5]", "combine=add", "ngrams=1", "tokens=whole"],
        ["column=shop", "crossed_with=[day]"],
    ),
    "quotient_remainder": (["partitions=[7,5]", "values=35", "ngrams=1"], ["column=small"]),
    "subword": (["min_n=2", "max_n=4", "buckets=50"], ["pooling=none"]),
    "tokenizer": (["vocab_size=300"], []),
    "bucketized": (["bins=4"], ["column=price"]),
    "mixed": (["widths=[8,4]", "blocks=[2]", "ngrams=1"], ["column=ids", "weights=weights"]),
    "managed": (["rows=64", "ngrams=1"], ["column=ids"]),
}


def typed_job(names: Sequence[str]) -> list[str]:
    """The arguments for one job with a table of each of these kinds."""
    arguments = ["~tables.text", "~features.text", "head=attention" if "subword" in names else "head=bag"]
    for name in names:
        table, feature = TYPED[name]
        arguments += [f"+table@tables.{name}={name}", f"tables.{name}.dim=8"]
        arguments += [f"tables.{name}.{option}" for option in table]
        arguments += [f"+feature@features.{name}=column", f"features.{name}.table={name}"]
        arguments += [f"features.{name}.{option}" for option in feature]
    return arguments


@pytest.fixture(scope="module")
def run_of_all_kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the data, and a run with a table of every kind."""
    data = tmp_path_factory.mktemp("data")
    for part, rows in (("train", 90), ("test", 25)):
        pq.write_table(rows_of_all_types(rows), data / f"{part}.parquet")
    run = data / "run"
    arguments = ["data=files", f"data.path={data}", "+number@numbers.price=column", "numbers.price.column=price"]
    arguments += ["trainer.batch_size=16", "trainer.epochs=2", "trainer.save_every=3", "trainer.keep=9"]
    arguments += ["runtime.tensorboard=false", "runtime.threads=1", f"hydra.run.dir={run}"]
    assert bigembed("train", *typed_job(list(TYPED)), *arguments) == 0
    return data, run


def test_a_job_of_every_kind_is_typed() -> None:
    assert set(TYPED) == {*kinds.TABLES, "quotient_remainder"} and len(TYPED) == 10


def test_every_kind_is_evaluated_and_answers_as_training_said(run_of_all_kinds: tuple[Path, Path]) -> None:
    data, run = run_of_all_kinds
    figures = json.loads((run / "metrics.json").read_text())["test"]
    assert bigembed("evaluate", f"run={run}", f"output={data}/figures.json") == 0
    again = json.loads((data / "figures.json").read_text())["test"]
    assert again["loss"] == pytest.approx(figures["loss"], rel=1e-5) and again["accuracy"] == figures["accuracy"]
    answers = data / "answers.parquet"
    assert bigembed("predict", f"run={run}", f"input={data}/test.parquet", f"output={answers}") == 0
    table, labels = pq.read_table(answers), pq.read_table(data / "test.parquet")["label"].to_numpy()
    assert (table["label"].to_numpy() == labels).mean() == pytest.approx(figures["accuracy"])
    told = np.array(table["probabilities"].to_pylist())[np.arange(25), labels]
    assert -np.log(told).mean() == pytest.approx(figures["loss"], rel=1e-4)


def test_a_run_of_every_kind_goes_on_as_if_it_had_not_ended(
    run_of_all_kinds: tuple[Path, Path], tmp_path: Path
) -> None:
    _, run = run_of_all_kinds
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    checkpoints = sorted((cut / "checkpoints").glob("step-*"))
    assert len(checkpoints) >= 4
    for path in checkpoints[2:]:
        shutil.rmtree(path)
    (cut / "metrics.json").unlink()
    assert bigembed("train", f"resume={cut}") == 0
    ours, theirs = tables_of(cut), tables_of(run)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    assert [name for name in ours if ours[name] != theirs[name]] == []
    first = {path.name: path.read_bytes() for path in (checkpoints[0] / "tables").iterdir()}
    assert any(theirs[name] != rows for name, rows in first.items())


# ---------------------------------------------------------------- bad data


def opened(
    table: TableConfig, feature: FeatureConfig, data: pa.Table, learned_from: pa.Table | None = None
) -> Examples:
    """The samples of data, with an encoder that has learned from other data, or from the same."""
    job = job_with({"t": copy.deepcopy(table)}, {"f": feature})
    known = known_of(job, examples_of(job, data if learned_from is None else learned_from))
    return open_examples(job, known, {}, data, None, "test part")


def with_column(name: str, column: pa.Array) -> pa.Table:
    """Rows of all types, one column of which is another."""
    data = rows_of_all_types(len(column))
    return data.set_column(data.schema.get_field_index(name), name, column)


VALUED: dict[str, TableConfig] = {
    "hashed": HashedTable(8, buckets=19),
    "importance": HashedTable(8, buckets=19, functions=2, importance=11),
    "compositional": CompositionalTable(8, partitions=[7, 5]),
    "values": CompositionalTable(8, partitions=[7, 5], values=35),
    "mixed": MixedTable(8, widths=[8, 4], blocks=[1]),
    "vocab": VocabTable(8),
    "managed": ManagedTable(8, rows=64),
}
REFUSED = {
    "a null": (pa.array([1, None]), "no id (null) in 1 of 2 rows, the first is row 1"),
    "a null text": (pa.array(["a", None]), "no text (null) in 1 of 2 rows, the first is row 1"),
    "a null list": (pa.array([[1], None]), "no list (null) in 1 of 2 rows, the first is row 1"),
    "a null in a list": (pa.array([[1], [2, None]]), "in 1 of 2 rows, the first is row 1"),
    "a null in a list of texts": (pa.array([["a"], ["b", None]]), "in 1 of 2 rows, the first is row 1"),
    "nothing but nulls": (pa.nulls(2), "(null) in 2 of 2 rows, the first is row 0"),
    "fractions": (pa.array([0.5, 1.0]), "bucketized"),
    "dates": (pa.array([0, 1], pa.timestamp("s")), "timestamp[s], not texts, whole numbers, or lists of either"),
    "lists of lists": (pa.array([[[1]], [[2]]]), "not texts, whole numbers, or lists of either"),
    "truths": (pa.array([True, False]), "bool, not texts, whole numbers, or lists of either"),
}


@pytest.mark.parametrize("wrong", REFUSED)
@pytest.mark.parametrize("kind", VALUED)
def test_values_that_are_none_are_refused_in_one_sentence(kind: str, wrong: str) -> None:
    column, part = REFUSED[wrong]
    with pytest.raises(UserError) as caught:
        opened(VALUED[kind], FeatureConfig("t", "ids"), with_column("ids", column))
    assert part in str(caught.value) and "column 'ids'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in VALUED if kind != "values"])
def test_numbers_of_every_size_lists_of_a_million_and_empty_ones_have_rows(kind: str) -> None:
    numbers = [-(2**63), -1, 0, 2**63 - 1]
    data = with_column("ids", pa.array([numbers, [], list(range(10**6))], pa.list_(pa.int64())))
    examples = opened(VALUED[kind], FeatureConfig("t", "ids"), data)
    (encoded,) = examples.encode(np.arange(3))
    assert encoded.tokens.tolist() == [4, 0, 10**6]
    (feature,) = examples.features
    for part, rows in zip(encoded.parts, feature.encoder.rows, strict=True):
        assert part.rows.values.min() >= 0 and (kind == "managed" or part.rows.values.max() < rows)
    # Numbers without a sign of 2**63 and more are known by their bits, and a width is no part of a value.
    unsigned = pa.array([[number % 2**64 for number in numbers], [2**63], [2**64 - 1]], pa.list_(pa.uint64()))
    same = opened(VALUED[kind], FeatureConfig("t", "ids"), with_column("ids", unsigned), data)
    (again,) = same.encode(np.arange(3))
    small = opened(VALUED[kind], FeatureConfig("t", "ids"), with_column("ids", pa.array([-1, 0], pa.int8())), data)
    (narrow,) = small.encode(np.arange(2))
    first, again_first, minus_one = encoded.take(np.array([0])), again.take(np.array([0])), narrow.take(np.array([0]))
    for own, other in zip(first.parts, again_first.parts, strict=True):
        assert np.array_equal(own.rows.values, other.rows.values)
    for own, other in zip(again.take(np.array([2])).parts, minus_one.parts, strict=True):
        assert np.array_equal(own.rows.values, other.rows.values)


def test_numbers_that_a_table_has_no_digits_for_are_named() -> None:
    for column, row, value in (
        (pa.array([0, 34, 35]), 2, "35"),
        (pa.array([0, -1]), 1, "-1"),
        (pa.array([[0], [1, 2**63]], pa.list_(pa.uint64())), 1, "9223372036854775808"),
    ):
        with pytest.raises(UserError) as caught:
            opened(VALUED["values"], FeatureConfig("t", "ids"), with_column("ids", column))
        assert f"row {row} of the test part holds {value} in column 'ids'" in str(caught.value).replace("train", "test")
        assert "0 to 34" in str(caught.value)
    assert opened(VALUED["values"], FeatureConfig("t", "ids"), with_column("ids", pa.array([0, 34]))).features


@pytest.mark.parametrize("kind", VALUED)
def test_texts_where_numbers_were_learned_are_refused_and_numbers_where_texts_were(kind: str) -> None:
    numbers, texts = with_column("ids", pa.array([1, 2])), with_column("ids", pa.array(["1", "2"]))
    both = [(numbers, texts, "texts", "numbers"), (texts, numbers, "numbers", "texts")][: 1 if kind == "values" else 2]
    for learned_from, data, given, made_for in both:
        with pytest.raises(UserError) as caught:
            opened(VALUED[kind], FeatureConfig("t", "ids"), data, learned_from)
        assert f"column 'ids' of the test part holds {given}, but tables.t was made for {made_for}" in str(caught.value)


def test_texts_where_numbers_were_learned_are_refused_by_a_command(
    run_of_all_kinds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = run_of_all_kinds
    table = pq.read_table(data / "test.parquet")
    texts = pa.array([[str(each) for each in row] for row in table["ids"].to_pylist()], pa.list_(pa.string()))
    pq.write_table(table.set_column(table.schema.get_field_index("ids"), "ids", texts), tmp_path / "texts.parquet")
    capsys.readouterr()
    assert bigembed("predict", f"run={run}", f"input={tmp_path}/texts.parquet", f"output={tmp_path}/a.txt") == 2
    error = capsys.readouterr().err
    assert "column 'ids'" in error and "holds texts" in error and "made for numbers" in error
    assert "Traceback" not in error and not (tmp_path / "a.txt").exists()


WEIGHTS = {
    "fewer": (
        [[1.0, 1.0], [1.0]],
        "row 1 of the train part has 1 weights in column 'weights' for 2 values in column 'ids'",
    ),
    "more": ([[1.0, 1.0, 1.0], [1.0, 1.0]], "row 0 of the train part has 3 weights"),
    "none": ([[1.0, 1.0], []], "row 1 of the train part has 0 weights"),
    "one a row": ([1.0, 1.0], "row 0 of the train part has 1 weights"),
    "NaN": ([[1.0, 1.0], [1.0, float("nan")]], "column 'weights' has a weight in row 1 that is missing or not finite"),
    "infinity": ([[float("inf"), 1.0], [1.0, 1.0]], "a weight in row 0 that is missing or not finite"),
    "beyond float32": ([[1.0, 1.0], [1e300, 1.0]], "a weight in row 1 that is missing or not finite"),
    "a null": ([[1.0, 1.0], [None, 1.0]], "a weight in row 1 that is missing or not finite"),
    "a null list": ([[1.0, 1.0], None], "column 'weights' has no weights (null) in 1 of 2 rows"),
    "texts": ([["a", "b"], ["a", "b"]], "column 'weights' holds list<"),
}


@pytest.mark.parametrize("wrong", WEIGHTS)
def test_weights_that_are_not_one_number_for_each_value_are_refused(wrong: str) -> None:
    given, part = WEIGHTS[wrong]
    ids = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64()))
    data = pa.table({"ids": ids, "weights": pa.array(given), "label": [0, 1]})
    for table in (VALUED["hashed"], VALUED["importance"], VALUED["mixed"], VALUED["compositional"]):
        with pytest.raises(UserError) as caught:
            opened(table, LISTS, data)
        assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int16()), pa.large_list(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.float32(), 2)]
)
def test_weights_of_every_type_of_number_count_alike(kind: pa.DataType) -> None:
    ids = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int64()))
    given = [[np.float16(1), np.float16(3)], [np.float16(2), np.float16(0)], [np.float16(-1), np.float16(2)]]
    column = pa.chunked_array([pa.array(given[:1], kind), pa.array(given, kind).slice(1)])
    data = pa.table({"ids": ids, "weights": column, "label": [0, 1, 0]})
    examples = opened(VALUED["hashed"], replace(LISTS, pooling=Pooling.sum), data)
    batch = collate(examples, np.array([2, 0, 1]))
    assert batch.features is None and batch.weighted is not None
    assert batch.weighted.weights().tolist() == [-1, 2, 1, 3, 2, 0]


def test_weights_that_cancel_out_are_left_as_they_are() -> None:
    encoded = HashedEncoder(HashedTable(buckets=9), {"values": "numbers"}).encode_hashes(
        Ragged(np.arange(1, 6, dtype=np.uint64), np.array([0, 3, 5])), np.int64
    )
    given = Ragged(np.array([0.1, 0.2, -0.3, 1.0, 3.0], np.float32), np.array([0, 3, 5]))
    (found,) = weigh(HashedTable(), FeatureConfig(), encoded, given)
    np.testing.assert_allclose(found, [0.1, 0.2, -0.3, 0.25, 0.75], rtol=1e-6)


def test_a_number_that_is_the_same_everywhere_is_only_centred() -> None:
    config = NumberConfig(column="n")
    scale = learn_scale(pa.array([0.1] * 200), config)
    assert (scale.mean, scale.deviation) == (0.1, 0.0)
    np.testing.assert_allclose(scale.apply(pa.array([0.1, 0.2]), config), [0.0, 0.1], atol=1e-7)
