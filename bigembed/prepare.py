"""From a job's data to samples: parts opened, labels checked, encoders learned from the training rows (or read back), ids made."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from bigembed import encoders, growth
from bigembed.config.figures import losses_of
from bigembed.config.physical import parts
from bigembed.config.schema import BagHead, Job, RankingHead, RankingLoss, RetrievalHead, TextTable
from bigembed.cores import available_cores
from bigembed.data import Parts
from bigembed.data.labels import check_labels, check_two_classes, codes_of_groups, ranking_labels
from bigembed.data.order import Order
from bigembed.encoders import Column, Encoder, NumberColumn, Scale, Weights, open_weights
from bigembed.encoders.values import NUMBERS as VALUES_ARE_NUMBERS
from bigembed.errors import UserError
from bigembed.examples import Examples, Once, alone, open_examples, open_pairs, table_columns
from bigembed.files import replace
from bigembed.interactions import Cases, save
from bigembed.joining import kept_path, kinds_by_column, open_joined, open_parts
from bigembed.pairs import Interactions, open_interactions, open_other
from bigembed.report import say, telling
from bigembed.run import DATA, ENCODERS, SCALES
from bigembed.wishes import NUMBERS, VALUES


@dataclass(slots=True)
class Part:
    """Samples, and which of their rows count; for retrieval the cases, which these are the numbers of."""

    examples: Examples
    rows: np.ndarray
    cases: Cases | None = None


@dataclass(slots=True)
class Prepared:
    """The data of a job, ready to be made into batches.

    Attributes
    ----------
    order : Order
        Which training row comes when.
    encoders : dict of str to Encoder
        By table name.
    scales : dict of str to Scale
        By name of a dense feature.
    train : Examples
        All training rows, those of a validation part split off among them.
    validation, test : Part or None
        What the choices are made on, and what is looked at once.
    """

    order: Order
    encoders: dict[str, Encoder]
    scales: dict[str, Scale]
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
    if isinstance(job.head, RetrievalHead):
        return _prepare_retrieval(job, folder, once, threads)
    parts, order, labels = _open(job)
    if isinstance(job.head, RankingHead):
        check_two_classes(labels["train"], job.head.labels, losses_of(job.head))
    _check_same(job, folder, _named(parts), labels)
    known, scales = _learned(job, folder / ENCODERS, parts.train, order, threads)
    train = _open_part(job, known, scales, parts.train, labels["train"], "train")
    validation, test = _judged(job, parts, order, train, known, scales, labels)
    train.cache(job.data.cache_mib << 20, threads, once)
    return Prepared(order, known, scales, train, validation, test)


def prepare_judged(job: Job, folder: Path) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run, and the parts that it is judged on by name: validation and test, where there are any.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    if isinstance(job.head, RetrievalHead):
        opened = open_interactions(job)
        return _judged_pairs(job, folder, opened, opened.judged)
    parts, order, labels = _open(job)
    known, scales = load_encoders(job, folder / ENCODERS), load_scales(job, folder / ENCODERS)
    train = _open_part(job, known, scales, parts.train, labels["train"], "train")
    validation, test = _judged(job, parts, order, train, known, scales, labels)
    return known, {name: part for name, part in (("validation", validation), ("test", test)) if part is not None}


def prepare_other(job: Job, trained: Job, folder: Path) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run (``trained``), and the test part of data that it was not trained on.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    if isinstance(job.head, RetrievalHead):
        opened = open_interactions(trained, judge=False)
        return _judged_pairs(job, folder, opened, open_other(job, opened))
    table = open_joined(job, "test", *_also(job))
    labels = _labels(job, table, "test")
    known, scales = load_encoders(job, folder / ENCODERS), load_scales(job, folder / ENCODERS)
    return known, {"test": _whole(_open_part(job, known, scales, table, labels, "test"))}


def load_encoders(job: Job, folder: Path) -> dict[str, Encoder]:
    """Return the encoders of every table of a run, as kept in its ``folder``.

    Raises
    ------
    UserError
        When one is missing or damaged.
    """
    return {name: encoders.load(table, folder / name) for name, table in job.tables.items()}


def load_scales(job: Job, folder: Path) -> dict[str, Scale]:
    """Return how the dense features of a run are scaled, as kept in its ``folder``.

    Raises
    ------
    UserError
        When the file is missing or damaged.
    """
    if not job.numbers:
        return {}
    path = folder / SCALES
    try:
        kept = json.loads(path.read_text())
        return {name: Scale(**kept[name]) for name in job.numbers}
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path} is missing or damaged; take a copy of it, or begin a new run") from None


def _open(job: Job) -> tuple[Parts, Order, dict[str, np.ndarray]]:
    """Open the data and check the labels of every part."""
    parts = open_parts(job, *_also(job))
    there = _named(parts)
    for name, table in there.items():
        _tell_empty(f"{name} part", _columns(job, table))
    labels = {name: _labels(job, table, name) for name, table in there.items()}
    fraction = 0.0 if parts.validation is not None else job.data.validation_fraction
    return parts, Order(parts.train.num_rows, fraction, job.seed), labels


def _also(job: Job) -> tuple[dict[str, pa.DataType], list[str]]:
    """Return the columns that are read beside those of the features, and those of labels that are whole numbers."""
    head = job.head
    if isinstance(head, BagHead):
        return {}, [head.label]
    if not isinstance(head, RankingHead):
        return {}, []
    labels = zip(head.labels, losses_of(head), strict=True)
    binary = [label for label, loss in labels if loss is RankingLoss.binary]
    group = {} if head.group is None else {head.group: VALUES}
    return {**group, **{label: NUMBERS for label in head.labels if label not in binary}}, binary


def _labels(job: Job, table: pa.Table, part: str) -> np.ndarray:
    """Return the labels of a part; without a column of them (an autoencoder) all are 1: the row's own is the right one of two."""
    if isinstance(job.head, RankingHead):
        return ranking_labels(table, job.head.labels, losses_of(job.head), part)
    if isinstance(job.head, BagHead):
        return check_labels(table, job.head.label, job.head.classes, part)
    return np.ones(table.num_rows, np.int64)


