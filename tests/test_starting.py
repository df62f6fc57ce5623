"""Rows that start from vectors: what rank 0 reads comes to whoever holds the rows, and stays, thaws or is pulled back as asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from running import SMALL, bigembed

KINDS = ["table_wise", "row_wise", "column_wise", "data_parallel", "table_row_wise", "table_column_wise", "grid"]
ROWS, DIM = 37, 16


def steps() -> list[Any]:
    """Puts that overlap, sums, and lengths of 1, all from one generator."""
    from bigembed.pretrained.steps import Add, Normalise, Put

    rng = np.random.default_rng(3)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rows = rng.permutation(ROWS)[:20].astype(np.int64)
    return [
        Put(np.r_[rows, rows[:3]], numbers(23, DIM)),
        Put(np.arange(30, ROWS), numbers(1, 6), column=5, given=False),
        Put(rows[:5], np.zeros((1, DIM), np.float32)),
        Add(rng.choice(rows[:5], 50), rng.integers(0, 9, 50).astype(np.int32), numbers(50), numbers(9, DIM)),
        Put(np.empty(0, np.int64), np.empty((0, DIM), np.float32)),
        Normalise(rows[:9], 0, DIM),
        Normalise(rows[9:12], 4, 8),
        Put(rows[12:15], np.full((1, DIM), -0.0, np.float32)),
        Put(rows[15:17], np.full((2, DIM), -0.0, np.float32)),
    ]


def expected(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the steps make of a table, and which of its rows a file gave; one row after the other."""
    table, given = table.astype(np.float64), np.zeros(len(table), bool)
    for step in steps():
        kind = type(step).__name__
        if kind == "Put":
            width = step.vectors.shape[1]
            for number, row in enumerate(step.rows):
                table[row, step.column : step.column + width] = step.vectors[number if len(step.vectors) > 1 else 0]
                given[row] |= step.given
        elif kind == "Add":
            for row, source, weight in zip(step.rows, step.sources, step.weights, strict=True):
                table[row] += weight * step.vectors[source].astype(np.float64)
        else:
            part = table[step.rows, step.column : step.column + step.width]
            length = np.linalg.norm(part, axis=1, keepdims=True)
            table[step.rows, step.column : step.column + step.width] = np.divide(
                part, length, out=part, where=length > 0
            )
    return table, given


def fill(options: list[str], kinds: list[str]) -> list[Any]:
    """On one rank: fill a table of every kind with the steps of rank 0; return what this rank holds before and after."""
    import os

    import torch.distributed as dist

    from bigembed.build import build, fill_rows
    from bigembed.checkpoint import Group
    from bigembed.config import compose
    from bigembed.optim import Optimizers
    from bigembed.runtime import start
    from bigembed.sharding.rows import states, weights
    from bigembed.starting.held import Held
    from bigembed.starting.sharing import shared

    store = next(dist.rendezvous("env://"))[0] if "WORLD_SIZE" in os.environ else None
    results = []
    for number, kind in enumerate(kinds):
        jobs: list[Any] = []
        compose.run([*options, f"sharding.kind={kind}"], lambda job, folder, jobs=jobs: jobs.append(job))
        with start(jobs[0].runtime, dist.PrefixStore(str(number), store) if store else None) as runtime:
            model, group = build(jobs[0], {"text": ROWS}, runtime), Group(runtime.control)
            fill_rows(model, jobs[0])
            optimizers = Optimizers(model, jobs[0], 10)
            own, kept = weights(model)["text"], list(states(model, optimizers).get("text", {}).values())
            before = [shard.read().copy() for shard in own]
            held = Held(own, kept, group)
            for step in shared(iter(steps() if group.chief else []), group):
                held.take(step)
            held.settle()
            frozen = [np.isinf(shard.read()).copy() for shard in (kept[0] if kept else [])]
            windows = [shard.window for shard in own]
            results.append((windows, before, [shard.read().copy() for shard in own], frozen))
            del model, optimizers, own, kept, held
    return results


