"""The vectors of words in tables where these are more than a row: put together from a checkpoint's arrays, without torch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file

from bigembed.admission import rows_of
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import (
    Combine,
    CompositionalTable,
    HashedTable,
    Job,
    ManagedTable,
    MixedTable,
    SubwordTable,
    TableConfig,
)
from bigembed.encoders import CompositionalEncoder, Encoded, Encoder, Ids, VocabEncoder
from bigembed.encoders.values import NUMBERS, hashes_of
from bigembed.errors import UserError
from bigembed.ragged import Ragged
from bigembed.run import read_array


class Composed:
    """The vectors of words, indexed like an array of shape (words, dim), each put together when it is asked for.

    Parameters
    ----------
    job, name : Job, str
        The configuration, and the table.
    checkpoint : Path
        Where its arrays are.
    encode : callable
        Returns the words of some numbers as the elements, one each, of samples.
    words : int
        How many there are.
    """

    def __init__(
        self, job: Job, name: str, checkpoint: Path, encode: Callable[[np.ndarray], Encoded], words: int
    ) -> None:
        self.table = job.tables[name]
        self.shape = (words, self.table.dim)
        self._encode = encode
        self._arrays = [
            read_array(checkpoint / "tables" / f"{part_name(name, part)}.weight.npy") for part in parts(self.table)
        ]
        self._projections = _projections(name, self.table, checkpoint)

    def __len__(self) -> int:
        """Return the number of words."""
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the vectors of some words, shape (rows, dim), float32."""
        index = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
        return compose(self.table, self._encode(index), self._arrays, self._projections)


def is_composed(table: TableConfig) -> bool:
    """Whether a word's vector is anything else than one row of the only table."""
    own = parts(table)
    return (
        isinstance(table, ManagedTable)
        or len(own) > 1
        or own[0].per_element != 1
        or (isinstance(table, HashedTable) and table.sign)
    )


def composed(job: Job, name: str, checkpoint: Path, encoder: Encoder, words: pa.StringArray) -> Composed:
    """Return the vectors of words, or of values that somebody typed, in a table of a run.

    Raises
    ------
    UserError
        A word is none, as the table cuts texts.
    """
    if isinstance(encoder, VocabEncoder) and words is encoder.words():  # known as they stand, however texts are cut
        hashes = hashes_of(words, encoder.learned["values"])
        return Composed(job, name, checkpoint, partial(_of_hashes, encoder, hashes), len(words))
    managed = isinstance(job.tables[name], ManagedTable)
    residents = np.asarray(read_array(checkpoint / "tables" / f"{name}.ids.npy")) if managed else None
    numbers = encoder.learned.get("values") == NUMBERS
    column = encoder.open(encoder.from_texts(words.to_pylist(), "word {}".format) if numbers else words, "words")

    if isinstance(encoder, CompositionalEncoder):
        encoder.check_values(column, words)

    def encode(index: np.ndarray) -> Encoded:
        encoded = encoder.encode(column, index)
        wrong = np.flatnonzero(encoded.tokens != 1)
        if len(wrong):
            raise UserError(
                f"'{words[int(index[wrong[0]])]}' is {encoded.tokens[wrong[0]]} tokens as table '{name}' cuts texts; give words "
                "that are one"
            )
        vocabulary = isinstance(encoder, VocabEncoder)
        unknown = np.flatnonzero(encoded.parts[-1].rows.values == 0) if vocabulary else np.empty(0, np.int64)
        if len(unknown):
            which = index[np.searchsorted(encoded.parts[-1].rows.offsets, unknown[0], "right") - 1]
            raise UserError(f"'{words[int(which)]}' is not in the vocabulary of table '{name}'; take it out")
        return encoded if residents is None else _in_rows(encoded, residents)

    return Composed(job, name, checkpoint, encode, len(words))


