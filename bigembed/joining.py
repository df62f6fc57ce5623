"""The parts of the data with the columns of users and items beside each row, and the catalogues that these come from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed import encoders
from bigembed.config.schema import FilesData, Job, Of
from bigembed.data import Parts, open_data, open_part
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.interactions import Catalogue, catalogue_of, open_catalogue
from bigembed.report import say
from bigembed.run import ENCODERS
from bigembed.wishes import NUMBERS, VALUES, WEIGHTS

BLOCK = 1 << 20  # rows joined at once: Arrow's texts end at 2 GiB
SLICES = ("activity", "popularity")  # that are no columns
Wishes = dict[str, pa.DataType]
Catalogues = dict[Of, Catalogue]


def key_of(job: Job, of: Of) -> str:
    """Return the column that names the user, or the item."""
    return job.interactions.user if of is Of.user else job.interactions.item


def has_file(job: Job, of: Of) -> bool:
    """Whether the data has a file with a row for every user, or item."""
    return isinstance(job.data, FilesData) and (job.data.users if of is Of.user else job.data.items) is not None


def kept_path(folder: Path, of: Of) -> Path:
    """Return the file in which a run's ``folder`` keeps its users, or its items (``interactions.save``)."""
    return folder / ENCODERS / f"{of.name}s.arrow"


def kinds_by_column(job: Job, of: Of | None = None) -> dict[str, list[type[Encoder]]]:
    """Return the columns whose values the features (``of`` whom; None: all) look up, with the kinds of encoders that read each."""
    kinds: dict[str, list[type[Encoder]]] = {}
    for feature in job.features.values():
        if of is None or feature.of is of:
            for name in (feature.column, *feature.crossed_with):
                kind = encoders.KINDS[type(job.tables[feature.table])]
                kinds.setdefault(name, [])
                kinds[name] += [kind] * (kind not in kinds[name])
    return kinds


def wishes_of(job: Job, of: Of) -> Wishes:
    """Return the columns that the features of the samples, of users or of items read, and what ``open_data`` is to be asked for in each.

    Raises
    ------
    UserError
        When a column is read in two ways.
    """
    wished: Wishes = {}

    def wish(column: str, reads: pa.DataType) -> None:
        other = wished.setdefault(column, reads)
        narrow = [
            each for each in (other, reads) if each != VALUES
        ]  # VALUES leaves a choice, of which the others are one
        if (len(narrow) == 2 and other != reads) or {VALUES} < {other, reads} <= {VALUES, NUMBERS, WEIGHTS}:
            raise UserError(
                f"column '{column}' is read in two ways by the features and numbers that name it; make a copy of the column"
            )
        wished[column] = narrow[0] if narrow else VALUES

    for name, kind in kinds_by_column(job, of).items():
        for each in kind:
            wish(name, each.reads)
    for feature in job.features.values():
        if feature.weights is not None and feature.of is of:
            wish(feature.weights, WEIGHTS)
    for number in job.numbers.values():
        if number.of is of:
            wish(number.column, NUMBERS)
    return wished


def columns_of(job: Job) -> Wishes:
    """Return the columns that the features need in a part of the data: their own, and those that name users and items.

    Raises
    ------
    UserError
        When a column is read in two ways.
    """
    wished = wishes_of(job, Of.sample)
    for of in (Of.user, Of.item):
        own = wishes_of(job, of)
        if own:
            wished.setdefault(key_of(job, of), own.get(key_of(job, of), VALUES))
    return wished