@pytest.mark.parametrize(
    ("world", "hosts", "kinds", "dtype"),
    [(4, 2, KINDS, "fp32"), (2, 1, ["row_wise"], "fp16")],
)
def test_steps_of_rank_0_reach_the_rows_wherever_they_lie(
    tmp_path: Path, world: int, hosts: int, kinds: list[str], dtype: str
) -> None:
    options = [
        "tables.text.ngrams=1",
        f"tables.text.dim={DIM}",
        "sharding.min_partition=4",
        f"hydra.run.dir={tmp_path}",
        "optim.tables.kind=adagrad",
        f"tables.text.dtype={dtype}",
        "tables.text.rounding=nearest",
    ]
    results = run_ranks(fill, world, options, kinds, hosts=hosts)
    for number, kind in enumerate(kinds):
        before, after = np.full((ROWS, DIM), np.nan), np.full((ROWS, DIM), np.nan)
        frozen = np.zeros((ROWS, DIM), bool)
        for windows, *parts in (result[number] for result in results):
            for window, first, last, stays in zip(windows, *parts, strict=True):
                before[window], after[window], frozen[window] = first, last, stays
        wanted, given = expected(before)
        error = 1e-6 if dtype == "fp32" else 1e-3
        np.testing.assert_allclose(after, wanted, rtol=error, atol=error, err_msg=kind)
        assert (after == 0).any() and not np.signbit(after[after == 0]).any()
        np.testing.assert_array_equal(frozen, np.repeat(given[:, None], DIM, 1), err_msg=kind)
        untouched = ~np.isin(np.arange(ROWS), [*steps()[0].rows, *steps()[1].rows])
        np.testing.assert_array_equal(after[untouched], before[untouched])


WORDS, STEPS = 40, 18  # 360 of the 400 rows are trained on
JOB = [
    "data.rows=400",
    "data.test_rows=20",
    "data.vocabulary=120",
    "trainer.batch_size=20",
    "trainer.epochs=1",
    "tables.text.ngrams=1",
    "tables.text.dim=8",
    "sharding.min_partition=4",
    "optim.tables.lr=0.05",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]


def train(values: dict[str, Any], folders: list[str], variants: list[list[str]], at: list[int]) -> list[Any]:
    """On one rank: train every variant in a prepared folder of its own; return what this rank holds after the steps ``at``."""
    import os

    import torch.distributed as dist
    from test_topology import held

    from bigembed.config import saved
    from bigembed.prepare import prepare
    from bigembed.runtime import start
    from bigembed.signals import Stop
    from bigembed.trainer import ahead, make_step, open_training

    store = next(dist.rendezvous("env://"))[0] if "WORLD_SIZE" in os.environ else None
    results = []
    for number, (folder, options) in enumerate(zip(folders, variants, strict=True)):
        job = saved.override(saved.from_dict(values), options)
        data = prepare(job, Path(folder))
        with start(job.runtime, dist.PrefixStore(str(number), store) if store else None) as runtime:
            training = open_training(job, Path(folder), data, runtime, Stop())
            batches, found = iter(ahead(training)), {}
            for step in range(max(at) + 1):
                if step in at:
                    found[step] = held(training)
                if step < max(at):
                    make_step(training, batches)
            training.stepper.pause()
            batches.close()
            training.saver.close()
            results.append(found)
            del training
    return results


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[str], np.ndarray]:
    """A job, its prepared folder, the words of its table, and a file of vectors of some of them."""
    import shutil

    from bigembed import encoders
    from bigembed.config import compose, saved
    from bigembed.prepare import prepare

    folder = tmp_path_factory.mktemp("start")
    jobs: list[dict[str, Any]] = []
    compose.run([*JOB, f"hydra.run.dir={folder}/hydra"], lambda job, _: jobs.append(saved.as_dict(job)))
    (folder / "run" / "encoders").mkdir(parents=True)
    job = saved.from_dict(jobs[0])
    prepare(job, folder / "run")
    words = encoders.load(job.tables["text"], folder / "run" / "encoders" / "text").words().to_pylist()
    shutil.rmtree(folder / "hydra", ignore_errors=True)
    rows = np.random.default_rng(0).normal(size=(WORDS, 8)).astype(np.float32)
    lines = [
        f"{WORDS} 8",
        *(" ".join([word, *map(repr, map(float, row))]) for word, row in zip(words, rows, strict=False)),
    ]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    return jobs[0], folder, words, rows


def trained(
    vectors: tuple[Any, ...], tmp_path: Path, variants: list[list[str]], at: list[int], world: int = 1, hosts: int = 1
) -> list[dict[int, dict[str, np.ndarray]]]:
    """Return, for each variant and step, the whole arrays by name."""
    import shutil

    values, folder, _, _ = vectors
    folders = [str(tmp_path / str(number)) for number in range(len(variants))]
    for each in folders:
        shutil.copytree(folder / "run", each)
    start = f"tables.text.pretrained.path={folder}/vectors.txt"
    results = run_ranks(train, world, values, folders, [[start, *each] for each in variants], at, hosts=hosts)
    return [
        {step: whole([result[number][step] for result in results]) for step in at} for number in range(len(variants))
    ]


def whole(parts: list[Any]) -> dict[str, np.ndarray]:
    """Put the ranks' parts together."""
    arrays: dict[str, np.ndarray] = {}
    for held in parts:
        for name, start, shape, part in held:
            array = arrays.setdefault(name, np.full(shape, np.nan, part.dtype))
            array[tuple(slice(at, at + size) for at, size in zip(start, part.shape, strict=True))] = part
    return arrays


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint32)


