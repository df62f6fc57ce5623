"""``bigembed plan``: where the tables of a job would lie on a cluster, what that costs, and what would make them fit."""

import json
import shutil
import sys
import tempfile
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from bigembed import encoders
from bigembed.commands.asked import write_asked
from bigembed.config import compose
from bigembed.config.arguments import parse
from bigembed.config.physical import part_name, parts, physical
from bigembed.config.schema import Job, PlanOptions
from bigembed.errors import UserError
from bigembed.examples import table_rows
from bigembed.growth import begin_from
from bigembed.report import say

OWN = tuple(f"{field.name}=" for field in fields(PlanOptions))
OF_TRAINING = ("hydra.run.dir=", "hydra.sweep.dir=", "resume=")
WIDTH = 160  # of tables that go into a file or a pipe


def main(arguments: list[str]) -> int:
    """Plan what ``arguments`` describe; return the exit code."""
    options, _ = parse([argument for argument in arguments if argument.startswith(OWN)], PlanOptions)
    others = [argument for argument in arguments if not argument.startswith(OWN)]
    for argument in others:
        if argument in ("-m", "--multirun") or argument.startswith(OF_TRAINING):
            raise UserError(f"{argument} is for bigembed train; a plan is of one job and has no run folder")
    with tempfile.TemporaryDirectory(prefix="bigembed-plan-") as folder:  # for what is learned from the data
        compose.run([*begin_from(others), f"hydra.run.dir={folder}"], partial(_plan, options))
    return 0


def _plan(options: PlanOptions, job: Job, folder: Path) -> None:
    rows = _rows(job, folder, exact=options.out is not None)
    from bigembed.commands.plan_changes import plan_on_paper, what_would_fit  # torch from here on
    from bigembed.commands.plan_picture import picture
    from bigembed.commands.plan_text import print_summary, print_tried
    from bigembed.config.placement import check_placement
    from bigembed.sharding.cluster import cluster_on_paper
    from bigembed.sharding.room import NoRoom
    from bigembed.sharding.summary import cluster_values, summary_of

    cluster = cluster_on_paper(job)
    check_placement(physical(job), cluster.device)
    console = _console()
    try:
        planned = plan_on_paper(job, rows, cluster)
    except NoRoom as error:
        say("it does not fit; trying what would help")
        tried = what_would_fit(job, rows, cluster, say)
        print_tried(cluster_values(cluster), tried, console)
        values = {"fits": False, "why": str(error), "cluster": cluster_values(cluster), "tried": tried}
        _write("report", options.report, json.dumps(values, indent=1))
        if options.out or options.picture:
            say("there is no plan to write or to draw")
        raise
    values = summary_of(planned, job.trainer.batch_size)
    print_summary(values, console)
    _write("out", options.out, json.dumps(planned.plan.as_dict()))
    _write("report", options.report, json.dumps(values, indent=1))
    _write("picture", options.picture, picture(planned, values))


def _rows(job: Job, folder: Path, exact: bool) -> dict[str, int]:
    """Return the rows of every table: those of vocabularies at most, or, if ``exact`` or boundless, as the data has them."""
    known = {name: encoders.KINDS[type(table)].rows_at_most(table) for name, table in job.tables.items()}
    learned = [name for name, table in job.tables.items() if encoders.KINDS[type(table)].learns_rows]
    unknown = [name for name in learned if exact or known[name] is None]
    if unknown:
        why = "a plan to follow needs their exact rows" if exact else "nothing bounds their rows"
        say(f"learning the vocabulary of {', '.join(unknown)} from the data: {why}")
        from bigembed.prepare import prepare
        from bigembed.run import ENCODERS

        (folder / ENCODERS).mkdir()
        uncached = replace(job, data=replace(job.data, cache_mib=0))  # no ids are needed
        return table_rows(job, prepare(uncached, folder).encoders)
    return {
        part_name(name, part): count
        for name, table in job.tables.items()
        for part, count in zip(parts(table), known[name] or (), strict=True)
    }


def _console() -> Any:
    from rich.console import Console

    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=False)


def _write(option: str, path: str | None, content: str) -> None:
    if path is None:
        return
    write_asked(option, path, content)
    told = {"out": f"the plan is in {path}: train with sharding.plan={path}", "picture": f"the picture is in {path}"}
    say(told.get(option, f"the report is in {path}"))
