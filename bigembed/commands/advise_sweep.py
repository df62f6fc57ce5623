"""The trade-off measured: every kind of table at several sizes, trained as ever, in processes one after the other."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bigembed import run
from bigembed.commands.advise_picture import picture
from bigembed.config import saved
from bigembed.config.check import check
from bigembed.config.schema import AdviseOptions, FilesData, Job
from bigembed.errors import UserError
from bigembed.files import replace as replace_file
from bigembed.knowing.advice import Case, bytes_of, made_as, propose
from bigembed.prepare import load_encoders
from bigembed.report import say

CURVES, PICTURE = "curves.json", "curves.html"
SMALLER = 4  # each size is this much smaller than the one before
MIB = 2**20


class Planned(NamedTuple):
    """A run to be made: what its line is called, the folder, and the job."""

    kind: str
    folder: Path
    job: Job


def sweep(job: Job, cases: Mapping[str, Case], options: AdviseOptions, folder: Path) -> None:
    """Train what could be proposed, and write what came of it to ``folder``.

    Raises
    ------
    UserError
        There is no validation part, a run fails, or ``folder`` cannot be written.
    """
    own = isinstance(job.data, FilesData) and job.data.validation is not None
    if not own and job.data.validation_fraction == 0:
        raise UserError("sweep= compares by a validation part, and there is none; set data.validation_fraction")
    planned = list(_planned(job, cases, options, folder))
    points: list[dict[str, Any]] = []
    for number, each in enumerate(planned, 1):
        say(f"sweep: run {number} of {len(planned)}, {each.folder.name}")
        points.append(_trained(each))
        _write(folder, job, points, options)
    print(_summary(points))
    say(f"the figures are in {folder / CURVES}, their picture in {folder / PICTURE}")


def _planned(job: Job, cases: Mapping[str, Case], options: AdviseOptions, folder: Path) -> Iterator[Planned]:
    """Yield the runs of the sweep, the large ones first, each job once."""
    memory, seen = options.memory_mib * MIB, []
    largest = sum(each.bytes for each in propose(cases, memory, options.mixed, options.stream).values())
    kinds = dict.fromkeys(kind for case in cases.values() for kind in case.kinds)
    for seed in range(options.seeds):
        for kind in kinds:
            for size in range(options.sizes):
                made = made_as(kind, cases, largest / SMALLER**size, options.mixed)
                data = replace(job.data, test=None) if isinstance(job.data, FilesData) else job.data
                tables = {name: each.table for name, each in made.items()}
                planned = replace(job, seed=job.seed + seed, data=data, tables=tables)
                if planned in seen:  # the smallest that there can be, again
                    continue
                seen.append(planned)
                run.absolute_paths(planned, Path.cwd())
                check(planned)
                yield Planned(kind, folder / f"{kind}-{size}-seed{planned.seed}", planned)


def _trained(planned: Planned) -> dict[str, Any]:
    """Return the figures of a run, which is made unless it has been."""
    kind, folder, job = planned
    if not (folder / saved.NAME).exists():
        run.claim(folder, job)
    elif saved.as_dict(saved.load(folder)) != saved.as_dict(job):
        raise UserError(f"{folder} holds a run of another sweep; choose another folder with sweep=DIR")
    figures = run.read_metrics(folder)
    if figures is None:
        command = [sys.executable, "-m", "bigembed", "train", f"resume={folder}"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        figures = run.read_metrics(folder)
        if done.returncode or figures is None:
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(
                f"the run {folder} of the sweep failed: {why.removeprefix('bigembed: ')}; type the same again to go on"
            )
    encoders = load_encoders(job, folder / run.ENCODERS)
    size = bytes_of(job, {name: encoder.rows for name, encoder in encoders.items()})
    judged = figures["validation"]
    return {
        "kind": kind,
        "bytes": size,
        "accuracy": judged["accuracy"],
        "loss": judged["loss"],
        "samples": judged["samples"],
        "seed": job.seed,
        "folder": str(folder),
    }


def _write(folder: Path, job: Job, points: list[dict[str, Any]], options: AdviseOptions) -> None:
    """Write what is known so far, so that a sweep that is stopped leaves it."""
    described = saved.as_dict(job)
    measured_on = {name: described[name] for name in ("data", "features", "numbers", "head", "optim", "trainer")}
    values = {"memory_mib": options.memory_mib, "seeds": options.seeds, "measured_on": measured_on, "points": points}
    try:
        replace_file(folder / CURVES, json.dumps(values, indent=1).encode())
        replace_file(folder / PICTURE, picture(values).encode())
    except OSError as error:
        raise UserError(f"sweep={folder} cannot be written: {error.strerror}") from None


def _summary(points: list[dict[str, Any]]) -> str:
    """Return the runs as lines, kind by kind and size by size."""
    rows = [["kind", "MiB", "accuracy", "loss", "seed"]]
    for each in sorted(points, key=lambda each: (each["kind"], -each["bytes"], each["seed"])):
        numbers = f"{each['bytes'] / MIB:,.4g}", f"{each['accuracy']:.4f}", f"{each['loss']:.4f}", str(each["seed"])
        rows.append([each["kind"], *numbers])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