def _open_part(
    job: Job, known: dict[str, Encoder], scales: dict[str, Scale], table: pa.Table, labels: np.ndarray, part: str
) -> Examples:
    group = job.head.group if isinstance(job.head, RankingHead) else None
    groups = None if group is None else codes_of_groups(table[group], group, part)
    return open_examples(job, known, scales, table, labels, f"{part} part", groups)


def _named(parts: Parts) -> dict[str, pa.Table]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {name: table for name, table in named.items() if table is not None}


def _columns(job: Job, table: pa.Table) -> list[Column]:
    return [kinds[0].open(table[name], name) for name, kinds in kinds_by_column(job).items()]


def _tell_empty(part: str, columns: list[Column]) -> None:
    """Warn of empty texts and lists: they are no error, but nothing can be told from them."""
    found = [(column, count) for column in columns if (count := column.empty())]
    if len(found) > 1:
        named = ", ".join(f"{count:,} in '{column.name}'" for column, count in found)
        say(f"warning: of the {len(columns[0]):,} values that each column of the {part} has, some are empty: {named}")
    elif found:
        column, count = found[0]
        say(f"warning: {count:,} of {len(column):,} {column.what} in column '{column.name}' of the {part} are empty")


def _judged(
    job: Job,
    parts: Parts,
    order: Order,
    train: Examples,
    known: dict[str, Encoder],
    scales: dict[str, Scale],
    labels: dict[str, np.ndarray],
) -> tuple[Part | None, Part | None]:
    """Return the validation part (of its own, or rows of ``train``, whose ids it then shares) and the test part."""

    def whole(table: pa.Table, name: str) -> Part:
        return _whole(_open_part(job, known, scales, table, labels[name], name))

    validation = test = None
    if parts.validation is not None:
        validation = whole(parts.validation, "validation")
    elif order.validation_size:
        validation = Part(train, order.validation_rows(0, order.validation_size))
    if parts.test is not None:
        test = whole(parts.test, "test")
    return validation, test


