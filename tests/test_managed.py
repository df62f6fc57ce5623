"""Managed tables under TorchRec: real ranks against plain Python, eviction, resuming, asking."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks

from bigembed import hashing
from bigembed.admission import GROUP, Admission, Rules
from bigembed.config.schema import DType, Kernel, Kind, Policy

TABLES = {"a": (4 * GROUP, ["f1", "f2"]), "b": (8 * GROUP, ["f3"])}  # rows, features
RULES = {"a": Rules(), "b": Rules(Policy.lru, min_count=2)}
FEATURES = ["f1", "f2", "f3"]
DIM, SEED, REACH, LR, EPS = 8, 3, 0.1, 0.02, 1e-4
STEPS, BATCH = 40, 16
KINDS = ["bags", "weighted", "sequences", "sgd", "adagrad"]  # rowwise Adagrad and sums but for what the name says
STATES = ["clock", "counts", "ids", "last", "waiting_counts", "waiting_ids", "waiting_last"]


def batches(first: int, last: int, rank: int = 0, world: int = 1) -> Iterator[dict[str, Any]]:
    """This rank's part of the global batches of some steps: of every feature, values, lengths and weights; more and more new values."""
    for step in range(first, last):
        draw = np.random.default_rng(step)
        samples = slice(BATCH * rank // world, BATCH * (rank + 1) // world)
        batch = {}
        for feature in ["other", *FEATURES]:
            lengths = draw.integers(0, 6, BATCH)
            numbers = draw.zipf(1.3, lengths.sum()) % 1000 + 5 * step
            values = (hashing.hash_integers(numbers) >> np.uint64(1)).view(np.int64)
            offsets = np.concatenate([[0], lengths.cumsum()])
            own = slice(offsets[samples.start], offsets[samples.stop])
            weights = draw.random(len(values)).astype(np.float32)
            batch[feature] = values[own], lengths[samples], weights[own]
        yield batch


def expected(kind: str) -> dict[str, Any]:
    """Train with numpy alone: whole tables, rows that are taken begin anew, losses (prediction - 1)² of the sum over all columns."""
    weighted = kind == "weighted"
    tables = {}
    for name, (rows, _) in TABLES.items():
        first = np.empty((rows, DIM), np.float32)
        hashing.fill_uniform(first, SEED, hashing.stream_of(name), 0, 0, DIM, -REACH, REACH)
        tables[name] = (
            Admission(rows, 0, rows, RULES[name]),
            first,
            first.copy(),
            np.zeros((rows, DIM) if kind == "adagrad" else rows),
        )
    losses, took = [], 0
    for batch in batches(0, STEPS):
        looked_up, prediction = [], np.zeros(BATCH)
        for name, (_, features) in TABLES.items():
            admission, first, weight, state = tables[name]
            values = np.concatenate([batch[feature][0] for feature in features])
            rows, taken = admission.step(values)
            weight[taken], state[taken] = first[taken], 0
            samples = np.concatenate([np.repeat(np.arange(BATCH), batch[feature][1]) for feature in features])
            factors = np.concatenate([batch[feature][2] for feature in features]) if weighted else np.ones(len(rows))
            np.add.at(prediction, samples, weight[rows].sum(1) * factors)
            looked_up.append((weight, state, rows, samples, factors))
            took += len(taken)
        losses.append(np.mean((prediction - 1) ** 2))
        for weight, state, rows, samples, factors in looked_up:
            gradient = np.zeros(weight.shape)
            np.add.at(gradient, rows, (2 * (prediction - 1) / BATCH)[samples, None] * factors[:, None])
            if kind == "adagrad":
                state += gradient**2
            elif kind != "sgd":
                state += (gradient**2).mean(1)
            weight -= LR * gradient / (1 if kind == "sgd" else np.sqrt(state.reshape(len(state), -1)) + EPS)
    assert took > 50
    found = {f"{name}.{key}": array for name, table in tables.items() for key, array in table[0].state().items()}
    found |= {f"{name}.weight": table[2] for name, table in tables.items()}
    found |= {f"{name}.momentum1": table[3] for name, table in tables.items() if kind != "sgd"}
    return {"losses": losses, "arrays": found}


def train(
    kind: str, pipelined: bool, first: int = 0, last: int = STEPS, arrays: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """On one rank: train the steps from ``first`` to before ``last``, going on from ``arrays``; return what it did and holds."""
    import torch
    import torch.distributed as dist
    from torchrec import KeyedJaggedTensor
    from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

    rank, world = dist.get_rank(), dist.get_world_size()
    model = sharded(kind, world)
    put(model, arrays)

    def tensors() -> Iterator[KeyedJaggedTensor]:
        for batch in batches(first, last, rank, world):
            values, lengths, weights = (
                torch.from_numpy(np.concatenate(parts)) for parts in zip(*batch.values(), strict=True)
            )
            weights = weights if kind == "weighted" else None
            yield KeyedJaggedTensor(keys=list(batch), values=values, lengths=lengths, weights=weights)

    losses, optimizer = [], torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    if pipelined:
        pipeline, source = TrainPipelineSparseDist(model, optimizer, torch.device("cpu")), tensors()
        for _ in range(first, last):
            losses.append(pipeline.progress(source).mean().item())  # the samples' losses
        assert len(pipeline._pipelined_modules) == 1
        pipeline.detach()
    else:
        for batch in tensors():
            loss, _ = model(batch)
            loss.backward()
            losses.append(loss.item())
    before = {name: shard.copy() for name, (_, shard) in held(model).items()}
    model.eval()
    with torch.no_grad():
        answers = [model(batch)[1].numpy() for batch in tensors()]
    assert all((shard == before[name]).all() for name, (_, shard) in held(model).items())
    sums = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(sums)
    return {"losses": (sums / world).tolist(), "held": held(model), "answers": answers}


def sharded(kind: str, world: int) -> Any:
    """The managed tables alone, laid over the ranks, with a loss on top."""
    import torch
    from torch import nn
    from torch.distributed.optim import _apply_optimizer_in_backward
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, EmbeddingCollection, EmbeddingConfig, PoolingType
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.types import ShardingPlan
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    from bigembed import managed
    from bigembed.sharding.plan import Piece, TablePlan, to_torchrec

    residents = {
        name: managed.Residents(name, rows, RULES[name], managed.FreshRows(name, DIM, SEED, -REACH, REACH))
        for name, (rows, _) in TABLES.items()
    }
    options = [
        {"name": name, "embedding_dim": DIM, "num_embeddings": rows, "feature_names": features}
        for name, (rows, features) in TABLES.items()
    ]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            meta = torch.device("meta")
            if kind == "sequences":
                tables = [EmbeddingConfig(**each) for each in options]
                self.managed = managed.sequences(EmbeddingCollection(tables=tables, device=meta), residents)
            else:
                bags = [EmbeddingBagConfig(pooling=PoolingType.SUM, **each) for each in options]
                of_bags = EmbeddingBagCollection(tables=bags, is_weighted=kind == "weighted", device=meta)
                self.managed = managed.bags(of_bags, residents)

        def forward(self, features: Any) -> Any:
            found, _ = self.managed(features)
            if kind == "sequences":
                parts = [
                    torch.segment_reduce(
                        found[name].values().sum(1), "sum", lengths=found[name].lengths().long(), unsafe=True
                    )
                    for name in FEATURES
                ]
                prediction = torch.stack(parts).sum(0)
            else:
                prediction = found.values().sum(1)
            losses = (prediction - 1) ** 2
            return losses.mean(), losses.detach()

    net = Net()
    optimizer = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}.get(kind, RowWiseAdagrad)
    _apply_optimizer_in_backward(
        optimizer, list(net.parameters()), {"lr": LR} | ({} if kind == "sgd" else {"eps": EPS})
    )
    plans = {}
    for name, (rows, _) in TABLES.items():
        run = rows // world
        pieces = [Piece(rank, rank * run, 0, run, DIM) for rank in range(world)]
        plans[name] = TablePlan(Kind.row_wise, Kernel.fused, rows, DIM, DType.fp32, pieces)
    plan = ShardingPlan({"managed": to_torchrec(plans, "cpu", world, {name: {} for name in plans})})
    sharders = [
        managed.BagSharder(EmbeddingBagCollectionSharder()),
        managed.SequenceSharder(EmbeddingCollectionSharder()),
    ]
    return DistributedModelParallel(net, device=torch.device("cpu"), plan=plan, sharders=sharders)


def held(model: Any) -> dict[str, tuple[int, np.ndarray]]:
    """Where in the whole begins what this rank holds of every array, and its own memory."""
    from bigembed.managed import residents_of

    found = {}
    shards = [
        (key.removesuffix(".weight").rpartition(".")[2], "weight", value) for key, value in model.state_dict().items()
    ]
    for state in model.fused_optimizer.state_dict()["state"].values():
        shards += [(*key.rsplit(".", 1), value) for key, value in state.items()]
    for table, name, value in shards:
        (shard,) = value.local_shards()
        found[f"{table.rpartition('.')[2]}.{name}"] = shard.metadata.shard_offsets[0], shard.tensor.detach().numpy()
    for table, residents in residents_of(model).items():
        for name, array in residents.admission.state().items():
            found[f"{table}.{name}"] = residents.first if name != "clock" else 0, array
    return found


def put(model: Any, arrays: dict[str, np.ndarray] | None) -> None:
    """Fill what this rank holds: with the rows' first values, or from whole arrays."""
    from bigembed.managed import residents_of

    for name, (start, array) in held(model).items():
        if arrays is not None:
            array[:] = arrays[name][start : start + len(array)]
        elif name.endswith("weight"):
            array[:] = residents_of(model)[name[0]].fresh(np.arange(start, start + len(array)))


def whole(results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of all ranks, put together."""
    arrays = {}
    for name in results[0]["held"]:
        parts = [result["held"][name] for result in results]
        arrays[name] = parts[0][1] if name.endswith("clock") else np.concatenate([array for _, array in parts])
        assert name.endswith("clock") or [start for start, _ in parts] == [
            len(arrays[name]) // len(parts) * rank for rank in range(len(parts))
        ]
    return arrays


def on_ranks(runs: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """On one rank: begin, and train every run."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    return [train(*run) for run in runs]


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Any]]:
    (results,) = run_ranks(on_ranks, 1, [(kind, False) for kind in KINDS])
    return {kind: {**result, "arrays": whole([result])} for kind, result in zip(KINDS, results, strict=True)}


