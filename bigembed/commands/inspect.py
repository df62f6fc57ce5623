"""``bigembed inspect``: how large a table is, what the data puts into it, who shares rows, what its rows are like. No torch."""

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bigembed import growth, hashing, run
from bigembed.admission import FREE
from bigembed.commands.asked import write_asked
from bigembed.commands.inspect_picture import picture
from bigembed.commands.inspect_text import print_tables
from bigembed.commands.of_run import on_other_data
from bigembed.commands.one_job import look_at_job
from bigembed.config.arguments import parse
from bigembed.config.physical import first_values, physical
from bigembed.config.schema import InspectOptions, Job, ManagedTable
from bigembed.encoders import Encoder
from bigembed.encoders.subword import SubwordEncoder
from bigembed.errors import UserError
from bigembed.knowing import describe
from bigembed.knowing.character_grams import tally_grams
from bigembed.knowing.measure import Seen, measure
from bigembed.knowing.names import name_values
from bigembed.knowing.norms import First, read_weights
from bigembed.knowing.opening import Opened, open_job_data, open_run_data
from bigembed.report import say, telling

OWN = tuple(f"{field.name}=" for field in fields(InspectOptions))


def main(arguments: list[str]) -> int:
    """Tell what ``arguments`` ask for; return the exit code."""
    if any(argument.startswith("run=") for argument in arguments):
        options, overrides = parse(arguments, InspectOptions)
        _check(options)
        _inspect_run(options, overrides)
        return 0
    options, _ = parse([argument for argument in arguments if argument.startswith(OWN)], InspectOptions)
    _check(options)
    others = [argument for argument in arguments if not argument.startswith(OWN)]
    look_at_job("inspect", others, partial(_inspect_job, options))
    return 0


def residents_of(checkpoint: Path | None, job: Job, name: str) -> np.ndarray | None:
    """Return the values of the rows of a managed table (int64, shape (rows,)), as a checkpoint has them; None for other tables."""
    if checkpoint is None or not isinstance(job.tables[name], ManagedTable):
        return None
    return np.asarray(run.read_array(checkpoint / "tables" / f"{name}.ids.npy"))


def _check(options: InspectOptions) -> None:
    if options.part not in ("train", "validation", "test"):
        raise UserError(f"part={options.part} is no part of the data; use train, validation or test")


def _inspect_run(options: InspectOptions, overrides: list[str]) -> None:
    folder = Path(str(options.run))
    trained, checkpoint = run.open_run(folder, options.checkpoint)
    job, elsewhere = on_other_data(trained, overrides, "inspect")
    opened = open_run_data(job, folder / run.ENCODERS, options.part, elsewhere)
    _tell(options, job, opened, checkpoint)


def _inspect_job(options: InspectOptions, job: Job, folder: Path) -> None:
    growth.check_growth(job, folder)
    _tell(options, job, open_job_data(job, options.part), None)


def _tell(options: InspectOptions, job: Job, opened: Opened, checkpoint: Path | None) -> None:
    tables = {name: _table(options, job, name, opened, checkpoint) for name in job.tables}
    at = None if checkpoint is None else checkpoint.name
    values = {"part": options.part, "samples": opened.rows, "checkpoint": at, "tables": tables}
    print_tables(values)
    _write("out", options.out, json.dumps(values, indent=1))
    _write("picture", options.picture, picture(values))


def _table(options: InspectOptions, job: Job, name: str, opened: Opened, checkpoint: Path | None) -> dict[str, Any]:
    """Return everything about one table."""
    table, encoder, columns = job.tables[name], opened.encoders[name], opened.columns[name]
    residents = residents_of(checkpoint, job, name)
    tell = telling(f"table {name}: {columns[0].what} looked at", opened.rows * len(columns))
    seen = measure(encoder, columns, opened.index, opened.threads, options.exact, residents, tell)
    top = name_values(encoder, seen.tally.kept().top(options.top), columns, opened.index)
    values = {
        **describe.kind_and_shape(table),
        "columns": [column.name for column in columns],
        **describe.per_token(table, seen),
        **describe.frequencies(seen.tally),
        "top": [{"value": value.text, "count": value.count} for value in top],
        "collisions": _collisions(options, table, encoder, seen),
        "parts": describe.parts_of(job, name, encoder, seen),
    }
    if residents is not None:
        values["occupied"] = int((residents != FREE).sum())
    if checkpoint is not None:
        for number, part in enumerate(values["parts"]):
            part["norms"] = _norms(job, part["name"], checkpoint, seen, number, residents)
    return values


def _collisions(options: InspectOptions, table: Any, encoder: Encoder, seen: Seen) -> dict[str, Any]:
    """Return who shares rows, by what is hashed into them: values or n-grams, and n-grams of characters."""
    found = {}
    places = describe.places_of(table)
    if places is not None:
        knows = encoder.words() is not None
        found["n-grams" if knows else "values"] = describe.shared_rows(
            seen.tally, places[0], options.collision_rate, places[1]
        )
    if isinstance(encoder, SubwordEncoder):
        grams = tally_grams(encoder, options.exact)
        found["character n-grams"] = describe.shared_rows(grams, encoder.config.buckets, options.collision_rate)
    return found


def _norms(
    job: Job, name: str, checkpoint: Path, seen: Seen, part: int, residents: np.ndarray | None
) -> dict[str, Any] | None:
    mark, config = seen.touched[part], physical(job).tables[name]
    if mark is None:
        return None
    first = First(job.seed, hashing.stream_of(name), *first_values(config))
    weights = run.read_array(checkpoint / "tables" / f"{name}.weight.npy")
    return describe.norms_of(read_weights(weights, first, mark.among))


def _write(option: str, path: str | None, content: str) -> None:
    if path is None:
        return
    write_asked(option, path, content)
    say(f"the {'picture' if option == 'picture' else 'report'} is in {path}")
