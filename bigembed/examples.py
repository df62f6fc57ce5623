"""The samples of a data part: rows of an Arrow table as ids and labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from bigembed.config.schema import Job
from bigembed.encoders import Column, Encoded, Encoder, encode_all
from bigembed.ragged import Ragged
from bigembed.report import telling

Arrays = list[np.ndarray]
Once = Callable[[str, Callable[[], Arrays | None]], Arrays | None]


@dataclass(slots=True)
class Feature:
    """A column of a data part and the encoder that makes its values ids."""

    name: str
    encoder: Encoder
    column: Column
    cached: Encoded | None = None

    def encode(self, rows: np.ndarray) -> Encoded:
        """Return the ids of ``rows``, from memory where they were kept."""
        if self.cached is None:
            return self.encoder.encode(self.column, rows)
        return Encoded(self.cached.ids.take(rows), self.cached.tokens[rows])


@dataclass(slots=True)
class Examples:
    """The samples of a data part: features, and labels where there are any (int64, one a row)."""

    features: list[Feature]
    labels: np.ndarray | None = None

    def cache(self, limit: int, threads: int, once: Once) -> None:
        """Encode every row now and keep the ids, if those of all features fit into ``limit`` bytes.

        Columns that hold the ids themselves are read where they lie. The processes of a host share what ``once`` makes.
        """
        features = [feature for feature in self.features if not feature.encoder.copies]
        arrays = once("ids", partial(_encoded, features, limit, threads))
        if arrays is None:
            return
        for number, feature in enumerate(features):
            values, offsets, tokens = arrays[3 * number : 3 * number + 3]
            feature.cached = Encoded(Ragged(values, offsets), tokens)

    def encode(self, rows: np.ndarray) -> list[Encoded]:
        """Return the ids of ``rows`` (int64), one entry a feature."""
        return [feature.encode(rows) for feature in self.features]


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
        arrays += [encoded.ids.values, encoded.ids.offsets, encoded.tokens]
        limit -= encoded.ids.values.nbytes + encoded.ids.offsets.nbytes
    return arrays


def open_examples(
    job: Job, encoders: dict[str, Encoder], table: pa.Table, labels: np.ndarray | None, part: str
) -> Examples:
    """Return the samples of ``table``, which messages call ``part``: every feature's column with the encoder of its table.

    Raises
    ------
    UserError
        When a column is not of the type that its table reads, or holds nulls, or values that its table has no row for.
    """
    features = []
    for name, feature in job.features.items():
        encoder = encoders[feature.table]
        column = encoder.open(table[feature.column], feature.column)
        encoder.check(column, name, feature.table, part)
        features.append(Feature(name, encoder, column))
    return Examples(features, labels)