def of_texts(
    job: Job, name: str, checkpoint: Path, encoder: Encoder, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of texts in a table of a run: the mean of those of their elements, as the table cuts them.

    Returns
    -------
    vectors : ndarray, shape (texts, dim), float32
        Zeros for a text without elements.
    elements : ndarray, shape (texts,), int64
        How many elements (words, n-grams, pieces, values) each text has.

    Raises
    ------
    UserError
        A text is no value of the table.
    """
    table = job.tables[name]
    column = encoder.open(encoder.from_texts(texts, "text {}".format), "texts")
    encoded = encoder.encode(column, np.arange(len(texts)))
    if isinstance(table, ManagedTable):
        encoded = _in_rows(encoded, np.asarray(read_array(checkpoint / "tables" / f"{name}.ids.npy")))
    elements, counts = _one_by_one(table, encoded)
    vectors = Composed(job, name, checkpoint, elements.take, int(counts.sum()))[:]
    sums = _sums(vectors, np.concatenate([[0], np.cumsum(counts)]))
    return sums / np.maximum(counts, 1).astype(np.float32)[:, None], counts


def _one_by_one(table: TableConfig, encoded: Encoded) -> tuple[Encoded, np.ndarray]:
    """Return the elements of samples as samples of their own, and how many each sample had (int64)."""
    found, counts = [], np.zeros(len(encoded.tokens), np.int64)
    for part, ids in zip(parts(table), encoded.parts, strict=True):
        if ids.sizes is None:
            counts = ids.rows.lengths // part.per_element
            offsets = np.arange(0, len(ids.rows.values) + 1, part.per_element)
        else:
            counts = ids.sizes.lengths
            offsets = np.concatenate([[0], np.cumsum(ids.sizes.values, dtype=np.int64)])
        found.append(Ids(Ragged(ids.rows.values, offsets)))
    signs = None if encoded.signs is None else Ragged(encoded.signs.values, found[0].rows.offsets)
    return Encoded(tuple(found), np.ones(int(counts.sum()), np.int32), signs), counts


def _in_rows(encoded: Encoded, residents: np.ndarray) -> Encoded:
    """Return values of a managed table as the rows that they have."""
    rows = rows_of(encoded.ids.values, residents, 0, len(residents))
    return Encoded((Ids(Ragged(rows, encoded.ids.offsets)),), encoded.tokens)


def _of_hashes(encoder: VocabEncoder, hashes: np.ndarray, index: np.ndarray) -> Encoded:
    return encoder.encode_hashes(Ragged(hashes[index], np.arange(len(index) + 1)), np.int64)


def compose(
    table: TableConfig, encoded: Encoded, arrays: Sequence[np.ndarray], projections: Mapping[int, np.ndarray]
) -> np.ndarray:
    """Return the vectors of elements from the rows of their parts, as ``composition`` puts them together in training.

    Parameters
    ----------
    table : TableConfig
        The table.
    encoded : Encoded
        Samples of one element each.
    arrays : sequence of ndarray, shape (rows, width)
        The rows of every part.
    projections : mapping of int to ndarray, shape (dim, width)
        The matrices of the parts that are projected.

    Returns
    -------
    ndarray, shape (elements, dim), float32
    """
    found = []
    for number, (ids, array) in enumerate(zip(encoded.parts, arrays, strict=True)):
        rows = np.asarray(array[ids.rows.values], np.float32)
        if number == 0 and encoded.signs is not None:
            rows = rows * encoded.signs.values[:, None]
        found.append((rows, ids.rows.offsets))
    if isinstance(table, HashedTable) and table.importance is not None:
        (rows, offsets), (importance, _) = found
        return _sums(rows * importance[:, : table.functions].reshape(-1, 1), offsets)
    vectors = [_sums(rows, offsets) for rows, offsets in found]
    if isinstance(table, SubwordTable):
        return vectors[0] / np.maximum(np.diff(found[0][1]), 1)[:, None]
    if isinstance(table, MixedTable):
        vectors = [each @ projections[i].T if i in projections else each for i, each in enumerate(vectors)]
    if isinstance(table, CompositionalTable) and table.combine is Combine.concat:
        return np.concatenate(vectors, 1)
    multiplied = isinstance(table, CompositionalTable) and table.combine is Combine.mult
    return np.asarray((np.prod if multiplied else np.sum)(vectors, axis=0), np.float32)


def _sums(rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the sum of the rows of every sample; zeros where it has none."""
    sums = np.zeros((len(offsets) - 1, rows.shape[1]), np.float32)
    there = np.flatnonzero(np.diff(offsets))
    if len(there):
        sums[there] = np.add.reduceat(rows, offsets[there])
    return sums


def _projections(name: str, table: TableConfig, checkpoint: Path) -> dict[int, np.ndarray]:
    if not isinstance(table, MixedTable):
        return {}
    prefix = f"model.composition.projections.{name}."
    tensors = load_file(checkpoint / "dense.safetensors")
    return {
        int(key.removeprefix(prefix).partition(".")[0]): each for key, each in tensors.items() if key.startswith(prefix)
    }
