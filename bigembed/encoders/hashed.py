"""Tables without a vocabulary: every word, value and n-gram is hashed into one or several of the rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import HashedTable
from bigembed.encoders.columns import Column
from bigembed.encoders.encoder import Encoded, Ids
from bigembed.encoders.tokens import TokenEncoder, elements_of, reduced, settings_of_tokens
from bigembed.encoders.values import kind_of
from bigembed.hashing import nth_hash, reduce, sign_of
from bigembed.ragged import Ragged

_WEIGHED = 1 << 16  # the number of the hash function that finds an element's weights: none of its rows has it


class HashedEncoder(TokenEncoder):
    """Hashes elements, with the table's salt, into the same rows; there is nothing to learn but the kind of values.

    Parameters
    ----------
    config : HashedTable
        The table.
    learned : dict
        The kind of values.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    """

    kind = "hashed"
    config: HashedTable

    def __init__(self, config: HashedTable, learned: dict[str, Any]) -> None:
        super().__init__(config, self.rows_at_most(config), learned, config.salt)

    @classmethod
    def learn(
        cls,
        name: str,
        config: HashedTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "HashedEncoder":
        """Make the encoder of a new table; the values are not looked at."""
        return cls(config, {"values": kind_of(columns[0])})

    @classmethod
    def restore(
        cls, config: HashedTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "HashedEncoder":
        """Make the encoder again; it saved no words."""
        return cls(config, learned)

    @classmethod
    def settings_of(cls, config: HashedTable) -> dict[str, Any]:
        """Return everything that decides which ids a sample has."""
        names = ("buckets", "salt", "functions", "sign", "importance")
        return settings_of_tokens(config) | {name: getattr(config, name) for name in names}

    @classmethod
    def rows_at_most(cls, config: HashedTable) -> tuple[int, ...]:
        """Return the rows of each part."""
        return (config.buckets,) if config.importance is None else (config.buckets, config.importance)

    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes as rows, ``functions`` for each element; see ``TokenEncoder``."""
        config, tokens = self.config, hashed.lengths.astype(np.int32)
        elements = elements_of(hashed, config.ngrams)
        if config.functions == 1 and not config.sign and config.importance is None:
            rows = Ragged(reduced(elements.values, config.buckets, dtype), elements.offsets)
            return Encoded((Ids(rows.distinct() if distinct else rows),), tokens)
        elements = elements.distinct() if distinct else elements
        count = len(elements.values) * config.functions
        rows = Ragged(np.empty(count, dtype), elements.offsets * config.functions)
        signs = Ragged(np.empty(count, np.int8), rows.offsets) if config.sign else None
        _spread(
            elements.values,
            config.functions,
            np.uint64(config.buckets),
            rows.values,
            np.empty(0, np.int8) if signs is None else signs.values,
        )
        parts = [Ids(rows)]
        if config.importance is not None:
            weighed = nth_hash_of(elements.values, _WEIGHED)
            parts.append(Ids(Ragged(reduced(weighed, config.importance, dtype), elements.offsets)))
        return Encoded(tuple(parts), tokens, signs)


def nth_hash_of(hashes: np.ndarray, number: int) -> np.ndarray:
    """Return the hashes (uint64) that hash function ``number`` gives elements, from those of the first, number 0."""
    out = np.empty_like(hashes)
    _nth_hash_of(hashes, np.uint64(number), out)
    return out


@numba.njit(nogil=True, cache=True)
def _nth_hash_of(hashes: np.ndarray, number: np.uint64, out: np.ndarray) -> None:
    for i in range(len(hashes)):
        out[i] = nth_hash(hashes[i], number)


@numba.njit(nogil=True, cache=True)
def _spread(hashes: np.ndarray, functions: int, buckets: np.uint64, rows: np.ndarray, signs: np.ndarray) -> None:
    """Write each element's rows by all hash functions and, where ``signs`` has room, their signs."""
    for i in range(len(hashes)):
        for k in range(functions):
            hashed = nth_hash(hashes[i], np.uint64(k))
            rows[i * functions + k] = reduce(hashed, buckets)
            if len(signs):
                signs[i * functions + k] = sign_of(hashed)
