"""From a job's data to samples: parts opened, labels checked, encoders learned from the training rows (or read back), ids made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed import encoders
from bigembed.config.schema import Job
from bigembed.data import Parts, open_data
from bigembed.data.labels import check_labels
from bigembed.data.order import Order
from bigembed.encoders import Encoder, TextColumn
from bigembed.errors import UserError
from bigembed.examples import Examples, open_examples


@dataclass(slots=True)
class Part:
    """Samples, and which of their rows count."""

    examples: Examples
    rows: np.ndarray


@dataclass(slots=True)
class Prepared:
    """The data of a job, ready to be made into batches.

    Attributes
    ----------
    order : Order
        Which training row comes when.
    encoders : dict of str to Encoder
        By table name.
    train : Examples
        All training rows, those of a validation part split off among them.
    validation, test : Part or None
        What the choices are made on, and what is looked at once.
    fingerprint : dict of str to int
        Numbers that change when the data does; a continued run compares them.
    """

    order: Order
    encoders: dict[str, Encoder]
    train: Examples
    validation: Part | None
    test: Part | None
    fingerprint: dict[str, int]


def prepare(job: Job, folder: Path, threads: int, say: Callable[[str], None]) -> Prepared:
    """Return the data of ``job``; its encoders are read from ``folder``, or learned and kept there.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    parts = open_data(job.data, text_columns(job), [job.head.label])
    fraction = 0.0 if parts.validation is not None else job.data.validation_fraction
    order = Order(parts.train.num_rows, fraction, job.seed)
    labels = {name: check_labels(table, job.head.label, job.head.classes, name) for name, table in _tables(parts).items()}
    known = _encoders(job, folder, parts.train, order, threads, say)
    train = open_examples(job, known, parts.train, labels["train"])
    validation = test = None
    if parts.validation is not None:
        validation = _whole(open_examples(job, known, parts.validation, labels["validation"]))
    elif order.validation_size:
        validation = Part(train, order.validation_rows(0, order.validation_size))
    if parts.test is not None:
        test = _whole(open_examples(job, known, parts.test, labels["test"]))
    train.cache(job.data.cache_mib << 20, threads)
    return Prepared(order, known, train, validation, test, _fingerprint(job, parts.train))


def text_columns(job: Job) -> list[str]:
    """Return the columns that the features read, each once."""
    return list(dict.fromkeys(feature.column for feature in job.features.values()))


def load_encoders(job: Job, folder: Path) -> dict[str, Encoder]:
    """Return the encoders of every table of a run, as kept in its ``folder``.

    Raises
    ------
    UserError
        When one is missing or damaged.
    """
    return {name: encoders.load(table, folder / name) for name, table in job.tables.items()}


def _encoders(
    job: Job, folder: Path, train: pa.Table, order: Order, threads: int, say: Callable[[str], None]
) -> dict[str, Encoder]:
    """Learn what is not kept in ``folder`` yet; a continued run finds everything there."""
    known = {}
    for name, table in job.tables.items():
        path = folder / name
        if not path.exists():
            columns = {feature.column for feature in job.features.values() if feature.table == name}
            texts = [TextColumn(train[column], column) for column in sorted(columns)]
            encoder = encoders.build(name, table, texts, leave_out=order.validation_rows(0, order.validation_size), threads=threads)
            try:
                encoders.save(encoder, path)
            except OSError as error:
                raise UserError(f"{path} cannot be written: {error.strerror}") from None
        known[name] = encoders.load(table, path)
        say(f"table {name}: {known[name].rows:,} rows × {table.dim}")
    return known


def _tables(parts: Parts) -> dict[str, pa.Table]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: table for name, table in named.items() if table is not None}


def _whole(examples: Examples) -> Part:
    assert examples.labels is not None
    return Part(examples, np.arange(len(examples.labels)))


def _fingerprint(job: Job, train: pa.Table) -> dict[str, int]:
    return {"rows": train.num_rows, **{f"bytes of {column}": train[column].nbytes for column in text_columns(job)}}
