"""From values to rows of a table, without torch: ``columns`` reaches them, ``encoder`` is the contract, then a file a kind."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    HashedTable,
    IdsTable,
    ManagedTable,
    MixedTable,
    SubwordTable,
    TableConfig,
    TokenizerTable,
    VocabTable,
)
from bigembed.encoders import store
from bigembed.encoders.bucketized import BucketizedEncoder
from bigembed.encoders.columns import Column
from bigembed.encoders.compositional import CompositionalEncoder
from bigembed.encoders.encoder import Encoded, Encoder, Ids, encode_all, from_arrays, to_arrays
from bigembed.encoders.hashed import HashedEncoder
from bigembed.encoders.ids import IdsColumn, IdsEncoder
from bigembed.encoders.managed import ManagedEncoder
from bigembed.encoders.mixed import MixedEncoder
from bigembed.encoders.numbers import NumberColumn, Scale, learn_scale
from bigembed.encoders.subword import SubwordEncoder
from bigembed.encoders.text import TextColumn, tokenize
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.values import Crossed
from bigembed.encoders.vocab import VocabEncoder
from bigembed.encoders.weights import Weights, open_weights

__all__ = [
    "KINDS",
    "Column",
    "CompositionalEncoder",
    "Crossed",
    "Encoded",
    "Encoder",
    "HashedEncoder",
    "Ids",
    "IdsColumn",
    "IdsEncoder",
    "NumberColumn",
    "Scale",
    "TextColumn",
    "VocabEncoder",
    "Weights",
    "build",
    "encode_all",
    "from_arrays",
    "learn_scale",
    "load",
    "open_weights",
    "save",
    "to_arrays",
    "tokenize",
]

KINDS: dict[type[TableConfig], type[Encoder]] = {
    VocabTable: VocabEncoder,
    HashedTable: HashedEncoder,
    IdsTable: IdsEncoder,
    CompositionalTable: CompositionalEncoder,
    SubwordTable: SubwordEncoder,
    TokenizerTable: TokenizerEncoder,
    BucketizedTable: BucketizedEncoder,
    MixedTable: MixedEncoder,
    ManagedTable: ManagedEncoder,
}
"""The encoder of each kind of table."""


def build(
    name: str,
    config: TableConfig,
    columns: Sequence[Column],
    index: np.ndarray | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Encoder:
    """Make the encoder of a new table, learning from the columns what there is to learn.

    Parameters
    ----------
    name : str
        Name of the table, for messages.
    config : TableConfig
        Its options.
    columns : sequence of Column
        All columns that are looked up in the table.
    index : ndarray, shape (rows,), int64, optional
        The rows of each column to learn from, the training part; by default all.
    threads : int
        Threads to use; the result does not depend on it.
    progress : callable, optional
        Called with the number of rows done, after every few megabytes.

    Returns
    -------
    Encoder

    Raises
    ------
    UserError
        The vocabulary would be empty or too large, or the options contradict each other.
    """
    return KINDS[type(config)].learn(name, config, columns, index, threads, progress)


def save(encoder: Encoder, path: Path) -> None:
    """Write the encoder to a file, for ``load``: its words and counts, and what else decides the ids.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    words, counts = encoder.words(), encoder.counts()
    if words is None or counts is None:
        words, counts = pa.array([], pa.string()), np.empty(0, np.int64)
    store.write(Path(path), _settings(type(encoder), encoder.config), encoder.learned, words, counts)


def load(config: TableConfig, path: Path) -> Encoder:
    """Return the encoder that ``save`` wrote, for a table of the same options.

    Raises
    ------
    UserError
        The file cannot be read, is damaged, or was written for a table that gives other ids: the message says in what
        it differs.
    """
    kind = KINDS[type(config)]
    return kind.restore(config, *store.read(Path(path), _settings(kind, config)))


def _settings(kind: type[Encoder], config: Any) -> dict[str, Any]:
    return {"kind": kind.kind, **kind.settings_of(config)}
