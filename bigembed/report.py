"""What a run tells while it works: a live line on a terminal, plain lines elsewhere, metrics.jsonl and TensorBoard events always."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from bigembed.files import replace
from bigembed.run import METRICS_LINES

FIRST = ("accuracy", "auc", "gauc", "normalised_entropy", "calibration", "rmse", "loss")  # figures to be told
PLAIN_EVERY = 5.0  # seconds between two plain progress lines


class Report:
    """Progress of one run.

    Parameters
    ----------
    folder : Path
        The run folder.
    steps : int
        Steps of the whole run.
    start : int
        Step from which this process goes on; lines of later steps, written before a crash, are dropped.
    evaluated : bool
        Whether the evaluation due after that step has been made; else it will be made, and told, again.
    tensorboard : bool
        Whether to write events.
    chief : bool
        Whether this rank speaks and writes for all; the others keep silent.
    """

    def __init__(
        self, folder: Path, steps: int, start: int, evaluated: bool, tensorboard: bool, chief: bool = True
    ) -> None:
        self.console = Console(stderr=True, quiet=not chief)
        self.steps, self.spoke = steps, time.perf_counter()
        if chief:
            _drop_lines_after(folder / METRICS_LINES, start, evaluated)
        self.lines = (folder / METRICS_LINES if chief else Path(os.devnull)).open("a", buffering=1)
        self.events = _writer(folder, start) if tensorboard and chief else None
        self.progress = Progress(
            TextColumn("step {task.completed}/{task.total}", table_column=Column(no_wrap=True)),
            BarColumn(12),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("left  {task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            transient=True,
            expand=True,
            disable=not (chief and self.console.is_terminal),
        )
        self.task = self.progress.add_task("", total=steps, completed=start)

    def __enter__(self) -> "Report":
        """Start the live line."""
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the live line and close the files."""
        self.progress.stop()
        self.lines.close()
        if self.events is not None:
            self.events.close()

    def step(self, step: int, figures: dict[str, float]) -> None:
        """Record the figures of the training since the last report."""
        self.record("train", step, figures)
        rates = f"{figures['samples_per_s']:,.0f} samples/s  {figures['words_per_s'] / 1e6:.1f}M words/s"
        text = f"loss {figures['loss']:.4f}  {rates}  {waits(figures)}"
        self.progress.update(self.task, completed=step, description=text)
        if not self.console.is_terminal and time.perf_counter() - self.spoke >= PLAIN_EVERY:
            self.spoke = time.perf_counter()
            self.say(f"step {step}/{self.steps}  {text}")

    def advance(self, step: int) -> None:
        """Move the bar of the live line."""
        if self.console.is_terminal:
            self.progress.update(self.task, completed=step)

    def record(self, part: str, step: int, figures: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl, and the figures to TensorBoard."""
        self.lines.write(json.dumps({"part": part, "step": step, **figures}) + "\n")
        if self.events is not None:
            for name, value in figures.items():
                if isinstance(value, int | float):
                    self.events.add_scalar(f"{part}/{name}", value, step)

    def say(self, text: str) -> None:
        """Print a line above the live one."""
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line to the user, once for all ranks."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def told(part: str, figures: dict[str, Any]) -> str:
    """Return the figures of an evaluation as a line."""
    return f"{part:<12}{brief(figures, '   ')}   ({figures['samples']:,} samples)"


def brief(figures: dict[str, Any], between: str = ", ") -> str:
    """Return the figures that matter most, the others being in metrics.json: no more than six, none by slice or of a single label."""
    chosen = [name for name in FIRST if name in figures]
    for name in FIRST:  # of several labels
        if name not in figures:
            chosen += [each for each in figures if each.partition("/")[0] == name]
    if not chosen:
        of_lists = [name for name in figures if name.partition("@")[0] in ("hr", "recall", "ndcg") and "/" not in name]
        same = {name for name in of_lists if name.startswith("recall") and figures[name] == figures[f"hr{name[6:]}"]}
        chosen = [name for name in of_lists if name not in same]
    return between.join(f"{name} {figures[name]:.4f}" for name in chosen[:8])


def telling(what: str, total: int) -> Callable[[int], None]:
    """Return a function that tells how many of ``total`` are done, every few seconds: nothing works long in silence."""
    spoke = time.perf_counter()

    def tell(done: int) -> None:
        nonlocal spoke
        if time.perf_counter() - spoke >= PLAIN_EVERY:
            spoke = time.perf_counter()
            say(f"{what}: {done:,} of {total:,} ({done / total:.0%})")

    return tell


def reading(what: str, size: int) -> Callable[[int, int], None]:
    """Return a function that tells, every few seconds, how many of ``size`` bytes and words are done, and how long the rest takes."""
    began = spoke = time.perf_counter()

    def tell(done: int, words: int) -> None:
        nonlocal spoke
        now = time.perf_counter()
        if now - spoke >= PLAIN_EVERY and done:
            spoke = now
            left = (now - began) * max(size - done, 0) / done
            read = f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB ({done / size:.0%})"
            say(f"{what}: {read}, {words:,} words, {left:,.0f} s left")

    return tell


def writing(what: str) -> Callable[[int], None]:
    """Return a function that tells, every few seconds, how many bytes are written."""
    spoke = time.perf_counter()

    def tell(done: int) -> None:
        nonlocal spoke
        if time.perf_counter() - spoke >= PLAIN_EVERY:
            spoke = time.perf_counter()
            say(f"{what}: {done / 1e6:,.0f} MB written")

    return tell


def waits(figures: dict[str, float]) -> str:
    """Say which of the two waits for the other, the training step or the data, and for which share of the time."""
    step, data = figures["waited_for_data"], figures["waited_for_step"]
    if max(step, data) < 0.05:
        return "neither waits"
    return f"the step waits for data ({step:.0%})" if step > data else "the data waits for the step"


def _writer(folder: Path, start: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and not everybody wants it

    return SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)


def _drop_lines_after(path: Path, step: int, evaluated: bool) -> None:
    """Keep the lines of metrics.jsonl up to ``step``: the run will write the later ones again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
            part, at = entry["part"], int(entry["step"])
        except (ValueError, TypeError, KeyError):
            say(f"warning: dropped a damaged line of {path}")
            continue
        if line.endswith(b"\n") and at <= step and part != "test" and (evaluated or (part, at) != ("validation", step)):
            kept.append(line)
    replace(path, b"".join(kept))
