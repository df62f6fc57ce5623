"""From a job's data to samples: parts opened, labels checked, encoders learned from the training rows (or read back), ids made."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from bigembed import encoders
from bigembed.config.schema import Job
from bigembed.cores import available_cores
from bigembed.data import Parts, open_data, open_part
from bigembed.data.labels import check_labels
from bigembed.data.order import Order
from bigembed.encoders import Column, Encoder
from bigembed.errors import UserError
from bigembed.examples import Examples, Once, alone, open_examples
from bigembed.files import replace
from bigembed.report import say, telling
from bigembed.run import DATA, ENCODERS


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
    """

    order: Order
    encoders: dict[str, Encoder]
    train: Examples
    validation: Part | None
    test: Part | None


def prepare(job: Job, folder: Path, once: Once = alone) -> Prepared:
    """Return the data of ``job``; what is learned from it is kept in the run's ``folder``, or read back from there.

    ``once`` makes what the processes of a host share.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    threads = job.runtime.threads or available_cores()  # of the host: while one process works here, the others wait
    parts, order, labels = _open(job)
    _check_same(job, folder, _named(parts), labels)
    known = _learned(job, folder / ENCODERS, parts.train, order, threads)
    train = open_examples(job, known, parts.train, labels["train"], "train part")
    validation, test = _judged(job, parts, order, known, labels, train)
    train.cache(job.data.cache_mib << 20, threads, once)
    return Prepared(order, known, train, validation, test)


def prepare_judged(job: Job, folder: Path) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run, and the parts that it is judged on by name: validation and test, where there are any.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    parts, order, labels = _open(job)
    known = load_encoders(job, folder / ENCODERS)
    train = open_examples(job, known, parts.train, labels["train"], "train part")
    validation, test = _judged(job, parts, order, known, labels, train)
    return known, {name: part for name, part in (("validation", validation), ("test", test)) if part is not None}


def prepare_other(job: Job, folder: Path) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run, and the test part of data that the run was not trained on.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    table = open_part(job.data, "test", columns_of(job), [job.head.label], say)
    labels = check_labels(table, job.head.label, job.head.classes, "test")  # type: ignore[attr-defined]
    known = load_encoders(job, folder / ENCODERS)
    return known, {"test": _whole(open_examples(job, known, table, labels, "test part"))}


def columns_of(job: Job) -> dict[str, pa.DataType]:
    """Return the columns that the features read, and what ``open_data`` is to be asked for in each."""
    return {name: kind.reads for name, kind in _kinds(job).items()}


def load_encoders(job: Job, folder: Path) -> dict[str, Encoder]:
    """Return the encoders of every table of a run, as kept in its ``folder``.

    Raises
    ------
    UserError
        When one is missing or damaged.
    """
    return {name: encoders.load(table, folder / name) for name, table in job.tables.items()}


def _open(job: Job) -> tuple[Parts, Order, dict[str, np.ndarray]]:
    """Open the data and check the labels of every part."""
    parts = open_data(job.data, columns_of(job), [job.head.label], say)
    classes = job.head.classes  # type: ignore[attr-defined]
    there = _named(parts)
    for name, table in there.items():
        _tell_empty(f"{name} part", _columns(job, table))
    labels = {name: check_labels(table, job.head.label, classes, name) for name, table in there.items()}
    fraction = 0.0 if parts.validation is not None else job.data.validation_fraction
    return parts, Order(parts.train.num_rows, fraction, job.seed), labels


def _named(parts: Parts) -> dict[str, pa.Table]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: table for name, table in named.items() if table is not None}


def _kinds(job: Job) -> dict[str, type[Encoder]]:
    """Return the columns that the features read, with the kind of encoder that reads each."""
    return {feature.column: encoders.KINDS[type(job.tables[feature.table])] for feature in job.features.values()}


def _columns(job: Job, table: pa.Table) -> list[Column]:
    return [kind.open(table[name], name) for name, kind in _kinds(job).items()]


def _tell_empty(part: str, columns: list[Column]) -> None:
    """Warn of empty texts and lists: they are no error, but nothing can be told from them."""
    for column in columns:
        count = column.empty()
        if count:
            say(
                f"warning: {count:,} of {len(column):,} {column.what} in column '{column.name}' of the {part} are empty"
            )


def _judged(
    job: Job, parts: Parts, order: Order, known: dict[str, Encoder], labels: dict[str, np.ndarray], train: Examples
) -> tuple[Part | None, Part | None]:
    """Return the validation part (of its own, or rows of ``train``, whose ids it then shares) and the test part."""
    validation = test = None
    if parts.validation is not None:
        validation = _whole(open_examples(job, known, parts.validation, labels["validation"], "validation part"))
    elif order.validation_size:
        validation = Part(train, order.validation_rows(0, order.validation_size))
    if parts.test is not None:
        test = _whole(open_examples(job, known, parts.test, labels["test"], "test part"))
    return validation, test


def _learned(job: Job, folder: Path, train: pa.Table, order: Order, threads: int) -> dict[str, Encoder]:
    """Learn what is not kept in ``folder`` yet, from the training rows alone; a continued run finds everything there."""
    rows = (
        np.delete(np.arange(train.num_rows), order.validation_rows(0, order.validation_size))
        if order.validation_size
        else None
    )
    for name, table in job.tables.items():
        if not (folder / name).exists():
            names = sorted({feature.column for feature in job.features.values() if feature.table == name})
            columns = [encoders.KINDS[type(table)].open(train[column], column) for column in names]
            tell = telling(f"table {name}: texts read", len(columns) * order.train_size)
            encoder = encoders.build(name, table, columns, index=rows, threads=threads, progress=tell)
            encoders.save(encoder, folder / name)
    known = load_encoders(job, folder)
    for name, encoder in known.items():
        say(f"table {name}: {encoder.rows:,} rows × {job.tables[name].dim}")
    return known


def _whole(examples: Examples) -> Part:
    assert examples.labels is not None
    return Part(examples, np.arange(len(examples.labels)))


def _check_same(job: Job, folder: Path, parts: dict[str, pa.Table], labels: dict[str, np.ndarray]) -> None:
    """Keep a fingerprint of the data with a new run; refuse other data in a continued one.

    Raises
    ------
    UserError
        Naming the parts that changed.
    """
    now = {name: _fingerprint(_columns(job, table), labels[name]) for name, table in parts.items()}
    path = folder / DATA
    if not path.exists():
        replace(path, json.dumps(now, indent=1).encode())
        return
    try:
        then = dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise UserError(
            f"{path} is damaged, so it cannot be told whether the data is still the same; begin a new run"
        ) from None
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if changed:
        raise UserError(
            f"the data is not what the run began with (changed: {', '.join(changed)}); put it back, or begin a new run"
        )


def _fingerprint(columns: list[Column], labels: np.ndarray) -> str:
    """Return the XXH3 checksum of labels and features' values, whatever pieces and types of numbers they lie in."""
    digest = xxhash.xxh3_128(np.ascontiguousarray(labels).data)
    for column in columns:
        lengths, contents = xxhash.xxh3_128(), xxhash.xxh3_128()
        for sizes, pieces in column.contents():
            lengths.update(sizes.data)
            for piece in pieces:
                contents.update(piece)
        digest.update(lengths.digest() + contents.digest())
    return digest.hexdigest()
