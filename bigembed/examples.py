"""The samples of a data part: rows of an Arrow table as ids and labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from bigembed.config.physical import part_name, parts
from bigembed.config.schema import FeatureConfig, Job, Of
from bigembed.encoders import (
    Column,
    Crossed,
    Encoded,
    Encoder,
    Scale,
    Weights,
    encode_all,
    from_arrays,
    open_weights,
    to_arrays,
)
from bigembed.pairs import Pairs
from bigembed.report import telling

Arrays = list[np.ndarray]
Once = Callable[[str, Callable[[], Arrays | None]], Arrays | None]


@dataclass(slots=True)
class Feature:
    """A column of a data part and the encoder that makes its values ids; and the column of their weights, where there is one."""

    name: str
    encoder: Encoder
    column: Column
    weights: Weights | None = None
    cached: Encoded | None = None

    def encode(self, rows: np.ndarray) -> Encoded:
        """Return the ids of ``rows``, from memory where they were kept."""
        return self.encoder.encode(self.column, rows) if self.cached is None else self.cached.take(rows)


@dataclass(slots=True)
class Examples:
    """The samples of a data part: features, and labels where there are any (int64, one a row).

    Attributes
    ----------
    job : Job
        The configuration.
    features : list of Feature
        In the order of the job's.
    labels : ndarray, shape (rows,), int64, or shape (rows, labels), float32, or None
        One a row; for ranking heads one or more.
    numbers : dict of Of to ndarray, shape (rows, numbers), float32
        Dense features, as the head takes them: those of samples, of users, of items; zeros in the columns of the others.
    groups : ndarray, shape (rows,), int64, or None
        For figures by group: which rows belong together.
    pairs : Pairs or None
        The interactions of a retrieval job; its samples are these, and features are of users and items.
    """

    job: Job
    features: list[Feature]
    labels: np.ndarray | None
    numbers: dict[Of, np.ndarray]
    groups: np.ndarray | None = None
    pairs: Pairs | None = None

    def cache(self, limit: int, threads: int, once: Once) -> None:
        """Encode every row now and keep the ids, if those of all features fit into ``limit`` bytes.

        Columns that hold the ids themselves are read where they lie, and what several features look up is encoded once. The processes
        of a host share what ``once`` makes.
        """
        alike: dict[tuple[str, ...], list[Feature]] = {}
        for feature in self.features:
            if not feature.encoder.copies:
                config = self.job.features[feature.name]
                alike.setdefault((config.of.name, config.table, config.column, *config.crossed_with), []).append(
                    feature
                )
        arrays = once("ids", partial(_encoded, [features[0] for features in alike.values()], limit, threads))
        if arrays is None:
            return
        waiting = iter(arrays)
        for features in alike.values():
            cached = from_arrays(waiting)
            for feature in features:
                feature.cached = cached

    def encode(self, rows: np.ndarray, others: np.ndarray | None = None) -> list[Encoded]:
        """Return the ids of ``rows`` (int64), one entry a feature; of ``others`` for features of another row (default: the next ones)."""
        return [feature.encode(self.rows_of(feature, rows, others)) for feature in self.features]

    def rows_of(self, feature: Feature, rows: np.ndarray, others: np.ndarray | None) -> np.ndarray:
        """Return which rows (int64) a feature has the values of in a batch of ``rows``: these, or for each another one."""
        if not self.job.features[feature.name].of_another:
            return rows
        return np.roll(rows, -1) if others is None else others


def alone(name: str, make: Callable[[], Arrays | None]) -> Arrays | None:
    """Make what a process without others on its host shares with nobody."""
    return make()


def _encoded(features: list[Feature], limit: int, threads: int) -> Arrays | None:
    """Return values, offsets and tokens of every feature; None where they do not fit into ``limit`` bytes."""
    arrays: Arrays = []
    for feature in features:
        tell = telling(f"feature {feature.name}: texts encoded", len(feature.column))
        encoded = encode_all(feature.encoder, feature.column, threads=threads, limit=limit, progress=tell)
        if encoded is None:
            return None
        arrays += to_arrays(encoded)
        limit -= encoded.nbytes
    return arrays


def open_examples(
    job: Job,
    encoders: dict[str, Encoder],
    scales: dict[str, Scale],
    table: pa.Table,
    labels: np.ndarray | None,
    part: str,
    groups: np.ndarray | None = None,
) -> Examples:
    """Return the samples of ``table``, which messages call ``part``: every feature's column with the encoder of its table.

    Raises
    ------
    UserError
        When a column is not of the type that its table reads, or holds nulls, or values that its table has no row for, or when
        weights are not one for each value.
    """
    features = _features(job, encoders, dict.fromkeys(Of, (table, part)))
    numbers = _numbers(job, scales, table, part, set(Of))
    return Examples(job, features, labels, {Of.sample: numbers}, groups)


def open_pairs(job: Job, encoders: dict[str, Encoder], scales: dict[str, Scale], pairs: Pairs) -> Examples:
    """Return the samples of a retrieval job, whose features are read from the rows of users and items.

    Raises
    ------
    UserError
        As ``open_examples``.
    """
    tables = {Of.user: (pairs.users.table, "table of users"), Of.item: (pairs.items.table, "table of items")}
    numbers = {of: _numbers(job, scales, table, part, {of}) for of, (table, part) in tables.items()}
    return Examples(job, _features(job, encoders, tables), None, numbers, None, pairs)


def _features(job: Job, encoders: dict[str, Encoder], tables: Mapping[Of, tuple[pa.Table, str]]) -> list[Feature]:
    """Return the features, read from the tables of those whose they are."""
    features = []
    for name, feature in job.features.items():
        table, part = tables[feature.of]
        encoder = encoders[feature.table]
        column = open_column(encoder, feature, table)
        encoder.check(column, name, feature.table, part)
        weights = None
        if feature.weights is not None:
            weights = open_weights(table[feature.weights], feature.weights)
            weights.check(encoder, column, name, part)
        features.append(Feature(name, encoder, column, weights))
    return features


def _numbers(job: Job, scales: dict[str, Scale], table: pa.Table, part: str, whose: set[Of]) -> np.ndarray:
    """Return the dense features, shape (rows, numbers), float32; zeros for those of others than ``whose``."""
    numbers = np.zeros((table.num_rows, len(job.numbers)), np.float32)
    for place, (name, number) in enumerate(job.numbers.items()):
        if number.of in whose:
            numbers[:, place] = scales[name].apply(table[number.column], number, part)
    return numbers


def open_column(encoder: Encoder | type[Encoder], feature: FeatureConfig, table: pa.Table) -> Column:
    """Return a feature's column as its table reads it; crossed columns as one."""
    columns = [encoder.open(table[name], name) for name in (feature.column, *feature.crossed_with)]
    return Crossed(columns, " × ".join(column.name for column in columns)) if len(columns) > 1 else columns[0]


def table_columns(job: Job, name: str, kind: type[Encoder], table: pa.Table) -> dict[str, Column]:
    """Return the columns that are looked up in a table, each once, by a feature's name, in the order in which they are learned from."""
    features = {
        (each.column, *each.crossed_with): feature for feature, each in job.features.items() if each.table == name
    }
    return {feature: open_column(kind, job.features[feature], table) for _, feature in sorted(features.items())}


def table_rows(job: Job, encoders: Mapping[str, Encoder]) -> dict[str, int]:
    """Return the number of rows of every table of ``config.physical.physical(job)``."""
    return {
        part_name(name, part): rows
        for name, table in job.tables.items()
        for part, rows in zip(parts(table), encoders[name].rows, strict=True)
    }
