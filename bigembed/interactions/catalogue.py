"""All users, or all items, of a job: a row each, numbered by codes from 0 on."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from bigembed.errors import UserError
from bigembed.files import replacing
from bigembed.interactions.finding import Finder, finder
from bigembed.interactions.keys import NUMBERS, TEXTS, as_arrow, blocks, numbers_of, type_of

FORMAT = "bigembed catalogue 1"
_CALLED = {NUMBERS: "whole numbers", TEXTS: "texts"}
_BATCH = 1 << 16  # rows of a batch of the file


@dataclass(slots=True)
class Catalogue:
    """The users or the items that a job knows.

    Attributes
    ----------
    what : str
        ``"user"`` or ``"item"``.
    name : str
        The column of their ids, in the table and in the data's parts.
    keys : Array, shape (n,)
        Their ids, distinct: int64 or large_string; that of code ``i`` is ``keys[i]``.
    table : Table
        Row ``i`` belongs to ``keys[i]``; the column ``name`` is among its columns.
    """

    what: str
    name: str
    keys: pa.Array
    table: pa.Table
    _finder: Finder | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.keys)

    def codes(self, values: pa.ChunkedArray, apart: bool = False) -> np.ndarray:
        """Return the codes of ids.

        Parameters
        ----------
        values : ChunkedArray, shape (rows,)
            Whole numbers of any width where the catalogue's ids are whole numbers, else texts.
        apart : bool
            Ids that are not in the catalogue get -1, -2, …, one number for each different id; else all of them get -1.

        Returns
        -------
        ndarray, shape (rows,), int64

        Raises
        ------
        UserError
            The ids are of another type than the catalogue's, or a row is null.
        """
        out = np.empty(len(values), np.int64)
        if not len(values):
            return out
        where = f"column {self.name!r} of {self.what}s"
        kind = type_of(values, where)
        if kind != self.keys.type and not pa.types.is_null(values.type):
            raise UserError(
                f"The {self.what}s are {_CALLED[kind]} in one part of the data and {_CALLED[self.keys.type]} in another (column "
                f"{self.name!r}): convert one of them, since a number and the text of its digits are two ids."
            )
        if self._finder is None:
            self._finder = finder(self.keys)
        start, strangers = 0, []
        for block in blocks(values, kind, where):
            found = out[start : start + len(block)]
            found[:] = self._finder.find(block)
            if apart:
                strangers.append(block.take(as_arrow(np.flatnonzero(found < 0))))
            start += len(block)
        if apart:
            numbered = pa.chunked_array(strangers, kind).combine_chunks().cast(kind).dictionary_encode()
            out[out < 0] = -1 - numbers_of(numbered.indices.cast(NUMBERS))
        return out


def catalogue_of(values: pa.ChunkedArray, name: str, what: str) -> Catalogue:
    """Return the catalogue of the ids that stand in a column: the distinct ones, ascending (texts by their bytes).

    Parameters
    ----------
    values : ChunkedArray
        The column: whole numbers or texts.
    name : str
        Its name, which the one column of the catalogue's table gets.
    what : str
        ``"user"`` or ``"item"``.

    Raises
    ------
    UserError
        The column holds something else, or a row is null.
    """
    where = f"column {name!r} of {what}s"
    kind = type_of(values, where)
    found, waiting, size = pa.chunked_array([], kind), [], 0
    for block in blocks(values, kind, where):
        waiting.append(pc.unique(block))
        size += len(waiting[-1])
        if size > len(found):  # as many as are known, so that all of this takes time in proportion to the rows
            found, waiting, size = _distinct([*found.chunks, *waiting], kind), [], 0
    distinct = _distinct([*found.chunks, *waiting], kind).combine_chunks()
    keys = distinct.take(pc.array_sort_indices(distinct))
    return Catalogue(what, name, keys, pa.table({name: keys}))


def open_catalogue(table: pa.Table, name: str, what: str, where: str) -> Catalogue:
    """Return the catalogue whose rows are those of a table, in their order.

    Parameters
    ----------
    table : Table
        A row for every user or item.
    name : str
        Its column of ids.
    what : str
        ``"user"`` or ``"item"``.
    where : str
        What messages call the table, e.g. ``"data.users"``.

    Raises
    ------
    UserError
        The table has no rows or no such column; the column holds neither whole numbers nor texts; a row is null; or an id
        stands in two rows, which the message names.
    """
    if table.column_names.count(name) != 1:
        found = ", ".join(map(repr, table.column_names))
        raise UserError(f"{where} has no column {name!r}, it has {found}; name the right one in interactions.{what}.")
    if not table.num_rows:
        raise UserError(f"{where} has no rows: give one for every {what}.")
    column = f"column {name!r} of {where}"
    kind = type_of(table[name], column)
    keys = pa.chunked_array(list(blocks(table[name], kind, column)), kind).combine_chunks()
    # Distinct values are numbered as they come: where a row's number is not its place, the value was there before.
    places = numbers_of(keys.dictionary_encode().indices.cast(NUMBERS))
    again = np.flatnonzero(places != np.arange(len(keys)))
    if len(again):
        row = int(again[0])
        first, repeats = int(places[row]), len(keys) - int(places.max()) - 1
        raise UserError(
            f"Rows {first:,} and {row:,} of {column} are both {keys[row].as_py()!r:.60}, and {repeats:,} rows in all repeat an id: "
            f"keep one row for every {what}."
        )
    return Catalogue(what, name, keys, table)


def save(catalogue: Catalogue, path: Path) -> None:
    """Write a catalogue to a file, an Arrow file with a checksum after its end; it is there as a whole or not at all.

    Raises
    ------
    UserError
        It cannot be written.
    """
    about = {"format": FORMAT, "what": catalogue.what, "name": catalogue.name}
    # One dictionary for all batches: Arrow's files know no other.
    table = catalogue.table.unify_dictionaries().replace_schema_metadata({"bigembed": json.dumps(about)})
    try:
        with replacing(path) as unfinished:
            with pa.ipc.new_file(str(unfinished), table.schema) as writer:
                writer.write_table(table, max_chunksize=_BATCH)
            with pa.memory_map(str(unfinished)) as file:
                checksum = xxhash.xxh3_128_digest(file.read_buffer())
            with unfinished.open("ab") as end:
                end.write(checksum)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"The {catalogue.what}s cannot be written to {path}: {error}.") from error


def load(path: Path) -> Catalogue:
    """Read a catalogue's file; the columns stay on the disk until they are looked at.

    Raises
    ------
    UserError
        It cannot be read, or is not as it was written.
    """
    try:
        content = pa.memory_map(str(path)).read_buffer()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"The catalogue {path} cannot be read: {error}.") from error
    size = max(0, content.size - xxhash.xxh3_128().digest_size)
    written = content.slice(0, size)
    if xxhash.xxh3_128_digest(written) != content.slice(size).to_pybytes():
        raise UserError(f"The catalogue {path} is not as it was written (its checksum differs): take a copy of it.")
    table = pa.ipc.open_file(pa.BufferReader(written)).read_all()
    about = json.loads(table.schema.metadata[b"bigembed"])
    if about["format"] != FORMAT:
        raise UserError(
            f"The catalogue {path} is of the format {about['format']!r}, and not {FORMAT!r}: use its version of bigembed."
        )
    values = table[about["name"]]
    kind = type_of(values, str(path))
    keys = pa.chunked_array(list(blocks(values, kind, str(path))), kind).combine_chunks()
    return Catalogue(about["what"], about["name"], keys, table.replace_schema_metadata(None))


def _distinct(parts: list[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pc.unique(pa.chunked_array(parts, kind))])
