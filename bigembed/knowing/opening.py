"""The data and the encoders of a job, opened to be looked at: no labels are needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed import encoders, growth
from bigembed.config.schema import Job, RetrievalHead
from bigembed.cores import available_cores
from bigembed.data import Parts
from bigembed.data.order import Order
from bigembed.encoders import Column, Encoder
from bigembed.errors import UserError
from bigembed.examples import table_columns
from bigembed.joining import open_joined, open_parts
from bigembed.pairs import open_interactions
from bigembed.prepare import load_encoders
from bigembed.report import telling


@dataclass(frozen=True, slots=True)
class Opened:
    """A part of the data with the encoders of all tables.

    Attributes
    ----------
    encoders : dict of str to Encoder
        By table name.
    columns : dict of str to list of Column
        By table name, those that are looked up in it, each once; checked.
    index : ndarray, shape (rows,), int64, or None
        Which rows of the columns are of the part; None: all.
    rows : int
        How many.
    threads : int
        To use.
    """

    encoders: dict[str, Encoder]
    columns: dict[str, list[Column]]
    index: np.ndarray | None
    rows: int
    threads: int


def open_run_data(job: Job, encoders_folder: Path, part: str, elsewhere: bool) -> Opened:
    """Return a part of the data of a run, or of other data (``elsewhere``), of which all rows are that part.

    Raises
    ------
    UserError
        For whatever is wrong with the data, and where there is no such part.
    """
    known = load_encoders(job, encoders_folder)
    if elsewhere:
        table, index = open_joined(job, part, {}), None
    else:
        table, index = _part(job, parts_of(job), part)
    return _opened(job, known, table, index, part)


def open_job_data(job: Job, part: str) -> Opened:
    """Return a part of the data of a job that has not run, with encoders learned from its training rows as in training.

    Raises
    ------
    UserError
        For whatever is wrong with the data, and where there is no such part.
    """
    parts, known, threads = parts_of(job), {}, job.runtime.threads or available_cores()
    train, rows = _part(job, parts, "train")
    for name, table in job.tables.items():
        columns = list(table_columns(job, name, encoders.KINDS[type(table)], train).values())
        tell = telling(f"table {name}: {columns[0].what} read", len(columns) * _count(train, rows))
        known[name] = growth.learn(job, name, columns, rows, threads, tell)
    return _opened(job, known, *_part(job, parts, part), part)


def parts_of(job: Job) -> Parts:
    """Return the parts of the data of a job; of interactions, the training rows alone, those that are judged on left out."""
    if isinstance(job.head, RetrievalHead):
        return Parts(open_interactions(job, judge=False).train, None, None)
    return open_parts(job, {})


def order_of(job: Job, parts: Parts) -> Order:
    """Return which of the training rows are split off for validation."""
    split = parts.validation is None and not isinstance(job.head, RetrievalHead)
    return Order(parts.train.num_rows, job.data.validation_fraction if split else 0.0, job.seed)


def _part(job: Job, parts: Parts, part: str) -> tuple[pa.Table, np.ndarray | None]:
    order = order_of(job, parts)
    split = order.validation_rows(0, order.validation_size) if order.validation_size else None
    if part == "train":
        return parts.train, None if split is None else np.delete(np.arange(parts.train.num_rows), split)
    if part == "validation" and parts.validation is None and split is not None:
        return parts.train, np.sort(split)
    table = parts.validation if part == "validation" else parts.test
    if table is None and isinstance(job.head, RetrievalHead):
        raise UserError(f"part={part} of interactions cannot be looked at; use part=train")
    if table is None:
        raise UserError(f"the data has no {part} part; use part=train, or name one with data.{part}=NAME")
    return table, None


def _opened(job: Job, known: dict[str, Encoder], table: pa.Table, index: np.ndarray | None, part: str) -> Opened:
    columns = {}
    for name, encoder in known.items():
        found = table_columns(job, name, type(encoder), table)
        for feature, column in found.items():
            encoder.check(column, feature, name, f"{part} part")
        columns[name] = list(found.values())
    return Opened(known, columns, index, _count(table, index), job.runtime.threads or available_cores())


def _count(table: pa.Table, index: np.ndarray | None) -> int:
    return table.num_rows if index is None else len(index)
