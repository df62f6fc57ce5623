"""Who asks, among which items, and what they have already: from a run's folder, its data, and further files. No torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed.config.schema import FilesData, Format, Job, Of, SequenceHead
from bigembed.data import open_data, open_part
from bigembed.data.parts import COMPRESSIONS, ENDINGS
from bigembed.errors import UserError
from bigembed.interactions import Catalogue, Known, catalogue_of, known, load, open_catalogue
from bigembed.interactions.keys import NUMBERS, TEXTS, as_arrow
from bigembed.joining import Wishes, kept_path, wishes_of
from bigembed.pairs import hits_of, numbers_in
from bigembed.report import say
from bigembed.wishes import NUMBERS as ANY_NUMBERS
from bigembed.wishes import VALUES

FILES = tuple(ending + packed for ending in ENDINGS for packed in ("", *COMPRESSIONS))
"""Endings by which a file is told from ids."""


@dataclass(slots=True)
class Scene:
    """Who may ask, what can be found, and what they have already.

    Attributes
    ----------
    users, items : Catalogue
        A row each, with the columns that their features read.
    before : Known
        By the codes of both: histories to be read, and items not to be told again.
    """

    users: Catalogue
    items: Catalogue
    before: Known


def open_scene(
    job: Job,
    folder: Path,
    of: Of = Of.user,
    asking: str | None = None,
    seen: bool = False,
    history: str | None = None,
    new_items: str | None = None,
) -> tuple[Scene, np.ndarray]:
    """Return what a run is asked about, and the codes (int64) of those who ask, in their order, repeats included.

    Parameters
    ----------
    job : Job
        That of the run; its data may lie elsewhere by now.
    folder : Path
        The run folder, which keeps users and items with their features.
    of : Of
        Whether users ask for items, or items for their neighbours.
    asking : str, optional
        Who: None and "all", ids with commas between them, or a file. Users whom the run does not know are known by the features
        that the file has, others are left out with a warning.
    seen : bool
        Nobody is to be spared what he has, so that the data is not read unless histories are.
    history : str, optional
        A file of interactions that is read instead of the data.
    new_items : str, optional
        A file of further items, which are known by their features.

    Raises
    ------
    UserError
        For whatever is wrong with a file or an id; or when nobody is left.
    """
    users, items = load(kept_path(folder, Of.user)), load(kept_path(folder, Of.item))
    if new_items is not None:
        items = _with_new_items(job, items, new_items)
    tables = []
    if of is Of.user and (isinstance(job.head, SequenceHead) or not seen or history is not None):
        tables = _interactions(job, history, users, items)
        if _known_by_histories(job):
            chunks = [chunk for table in tables for chunk in table[users.name].chunks]
            users = catalogue_of(pa.chunked_array(chunks), users.name, "user")
    if of is Of.user:
        users, codes = _asking(job, users, of, asking)
    else:
        items, codes = _asking(job, items, of, asking)
    before = _before(job, tables, users, items, history)
    if of is Of.user and _known_by_histories(job):
        codes = _with_history(codes, before)
    return Scene(users, items, before), codes


def among(users: Catalogue, ids: Sequence[int] | Sequence[str]) -> np.ndarray:
    """Return the codes (int64) of users by their ids.

    Raises
    ------
    UserError
        When ids are of another type than the catalogue's, or one is not in it.
    """
    try:
        column = pa.chunked_array([pa.array(list(ids))])
    except pa.ArrowException:
        raise UserError("the ids of users are of several types; give whole numbers or texts, as the data has") from None
    codes = users.codes(column)
    if (codes < 0).any():
        raise UserError(f"there is no user {column[int((codes < 0).argmax())].as_py()!r:.60} that the model knows")
    return codes


def _known_by_histories(job: Job) -> bool:
    """Whether nothing of a user is read but his history, so that whoever has one can ask."""
    return isinstance(job.head, SequenceHead) and not wishes_of(job, Of.user)


def _asking(job: Job, catalogue: Catalogue, of: Of, asking: str | None) -> tuple[Catalogue, np.ndarray]:
    """Return the codes of those who ask, and the catalogue, with new users of a file at its end."""
    if asking is None or asking == "all":
        return catalogue, np.arange(len(catalogue))
    option, is_file = f"{of.name}s={asking}", asking.endswith(FILES)
    if not is_file:
        ids = _ids(asking, catalogue.keys.type, option)
    else:
        wished = {catalogue.name: _wish(catalogue)}
        ids = open_part(_files(job, f"{of.name}s", asking, option), f"{of.name}s", wished, (), say)[catalogue.name]
    codes, hint = catalogue.codes(ids), "new_items=FILE adds items by their features"
    if of is Of.user and (codes < 0).any():
        features = ", ".join(name for name in wishes_of(job, of) if name != catalogue.name)
        hint = "the model knows users by their ids alone"
        if _known_by_histories(job):
            hint = "history=FILE adds users by their interactions"
        elif features:
            hint = f"users=FILE adds users by their features: {features}"
            if is_file:
                catalogue, hint = _with_new_users(job, catalogue, asking, option)
                codes = catalogue.codes(ids)
    return catalogue, _told(codes, ids, of, option, hint)


def _ids(text: str, kind: pa.DataType, option: str) -> pa.ChunkedArray:
    """Return ids with commas between them as a column of whole numbers (int64), or of texts."""
    entries = [entry.strip() for entry in text.split(",")]
    if "" in entries:
        raise UserError(f"{option} has an empty id; write ids with one comma between them")
    if kind != NUMBERS:
        return pa.chunked_array([pa.array(entries, TEXTS)])
    wrong = [entry for entry in entries if not re.fullmatch(r"-?[0-9]{1,19}", entry) or abs(int(entry)) >= 1 << 63]
    if wrong:
        raise UserError(
            f"{option}: ids are whole numbers of 64 bits in this run, and {wrong[0]!r:.60} is none; a file is told by its ending, "
            ".parquet, .csv or .jsonl"
        )
    return pa.chunked_array([pa.array([int(entry) for entry in entries], NUMBERS)])


def _told(codes: np.ndarray, ids: pa.ChunkedArray, of: Of, option: str, hint: str) -> np.ndarray:
    """Return the codes without those of nobody (-1), of whom is told."""
    unknown = codes < 0
    if not unknown.any():
        return codes
    first = ids[int(unknown.argmax())].as_py()
    told = f"{int(unknown.sum()):,} of {len(codes):,} ids of {option:.100} are not known to the model, the first of them {first!r:.60}"
    if unknown.all():
        raise UserError(f"{told}; {hint}")
    say(f"warning: {told}; they are left out ({hint})")
    return codes[~unknown]


def _with_history(codes: np.ndarray, before: Known) -> np.ndarray:
    """Return the codes of users of whom there is something to read."""
    silent = before.histories.lengths[codes] == 0
    if silent.all():
        raise UserError("nobody who asks has a history that the model can read; give one with history=FILE")
    if silent.any():
        say(f"warning: {int(silent.sum()):,} of {len(codes):,} users have no history to be read, and are left out")
    return codes[~silent]


def _files(job: Job, part: str, path: str, option: str) -> FilesData:
    """Return a file as a part of data."""
    if not Path(path).expanduser().exists():
        raise UserError(f"{option} does not exist")
    data = job.data if isinstance(job.data, FilesData) else FilesData()
    form = Format.auto if path.endswith(FILES) else data.format
    alone = replace(data, path=None, hub=None, format=form)
    setattr(alone, part, path)
    return alone


def _wish(catalogue: Catalogue) -> pa.DataType:
    """Return what a file's ids are asked for as: CSV knows no types, and is read as those of the run."""
    return NUMBERS if catalogue.keys.type == NUMBERS else VALUES


