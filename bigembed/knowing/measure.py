"""One pass over the data of a table."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from bigembed.encoders import Column, Encoder
from bigembed.encoders.encoder import in_order
from bigembed.knowing import touched
from bigembed.knowing.elements import reader_of
from bigembed.knowing.tally import MOST, Tally
from bigembed.knowing.touched import Touched


@dataclass(slots=True)
class Seen:
    """What a table saw of the data.

    Attributes
    ----------
    tally : Tally
        Its elements.
    touched : list of Touched or None
        The rows of each part; None for parts too large to note them, and of managed tables without a checkpoint.
    samples, tokens, unknown : int
        Samples, tokens in them, and tokens that a table of words does not know.
    looked_up : int
        Rows looked up, in all parts together.
    """

    tally: Tally
    touched: list[Touched | None]
    samples: int = 0
    tokens: int = 0
    unknown: int = 0
    looked_up: int = 0


def measure(
    encoder: Encoder,
    columns: Sequence[Column],
    index: np.ndarray | None = None,
    threads: int = 1,
    most: int = MOST,
    residents: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> Seen:
    """Look at all elements that columns bring a table.

    Parameters
    ----------
    encoder : Encoder
        Of the table.
    columns : sequence of Column
        All columns that are looked up in it.
    index : ndarray, shape (rows,), int64, optional
        The rows of each column to look at; by default all.
    threads : int
        Threads to use; the result does not depend on it.
    most : int
        Different elements up to which everything is counted exactly.
    residents : ndarray, shape (rows,), int64, optional
        The values of a managed table's rows.
    progress : callable, optional
        Called with the number of rows done, after every few megabytes.

    Returns
    -------
    Seen
    """
    noted = residents is not None or encoder.kind != "managed"
    rows = encoder.rows if residents is None else (len(residents),)
    marks = [Touched(size) if noted and size <= touched.MOST else None for size in rows]
    seen = Seen(Tally(most), marks)
    for column in columns:
        with closing(in_order(reader_of(encoder, residents), column.blocks(index), threads)) as blocks:
            for elements in blocks:
                seen.tally.add(elements.hashes.values, elements.keys)
                for mark, part in zip(seen.touched, elements.parts, strict=False):
                    seen.looked_up += len(part.rows)
                    if mark is not None:
                        mark.add(part.rows)
                seen.samples += len(elements.hashes)
                seen.tokens += elements.tokens
                seen.unknown += elements.unknown
                if progress is not None:
                    progress(seen.samples)
    return seen
