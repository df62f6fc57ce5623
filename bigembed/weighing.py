"""What every id of a sample counts, where that is not one: by a column of weights, by the signs of hashes, in a weighted mean."""

import numba
import numpy as np

from bigembed.config.physical import Part, parts
from bigembed.config.schema import Combine, CompositionalTable, FeatureConfig, HashedTable, Pooling, TableConfig
from bigembed.encoders import Encoded
from bigembed.ragged import Ragged


def weigh(table: TableConfig, feature: FeatureConfig, encoded: Encoded, given: Ragged | None) -> list[np.ndarray]:
    """Return the weight (float32) of every id of every part of a table.

    Parameters
    ----------
    table, feature : TableConfig, FeatureConfig
        Whose ids they are.
    encoded : Encoded
        The ids.
    given : Ragged of float32, or None
        The column of weights, one for every element of a sample; None: all are 1.

    Returns
    -------
    list of ndarray
        One for each part; those of a sample's elements add up to 1 where the feature's pooling is mean.
    """
    own = parts(table)
    first = encoded.parts[0]
    elements = first.rows.offsets // own[0].per_element if first.sizes is None else first.sizes.offsets
    weights = np.ones(elements[-1], np.float32) if given is None else given.values.astype(np.float32)
    if feature.pooling is Pooling.mean:
        _normalise(weights, elements)
    found = [_of_ids(weights, encoded.parts[number].sizes, part) for number, part in enumerate(own)]
    if not _adds(table):
        found[1:] = [np.ones_like(each) for each in found[1:]]
    if encoded.signs is not None:
        found[0] = found[0] * encoded.signs.values
    return found


def _adds(table: TableConfig) -> bool:
    """Whether a weight that scales the rows of all parts scales their vector by just that."""
    multiplied = isinstance(table, CompositionalTable) and table.combine is Combine.mult
    return not multiplied and not (isinstance(table, HashedTable) and table.importance is not None)


def _of_ids(weights: np.ndarray, sizes: Ragged | None, part: Part) -> np.ndarray:
    return np.repeat(weights, part.per_element if sizes is None else sizes.values)


@numba.njit(nogil=True, cache=True)
def _normalise(weights: np.ndarray, offsets: np.ndarray) -> None:
    """Divide the weights of every sample by their sum; one that is 0 but for rounding leaves them."""
    for row in range(len(offsets) - 1):
        total, size = np.float64(0.0), np.float64(0.0)
        for i in range(offsets[row], offsets[row + 1]):
            total += weights[i]
            size += abs(weights[i])
        if abs(total) > 1e-6 * size:  # float32 has seven digits
            for i in range(offsets[row], offsets[row + 1]):
                weights[i] = np.float32(weights[i] / total)