def open_catalogues(job: Job, train: pa.Table | None) -> Catalogues:
    """Return the users and the items that the features read: from their files, else (retrieval) those of the training rows.

    Raises
    ------
    UserError
        For whatever is wrong with a file.
    """
    found: Catalogues = {}
    for of in (Of.user, Of.item):
        key = key_of(job, of)
        if has_file(job, of):
            slices = [name for name in job.protocol.slices if of is Of.user and name not in SLICES]
            wished = {**dict.fromkeys(slices, VALUES), key: VALUES, **wishes_of(job, of)}
            table = _named_rows(open_part(job.data, f"{of.name}s", wished, (), say), key, of)
            for name in slices:
                if pa.types.is_nested(table[name].type):
                    raise UserError(
                        f"protocol.slices names '{name}', but that column of data.users holds lists, and a user is in one slice; "
                        "name another column"
                    )
            found[of] = open_catalogue(table, key, of.name, f"data.{of.name}s")
        elif train is not None:
            found[of] = catalogue_of(train[key], key, of.name)
    return found


def _named_rows(table: pa.Table, key: str, of: Of) -> pa.Table:
    """Return the rows of a file of users or items that have an id: no row of the data can name the others."""
    without = table[key].null_count
    if not without:
        return table
    say(f"warning: {without:,} of {table.num_rows:,} rows of data.{of.name}s have no {of.name} (null) and are left out")
    return table.filter(pc.is_valid(table[key]))


def open_parts(job: Job, also: Wishes, labels: Sequence[str] = ()) -> Parts:
    """Open the data, with the columns that the features read, those of users and items joined on, ``also`` and ``labels``.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    parts = open_data(job.data, {**also, **columns_of(job)}, labels, say)
    catalogues = open_catalogues(job, None)
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    tables = {
        name: None if table is None else joined(job, table, catalogues, f"{name} part") for name, table in named.items()
    }
    assert tables["train"] is not None
    return Parts(tables["train"], tables["validation"], tables["test"])


def open_joined(job: Job, part: str, also: Wishes, labels: Sequence[str] = ()) -> pa.Table:
    """Open one part as ``open_parts`` does."""
    table = open_part(job.data, part, {**also, **columns_of(job)}, labels, say)
    return joined(job, table, open_catalogues(job, None), f"{part} part")


def joined(job: Job, table: pa.Table, catalogues: Catalogues, part: str) -> pa.Table:
    """Return a part of the data with the columns of the users and items that its rows name.

    Raises
    ------
    UserError
        When a row names no user or item, or one that has no row in its file; when a column of values has nulls, or is there already.
    """
    for of, catalogue in catalogues.items():
        key = key_of(job, of)
        names = [name for name in wishes_of(job, of) if name != key]
        if not names:
            continue
        keys = table[key]
        if keys.null_count:
            raise UserError(
                f"row {_first_null(keys)} of the {part} has no {of.name} (column '{key}' is null), as have {keys.null_count:,} of "
                f"{len(keys):,} rows; drop them"
            )
        codes = catalogue.codes(keys)
        check_known(codes, keys, of, part)
        looked_up = kinds_by_column(job, of)
        for name in names:
            column = catalogue.table[name]
            if name in table.column_names:
                raise UserError(
                    f"column '{name}' is both in data.{of.name}s and elsewhere in the data; give one of them another name"
                )
            if name in looked_up and column.null_count:
                raise UserError(
                    f"row {_first_null(column)} of data.{of.name}s has nothing (null) in column '{name}', as have "
                    f"{column.null_count:,} of {len(column):,} rows; fill them, for example with empty texts"
                )
            blocks = [column.take(pa.array(codes[start : start + BLOCK])) for start in range(0, len(codes), BLOCK)]
            table = table.append_column(
                name, pa.chunked_array([part for each in blocks for part in each.chunks], column.type)
            )
    return table


def _first_null(column: pa.ChunkedArray) -> int:
    return int(pc.index(pc.is_null(column), True).as_py())


def check_known(codes: np.ndarray, keys: pa.ChunkedArray, of: Of, part: str) -> None:
    """Refuse codes of users or items that their file does not have."""
    unknown = codes < 0
    if unknown.any():
        row = int(unknown.argmax())
        raise UserError(
            f"row {row} of the {part} has the {of.name} {keys[row].as_py()!r}, which has no row in data.{of.name}s "
            f"({int(unknown.sum()):,} of {len(codes):,} rows); add it there, or leave those rows out"
        )