@pytest.fixture(scope="module")
def two() -> dict[str, dict[str, Any]]:
    ranks = run_ranks(on_ranks, 2, [(kind, True) for kind in KINDS] + [("bags", True, 0, STEPS // 2)])
    found = {}
    for kind, results in zip([*KINDS, "half"], zip(*ranks, strict=True), strict=True):
        answers = [np.concatenate(parts) for parts in zip(*(result["answers"] for result in results), strict=True)]
        found[kind] = {"losses": results[0]["losses"], "arrays": whole(list(results)), "answers": answers}
    return found


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Fail unless who has which row is equal, and the rows are but for rounding."""
    assert sorted(found) == sorted(wanted)
    assert len(found) == len(TABLES) * (len(STATES) + 1 + any(name.endswith("momentum1") for name in wanted))
    for name, array in wanted.items():
        if name.rpartition(".")[2] in STATES:
            assert (found[name] == array).all(), name
        else:
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_what_plain_numpy_does(kind: str, one: dict[str, Any]) -> None:
    wanted = expected(kind)
    np.testing.assert_allclose(one[kind]["losses"], wanted["losses"], rtol=1e-4)
    same(one[kind]["arrays"], wanted["arrays"])


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_in_a_pipeline_are_one_without(kind: str, one: dict[str, Any], two: dict[str, Any]) -> None:
    np.testing.assert_allclose(two[kind]["losses"], one[kind]["losses"], rtol=1e-5)
    same(two[kind]["arrays"], one[kind]["arrays"])
    for found, wanted in zip(two[kind]["answers"], one[kind]["answers"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [1, 4])
def test_a_run_goes_on_exactly_on_another_number_of_ranks(world: int, one: dict[str, Any], two: dict[str, Any]) -> None:
    half = two["half"]["arrays"]
    ranks = run_ranks(on_ranks, world, [("bags", False, STEPS // 2, STEPS, half)])
    results = [result for (result,) in ranks]
    np.testing.assert_allclose(results[0]["losses"], one["bags"]["losses"][STEPS // 2 :], rtol=1e-5)
    same(whole(results), one["bags"]["arrays"])


def test_rows_begin_as_those_of_other_tables_do() -> None:
    from bigembed.managed import FreshRows

    first = np.empty((50, DIM), np.float32)
    hashing.fill_uniform(first, SEED, hashing.stream_of("a"), 100, 0, DIM, -REACH, REACH)
    rows = np.array([149, 100, 120, 120])
    assert (FreshRows("a", DIM, SEED, -REACH, REACH)(rows) == first[rows - 100]).all()


def test_a_whole_table_answers_from_an_array(one: dict[str, Any]) -> None:
    import torch
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType

    from bigembed import managed

    arrays, configs, residents = one["bags"]["arrays"], [], {}
    for name, (rows, features) in TABLES.items():
        configs.append(
            EmbeddingBagConfig(
                name=name, embedding_dim=DIM, num_embeddings=rows, feature_names=features, pooling=PoolingType.SUM
            )
        )
        residents[name] = managed.Residents(name, rows, RULES[name], managed.FreshRows(name, DIM, SEED, -REACH, REACH))
        residents[name].look_up_in(arrays[f"{name}.ids"])
    module = managed.bags(EmbeddingBagCollection(tables=configs), residents).eval()
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in module.state_dict()} == set(TABLES)
    for name in TABLES:
        module._embedding_module.embedding_bags[name].weight.data = torch.from_numpy(arrays[f"{name}.weight"])
    for batch, answers in zip(batches(0, STEPS), one["bags"]["answers"], strict=True):
        values, lengths, _ = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*batch.values(), strict=True))
        pooled, _ = module(KeyedJaggedTensor(keys=list(batch), values=values, lengths=lengths))
        np.testing.assert_allclose((pooled.values().sum(1).detach().numpy() - 1) ** 2, answers, rtol=1e-4, atol=1e-5)
