"""Checkpoints that several ranks write into the same files, and read again in any other way: real processes."""

import json
import os
import resource
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from bigembed import run
from bigembed.arrays import Manifest
from bigembed.config.schema import Device, RuntimeConfig
from bigembed.errors import UserError

ROWS, COLUMNS = 1003, 24
FILE = "tables/text.weight.npy"


def whole(dtype: torch.dtype = torch.float32, columns: int = COLUMNS) -> torch.Tensor:
    """The array that all of the layouts below are parts of, each of its numbers another one where the type can tell them."""
    shape = (ROWS, columns) if columns else (ROWS,)
    return torch.arange(ROWS * max(1, columns)).reshape(shape).to(dtype)


def rectangles(layout: str, rank: int, world: int, columns: int) -> list[tuple[int, int, int, int]]:
    """Row, column, rows and columns of what a rank holds."""
    step, width = -(-ROWS // world), columns // world
    if layout == "rows":
        return [(rank * step, 0, max(0, min(step, ROWS - rank * step)), columns)]
    if layout == "columns":
        return [(0, rank * width, ROWS, width)]
    if layout == "two columns":
        half = width // 2
        return [(0, rank * half, ROWS, half), (0, world * half + rank * half, ROWS, half)]
    if layout == "grid":
        return [(0, rank * width, 400, width), (400, (world - 1 - rank) * width, ROWS - 400, width)]
    if layout == "few rows":
        return [(0, 0, 1000, columns), (1000, 0, 3, columns)][rank : rank + 1 if world > 1 else 2]
    return [(0, 0, ROWS, columns)] if layout == "everywhere" or rank == world - 1 else []


LAYOUTS = ("rows", "columns", "two columns", "grid", "few rows", "everywhere", "last")


def shards_of(layout: str, array: torch.Tensor, runtime: Any, fill: bool = True) -> list[Any]:
    """A rank's shards of an array in a layout, with its numbers or with zeros."""
    from bigembed.sharding.rows import Shard

    found = []
    for row, column, rows, columns in rectangles(layout, runtime.rank, runtime.world, (*array.shape, 1)[1]):
        window = (slice(row, row + rows), slice(column, column + columns))[: array.dim()]
        local = array[window].clone() if fill else torch.zeros_like(array[window]).contiguous()
        owner = layout != "everywhere" or runtime.chief
        found.append(Shard(local.contiguous(), (row, column)[: array.dim()], tuple(array.shape), owner))
    return found


def on_ranks(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on this rank, within the processes' group."""
    from bigembed.runtime import start

    with start(RuntimeConfig(device=Device.cpu, threads=1)) as runtime:
        return function(runtime, *arguments)


def small_blocks() -> None:
    """Make blocks and chunks so small that every array has many."""
    from bigembed.arrays import files
    from bigembed.checkpoint import write

    files.CHUNK, write.BLOCK = 1000, 5000


def saved(runtime: Any, folder: Path, step: int, shards: dict[str, list[Any]], memory: int = 0) -> None:
    """Write a checkpoint."""
    from contextlib import closing

    from bigembed.checkpoint import Saver

    with closing(Saver(folder, runtime, memory)) as saver:
        saver.begin(step, shards, {"state.json": b'{"a": 1}'} if runtime.chief else {})
        saver.wait()


def loaded(runtime: Any, path: Path, shards: dict[str, list[Any]], threads: int = 2) -> None:
    """Read a checkpoint's arrays."""
    from bigembed.checkpoint import Group
    from bigembed.checkpoint.load import read_arrays

    Group(runtime.control).together(lambda: read_arrays(path, Manifest.load(path), shards, threads))


def _every_way(runtime: Any, folder: Path) -> int:
    small_blocks()
    count = 0
    for step, layout in enumerate(LAYOUTS):
        arrays = {FILE: whole(), "tables/text.state.npy": whole(columns=0)}
        plain = {name: layout if array.dim() == 2 else "rows" for name, array in arrays.items()}
        saved(runtime, folder, step, {name: shards_of(plain[name], array, runtime) for name, array in arrays.items()})
        path = folder / run.name_of(step)
        for other in LAYOUTS:
            shards = {FILE: shards_of(other, arrays[FILE], runtime, fill=False)}
            shards["tables/text.state.npy"] = shards_of("everywhere", arrays["tables/text.state.npy"], runtime, False)
            loaded(runtime, path, shards)
            for name, parts in shards.items():
                for part in parts:
                    assert torch.equal(part.local, arrays[name][part.window]), (layout, other, name)
                    count += 1
    return count


@pytest.mark.parametrize(("world", "hosts"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_what_is_written_in_any_layout_is_a_plain_array_and_is_read_into_any_other(tmp_path, world, hosts):
    counts = run_ranks(on_ranks, world, _every_way, tmp_path, hosts=hosts)
    assert min(counts) >= len(LAYOUTS) * 8
    assert len(run_folders(tmp_path)) == len(LAYOUTS)
    for path in run_folders(tmp_path):
        assert np.array_equal(np.load(path / FILE, mmap_mode="r"), whole().numpy())
        assert np.array_equal(np.load(path / "tables" / "text.state.npy"), whole(columns=0).numpy())
        run.verify(path)
        blocks = json.loads((path / "manifest.json").read_text())["files"][FILE]["blocks"]
        assert len(blocks) >= 19


def run_folders(folder: Path) -> list[Path]:
    """The checkpoints that lie in a folder; nothing else does."""
    found = sorted(folder.iterdir())
    assert all(path.name.startswith("step-") for path in found), found
    return found


def _reads(runtime: Any, folder: Path) -> tuple[int, int]:
    """How many bytes this rank reads, and how many it holds."""
    from bigembed.arrays import files

    array, counted = torch.rand(ROWS, 64), [0]
    saved(runtime, folder, 1, {FILE: shards_of("rows", array, runtime)})
    preadv = os.preadv

    def counting(descriptor: int, buffers: list[Any], at: int) -> int:
        counted[0] += (got := preadv(descriptor, buffers, at))
        return got

    files.os = type("os", (), {**vars(os), "preadv": staticmethod(counting)})  # type: ignore[assignment]
    shards = shards_of("rows", array, runtime, fill=False)
    loaded(runtime, folder / run.name_of(1), {FILE: shards})
    return counted[0], sum(shard.local.nbytes for shard in shards)


def test_ranks_that_hold_what_they_wrote_read_every_byte_once(tmp_path):
    results = run_ranks(on_ranks, 2, _reads, tmp_path)
    assert [read for read, _ in results] == [held for _, held in results]
    assert sum(read for read, _ in results) == ROWS * 64 * 4


def _memory(kind: str) -> int:
    """This process's memory (VmRSS) or its peak (VmHWM), bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def _peaks(runtime: Any, folder: Path) -> list[int]:
    """Bytes by which this process grows while it writes an array of 229 MiB, and while it reads it in another layout."""
    array = torch.zeros(ROWS, 60_000)
    array += torch.arange(ROWS).unsqueeze(1)
    works, peaks = (saved, loaded), []
    for work, path, layout in zip(works, ([folder, 1], [folder / run.name_of(1)]), ("columns", "rows"), strict=True):
        shards = shards_of(layout, array, runtime)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        work(runtime, *path, {FILE: shards})
        peaks.append(_memory("VmHWM") - before)
    return peaks


def test_writing_and_reading_take_little_memory(tmp_path):
    results = run_ranks(on_ranks, 2, _peaks, tmp_path)
    assert max(max(peaks) for peaks in results) < 32 << 20


def _damaged(runtime: Any, folder: Path, harm: str) -> tuple[str, str]:
    small_blocks()
    array = whole()
    saved(runtime, folder, 1, {FILE: shards_of("rows", array, runtime)})
    path = folder / run.name_of(1)
    if runtime.chief:
        content = bytearray((path / FILE).read_bytes())
        content[-5 if harm == "last row" else 200 if harm == "first row" else 20] ^= (
            4  # each is read by one rank, or by both
        )
        (path / FILE).write_bytes(content)
    dist.barrier()
    try:
        loaded(runtime, path, {FILE: shards_of("rows", array, runtime, fill=False)})
    except UserError as error:
        return type(error).__name__, str(error)
    return "", ""


@pytest.mark.parametrize(
    ("harm", "words"),
    [("last row", "rows 970 to 1,002"), ("first row", "rows 0 to 51"), ("header", "the checksum of its header")],
)
def test_damage_that_one_rank_reads_is_told_by_all_in_the_same_words(tmp_path, harm, words):
    first, second = run_ranks(on_ranks, 2, _damaged, tmp_path, harm)
    assert first == second and first[0] == "Damaged"
    assert words in first[1] and "is not what was written" in first[1] and "use another one" in first[1]


def _full_disk(runtime: Any, folder: Path, layout: str, memory: int, rank: int) -> tuple[str, list[str], bool]:
    """Write a checkpoint that has room, then one that ``rank`` has no room for; then, with room again, a third."""
    from contextlib import closing

    from bigembed.checkpoint import Saver

    small_blocks()
    array = whole()
    with closing(Saver(folder, runtime, memory)) as saver:
        saver.begin(1, {FILE: shards_of(layout, array, runtime)}, {"state.json": b"{}"} if runtime.chief else {})
        saver.wait()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if runtime.rank == rank:  # no room where its part lies
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
        text = ""
        try:
            saver.begin(2, {FILE: shards_of(layout, array, runtime)}, {})
            assert memory, "it was not written in the background"
            saver.begin(3, {FILE: shards_of(layout, array, runtime)}, {})
        except UserError as error:
            text = str(error)
        dist.barrier()
        names = sorted(path.name for path in folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        saver.begin(4, {FILE: shards_of(layout, array, runtime)}, {})
        saver.wait()
    dist.barrier()
    return text, names, (folder / run.name_of(4) / FILE).exists()


@pytest.mark.parametrize("memory", [0, 64])
@pytest.mark.parametrize(("layout", "hosts", "rank"), [("rows", 1, 1), ("columns", 2, 1), ("rows", 1, 0)])
def test_a_disk_that_is_full_for_one_rank_is_one_error_of_all_and_leaves_what_was_there(
    tmp_path, layout, hosts, rank, memory
):
    first, second = run_ranks(on_ranks, 2, _full_disk, tmp_path, layout, memory, rank, hosts=hosts)
    assert first == second
    text, names, later = first
    assert text == (
        f"the checkpoint of step 2 could not be written to {tmp_path}: File too large; earlier ones are untouched; "
        "make room and go on with resume=RUN"
    )
    assert names == [run.name_of(1)] and later
    run.verify(tmp_path / run.name_of(1))


def _gaps(runtime: Any, folder: Path, harm: str) -> tuple[str, list[str]]:
    from dataclasses import replace

    shards = shards_of("rows", whole(), runtime)
    if runtime.rank == 1 and harm == "gap":
        shards = [replace(shards[0], local=shards[0].local[1:].clone(), start=(shards[0].start[0] + 1, 0))]
    elif runtime.rank == 1 and harm == "overlap":
        shards = [replace(shards[0], start=(shards[0].start[0] - 1, 0))]
    elif harm == "twice":
        shards = shards_of("everywhere", whole(), runtime)
        shards = [replace(shard, owner=True) for shard in shards]
    try:
        saved(runtime, folder, 1, {FILE: shards})
    except RuntimeError as error:
        dist.barrier()
        return str(error), [path.name for path in folder.iterdir()]
    return "", []


@pytest.mark.parametrize("harm", ["gap", "overlap", "twice"])
def test_parts_that_are_not_the_whole_table_are_never_committed(tmp_path, harm):
    for text, left in run_ranks(on_ranks, 2, _gaps, tmp_path, harm):
        assert "tables/text.weight.npy is not the whole array" in text and left == []


def _in_the_background(runtime: Any, folder: Path, memory: int) -> dict[str, bool]:
    """Change the array while a checkpoint is written, and talk to the other rank meanwhile."""
    from contextlib import closing

    from bigembed.checkpoint import Saver

    array, go_on, seen = whole(), threading.Event(), {}
    shards = {FILE: shards_of("rows", array, runtime)}
    with closing(Saver(folder, runtime, memory)) as saver:
        if not memory:
            go_on.set()
        saver.begin(1, shards, {}, go_on.wait)
        shards[FILE][0].local.zero_()
        numbers = torch.ones(100)
        for _ in range(50):  # the loop's own talk does not get mixed up with the saver's
            dist.all_reduce(numbers)
            numbers /= 2
        seen["waits"] = saver._pending is None or saver._pending.done()
        go_on.set()
        saver.begin(2, shards, {})
        seen["first was whole before the second began"] = (folder / run.name_of(1) / "manifest.json").exists()
        saver.wait()
    return {**seen, "talk": bool((numbers == 1).all())}


@pytest.mark.parametrize("memory", [0, 1])
def test_training_goes_on_while_a_copy_is_written_if_there_is_memory_for_it(tmp_path, memory):
    for seen in run_ranks(on_ranks, 2, _in_the_background, tmp_path, memory):
        assert seen == {"waits": not memory, "first was whole before the second began": True, "talk": True}
    first, second = (np.load(path / FILE) for path in run_folders(tmp_path))
    assert np.array_equal(first, whole().numpy()) and not second.any()


def _unequal(runtime: Any, folder: Path) -> bool:
    """Whether the ranks wait; the part of rank 0 alone would fit."""
    from contextlib import closing

    from bigembed.checkpoint import Saver
    from bigembed.sharding.rows import Shard

    array = torch.zeros(600_000)  # 2.3 MiB
    part = array[:100_000] if runtime.chief else array[100_000:]
    with closing(Saver(folder, runtime, 1)) as saver:
        saver.begin(1, {FILE: [Shard(part, (0 if runtime.chief else 100_000,), (600_000,))]}, {})
        return saver._pending is None


def test_all_ranks_wait_if_the_part_of_one_is_too_large_for_a_copy(tmp_path):
    assert run_ranks(on_ranks, 2, _unequal, tmp_path) == [True, True]


def _error_of_the_thread(runtime: Any, folder: Path) -> tuple[str, str]:
    import time
    from contextlib import closing

    from bigembed.checkpoint import Saver

    def full() -> None:
        raise OSError(28, "No space left on device", "old")

    with closing(Saver(folder, runtime, 64)) as saver:
        saver.begin(1, {FILE: shards_of("rows", whole(), runtime)}, {}, full)
        texts = []
        end = time.monotonic() + 20
        while not texts and time.monotonic() < end and runtime.world == 1:
            try:
                saver.look()
            except UserError as error:
                texts.append(str(error))
        try:
            saver.wait()
        except UserError as error:
            texts.append(str(error))
    return tuple(texts)


def test_an_error_of_the_thread_is_raised_once_at_the_next_look_or_wait(tmp_path):
    expected = ("old: No space left on device; the checkpoint is written, an old one could not be dropped",)
    assert run_ranks(on_ranks, 1, _error_of_the_thread, tmp_path / "one") == [expected]
    assert run_ranks(on_ranks, 2, _error_of_the_thread, tmp_path / "two") == [expected] * 2


def _halves(runtime: Any, folder: Path) -> list[bool]:
    found = []
    for step, dtype in enumerate((torch.float16, torch.bfloat16, torch.float64)):
        array = whole(dtype)
        saved(runtime, folder, step, {FILE: shards_of("columns", array, runtime)})
        shards = shards_of("rows", array, runtime, fill=False)
        loaded(runtime, folder / run.name_of(step), {FILE: shards})
        found += [torch.equal(shard.local, array[shard.window]) for shard in shards]
    return found


def test_half_precision_is_kept_bit_by_bit_and_read_as_numbers(tmp_path):
    assert run_ranks(on_ranks, 2, _halves, tmp_path) == [[True] * 3] * 2
    half, brain, double = run_folders(tmp_path)
    assert np.load(half / FILE).dtype == np.float16 and np.load(double / FILE).dtype == np.float64
    assert np.load(brain / FILE).dtype == np.uint16
    assert [Manifest.load(path).arrays[FILE].dtype for path in (half, brain)] == ["float16", "bfloat16"]
    for path, dtype in ((half, torch.float16), (brain, torch.bfloat16)):
        rows, expected = run.read_array(path / FILE), whole(dtype).float().numpy()
        assert rows.shape == expected.shape and len(rows) == ROWS
        for key in (3, slice(2, 40), np.array([5, 1, 5])):
            assert np.array_equal(np.asarray(rows[key], np.float32), expected[key])
        assert np.array_equal(np.asarray(rows, np.float32), expected)
        run.verify(path)


KINDS = {  # each is loaded into the next one
    "adagrad": ["row_wise", "column_wise", "grid", "data_parallel"],
    "rowwise_adagrad": ["row_wise", "table_wise", "data_parallel"],
}
JOB = [
    "data.rows=300",
    "data.test_rows=64",
    "data.vocabulary=200",
    "tables.text.dim=8",
    "tables.text.buckets=500",
    "sharding.min_partition=4",
    "trainer.batch_size=64",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]


def _models(values: dict[str, Any], folder: str, kinds: list[str]) -> list[dict[str, Any]]:
    """For every kind: make a model, load into it what the kind before has saved, train, save; return what was loaded."""
    from dataclasses import replace

    from bigembed.checkpoint import load_checkpoint
    from bigembed.checkpoint.contents import arrays, dense
    from bigembed.config import saved as jobs
    from bigembed.prepare import prepare
    from bigembed.runtime import start
    from bigembed.signals import Stop
    from bigembed.trainer import ahead, make_step, open_training, save

    store, results, before, trained = next(dist.rendezvous("env://"))[0], [], None, {}
    for number, kind in enumerate(kinds):
        job = jobs.override(jobs.from_dict(values), [f"sharding.kind={kind}"])
        data = prepare(job, Path(folder))
        with start(job.runtime, dist.PrefixStore(str(number), store)) as runtime:
            training = open_training(job, Path(folder), data, runtime, Stop())
            model, optimizers, saver = training.model, training.optimizers, training.saver
            if before is not None:
                state = load_checkpoint(before, model, optimizers, runtime)
                found = dense(model, optimizers)
                same = found.keys() == trained.keys() and all(torch.equal(found[name], trained[name]) for name in found)
                parts = {
                    name: [(part.start, part.local.detach().numpy().copy()) for part in parts]
                    for name, parts in arrays(model, optimizers).items()
                }
                results.append({"step": state["progress"]["step"], "dense": same, "parts": parts})
            batches = iter(ahead(training))
            for _ in range(3):
                make_step(training, batches)
            training.stepper.pause()
            training.folder = Path(folder) / str(number)
            saver._writing = replace(saver._writing, folder=training.folder / run.CHECKPOINTS)
            save(training)
            saver.wait()
            saver.close()
            (before,), trained = run.checkpoints(training.folder), dense(model, optimizers)
            trained = {name: value.clone() for name, value in trained.items()}
            del training, model, optimizers, saver
    return results


@pytest.mark.parametrize("optimizer", KINDS)
def test_a_model_of_any_kind_is_loaded_into_one_of_any_other(tmp_path, optimizer):
    from bigembed.config import compose
    from bigembed.config import saved as jobs
    from bigembed.prepare import prepare

    found: list[dict[str, Any]] = []
    options = [*JOB, f"optim.tables.kind={optimizer}", f"hydra.run.dir={tmp_path}/hydra"]
    compose.run(options, lambda job, folder: found.append(jobs.as_dict(job)))
    (tmp_path / run.ENCODERS).mkdir()
    prepare(jobs.from_dict(found[0]), tmp_path)
    kinds = [*KINDS[optimizer], KINDS[optimizer][0]]
    for number in range(len(kinds)):
        (tmp_path / str(number) / run.CHECKPOINTS).mkdir(parents=True)
    results = run_ranks(_models, 2, found[0], str(tmp_path), kinds)
    for number, (kind, other) in enumerate(pairwise(kinds)):
        (path,) = run.checkpoints(tmp_path / str(number))
        run.verify(path)
        tables = {f"tables/{file.name}": np.load(file) for file in (path / "tables").iterdir()}
        assert set(tables) == {FILE, "tables/text.momentum1.npy"}
        assert tables["tables/text.momentum1.npy"].any()
        of_pair = [each[number] for each in results]
        assert all(result["step"] == 3 and result["dense"] for result in of_pair)
        count = dict.fromkeys(tables, 0)
        for name, parts in ((name, parts) for result in of_pair for name, parts in result["parts"].items()):
            for start, part in parts:
                window = tuple(slice(at, at + size) for at, size in zip(start, part.shape, strict=True))
                assert np.array_equal(tables[name][window], part), (kind, other, name)
                count[name] += part.size
        copies = 2 if other == "data_parallel" else 1
        assert count == {name: table.size * copies for name, table in tables.items()}