def _given(job: Job, catalogue: Catalogue, of: Of, path: str, option: str) -> Catalogue:
    """Return the users or items of a file, with the columns of their features."""
    wished: Wishes = {**wishes_of(job, of), catalogue.name: _wish(catalogue)}
    table = open_part(_files(job, f"{of.name}s", path, option), f"{of.name}s", wished, (), say)
    return open_catalogue(table, catalogue.name, of.name, option)


def _with_new_items(job: Job, items: Catalogue, path: str) -> Catalogue:
    option = f"new_items={path}"
    if set(wishes_of(job, Of.item)) <= {items.name}:
        raise UserError(
            f"{option}: new items are found by their features, but this run knows items by their ids alone; train with data.items "
            "and features of=item"
        )
    given = _given(job, items, Of.item, path, option)
    both = _extended(job, Of.item, items, given, option)
    fresh = len(both) - len(items)
    if fresh < len(given):
        say(
            f"{len(given) - fresh:,} of the {len(given):,} items of {option} are known, and stay as they were in training"
        )
    return both


def _with_new_users(job: Job, users: Catalogue, path: str, option: str) -> tuple[Catalogue, str]:
    """Return the users with those of a file; or as they were, and what is wrong with the columns of features."""
    try:
        return _extended(job, Of.user, users, _given(job, users, Of.user, path, option), option), ""
    except UserError as error:
        return users, f"their features cannot be read: {str(error).rstrip('.')}"


