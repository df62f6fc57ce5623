"""What filling a table from vectors consists of: small steps that name global rows, for whoever holds these rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Put:
    """Rows that get vectors; a later step overwrites an earlier one.

    Attributes
    ----------
    rows : ndarray, shape (n,), int64
        Rows of the table, or of one part of it; the last of equal ones counts.
    vectors : ndarray, shape (n or 1, width), float32
        Their numbers; one vector is for all of them. A -0.0 is written as 0.0, which updates of frozen rows by 0 keep bit by bit.
    column : int
        Where in the rows they begin.
    given : bool
        Whether they come from the file, so that freeze=rows means them: not the mean, drawn ones or zeros of a fall-back.
    part : int
        Which part of the table, as ``config.physical.parts`` has them.
    """

    rows: np.ndarray
    vectors: np.ndarray
    column: int = 0
    given: bool = True
    part: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """Vectors that are added, weighted, to rows that were put before (as zeros): row rows[i] gets weights[i] × vectors[sources[i]].

    Attributes
    ----------
    rows : ndarray, shape (n,), int64
    sources : ndarray, shape (n,), int32
    weights : ndarray, shape (n,), float32
    vectors : ndarray, shape (m, width), float32
    column : int
        Where in the rows they begin.
    """

    rows: np.ndarray
    sources: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    column: int = 0


@dataclass(frozen=True, slots=True)
class Normalise:
    """Rows that are scaled to length 1, those of zeros left as they are.

    Attributes
    ----------
    rows : ndarray, shape (n,), int64
        Each once.
    column, width : int
        The columns that count, of each row.
    """

    rows: np.ndarray
    column: int
    width: int


Step = Put | Add | Normalise
