"""What a user types to train the proposed tables."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bigembed.config import compose, saved
from bigembed.config.schema import Job
from bigembed.errors import UserError


def overrides_for(arguments: Sequence[str], job: Job, kinds: Mapping[str, str]) -> list[str]:
    """Return arguments of ``bigembed train`` that make a job.

    Parameters
    ----------
    arguments : sequence of str
        What made it, but for its tables.
    job : Job
        What is wanted.
    kinds : mapping of str to str
        The choice in the group ``table`` for every table.

    Returns
    -------
    list of str
        The other arguments as they were. A table whose kind goes not together with what an experiment's file says of
        it is left out, and one of another name takes its place.

    Raises
    ------
    UserError
        The job cannot be made at all.
    """
    names = {name: name for name in kinds}
    others = [argument for argument in arguments if not _is_of(argument, kinds)]
    added = {name for name in kinds if any(each.startswith(f"+table@tables.{name}=") for each in arguments)}

    def chosen() -> list[str]:
        typed = []
        for name, kind in kinds.items():
            plus = "+" if name in added or names[name] != name else ""
            typed.append(f"{plus}table@tables.{names[name]}={kind}")
            if names[name] != name:
                typed += [] if name in added else [f"~tables.{name}"]
                features = [each for each, feature in job.features.items() if feature.table == name]
                typed += [f"features.{feature}.table={names[name]}" for feature in features]
        return [*others, *typed]

    try:
        composed = _composed(chosen())
    except UserError as first:
        names = {name: f"{name}_{kind}" for name, kind in kinds.items()}
        try:
            composed = _composed(chosen())
        except UserError:
            raise first from None
    wanted, found = saved.flat(_renamed(job, names)), saved.flat(composed)
    different = [path for path, value in wanted.items() if found.get(path) != value]
    return [*chosen(), *(f"{path}={_text(wanted[path])}" for path in different)]


def _is_of(argument: str, names: Mapping[str, str]) -> bool:
    """Whether an argument says something of one of the tables."""
    key = argument.partition("=")[0].lstrip("+~")
    return any(key == f"table@tables.{name}" or f"{key}.".startswith(f"tables.{name}.") for name in names)


def _composed(arguments: list[str]) -> Job:
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="bigembed-advise-") as folder:
        compose.run([*arguments, f"hydra.run.dir={folder}"], lambda job, _: jobs.append(job))
    return jobs[0]


def _renamed(job: Job, names: Mapping[str, str]) -> Job:
    tables = {names[name]: table for name, table in job.tables.items()}
    features = {name: replace(feature, table=names[feature.table]) for name, feature in job.features.items()}
    return replace(job, tables=tables, features=features)


def _text(value: Any) -> str:
    """Return a value as it stands in an override."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not value.isidentifier():
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