def _extended(job: Job, of: Of, catalogue: Catalogue, given: Catalogue, option: str) -> Catalogue:
    """Return a catalogue with the rows of another one that it does not have at its end."""
    fresh = as_arrow(np.flatnonzero(catalogue.codes(pa.chunked_array([given.keys])) < 0))
    old = catalogue.table.select(list({catalogue.name: None, **wishes_of(job, of)}))
    columns = []
    for field in old.schema:
        column = given.table[field.name].take(fresh)
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(
                f"column {field.name!r} of {option} holds {column.type}, which cannot be read as the run's {field.type}; convert it"
            ) from None
    table = pa.concat_tables([old, pa.table(columns, schema=old.schema)])
    keys = pa.concat_arrays([catalogue.keys, given.keys.take(fresh)])
    return Catalogue(catalogue.what, catalogue.name, keys, table)


def _interactions(job: Job, history: str | None, users: Catalogue, items: Catalogue) -> list[pa.Table]:
    """Return the interactions of a file, else those of all parts of the data."""
    own, sequences = job.interactions, isinstance(job.head, SequenceHead)
    wished: Wishes = {users.name: VALUES, items.name: VALUES}
    if sequences:
        wished |= {name: ANY_NUMBERS for name in (own.time, own.rating) if name is not None}
    if history is not None:
        if history.endswith(FILES):
            wished[items.name] = _wish(items)
            wished[users.name] = VALUES if _known_by_histories(job) else _wish(users)
        return [open_part(_files(job, "train", history, f"history={history}"), "train", wished, (), say)]
    try:
        parts = open_data(job.data, wished, (), say)
    except UserError as error:
        without = "" if sequences else ", or go without it by seen=true"
        raise UserError(
            f"what users have is read from the run's data, which cannot be: {str(error).rstrip('.')}; say where it lies with "
            f"data.path=DIR, or give history=FILE{without}"
        ) from None
    return [table for table in (parts.train, parts.validation, parts.test) if table is not None]


def _before(job: Job, tables: list[pa.Table], users: Catalogue, items: Catalogue, history: str | None) -> Known:
    """Return what users have: to be left out whatever the rating, to be read where it is good enough."""
    own, nothing = job.interactions, np.empty(0, np.int64)
    user = np.concatenate([nothing, *(users.codes(table[users.name]) for table in tables)])
    item = np.concatenate([nothing, *(items.codes(table[items.name]) for table in tables)])
    there = (user >= 0) & (item >= 0)
    if history is not None and (item < 0).any():
        lost = int((item < 0).sum())
        say(
            f"warning: {lost:,} of {len(item):,} interactions of history={history} have items that the model does not know"
        )

    def taken(rows: np.ndarray, times: np.ndarray | None) -> Known:
        return known(user[rows], item[rows], None if times is None else times[rows], len(users), len(items))

    if not isinstance(job.head, SequenceHead) or not tables:
        return taken(there, None)
    times = None if own.time is None else np.concatenate([numbers_in(table, own.time) for table in tables])
    hits = [found for table in tables if (found := hits_of(job, table)) is not None]
    if not hits:
        return taken(there, times)
    return replace(taken(there & np.concatenate(hits), times), items=taken(there, None).items)
