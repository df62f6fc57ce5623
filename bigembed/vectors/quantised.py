"""fastText's quantised rows: every few numbers of a row are one byte, the number of a centroid (Jégou et al. 2011).

The matrix of a .ftz file (``QuantMatrix`` and ``ProductQuantizer`` in fastText's source): a byte that says whether lengths
are apart, int64 rows and columns, int32 number of codes, the codes, and the centroids; then, where lengths are apart, a code
for that of each row, and their centroids. The numbers of a row are its centroids, times its length.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bigembed.errors import UserError
from bigembed.vectors.cursor import Cursor
from bigembed.vectors.finite import first_not_finite
from bigembed.vectors.streams import Stream

CENTROIDS = 256  # of each piece of a row: a code is a byte
WIDEST = 1 << 16  # numbers of a row; its centroids, 256 times as many, are kept in memory


@dataclass(frozen=True, slots=True)
class Quantised:
    """The rows of a quantised file.

    Attributes
    ----------
    count, dim : int
    codes : int
        The byte where the codes of the rows begin; they lie row by row.
    centroids : list of ndarray, shape (256, width of the piece), float32
        Of each piece of a row.
    norm_codes : int
        The byte where the codes of the lengths begin.
    norms : ndarray, shape (256,), float32, or None
        The lengths that there are; None where all are 1.
    """

    count: int
    dim: int
    codes: int
    centroids: list[np.ndarray]
    norm_codes: int
    norms: np.ndarray | None

    def rows(self, stream: Stream, parts: Iterable[range]) -> Iterator[np.ndarray]:
        """Yield the rows of each part, shape (rows, dim), float32.

        Parameters
        ----------
        stream : Stream
        parts : iterable of range
            Which rows, one after another from 0 on.

        Raises
        ------
        UserError
            The file ends before.
        """
        # The codes of lengths stand behind those of the rows: two readers side by side, so that neither is kept whole.
        with Cursor(stream) as by_length, Cursor(stream) as cursor:
            cursor.skip(self.codes, "the codes of the rows")
            if self.norms is not None:
                by_length.skip(self.norm_codes, "the codes of the rows' lengths")
            for part in parts:
                lengths = np.empty(len(part), np.uint8)
                if self.norms is not None:
                    by_length.fill(lengths, "the codes of the rows' lengths")
                codes = np.empty((len(part), len(self.centroids)), np.uint8)
                cursor.fill(codes, "the codes of the rows")
                rows = self._decode(codes)
                if self.norms is not None:
                    with np.errstate(over="ignore"):  # whoever takes the rows looks whether they are finite
                        rows *= self.norms[lengths][:, None]
                yield rows
            cursor.finish()

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        rows, column = np.empty((len(codes), self.dim), np.float32), 0
        for piece, centroids in enumerate(self.centroids):
            width = centroids.shape[1]
            rows[:, column : column + width] = centroids[codes[:, piece]]
            column += width
        return rows


def open_quantised(cursor: Cursor, count: int, dim: int) -> Quantised:
    """Read all but the codes of a matrix that must have ``count`` rows of ``dim`` numbers, and pass it over.

    Raises
    ------
    UserError
        It has another shape, contradicts itself, holds a number that is not finite, or is cut short.
    """
    has_norms, rows, columns, size = cursor.numbers("Bqqi", "the shape of the vectors")
    if has_norms > 1 or (rows, columns) != (count, dim):
        raise UserError(
            f"{cursor.path}: its vectors are {rows:,} × {columns:,} (byte {cursor.position:,}), but its header says "
            f"{count:,} × {dim:,}: it is damaged; take another copy"
        )
    if dim > WIDEST:
        raise UserError(
            f"{cursor.path}: its rows of {dim:,} numbers are quantised, and up to {WIDEST:,} can be read so"
        )
    codes = cursor.position
    cursor.skip(max(size, 0), "the codes of the rows")
    centroids = _centroids(cursor, dim)
    if size != count * len(centroids):
        raise UserError(
            f"{cursor.path}: it has {size:,} codes for {count:,} rows of {len(centroids):,} pieces (byte {codes:,}): it is "
            "damaged; take another copy"
        )
    norm_codes, norms = cursor.position, None
    if has_norms:
        cursor.skip(count, "the codes of the rows' lengths")
        norms = _centroids(cursor, 1)[0][:, 0].copy()
    return Quantised(count, dim, codes, centroids, norm_codes, norms)


def _centroids(cursor: Cursor, dim: int) -> list[np.ndarray]:
    """Read a quantiser of vectors of ``dim`` numbers; return the centroids of each piece."""
    start = cursor.position
    whole, pieces, width, last = cursor.numbers("4i", "the quantiser")
    if whole != dim or not 1 <= width <= dim or pieces != -(-dim // width) or last != dim - (pieces - 1) * width:
        raise UserError(
            f"{cursor.path}: its quantiser (byte {start:,}) cuts {whole:,} numbers into {pieces:,} pieces of {width:,}, the "
            f"last of {last:,}, which does not make {dim:,}: it is damaged; take another copy"
        )
    numbers = np.empty(CENTROIDS * dim, np.float32)
    cursor.fill(numbers, "the centroids")
    if first_not_finite(numbers[None]) >= 0:
        raise UserError(
            f"{cursor.path}: a centroid (from byte {start + 16:,} on) is not finite: it is damaged; take another copy"
        )
    sizes = [width] * (pieces - 1) + [last]
    ends = np.cumsum(sizes) * CENTROIDS
    return [part.reshape(CENTROIDS, -1) for part in np.split(numbers, ends[:-1])]
