"""``bigembed train``: compose a job, or take up a run again, and train it."""

import sys
from pathlib import Path
from typing import Any

from bigembed import run
from bigembed.config import compose, saved
from bigembed.config.check import check
from bigembed.config.schema import GeneratedData, Job
from bigembed.data.generated import best_accuracy
from bigembed.errors import UserError

RESUME = "resume="
FREE_TO_CHANGE = ("runtime.",)  # what cannot change the result of a continued run


def main(arguments: list[str]) -> int:
    """Train what ``arguments`` describe; return the exit code."""
    resumed = [argument for argument in arguments if argument.startswith(RESUME)]
    if resumed:
        others = [argument for argument in arguments if not argument.startswith(RESUME)]
        _train(*_continued(Path(resumed[-1].removeprefix(RESUME)), others))
        return 0
    compose.run(arguments, _begin)
    return 0


def _begin(job: Job, folder: Path) -> float | None:
    """Train a new job in a new ``folder``; the returned figure is what a sweeper may optimise."""
    run.absolute_paths(job, Path.cwd())
    run.claim(folder, job)
    try:
        figures = _train(job, folder)
    except UserError:
        run.release(folder)
        raise
    part = figures.get("validation") or figures.get("test")
    return part[job.trainer.monitor.name] if part else None


def _continued(folder: Path, overrides: list[str]) -> tuple[Job, Path]:
    """Return the job of the run in ``folder``, refusing overrides that would make it another one."""
    before = saved.load(folder)
    after = saved.override(before, overrides)
    check(after)
    changed = [text for text in saved.differences(before, after) if not text.startswith(FREE_TO_CHANGE)]
    if changed:
        raise UserError(
            f"resume={folder} continues the run as it was, but these options differ: {', '.join(changed)}; "
            "leave them out, or begin a new run"
        )
    return after, folder


def _train(job: Job, folder: Path) -> dict[str, Any]:
    figures = run.read_metrics(folder)
    if figures is None:
        from bigembed.signals import Stopped
        from bigembed.trainer import train  # torch from here on: the arguments are known to be good

        try:
            figures = train(job, folder)
        except Stopped as stopped:
            text = str(stopped) or "stopped before the first step"
            print(f"bigembed: {text}; go on with: bigembed train resume={folder}", file=sys.stderr)
            sys.exit(128 + stopped.number)
    else:
        print(f"{folder} is finished already; these are its figures", file=sys.stderr)
    print(_summary(job, figures, folder))
    return figures


def _summary(job: Job, figures: dict[str, Any], folder: Path) -> str:
    lines = []
    for part in ("validation", "test"):
        if part in figures:
            values = figures[part]
            lines.append(
                f"{part:<12}accuracy {values['accuracy']:.4f}   loss {values['loss']:.4f}   ({values['samples']:,} samples)"
            )
    if isinstance(job.data, GeneratedData):
        best = best_accuracy(job.data)
        lines.append(
            f"{'possible':<12}accuracy {best:.4f} on the test part at best: labels of generated reviews are drawn by chance"
        )
    speed = figures["speed"]
    lines += [
        f"{'speed':<12}{speed['words_per_s']:,.0f} words/s, {speed['samples_per_s']:,.0f} samples/s; {speed['total_s']:.1f} s in all",
        f"{'run':<12}{folder}",
        f"{'next':<12}bigembed evaluate run={folder}",
        f"{'':<12}echo 'your text' | bigembed predict run={folder}",
        f"{'':<12}tensorboard --logdir {folder}",
    ]
    return "\n".join(lines)
