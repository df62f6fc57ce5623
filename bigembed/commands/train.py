"""``bigembed train``: compose a job, or take up a run again, and train it."""

import sys
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from bigembed import growth, run
from bigembed.config import compose, saved
from bigembed.config.check import check
from bigembed.config.figures import monitor_of
from bigembed.config.schema import (
    AutoencoderHead,
    BucketizedTable,
    ClicksData,
    GeneratedData,
    IdsTable,
    Job,
    RetrievalHead,
    Which,
)
from bigembed.cores import by_torchrun
from bigembed.data.clicks import best_auc
from bigembed.data.generated import best_accuracy
from bigembed.errors import UserError
from bigembed.examples import alone
from bigembed.prepare import prepare
from bigembed.pretrained.sources import check_sources
from bigembed.report import say, told
from bigembed.signals import Stopped, watch

if TYPE_CHECKING:
    from bigembed.ranks import Ranks

RESUME = "resume="
AUTO = "resume=auto"
Done = tuple[Job, Path, dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Train what ``arguments`` describe; return the exit code."""
    if not by_torchrun():
        _lead(arguments, None)
        return 0
    from bigembed.ranks import together  # torch knows how the processes find each other

    return together(arguments, partial(_take_part, arguments))


def _take_part(arguments: list[str], ranks: "Ranks") -> None:
    """Compose and lead on rank 0, follow on the others."""
    if ranks.chief:
        _lead(arguments, ranks)
        ranks.dismiss()
    else:
        for job, folder, store in ranks.follow():
            _work(job, folder, ranks, store)


def _lead(arguments: list[str], ranks: "Ranks | None") -> None:
    """Compose the jobs of ``arguments`` and train them, with the other ranks where there are any."""
    restarted = ranks is not None and ranks.recall("folder/0") is not None
    auto = AUTO in arguments or restarted
    arguments = [argument for argument in arguments if argument != AUTO]
    resumed = [argument for argument in arguments if argument.startswith(RESUME)]
    if resumed:
        others = [argument for argument in arguments if not argument.startswith(RESUME)]
        _train(*_continued(Path(resumed[-1].removeprefix(RESUME)), others), ranks)
        return
    arguments = growth.begin_from(arguments)
    sweep = "-m" in arguments or "--multirun" in arguments
    if sweep and any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise UserError(
            "a sweep has a folder for each job: name the folder above them with hydra.sweep.dir=DIR, not hydra.run.dir"
        )
    done: list[Done] = []
    try:
        compose.run(arguments, partial(_begin, done, auto, ranks))
    finally:
        if sweep and done:
            print(_comparison(done))


def _begin(done: list[Done], auto: bool, ranks: "Ranks | None", job: Job, folder: Path) -> float | None:
    """Train a job in its ``folder``; the returned figure is what a sweeper may optimise."""
    run.absolute_paths(job, Path.cwd())
    folder = _before_the_restart(folder, ranks) if ranks and auto else folder
    new = not (auto and (folder / saved.NAME).exists())
    if new:
        growth.check_growth(job, folder)
        check_sources(job)
        run.claim(folder, job)
    else:
        _check_same(saved.load(folder), job, folder, "resume=auto")
    if ranks:
        ranks.remember(f"folder/{ranks.begun}", str(folder))
        ranks.begun += 1
    try:
        figures = _train(job, folder, ranks)
    except Exception:
        if new:
            run.release(folder)
        raise
    done.append((job, folder, figures))
    part = figures.get("validation") or figures.get("test")
    return part.get(monitor_of(job)) if part else None


def _before_the_restart(folder: Path, ranks: "Ranks") -> Path:
    """Return the folder that this job had before torchrun restarted the processes: the dated one of today is another."""
    known = ranks.recall(f"folder/{ranks.begun}")
    if known is None or Path(known) == folder:
        return folder
    with suppress(OSError):
        folder.rmdir()
    return Path(known)


def _continued(folder: Path, overrides: list[str]) -> tuple[Job, Path]:
    """Return the job of the run in ``folder``, refusing overrides that would make it another one."""
    before = saved.load(folder)
    after = saved.override(before, overrides)
    check(after)
    run.absolute_paths(after, Path.cwd())
    _check_same(before, after, folder, f"resume={folder}")
    return after, folder


def _check_same(before: Job, after: Job, folder: Path, asked: str) -> None:
    """Refuse to go on with a run as another one."""
    changed = [text for text in saved.differences(before, after) if not run.is_free(text)]
    if changed:
        raise UserError(
            f"{asked} continues the run in {folder} as it was, but these options differ: {', '.join(changed)}; "
            "leave them out, or begin a new run"
        )


def _train(job: Job, folder: Path, ranks: "Ranks | None") -> dict[str, Any]:
    figures = run.read_metrics(folder)
    if figures is None:
        say(f"run {folder}")
        figures = _work(job, folder, ranks, ranks.lead(job, folder) if ranks else None)
    else:
        print(f"{folder} is finished already; these are its figures", file=sys.stderr)
    print(_summary(job, figures, folder))
    return figures


def _work(job: Job, folder: Path, ranks: "Ranks | None", store: Any) -> dict[str, Any]:
    """Prepare the data while torch is being imported, then train; ``store`` is where the ranks meet."""
    began = time.perf_counter()
    Thread(target=_import_torch, daemon=True).start()
    chief = ranks is None or ranks.chief
    try:
        with watch() as stop, run.hold(folder) if chief else nullcontext():
            with ranks.in_turn() if ranks else nullcontext():
                if chief:
                    run.recover(folder)
                data = prepare(job, folder, ranks.once_per_host if ranks else alone)
            prepared = time.perf_counter()
            from bigembed.trainer import train

            figures = train(job, folder, data, stop, store)
            figures["speed"] |= {"prepare_s": prepared - began, "total_s": time.perf_counter() - began}
            if chief:
                run.write_metrics(folder, figures)
    except Stopped as stopped:
        _end(stopped, folder, ranks)
    return figures


def _end(stopped: Stopped, folder: Path, ranks: "Ranks | None") -> NoReturn:
    """End the process as a signal asked."""
    saved_by_all = str(stopped)
    text = f"{saved_by_all or 'stopped before the first step'}; go on with: bigembed train resume={quote(str(folder))}"
    if ranks and saved_by_all:
        ranks.leave()
    elif ranks:
        ranks.fail(stopped)
    if ranks is None or ranks.chief:
        print(f"bigembed: {text}", file=sys.stderr, flush=True)
    sys.exit(128 + stopped.number)


def _import_torch() -> None:
    with suppress(Exception):  # the main thread imports again, and tells
        import bigembed.trainer  # noqa: F401


def _summary(job: Job, figures: dict[str, Any], folder: Path) -> str:
    lines = []
    for part in ("validation", "test"):
        if part in figures:
            lines.append(told(part, figures[part]))
    if isinstance(job.data, GeneratedData):
        best = best_accuracy(job.data)
        lines.append(
            f"{'possible':<12}accuracy {best:.4f} on the test part: the labels of generated reviews are drawn by chance"
        )
    if isinstance(job.data, ClicksData) and "auc" in figures.get("test", {}):
        lines.append(f"{'possible':<12}auc {best_auc(job.data):.4f} on the test part: clicks are drawn by chance")
    speed, path = figures["speed"], quote(str(folder))
    asked = f"bigembed predict run={path} input=FILE"
    if isinstance(job.head, RetrievalHead):
        asked = f"bigembed recommend run={path} users=all k=10 output=FILE.parquet"
    elif isinstance(job.head, AutoencoderHead):
        asked = f"bigembed export run={path} out=FILE"
    elif len(job.features) == 1 and not job.numbers:
        asked = f"echo '{_example(job)}' | bigembed predict run={path}"
    lines += [
        f"{'judged':<12}{figures['checkpoint']}, the {_choice(job, figures)}",
        f"{'speed':<12}{_rates(figures)}{speed['total_s']:.1f} s from data to figures",
        f"{'run':<12}{folder}",
        f"{'next':<12}bigembed evaluate run={path}",
        f"{'':<12}{asked}",
        *([f"{'':<12}tensorboard --logdir {path}"] if job.runtime.tensorboard else []),
    ]
    return "\n".join(lines)


def _rates(figures: dict[str, Any]) -> str:
    """Say how fast the steps were, if this process made any."""
    speed = figures["speed"]
    if not speed["train_s"]:
        return ""
    return f"{speed['words_per_s']:,.0f} words/s, {speed['samples_per_s']:,.0f} samples/s in training; "


def _example(job: Job) -> str:
    """Return what a line of input may look like."""
    (feature,) = job.features.values()
    return {IdsTable: "0 1 2", BucketizedTable: "3.5"}.get(type(job.tables[feature.table]), "your text")


def _comparison(done: list[Done]) -> str:
    """Return a table of a sweep's jobs: their folders, the options in which they differ, their figures."""
    options, monitor = [saved.flat(job) for job, _, _ in done], monitor_of(done[0][0])
    varied = [path for path in options[0] if len({str(one.get(path)) for one in options}) > 1]
    # The test part is for the one that will be chosen: a choice is made on the validation part.
    parts = [part for part in ("validation", "test") if all(part in figures for _, _, figures in done)][:1]
    rows = [["folder", *varied, *parts]]
    for (_, folder, figures), one in zip(done, options, strict=True):
        rows.append(
            [
                folder.name,
                *(str(one.get(path)) for path in varied),
                *(f"{figures[part].get(monitor, float('nan')):.4f}" for part in parts),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"the jobs of the sweep in {done[0][1].parent}, by {monitor}", *lines])


def _choice(job: Job, figures: dict[str, Any]) -> str:
    """Say why the judged checkpoint was chosen."""
    if job.trainer.test_with is Which.last or "validation" not in figures:
        return "last one"
    return f"best one by the {monitor_of(job)} on the validation part"
