"""What a run may differ in from the one that it grows from. No torch, no data."""

from pathlib import Path
from typing import Any

from bigembed import run
from bigembed.config import kinds, saved
from bigembed.config.schema import (
    Freeze,
    HashedTable,
    IdsTable,
    Job,
    ManagedTable,
    RankingHead,
    RetrievalHead,
    SubwordTable,
    TableConfig,
    TextTable,
)
from bigembed.encoders import KINDS
from bigembed.errors import UserError

GROWS = ("buckets", "rows", "importance")  # numbers of rows
BESIDES = ("dim", "dtype", "combine", "widths")  # what else decides what a row means, or what it is
ANEW = "give the table another name to begin it anew"


def check_growth(job: Job, folder: Path) -> None:
    """Refuse a job that cannot grow as it says, in the ``folder`` of its run.

    Raises
    ------
    UserError
        The run to grow from is this one, is none, or has no checkpoint; a table differs in what its rows mean, or would lose
        rows unasked.
    """
    if job.grow is None:
        if job.grow_drop:
            raise UserError("grow_drop goes with grow=RUN; leave it out")
        return
    old = Path(job.grow)
    if folder.resolve() == old.resolve():
        raise UserError(
            f"grow={old} begins a new run, which needs a folder of its own; name one with hydra.run.dir=DIR"
        )
    before = saved.load(old)
    run.choose(old, before.trainer.test_with)
    _check_head(before, job)
    for name, table in job.tables.items():
        if name in before.tables:
            _check_table(f"tables.{name}", before.tables[name], table, job.grow_drop)


def _check_head(before: Job, after: Job) -> None:
    """Refuse what changes the inputs of a head that has them in fixed places all over."""
    heads = before.head, after.head
    if not any(isinstance(head, RankingHead | RetrievalHead) for head in heads):
        return
    if type(heads[0]) is not type(heads[1]):
        old, new = map(kinds.kind_of, heads)
        raise UserError(
            f"head={new} cannot grow from head={old}, whose layers mean something else; keep head={old}, or begin a new run"
        )
    inputs = [
        [f"{group}.{name}" for group in ("features", "numbers") for name in getattr(job, group)]
        for job in (before, after)
    ]
    if inputs[0] != inputs[1]:
        changed = sorted(set(inputs[0]) ^ set(inputs[1])) or ["their order"]
        raise UserError(
            f"head={kinds.kind_of(after.head)} has its inputs in fixed places, so features and numbers must be those of the run that is "
            f"grown from (changed: {', '.join(changed)}); keep them, or begin a new run"
        )


def _check_table(path: str, before: TableConfig, after: TableConfig, drop: bool) -> None:
    if type(before) is not type(after):
        raise UserError(
            f"{path} is of kind {kinds.kind_of(after)}, but in the run that is grown from it is of kind {kinds.kind_of(before)}, whose "
            f"rows mean something else; {ANEW}"
        )
    if isinstance(after, ManagedTable):
        raise UserError(f"{path} is a managed table, whose rows cannot be taken over into another run yet; {ANEW}")
    frozen = before.pretrained.freeze is Freeze.rows and before.pretrained.freeze_steps is None
    if after.pretrained.freeze is Freeze.rows and not frozen:
        raise UserError(
            f"{path}.pretrained.freeze=rows keeps rows as a file gives them, but those of the run that is grown from have learned; use "
            f"freeze=table, or {ANEW}"
        )
    old, new = _meaning(before), _meaning(after)
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            was, now = _shown(old.get(name)), _shown(new.get(name))
            raise UserError(
                f"{path}.{name} is {now}, but was {was} in the run that is grown from, so that rows would not mean the same; keep it, "
                f"or {ANEW}"
            )
    for name in _row_options(after):
        _check_rows(f"{path}.{name}", after, getattr(before, name), getattr(after, name), drop)


def _check_rows(path: str, table: TableConfig, old: int, new: int, drop: bool) -> None:
    """Refuse a number of rows by which learned ones would be lost."""
    if isinstance(table, SubwordTable) and new % old and old % new:
        raise UserError(
            f"{path} is {new:,}, but n-grams find their {old:,} learned rows again only in a multiple of them; take e.g. {2 * old:,}"
        )
    if new < old and not drop:
        raise UserError(
            f"{path} is {new:,}, by which {old - new:,} of {old:,} learned rows would be lost; take {old:,} or more, or let them be lost "
            "with grow_drop=true"
        )


def _row_options(table: TableConfig) -> list[str]:
    """Return the options of a table that are numbers of its rows."""
    if isinstance(table, IdsTable):
        return ["rows"]
    grams = isinstance(table, HashedTable | SubwordTable) or (isinstance(table, TextTable) and table.ngrams > 1)
    names = ["buckets"] if grams and hasattr(table, "buckets") else []
    return names + (["importance"] if getattr(table, "importance", None) is not None else [])


def _meaning(table: TableConfig) -> dict[str, Any]:
    """Return the options by which a row means what it means."""
    settings = {name: value for name, value in KINDS[type(table)].settings_of(table).items() if name not in GROWS}
    settings |= {name: getattr(table, name) for name in BESIDES if hasattr(table, name)}
    if isinstance(table, HashedTable):  # its number of rows may change, but a table with it has a part more
        settings["importance"] = None if table.importance is None else "set"
    return settings


def _shown(value: Any) -> str:
    return "not set" if value is None else str(getattr(value, "name", value))
