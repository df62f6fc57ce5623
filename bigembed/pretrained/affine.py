"""What is done to all vectors of a file alike: centred, freed of common directions, projected. From its first vectors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigembed.errors import UserError
from bigembed.pretrained.composing import compose
from bigembed.vectors.source import Source

SAMPLE_WORDS, SAMPLE_BYTES = 1 << 16, 1 << 26
"""How many vectors are looked at: at most the first 65,536, and 64 MiB of them. Files have the frequent words first."""

WIDEST = 2048
"""Vectors of more numbers have no components here: the covariance, and what it is taken apart with, would go over the memory."""

_ONE_THREAD = 1 << 18  # multiplications of a product up to which OpenBLAS takes no second thread (its interface/gemm.c)

_BLOCK_BYTES = 1 << 22  # of numbers of 64 bits, multiplied at once


@dataclass(frozen=True, slots=True)
class Affine:
    """The map x → (x - mean)(I - U Uᵀ)V, in 32 bits, of which any part may be missing.

    It commutes with means, so that what is composed of several rows may be mapped before or after.

    Attributes
    ----------
    mean : ndarray, shape (width,), float32, or None
    removed : ndarray, shape (width, components), float32, or None
        U, orthonormal columns: directions that are taken out (Mu & Viswanath 2018, arXiv:1702.01417).
    projection : ndarray, shape (width, narrower), float32, or None
        V, orthonormal columns.
    """

    mean: np.ndarray | None = None
    removed: np.ndarray | None = None
    projection: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return rows, shape (n, width), mapped: shape (n, width or narrower), float32; the same array where nothing is done."""
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks whether all are finite
            if self.mean is not None:
                rows = rows - self.mean
            if self.removed is not None:
                rows = rows - _product(_product(rows, self.removed), np.ascontiguousarray(self.removed.T))
            if self.projection is not None:
                rows = _product(rows, self.projection)
        return rows


def first_vectors(source: Source, tell: Callable[[int], Any]) -> np.ndarray:
    """Return the first vectors of a file, composed where it has n-grams: shape (n, dim), float32, at most 64 MiB.

    Parameters
    ----------
    source : Source
        The file.
    tell : callable
        Called with how many there are so far.

    Raises
    ------
    UserError
        There are none, or the file is damaged.
    """
    most = max(1, min(SAMPLE_WORDS, SAMPLE_BYTES // (4 * source.dim)))
    if source.ngrams is not None and source.dictionary is not None:
        return _some(source, compose(source, source.dictionary.slice(0, most)))
    first, taken = np.empty((most, source.dim), np.float32), 0
    for block in source.blocks():
        some = block.rows[: most - taken]
        first[taken : taken + len(some)] = some
        taken += len(some)
        tell(taken)
        if taken == most:
            break
    return _some(source, first[:taken])


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of every column of ``rows``, shape (n, dim): float64."""
    mean = np.asarray(np.mean(rows, 0, dtype=np.float64))
    squares = np.zeros_like(mean)
    for block in _blocks(rows):
        squares += np.sum((block - mean) ** 2, 0)
    return mean, np.sqrt(squares / len(rows))


def components(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the principal components of rows, shape (n, dim), as columns, the one of the greatest variance first: (dim, dim), float64.

    Of the two directions of each, that in which its greatest entry is positive.
    """
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for block in _blocks(rows):
        centred = block - mean
        covariance += centred.T @ centred
    vectors = np.linalg.eigh(covariance / len(rows))[1][:, ::-1]
    greatest = np.abs(vectors).argmax(0)
    return vectors * np.where(vectors[greatest, np.arange(len(greatest))] < 0, -1.0, 1.0)


def make_map(path: str, rows: np.ndarray, centre: bool, remove: int, width: int) -> Affine:
    """Return what is done to the vectors of a file.

    Parameters
    ----------
    path : str
        What messages call the file.
    rows : ndarray, shape (n, dim), float32
        Its first vectors.
    centre : bool
        Whether the mean is subtracted.
    remove : int
        Principal components that are taken out, which asks for the mean to be subtracted, too.
    width : int
        What vectors are projected to: the first components of those that are left.

    Raises
    ------
    UserError
        The vectors are too wide, or have fewer components than are asked for.
    """
    dim = rows.shape[1]
    mean, _ = moments(rows)
    removed = projection = None
    if remove or width < dim:
        if dim > WIDEST:
            raise UserError(
                f"{path} has vectors of {dim:,} numbers, and components are found of at most {WIDEST:,}: leave out "
                "remove_components and dimension=project, or give a file of narrower vectors"
            )
        if remove + width > dim and (width < dim or remove >= dim):
            raise UserError(
                f"{path} has vectors of {dim:,} numbers, which have no {remove + (width if width < dim else 0):,} components: "
                f"remove fewer than remove_components={remove}"
            )
        found = components(rows, mean).astype(np.float32)
        removed = np.ascontiguousarray(found[:, :remove]) if remove else None
        projection = np.ascontiguousarray(found[:, remove : remove + width]) if width < dim else None
    return Affine(mean.astype(np.float32) if centre or remove else None, removed, projection)


def map_all(affine: Affine, rows: np.ndarray) -> np.ndarray:
    """Map rows, shape (n, dim), where they are, and return them as they then are: shape (n, width)."""
    width = dim = rows.shape[1]
    if affine.projection is not None:
        width = affine.projection.shape[1]
    for block in _blocks(rows):
        block[:, :width] = affine(block)
    return rows[:, :width] if width < dim else rows


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return ``rows @ matrix``, float32, for a small matrix by products that OpenBLAS works out in the calling thread.

    Its threads wait for each other in loops, and take a hundred times as long where others are busy reading the file.
    """
    together = _ONE_THREAD // matrix.size
    if together < 8:
        return rows @ matrix
    whole, out = len(rows) // together * together, np.empty((len(rows), matrix.shape[1]), np.float32)
    np.matmul(
        rows[:whole].reshape(-1, together, rows.shape[1]),
        matrix,
        out=out[:whole].reshape(-1, together, matrix.shape[1]),
    )
    np.matmul(rows[whole:], matrix, out=out[whole:])
    return out


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_BYTES // (8 * rows.shape[1]))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _some(source: Source, rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        raise UserError(
            f"{source.path} holds no vectors, of which a mean or components could be found; give another file"
        )
    return rows