def _prepare_retrieval(job: Job, folder: Path, once: Once, threads: int) -> Prepared:
    """As ``prepare``, for a job whose samples are interactions, or the histories of users."""
    opened = open_interactions(job)
    pairs = opened.pairs
    cases = {name: np.concatenate([each.users, each.targets.values]) for name, each in opened.judged.items()}
    now = {"train": _fingerprint(_all_columns(job, opened.train), np.concatenate([pairs.user, pairs.item]))}
    now |= {name: _fingerprint([], values) for name, values in cases.items()}
    _check_fingerprints(folder, now)
    for of, catalogue in opened.catalogues.items():  # by which the run is asked later, be the data there or not
        if not kept_path(folder, of).exists():
            save(catalogue, kept_path(folder, of))
    order = Order(pairs.samples, 0.0, job.seed)
    known, scales = _learned(job, folder / ENCODERS, opened.train, None, threads)
    train = open_pairs(job, known, scales, pairs)
    train.cache(job.data.cache_mib << 20, threads, once)
    parts = {name: Part(train, np.arange(len(each.users)), each) for name, each in opened.judged.items()}
    return Prepared(order, known, scales, train, parts.get("validation"), parts.get("test"))


def _judged_pairs(
    job: Job, folder: Path, opened: Interactions, judged: dict[str, Cases]
) -> tuple[dict[str, Encoder], dict[str, Part]]:
    """Return the encoders of a run, and the cases that it is to be judged on."""
    known, scales = load_encoders(job, folder / ENCODERS), load_scales(job, folder / ENCODERS)
    examples = open_pairs(job, known, scales, opened.pairs)
    return known, {name: Part(examples, np.arange(len(each.users)), each) for name, each in judged.items()}


def _learned(
    job: Job, folder: Path, train: pa.Table, order: Order | None, threads: int
) -> tuple[dict[str, Encoder], dict[str, Scale]]:
    """Learn what is not kept in ``folder`` yet, from the training rows alone; a continued run finds everything there.

    Without an order all rows of ``train`` are training rows.
    """
    rows = None
    if order is not None and order.validation_size:
        rows = np.delete(np.arange(train.num_rows), order.validation_rows(0, order.validation_size))
    count = train.num_rows if rows is None else len(rows)
    for name, table in job.tables.items():
        if not (folder / name).exists():
            columns = list(table_columns(job, name, encoders.KINDS[type(table)], train).values())
            tell = telling(f"table {name}: {columns[0].what} read", len(columns) * count)
            encoders.save(growth.learn(job, name, columns, rows, threads, tell), folder / name)
    if job.numbers and not (folder / SCALES).exists():
        scales = {name: growth.learn_scale_of(job, name, train, rows) for name in job.numbers}
        replace(folder / SCALES, json.dumps({name: asdict(scale) for name, scale in scales.items()}).encode())
    known = load_encoders(job, folder)
    for name, encoder in known.items():
        told = " + ".join(
            f"{count:,} rows × {part.dim}" for count, part in zip(encoder.rows, parts(job.tables[name]), strict=True)
        )
        say(f"table {name}: {told}")
        _tell_runs(job, name, encoder)
    return known, load_scales(job, folder)


def _tell_runs(job: Job, name: str, encoder: Encoder) -> None:
    """Warn of n-grams of values: neighbours in a list are rarely one thing."""
    table = job.tables[name]
    if isinstance(table, TextTable) and table.ngrams > 1 and encoder.learned.get("values") == VALUES_ARE_NUMBERS:
        say(
            f"warning: tables.{name}.ngrams is {table.ngrams}, so that runs of neighbouring numbers are looked up as well; "
            f"set tables.{name}.ngrams=1 to leave them out"
        )


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
    _check_fingerprints(
        folder, {name: _fingerprint(_all_columns(job, table), labels[name]) for name, table in parts.items()}
    )


def _check_fingerprints(folder: Path, now: dict[str, str]) -> None:
    """As ``_check_same``, for fingerprints."""
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


def _fingerprint(columns: Sequence[Column | Weights], labels: np.ndarray) -> str:
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


def _all_columns(job: Job, table: pa.Table) -> list[Column | Weights]:
    """Return the columns of values, then those of weights and of numbers."""
    weights = dict.fromkeys(feature.weights for feature in job.features.values() if feature.weights is not None)
    numbers = dict.fromkeys(number.column for number in job.numbers.values())
    return [
        *_columns(job, table),
        *(open_weights(table[name], name) for name in weights),
        *(NumberColumn(table[name], name) for name in numbers),
    ]
