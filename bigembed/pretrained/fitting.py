"""How the vectors of a file become columns of a table's rows: where they lie, and what is done to them before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from bigembed.config.physical import LANE
from bigembed.config.schema import Join, Mismatch, TableConfig
from bigembed.errors import UserError
from bigembed.pretrained.affine import Affine, first_vectors, make_map, map_all, moments
from bigembed.pretrained.steps import Put
from bigembed.vectors.source import Source

STEP_BYTES = 1 << 23
"""Of vectors, or of row numbers, in one step."""

Tell = Callable[[Source, int], Any]


@dataclass(frozen=True, slots=True)
class Place:
    """The columns that a file fills.

    Attributes
    ----------
    source : Source
        The file.
    column, width : int
        Where they begin, and how many its vectors fill.
    room : int
        How many there are for it: those behind its vectors become zeros.
    """

    source: Source
    column: int
    width: int
    room: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A file's place and what is done to its vectors.

    Attributes
    ----------
    place : Place
    affine : Affine
        The map from the file's width to the place's.
    normalise : bool
        Whether vectors that are put whole are then scaled to length 1.
    mean, deviation : ndarray, shape (width,), float64
        Of the first vectors, mapped but not scaled; zeros where nobody asks for them.
    """

    place: Place
    affine: Affine
    normalise: bool
    mean: np.ndarray
    deviation: np.ndarray

    def mapped(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors, shape (n, dim), as they are added to rows: shape (n, width), float32.

        Raises
        ------
        UserError
            A number goes over what 32 bits hold.
        """
        out = self.affine(vectors)
        if out is not vectors and not np.isfinite(out).all():
            raise UserError(
                f"{self.place.source.path} has numbers too large to be centred or projected; leave out centre, "
                "remove_components and dimension=project"
            )
        return out

    def puts(self, rows: np.ndarray, vectors: np.ndarray, share: np.ndarray | None = None) -> Iterator[Put]:
        """Yield what puts vectors, each times its ``share`` if given, into rows, and zeros behind them; no more than 8 MiB at once."""
        place = self.place
        for some in slices(len(rows), max(place.width, vectors.shape[1])):
            out = self.mapped(vectors[some])
            out = normalised(out) if self.normalise else out
            out = out if share is None else out * share[some, None]
            yield Put(rows[some], out, place.column)
            if place.room > place.width:
                yield zeros(rows[some], place.column + place.width, place.room - place.width)


def places(name: str, table: TableConfig, sources: Sequence[Source]) -> list[Place]:
    """Return the columns of every file.

    Raises
    ------
    UserError
        The widths do not go together with the table's.
    """
    together = table.pretrained.join is Join.concatenated and len(sources) > 1
    widths = [source.dim for source in sources]
    if together:
        _check(name, table, "the vectors of the files, side by side,", sum(widths), together)
        starts = np.cumsum([0, *widths[:-1]]).tolist()
        ends = [*starts[1:], table.dim]
        return [
            Place(source, start, source.dim, end - start)
            for source, start, end in zip(sources, starts, ends, strict=True)
        ]
    for source in sources:
        _check(name, table, f"the vectors of {source.path}", source.dim, together)
    return [Place(source, 0, min(source.dim, table.dim), table.dim) for source in sources]


def fit(table: TableConfig, place: Place, tell: Tell, drawn: bool = False) -> Fitted:
    """Return what is done to the vectors of a file, read from its first ones where that is needed.

    Parameters
    ----------
    table, place : TableConfig, Place
        The table, and the file's columns.
    tell : callable
        Called with the file and how many of its words are read.
    drawn : bool
        Whether its mean and deviation are asked for.

    Raises
    ------
    UserError
        The file is damaged or empty, or its vectors have fewer components than are asked for.
    """
    config, source = table.pretrained, place.source
    shaped = config.centre or config.remove_components > 0 or place.width < source.dim
    affine, mean, deviation = Affine(), np.zeros(place.width), np.zeros(place.width)
    if shaped or drawn:
        first = first_vectors(source, lambda words: tell(source, words))
        if shaped:
            affine = make_map(source.path, first, config.centre, config.remove_components, place.width)
        if drawn:
            mean, deviation = moments(map_all(affine, first))
    alone = place.room == table.dim  # side by side, it is the whole row that is scaled, in the end
    return Fitted(place, affine, config.normalise and alone, mean, deviation)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return vectors, shape (n, width), scaled to length 1, those of zeros as they are: float32."""
    out = np.empty(vectors.shape, np.float32)
    _normalise(vectors, out)
    return out


def zeros(rows: np.ndarray, column: int, width: int, given: bool = True) -> Put:
    """Return what puts zeros into some columns of rows."""
    return Put(rows, np.zeros((1, width), np.float32), column, given)


def slices(count: int, width: int) -> Iterator[slice]:
    """Yield parts of ``count`` rows, so that ``width`` numbers for each take 8 MiB at most."""
    size = max(1, STEP_BYTES // (4 * max(width, 2)))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _check(name: str, table: TableConfig, what: str, width: int, together: bool) -> None:
    """Refuse vectors of another width than the table's, unless that is to be mended."""
    mismatch, dim = table.pretrained.dimension, table.dim
    if width == dim or (mismatch is Mismatch.pad and width < dim):
        return
    if mismatch is Mismatch.project and width > dim and not together:
        return
    own, fitting = f"tables.{name}.pretrained.dimension", max(LANE, -(-width // LANE) * LANE)
    if fitting != width:
        remedy = f"set tables.{name}.dim={fitting} and {own}=pad, as rows are a multiple of {LANE} wide"
    elif width < dim:
        remedy = f"set tables.{name}.dim={width}, or {own}=pad"
    else:
        remedy = f"set tables.{name}.dim={width}" + ("" if together else f", or {own}=project")
    raise UserError(f"table '{name}' is {dim} wide, and {what} are {width}: {remedy}")


@numba.njit(nogil=True, cache=True)
def _normalise(vectors: np.ndarray, out: np.ndarray) -> None:
    for i in range(vectors.shape[0]):
        square = 0.0  # of 64 bits, which hold the squares of all numbers of 32
        for column in range(vectors.shape[1]):
            square += float(vectors[i, column]) ** 2
        length = np.sqrt(square) if square > 0 else 1.0
        for column in range(vectors.shape[1]):
            out[i, column] = vectors[i, column] / length