@pytest.mark.parametrize(
    ("optimizer", "world", "hosts", "kinds"),
    [
        ("adagrad", 2, 1, KINDS[:4]),
        pytest.param("adagrad", 4, 2, KINDS[4:], marks=pytest.mark.slow),
        ("rowwise_adagrad", 1, 1, ["table_wise", "data_parallel"]),
        pytest.param("rowwise_adagrad", 4, 2, ["row_wise", "table_row_wise"], marks=pytest.mark.slow),
    ],
)
def test_frozen_rows_stay_bit_for_bit_in_every_kind(
    vectors: tuple[Any, ...], tmp_path: Path, optimizer: str, world: int, hosts: int, kinds: list[str]
) -> None:
    rows = vectors[3]
    variants = [
        ["tables.text.pretrained.freeze=rows", f"optim.tables.kind={optimizer}", f"sharding.kind={kind}"]
        for kind in kinds
    ]
    for kind, result in zip(kinds, trained(vectors, tmp_path, variants, [0, 12], world, hosts), strict=True):
        first, last = result[0]["text"], result[12]["text"]
        np.testing.assert_array_equal(bits(first[1 : WORDS + 1]), bits(rows), err_msg=kind)
        np.testing.assert_array_equal(bits(last[1 : WORDS + 1]), bits(rows), err_msg=kind)
        assert (first[WORDS + 1 :] != last[WORDS + 1 :]).any(1).mean() > 0.5


def test_a_frozen_table_thaws_and_its_optimizer_begins_then(vectors: tuple[Any, ...], tmp_path: Path) -> None:
    freeze = "tables.text.pretrained.freeze"
    variants = [
        [f"{freeze}=table", "optim.tables.kind=sgd"],
        [f"{freeze}=table"],
        [f"{freeze}=table", f"{freeze}_steps=6"],
        [f"{freeze}=rows", f"{freeze}_steps=6"],
    ]
    sgd, ever, table, some = trained(vectors, tmp_path, variants, [0, 6, 7])
    for result in (sgd, ever, table):
        np.testing.assert_array_equal(bits(result[0]["text"]), bits(result[6]["text"]))
    np.testing.assert_array_equal(bits(sgd[0]["text"]), bits(sgd[7]["text"]))
    np.testing.assert_array_equal(bits(ever[0]["text"]), bits(ever[7]["text"]))
    np.testing.assert_array_equal(bits(some[0]["text"][1:WORDS]), bits(some[6]["text"][1:WORDS]))
    for result, given in ((table, slice(0, None)), (some, slice(1, WORDS + 1))):
        moved = result[6]["text"][given] != result[7]["text"][given]
        assert moved.any(1).sum() > 10
        # The first step of an Adagrad is as long as the learning rate: nothing of the frozen steps is in its state.
        steps = np.abs(result[7]["text"][given] - result[6]["text"][given])[moved.any(1)]
        length = np.sqrt((steps**2).mean(1))
        rate = 0.05 * (1 - 6 / STEPS)
        assert np.median(length) == pytest.approx(rate, rel=1e-3) and length.max() < 1.001 * rate


def test_a_table_has_its_own_learning_rate(vectors: tuple[Any, ...], tmp_path: Path) -> None:
    variants = [
        ["optim.tables.lr=0.3"],
        ["tables.text.lr=0.3"],
        ["tables.text.lr=0.3", "sharding.kind=data_parallel"],
        [],
    ]
    wanted, own, dense, other = trained(vectors, tmp_path, variants, [5])
    np.testing.assert_array_equal(bits(wanted[5]["text"]), bits(own[5]["text"]))
    np.testing.assert_allclose(wanted[5]["text"], dense[5]["text"], rtol=1e-4, atol=1e-5)
    assert (wanted[5]["text"] != other[5]["text"]).any()


@pytest.mark.parametrize(
    ("world", "hosts", "kinds"), [(2, 1, KINDS[:4]), pytest.param(4, 2, KINDS[4:], marks=pytest.mark.slow)]
)
def test_rows_are_pulled_back_to_their_start_in_every_kind(
    vectors: tuple[Any, ...], tmp_path: Path, world: int, hosts: int, kinds: list[str]
) -> None:
    options = [["optim.tables.kind=adagrad", f"sharding.kind={kind}"] for kind in kinds]
    variants = [each for free in options for each in (free, [*free, "tables.text.pretrained.pull=2.5"])]
    results = trained(vectors, tmp_path, variants, [0, 15, 16], world, hosts)
    rates = 0.05 * (1 - np.arange(16) / STEPS)
    share = 1 - np.prod(1 - rates * 2.5)
    assert 0.5 < share < 0.9
    for free, pulled in zip(results[::2], results[1::2], strict=True):
        start = free[0]["text"]
        np.testing.assert_array_equal(pulled[15]["text"], free[15]["text"])
        np.testing.assert_array_equal(pulled[0]["text.start"], start)
        wanted = free[16]["text"] + share * (start - free[16]["text"])
        np.testing.assert_allclose(pulled[16]["text"], wanted, rtol=1e-5, atol=1e-6)
        assert (free[16]["text"] != start).any(1).mean() > 0.5


