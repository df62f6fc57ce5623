"""``bigembed advise``: which kind of table, and how large, for the data and the memory there is; and a sweep that measures it. No torch."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from bigembed import encoders
from bigembed.commands.advise_sweep import sweep
from bigembed.commands.advise_text import print_advice
from bigembed.commands.advise_typed import overrides_for
from bigembed.commands.asked import write_asked
from bigembed.config import compose, saved
from bigembed.config.arguments import parse
from bigembed.config.schema import AdviseOptions, IdsTable, Job
from bigembed.cores import available_cores
from bigembed.encoders.values import TEXTS, kind_of
from bigembed.errors import UserError
from bigembed.examples import open_column
from bigembed.knowing.advice import Case, Proposal, kinds_for, propose, row_bytes
from bigembed.knowing.opening import order_of, parts_of
from bigembed.knowing.sample import Group, look
from bigembed.report import say, telling

OWN = tuple(f"{field.name}=" for field in fields(AdviseOptions))
OF_TRAINING = ("hydra.run.dir=", "hydra.sweep.dir=", "resume=", "grow=")
MIB = 2**20


def main(arguments: list[str]) -> int:
    """Advise on the job that ``arguments`` describe; return the exit code."""
    options, _ = parse([argument for argument in arguments if argument.startswith(OWN)], AdviseOptions)
    others = [argument for argument in arguments if not argument.startswith(OWN)]
    for argument in others:
        if argument in ("-m", "--multirun") or argument.startswith(OF_TRAINING):
            raise UserError(f"{argument} is for bigembed train; advice is on one job that has not run")
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="bigembed-advise-") as folder:  # which Hydra wants; it stays empty
        compose.run([*others, f"hydra.run.dir={folder}"], lambda job, _: jobs.append(job))
    if jobs:  # none where the job was only to be shown
        _advise(options, jobs[0], others)
    return 0


def _advise(options: AdviseOptions, job: Job, arguments: list[str]) -> None:
    cases = cases_of(job, options.sample, options.stream)
    proposals = propose(cases, options.memory_mib * MIB, options.mixed, options.stream)
    wanted = replace(job, tables={name: each.table for name, each in proposals.items()})
    typed = overrides_for(arguments, wanted, {name: each.kind for name, each in proposals.items()})
    described = saved.as_dict(wanted)["tables"]
    values = {
        "memory_mib": options.memory_mib,
        "mixed": options.mixed,
        "tables": {name: _told(cases[name], each, described[name]) for name, each in proposals.items()},
        "train": ["bigembed", "train", *typed],
        "sweep": ["bigembed", "advise", *arguments, *_given(options), "sweep=DIR"],
    }
    print_advice(values)
    _write(options.out, values)
    if options.sweep is not None:
        sweep(job, cases, options, Path(options.sweep))


def cases_of(job: Job, sample: int, stream: bool) -> dict[str, Case]:
    """Return the tables of a job with what a sample of the training rows shows of each.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    parts = parts_of(job)
    order, threads = order_of(job, parts), job.runtime.threads or available_cores()
    cases = {}
    for name, table in job.tables.items():
        features = {(each.column, *each.crossed_with): each for each in job.features.values() if each.table == name}
        columns = [open_column(encoders.KINDS[type(table)], each, parts.train) for _, each in sorted(features.items())]
        tell = telling(f"table {name}: rows looked at", min(sample, order.train_size))
        sampled = look(table, columns, order, sample, threads, tell)
        of_texts = not isinstance(table, IdsTable) and all(kind_of(column) == TEXTS for column in columns)
        kinds = kinds_for(job, name, of_texts, stream)
        cases[name] = Case(table, sampled, kinds, row_bytes(table, job.optim.tables.kind))
    return cases


def _given(options: AdviseOptions) -> list[str]:
    """Return the options that make the proposals what they are, as typed."""
    values = {field.name: (getattr(options, field.name), field.default) for field in fields(AdviseOptions)}
    told = {
        name: value for name, (value, default) in values.items() if value != default and name not in ("out", "sweep")
    }
    return [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={str(value).lower()}"
        for name, value in told.items()
    ]


def _told(case: Case, proposal: Proposal, options: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of a table, as JSON values."""
    sampled = case.sampled
    groups = {"tokens": _group(sampled.tokens)}
    if sampled.grams is not None:
        groups["ngrams"] = _group(sampled.grams)
    keys = ("kind", "rows", "bytes", "collisions", "mixed", "unknown", "why")
    proposed = {key: getattr(proposal, key) for key in keys} | {"dim": proposal.table.dim, "options": options}
    return {"sampled_rows": sampled.rows, "rows": sampled.whole, **groups, "proposal": proposed}


def _group(group: Group) -> dict[str, Any]:
    return {
        "sample": asdict(group.points[-1]),
        "growth": [asdict(point) for point in group.points],
        "whole": asdict(group.distinct),
        "head": {str(values): group.head(values) for values in (100, 1000, 10_000)},
    }


def _write(path: str | None, values: Mapping[str, Any]) -> None:
    if path is None:
        return
    write_asked("out", path, json.dumps(values, indent=1))
    say(f"the advice is in {path}")
