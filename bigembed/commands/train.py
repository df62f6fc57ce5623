"""``bigembed train``: compose a job, or take up a run again, and train it."""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote
from threading import Thread
from typing import Any

from bigembed import run
from bigembed.config import compose, saved
from bigembed.config.check import check
from bigembed.config.schema import GeneratedData, Job, Which
from bigembed.data.generated import best_accuracy
from bigembed.errors import UserError
from bigembed.prepare import prepare
from bigembed.report import say, told
from bigembed.signals import Stopped, watch

RESUME = "resume="
Done = tuple[Job, Path, dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Train what ``arguments`` describe; return the exit code."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # the floors below know of ranks; together they are not proven yet
        raise UserError("several processes under torchrun are not supported by this version; start it without torchrun")
    resumed = [argument for argument in arguments if argument.startswith(RESUME)]
    if resumed:
        others = [argument for argument in arguments if not argument.startswith(RESUME)]
        _train(*_continued(Path(resumed[-1].removeprefix(RESUME)), others))
        return 0
    sweep = "-m" in arguments or "--multirun" in arguments
    if sweep and any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise UserError(
            "a sweep has a folder for each job: name the folder above them with hydra.sweep.dir=DIR, not hydra.run.dir"
        )
    done: list[Done] = []
    try:
        compose.run(arguments, partial(_begin, done))
    finally:
        if sweep and done:
            print(_comparison(done))
    return 0


def _begin(done: list[Done], job: Job, folder: Path) -> float | None:
    """Train a new job in a new ``folder``; the returned figure is what a sweeper may optimise."""
    run.absolute_paths(job, Path.cwd())
    run.claim(folder, job)
    try:
        figures = _train(job, folder)
    except Exception:
        run.release(folder)
        raise
    done.append((job, folder, figures))
    part = figures.get("validation") or figures.get("test")
    return part[job.trainer.monitor.name] if part else None


def _continued(folder: Path, overrides: list[str]) -> tuple[Job, Path]:
    """Return the job of the run in ``folder``, refusing overrides that would make it another one."""
    before = saved.load(folder)
    after = saved.override(before, overrides)
    check(after)
    run.absolute_paths(after, Path.cwd())
    changed = [text for text in saved.differences(before, after) if not text.startswith(run.FREE_TO_CHANGE)]
    if changed:
        raise UserError(
            f"resume={folder} continues the run as it was, but these options differ: {', '.join(changed)}; "
            "leave them out, or begin a new run"
        )
    return after, folder


def _train(job: Job, folder: Path) -> dict[str, Any]:
    figures = run.read_metrics(folder)
    if figures is None:
        say(f"run {folder}")
        figures = _work(job, folder)
    else:
        print(f"{folder} is finished already; these are its figures", file=sys.stderr)
    print(_summary(job, figures, folder))
    return figures


def _work(job: Job, folder: Path) -> dict[str, Any]:
    """Prepare the data while torch is being imported, then train."""
    began = time.perf_counter()
    Thread(target=_import_torch, daemon=True).start()
    try:
        with watch() as stop, run.hold(folder):
            run.recover(folder)
            data = prepare(job, folder)
            prepared = time.perf_counter()
            from bigembed.trainer import train

            figures = train(job, folder, data, stop)
            figures["speed"] |= {"prepare_s": prepared - began, "total_s": time.perf_counter() - began}
            run.write_metrics(folder, figures)
    except Stopped as stopped:
        text = str(stopped) or "stopped before the first step"
        print(f"bigembed: {text}; go on with: bigembed train resume={quote(str(folder))}", file=sys.stderr)
        sys.exit(128 + stopped.number)
    return figures


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
    speed, path = figures["speed"], quote(str(folder))
    asked = (
        f"echo 'your text' | bigembed predict run={path}"
        if len(job.features) == 1
        else f"bigembed predict run={path} input=FILE"
    )
    lines += [
        f"{'judged':<12}{figures['checkpoint']}, the {_choice(job, figures)}",
        f"{'speed':<12}{speed['words_per_s']:,.0f} words/s, {speed['samples_per_s']:,.0f} samples/s in training; "
        f"{speed['total_s']:.1f} s from data to figures",
        f"{'run':<12}{folder}",
        f"{'next':<12}bigembed evaluate run={path}",
        f"{'':<12}{asked}",
        f"{'':<12}tensorboard --logdir {path}",
    ]
    return "\n".join(lines)


def _comparison(done: list[Done]) -> str:
    """Return a table of a sweep's jobs: their folders, the options in which they differ, their figures."""
    options = [saved.flat(job) for job, _, _ in done]
    varied = [path for path in options[0] if len({str(one.get(path)) for one in options}) > 1]
    # The test part is for the one that will be chosen: a choice is made on the validation part.
    parts = [part for part in ("validation", "test") if all(part in figures for _, _, figures in done)][:1]
    rows = [["folder", *varied, *parts]]
    for (_, folder, figures), one in zip(done, options, strict=True):
        rows.append(
            [
                folder.name,
                *(str(one.get(path)) for path in varied),
                *(f"{figures[part]['accuracy']:.4f}" for part in parts),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"the jobs of the sweep in {done[0][1].parent}, with their accuracies", *lines])


def _choice(job: Job, figures: dict[str, Any]) -> str:
    """Say why the judged checkpoint was chosen."""
    if job.trainer.test_with is Which.last or "validation" not in figures:
        return "last one"
    return f"best one by the {job.trainer.monitor.name} on the validation part"