def run_with(folder: Path, name: str, *options: str) -> tuple[int, dict[str, np.ndarray]]:
    """Train a small job in a folder; return the exit code and the arrays of the first checkpoint ("0") and of the last."""
    code = bigembed("train", *SMALL, "trainer.epochs=1", "trainer.keep=9", *options, f"hydra.run.dir={folder / name}")
    checkpoints = sorted((folder / name / "checkpoints").glob("step-*"))
    found = {}
    for key, checkpoint in (("0", checkpoints[0]), ("end", checkpoints[-1])) if checkpoints else ():
        found |= {f"{key}.{path.stem}": np.load(path) for path in (checkpoint / "tables").glob("*.npy")}
    return code, found


def test_a_run_that_grows_freezes_what_it_says_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = f"tables.text.pretrained.path={tmp_path / 'vectors.txt'}"
    assert run_with(tmp_path, "base")[0] == 0
    assert bigembed("export", f"run={tmp_path / 'base'}", f"out={tmp_path / 'vectors.txt'}") == 0
    freeze = "tables.text.pretrained.freeze"
    code, frozen = run_with(tmp_path, "frozen", start, f"{freeze}=rows", "tables.text.pretrained.pull=0.5")
    assert code == 0 and np.isinf(frozen["end.text.momentum1"]).sum() > 100
    code, free = run_with(tmp_path, "free", f"grow={tmp_path / 'frozen'}", f"{freeze}=none")
    given = np.isinf(frozen["end.text.momentum1"])
    assert code == 0 and np.isfinite(free["0.text.momentum1"]).all()
    assert (free["0.text.weight"][given] != free["end.text.weight"][given]).any(1).mean() > 0.5
    np.testing.assert_array_equal(free["0.text.start"], frozen["end.text.start"])
    code, kept = run_with(tmp_path, "kept", f"grow={tmp_path / 'frozen'}")
    assert code == 0
    np.testing.assert_array_equal(bits(kept["end.text.weight"][given]), bits(frozen["0.text.weight"][given]))
    code, thawed = run_with(tmp_path, "thawed", start, f"{freeze}=rows", f"{freeze}_steps=3")
    assert code == 0 and np.isfinite(thawed["end.text.momentum1"]).all()
    capsys.readouterr()
    code, _ = run_with(tmp_path, "again", f"grow={tmp_path / 'thawed'}", f"{freeze}_steps=null")
    assert code == 2 and "freeze=rows keeps rows as a file gives them" in capsys.readouterr().err


def test_a_file_that_loses_words_before_the_first_step_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigembed import starting

    path = tmp_path / "vectors.txt"
    path.write_text("ba" + " 1" * 8 + "\nnot" + " 2" * 8 + "\n")
    opened = starting.open_sources

    def change(*arguments: Any) -> Any:
        path.write_text("ba" + " 1" * 8 + "\nfox" + " 2" * 8 + "\n")
        return opened(*arguments)

    monkeypatch.setattr(starting, "open_sources", change)
    options = [f"tables.text.pretrained.path={path}", "tables.text.pretrained.vocabulary=file"]
    assert run_with(tmp_path, "run", *options)[0] == 2
    assert "has changed since the words of table text were read: 1 of them" in capsys.readouterr().err


def test_words_that_the_data_does_not_have_can_be_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("alpha" + " 1" * 8 + "\nbeta" + " 2" * 8 + "\n")
    options = [f"tables.text.pretrained.path={tmp_path / 'vectors.txt'}", "tables.text.pretrained.vocabulary=file"]
    code, found = run_with(tmp_path, "run", *options)
    assert code == 0 and found["0.text.weight"][1:3].tolist() == [[1] * 8, [2] * 8]


def test_the_row_of_unknown_words_trains_also_in_a_copied_table(tmp_path: Path) -> None:
    assert run_with(tmp_path, "base", "tables.text.max_size=50")[0] == 0
    options = ["tables.text.max_size=50", f"tables.text.pretrained.path={tmp_path / 'base'}"]
    code, found = run_with(tmp_path, "copy", *options, "tables.text.pretrained.freeze=rows")
    frozen = np.isinf(found["end.text.momentum1"])
    assert code == 0 and not frozen[0] and frozen[1:].all()
    np.testing.assert_array_equal(bits(found["end.text.weight"][1:]), bits(found["0.text.weight"][1:]))
    assert (found["end.text.weight"][0] != found["0.text.weight"][0]).any()
