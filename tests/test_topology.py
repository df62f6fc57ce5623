"""The run does not depend on the topology: the same rows, samples, losses, weights and figures on any ranks, sharded in any way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_commands, run_ranks

from bigembed.config import compose, saved
from bigembed.prepare import prepare

COMMON = [
    "data.rows=300",
    "data.test_rows=101",
    "data.vocabulary=300",
    "trainer.batch_size=64",
    "trainer.epochs=2",
    "sharding.min_partition=4",
    "optim.tables.kind=adagrad",
    "optim.tables.eps=1e-4",  # with a tiny one, Adagrad's first step makes whole steps of gradients that are rounding errors
    "optim.dense.eps=1e-4",
    "optim.tables.lr=0.01",
    "optim.dense.lr=0.01",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]
# Two tables of different widths, one of them with two features, one mean and one sum; the second with hidden layers and dropout.
POOLED = [
    "tables.text.dim=8",
    "tables.text.buckets=1000",
    "+table@tables.hashed=hashed",
    "tables.hashed.dim=12",
    "tables.hashed.buckets=501",
    "+feature@features.sum=column",
    "features.sum.table=hashed",
    "features.sum.pooling=sum",
    "+feature@features.mean=column",
    "features.mean.table=hashed",
    "head.hidden=[8]",
    "head.dropout=0.25",
]
SEQUENCES = [
    "head=attention",
    "head.attention=8",
    "features.text.pooling=none",
    "tables.text.dim=8",
    "tables.text.ngrams=1",
    "+table@tables.hashed=hashed",
    "tables.hashed.dim=8",
    "tables.hashed.buckets=501",
    "+feature@features.second=column",
    "features.second.table=hashed",
    "features.second.pooling=none",
]
KINDS = {
    "pooled": (
        POOLED,
        [
            "table_wise",
            "row_wise",
            "column_wise",
            "data_parallel",
            "table_row_wise",
            "table_column_wise",
            "grid",
            "auto",
        ],
    ),
    "sequences": (SEQUENCES, ["table_wise", "row_wise", "column_wise", "auto"]),
}
# Ranks and hosts. What 2 ranks do otherwise than 3 or 4, the tests further down would see.
WORLDS = [(3, 1), (4, 2), *(pytest.param(*world, marks=pytest.mark.slow) for world in ((2, 1), (4, 1), (4, 4)))]


def compose_job(options: list[str]) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = []
    compose.run([*COMMON, *options], lambda job, folder: jobs.append(saved.as_dict(job)))
    return jobs[0]


def train_variants(values: dict[str, Any], folder: str, variants: list[list[str]]) -> list[dict[str, Any]]:
    """On one rank: train every variant of a job, and return what it did and what this rank holds of it."""
    import os

    import torch.distributed as dist

    from bigembed.evaluation import evaluate
    from bigembed.runtime import start
    from bigembed.signals import Stop
    from bigembed.trainer import ahead, make_step, open_training

    several = "WORLD_SIZE" in os.environ
    store = next(dist.rendezvous("env://"))[0] if several else None
    results = []
    for number, options in enumerate(variants):
        job = saved.override(saved.from_dict(values), options)
        data = prepare(job, Path(folder))
        with start(job.runtime, dist.PrefixStore(str(number), store) if store else None) as runtime:
            training = open_training(job, Path(folder), data, runtime, Stop())
            initial = held(training)
            batches, losses, seen = iter(ahead(training)), [], []
            for _ in range(training.steps):
                make_step(training, batches)
                losses.append(loss_of(training))
                seen.append(training.recent.samples)
            training.stepper.pause()
            assert data.test is not None
            figures = evaluate(training.model, data.test, 64, runtime)
            kinds = {
                name: sharding.sharding_type
                for module in training.model.plan.plan.values()
                for name, sharding in module.items()
            }
            dense = [value.detach().clone().numpy() for value in training.optimizers.parameters]
            results.append(
                {
                    "initial": initial,
                    "final": held(training),
                    "losses": losses,
                    "figures": figures,
                    "kinds": kinds,
                    "dense": dense,
                }
            )
            del training
    return results


def loss_of(training: Any) -> float:
    """The loss of the last step over all ranks."""
    from bigembed.trainer import settle

    settle(training)
    total, training.recent_loss = training.recent_loss, 0.0
    return total


def held(training: Any) -> list[tuple[str, tuple[int, ...], tuple[int, ...], np.ndarray]]:
    """Copies of this rank's parts of tables and states."""
    from bigembed.sharding.rows import states, weights

    found = [(name, shards) for name, shards in weights(training.model).items()]
    for table, parts in states(training.model, training.optimizers).items():
        found += [(f"{table}.{name}", shards) for name, shards in parts.items()]
    return [(name, shard.start, shard.shape, shard.read().copy()) for name, shards in found for shard in shards]


