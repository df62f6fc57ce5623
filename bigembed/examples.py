"""The samples of a data part: rows of an Arrow table as ids and labels."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bigembed.config.schema import Job
from bigembed.encoders import Encoded, Encoder, TextColumn, encode_all
from bigembed.report import telling


@dataclass(slots=True)
class Feature:
    """A column of a data part and the encoder that makes its values ids."""

    name: str
    encoder: Encoder
    column: TextColumn
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

    def cache(self, limit: int, threads: int) -> None:
        """Encode every row now and keep the ids, if those of all features fit into ``limit`` bytes."""
        kept: list[Encoded] = []
        for feature in self.features:
            tell = telling(f"feature {feature.name}: texts encoded", len(feature.column))
            encoded = encode_all(feature.encoder, feature.column, threads=threads, limit=limit, progress=tell)
            if encoded is None:
                return
            kept.append(encoded)
            limit -= encoded.ids.values.nbytes + encoded.ids.offsets.nbytes
        for feature, encoded in zip(self.features, kept, strict=True):
            feature.cached = encoded

    def encode(self, rows: np.ndarray) -> list[Encoded]:
        """Return the ids of ``rows`` (int64), one entry a feature."""
        return [feature.encode(rows) for feature in self.features]


def open_examples(job: Job, encoders: dict[str, Encoder], table: pa.Table, labels: np.ndarray | None) -> Examples:
    """Return the samples of ``table``: every feature's column with the encoder of its table.

    Raises
    ------
    UserError
        When a column is not text, or holds nulls.
    """
    features = [
        Feature(name, encoders[feature.table], TextColumn(table[feature.column], feature.column))
        for name, feature in job.features.items()
    ]
    return Examples(features, labels)
