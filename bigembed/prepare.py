"""From a job's data to samples: parts opened, labels checked, encoders learned from the training rows (or read back), ids made."""

import json
from collections.abc import Iterator
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
from bigembed.encoders import Encoder, TextColumn
from bigembed.errors import UserError
from bigembed.examples import Examples, open_examples
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


def prepare(job: Job, folder: Path) -> Prepared:
    """Return the data of ``job``; what is learned from it is kept in the run's ``folder``, or read back from there.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    threads = job.runtime.threads or available_cores()
    parts, order, labels = _open(job)
    _check_same(folder, _named(parts), labels)
    known = _learned(job, folder / ENCODERS, parts.train, order, threads)
    train = open_examples(job, known, parts.train, labels["train"])
    validation, test = _judged(job, parts, order, known, labels, train)
    train.cache(job.data.cache_mib << 20, threads)
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
    train = open_examples(job, known, parts.train, labels["train"])
    validation, test = _judged(job, parts, order, known, labels, train)
    return known, {name: part for name, part in (("validation", validation), ("test", test)) if part is not None}


def prepare_other(job: Job, folder: Path) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run, and the test part of data that the run was not trained on.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    table = open_part(job.data, "test", text_columns(job), [job.head.label], say)
    labels = check_labels(table, job.head.label, job.head.classes, "test")  # type: ignore[attr-defined]
    known = load_encoders(job, folder / ENCODERS)
    return known, {"test": _whole(open_examples(job, known, table, labels))}


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


def _open(job: Job) -> tuple[Parts, Order, dict[str, np.ndarray]]:
    """Open the data and check the labels of every part."""
    parts = open_data(job.data, text_columns(job), [job.head.label], say)
    classes = job.head.classes  # type: ignore[attr-defined]
    there = _named(parts)
    for name, table in there.items():
        _tell_empty(name, table, text_columns(job))
    labels = {name: check_labels(table, job.head.label, classes, name) for name, table in there.items()}
    fraction = 0.0 if parts.validation is not None else job.data.validation_fraction
    return parts, Order(parts.train.num_rows, fraction, job.seed), labels


def _named(parts: Parts) -> dict[str, pa.Table]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: table for name, table in named.items() if table is not None}


def _tell_empty(part: str, table: pa.Table, columns: list[str]) -> None:
    """Warn of empty texts: they are no error, but nothing can be told from them."""
    for column in columns:
        count = sum(int((lengths == 0).sum()) for lengths, _ in _texts(table[column]))
        if count:
            say(f"warning: {count:,} of {table.num_rows:,} texts in column '{column}' of the {part} part are empty")


def _judged(
    job: Job, parts: Parts, order: Order, known: dict[str, Encoder], labels: dict[str, np.ndarray], train: Examples
) -> tuple[Part | None, Part | None]:
    """Return the validation part (of its own, or rows of ``train``, whose ids it then shares) and the test part."""
    validation = test = None
    if parts.validation is not None:
        validation = _whole(open_examples(job, known, parts.validation, labels["validation"]))
    elif order.validation_size:
        validation = Part(train, order.validation_rows(0, order.validation_size))
    if parts.test is not None:
        test = _whole(open_examples(job, known, parts.test, labels["test"]))
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
            columns = sorted({feature.column for feature in job.features.values() if feature.table == name})
            texts = [TextColumn(train[column], column) for column in columns]
            tell = telling(f"table {name}: texts read", len(texts) * order.train_size)
            encoder = encoders.build(name, table, texts, index=rows, threads=threads, progress=tell)
            encoders.save(encoder, folder / name)
    known = load_encoders(job, folder)
    for name, encoder in known.items():
        say(f"table {name}: {encoder.rows:,} rows × {job.tables[name].dim}")
    return known


def _whole(examples: Examples) -> Part:
    assert examples.labels is not None
    return Part(examples, np.arange(len(examples.labels)))


def _check_same(folder: Path, parts: dict[str, pa.Table], labels: dict[str, np.ndarray]) -> None:
    """Keep a fingerprint of the data with a new run; refuse other data in a continued one.

    Raises
    ------
    UserError
        Naming the parts that changed.
    """
    now = {name: _fingerprint(table, labels[name]) for name, table in parts.items()}
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


def _fingerprint(table: pa.Table, labels: np.ndarray) -> str:
    """Return the XXH3 checksum of labels and texts, whatever pieces they lie in."""
    digest = xxhash.xxh3_128(np.ascontiguousarray(labels).data)
    for name in table.column_names:
        for lengths, content in _texts(table[name]):
            digest.update(lengths.data)
            digest.update(content)
    return digest.hexdigest()


def _texts(column: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, memoryview]]:
    """Yield lengths (int64) and bytes of the texts of every piece of a column; nothing for one of other types."""
    for chunk in column.chunks:
        large = pa.types.is_large_string(chunk.type)
        if len(chunk) and (large or pa.types.is_string(chunk.type)):
            _, ends, content = chunk.buffers()
            offsets = np.frombuffer(ends, np.int64 if large else np.int32)[chunk.offset :][: len(chunk) + 1]
            yield np.diff(offsets).astype(np.int64), memoryview(content or b"")[int(offsets[0]) : int(offsets[-1])]