def whole(results: list[dict[str, Any]], key: str) -> dict[str, np.ndarray]:
    """Put the ranks' parts together; every entry must be there, and the same where several ranks have it."""
    arrays: dict[str, np.ndarray] = {}
    for result in results:
        for name, start, shape, part in result[key]:
            array = arrays.setdefault(name, np.full(shape, np.nan, part.dtype))
            window = tuple(slice(at, at + size) for at, size in zip(start, part.shape, strict=True))
            there = array[window]
            np.testing.assert_array_equal(there[~np.isnan(there)], part[~np.isnan(there)])
            array[window] = part
    assert all(not np.isnan(array).any() for array in arrays.values())
    return arrays


@pytest.fixture(scope="module", params=KINDS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The job, its prepared folder, its kinds, and what one process makes of it."""
    options, kinds = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "encoders").mkdir()
    values = compose_job([*options, f"hydra.run.dir={folder}/hydra"])
    prepare(saved.from_dict(values), folder)
    (result,) = train_variants(values, str(folder), [[]])
    return request.param, values, folder, kinds, result


@pytest.mark.parametrize(("world", "hosts"), WORLDS)
def test_ranks_hosts_and_kinds_change_nothing(reference: tuple[Any, ...], world: int, hosts: int) -> None:
    _, values, folder, kinds, expected = reference
    results = run_ranks(
        train_variants, world, values, str(folder), [[f"sharding.kind={kind}"] for kind in kinds], hosts=hosts
    )
    assert {len(result) for result in results} == {len(kinds)}
    before, after = whole([expected], "initial"), whole([expected], "final")
    for number, kind in enumerate(kinds):
        of_kind = [result[number] for result in results]
        if kind != "auto":
            assert set(of_kind[0]["kinds"].values()) == {"grid_shard" if kind == "grid" else kind}
        initial, final = whole(of_kind, "initial"), whole(of_kind, "final")
        assert initial.keys() == final.keys() == after.keys()
        for name in after:
            np.testing.assert_array_equal(initial[name], before[name], err_msg=f"{kind} {name}")
            np.testing.assert_allclose(final[name], after[name], rtol=1e-5, atol=1e-5, err_msg=f"{kind} {name}")
        for result in of_kind:
            np.testing.assert_allclose(result["losses"], expected["losses"], rtol=2e-6, err_msg=kind)
            assert result["figures"]["samples"] == expected["figures"]["samples"] == 101
            assert result["figures"]["accuracy"] == expected["figures"]["accuracy"]
            assert result["figures"]["loss"] == pytest.approx(expected["figures"]["loss"], rel=1e-6)
            for ours, theirs in zip(result["dense"], expected["dense"], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_pipelines_change_nothing_and_compressed_communication_little(tmp_path: Path) -> None:
    (tmp_path / "encoders").mkdir()
    wide = [
        "tables.text.dim=32",
        "tables.hashed.dim=32",
        "sharding.min_partition=16",
    ]  # int8 travels in blocks of 32 columns
    values = compose_job([*POOLED, *wide, f"hydra.run.dir={tmp_path}/hydra"])
    prepare(saved.from_dict(values), tmp_path)
    variants = {
        "plain": ["trainer.pipeline=none", "sharding.kind=row_wise"],
        "pipelined": ["trainer.pipeline=sparse_dist", "sharding.kind=row_wise"],
        "fp16": ["sharding.forward=fp16", "sharding.backward=fp16", "sharding.kind=row_wise"],
        "bf16": ["sharding.forward=bf16", "sharding.backward=bf16", "sharding.kind=column_wise"],
        "int8": ["sharding.forward=int8", "sharding.backward=int8", "sharding.kind=table_wise"],
    }
    ranks = run_ranks(train_variants, 2, values, str(tmp_path), list(variants.values()))
    results = {name: [rank[number] for rank in ranks] for number, name in enumerate(variants)}
    plain, pipelined = whole(results["plain"], "final"), whole(results["pipelined"], "final")
    assert results["plain"][0]["losses"] == results["pipelined"][0]["losses"]
    assert all(np.array_equal(plain[name], pipelined[name]) for name in plain)
    for name, tolerance in (("fp16", 1e-3), ("bf16", 3e-2), ("int8", 5e-2)):
        losses = results[name][0]["losses"]
        assert losses != results["plain"][0]["losses"], name
        np.testing.assert_allclose(losses, results["plain"][0]["losses"], rtol=tolerance, err_msg=name)


def test_tables_of_fp16_are_the_same_on_any_ranks(tmp_path: Path) -> None:
    (tmp_path / "encoders").mkdir()
    half = [f"tables.{name}.{option}" for name in ("text", "hashed") for option in ("dtype=fp16", "rounding=nearest")]
    values = compose_job([*POOLED, *half, f"hydra.run.dir={tmp_path}/hydra"])
    prepare(saved.from_dict(values), tmp_path)
    (expected,) = train_variants(values, str(tmp_path), [[]])
    results = run_ranks(train_variants, 2, values, str(tmp_path), [["sharding.kind=row_wise"]])
    before, after = whole([expected], "initial"), whole([expected], "final")
    initial, final = (whole([rank[0] for rank in results], key) for key in ("initial", "final"))
    assert {before[name].dtype for name in ("text", "hashed")} == {np.dtype(np.float16)}
    assert all(np.array_equal(initial[name], before[name]) for name in before)
    for name in after:
        np.testing.assert_allclose(final[name], after[name], atol=2e-3, rtol=2e-3, err_msg=name)


def train_stretch(values: dict[str, Any], folder: str, options: list[str], until: int) -> dict[str, Any]:
    """On one rank: go on from the last checkpoint of the run to the step ``until``, and save."""
    import os

    import torch.distributed as dist

    from bigembed.runtime import start
    from bigembed.signals import Stop
    from bigembed.trainer import ahead, make_step, open_training, save

    store = next(dist.rendezvous("env://"))[0] if "WORLD_SIZE" in os.environ else None
    job = saved.override(saved.from_dict(values), options)
    data = prepare(job, Path(folder))
    with start(job.runtime, store) as runtime:
        training = open_training(job, Path(folder), data, runtime, Stop())
        began, batches = training.progress.step, iter(ahead(training))
        while training.progress.step < min(until, training.steps):
            make_step(training, batches)
        save(training)
        training.saver.close()
        found = {"began": began, "steps": training.steps, "final": held(training)}
        del training
    return found


STRETCHES = {
    "adagrad": [
        (2, 1, ["sharding.kind=row_wise"]),
        (3, 1, ["sharding.kind=column_wise"]),
        (1, 1, []),
        (4, 2, ["sharding.kind=grid"]),
        (2, 1, ["sharding.kind=data_parallel"]),
    ],
    "rowwise_adagrad": [
        (1, 1, ["sharding.kernel=dense"]),
        (2, 1, ["sharding.kind=data_parallel"]),
        (4, 2, ["sharding.kind=table_row_wise"]),
        (3, 1, ["sharding.kind=table_wise"]),
        (2, 1, ["sharding.kind=row_wise", "trainer.save_memory_mib=0"]),
    ],
}


@pytest.mark.parametrize("optimizer", STRETCHES)
def test_a_run_that_moves_between_ranks_and_kinds_ends_as_one_that_stays(tmp_path: Path, optimizer: str) -> None:
    for name in ("moves", "stays"):
        (tmp_path / name / "encoders").mkdir(parents=True)
        (tmp_path / name / "checkpoints").mkdir()
    kind = [f"optim.tables.kind={optimizer}"]
    values = compose_job([*POOLED, *kind, f"hydra.run.dir={tmp_path}/hydra"])
    for name in ("moves", "stays"):
        prepare(saved.from_dict(values), tmp_path / name)
    stays = train_stretch(values, str(tmp_path / "stays"), [], 100)
    assert stays["steps"] == 10
    for number, (world, hosts, options) in enumerate(STRETCHES[optimizer]):
        until = 2 * (number + 1)
        stretch = run_ranks(train_stretch, world, values, str(tmp_path / "moves"), options, until, hosts=hosts)
        assert {rank["began"] for rank in stretch} == {until - 2}
    expected, final = whole([stays], "final"), whole(stretch, "final")
    assert expected.keys() == final.keys() and {"text.momentum1", "hashed.momentum1"} <= set(final)
    for name in expected:
        np.testing.assert_allclose(final[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("options", [POOLED, SEQUENCES], ids=["pooled", "sequences"])
def test_evaluations_between_the_steps_of_a_pipeline_change_nothing(tmp_path: Path, options: list[str]) -> None:
    figures = []
    for name, pipeline in (("plain", "none"), ("pipelined", "sparse_dist")):
        command = ["train", *COMMON, *options, f"trainer.pipeline={pipeline}", f"hydra.run.dir={tmp_path}/{name}"]
        codes, texts = run_commands([[*command, "trainer.eval_every=3", "trainer.report_every=2"]] * 2, tmp_path / name)
        assert codes == [0, 0], texts
        found = json.loads((tmp_path / name / "metrics.json").read_text())
        figures.append([found[part] for part in ("train", "validation", "test")])
    assert figures[0] == figures[1]
