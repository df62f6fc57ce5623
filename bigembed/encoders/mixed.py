"""Vocabularies in blocks of their own width: a word's rank by frequency says in which block its row is."""

from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import MixedTable
from bigembed.encoders.encoder import Encoded, Ids
from bigembed.encoders.vocab import VocabEncoder
from bigembed.errors import UserError
from bigembed.ragged import Ragged


class MixedEncoder(VocabEncoder):
    """Gives an element a row of one of the blocks: the first ones hold the most frequent words, the last one all else.

    Row 0 of the last block is that of unknown words; then come its words and the buckets of n-grams.

    Parameters
    ----------
    config : MixedTable
        The table.
    learned : dict
        The kind of values.
    words : StringArray, shape (words,)
        The words, the most frequent first.
    counts : ndarray, shape (words,), int64
        How often each was seen.

    Raises
    ------
    UserError
        There are fewer words than the blocks need.
    """

    kind = "mixed"
    config: MixedTable

    def __init__(self, config: MixedTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray) -> None:
        super().__init__(config, learned, words, counts)
        in_blocks = sum(config.blocks)
        if in_blocks >= len(words):
            raise UserError(
                f"the vocabulary has {len(words):,} words, and all but the last block of a mixed table hold {in_blocks:,} already; "
                f"set smaller ones, or fewer: its blocks are {list(config.blocks)}, its widths {list(config.widths)}"
            )
        (rows,) = self.rows
        self.rows = (*config.blocks, rows - in_blocks)

    @classmethod
    def settings_of(cls, config: MixedTable) -> dict[str, Any]:
        """Return everything apart from the words that decides which ids a text has."""
        return super().settings_of(config) | {"blocks": list(config.blocks)}

    @classmethod
    def rows_at_most(cls, config: MixedTable) -> tuple[int, ...] | None:
        """Return the rows of each block, where the words are bounded."""
        whole = super().rows_at_most(config)
        return None if whole is None else (*config.blocks, max(1, whole[0] - sum(config.blocks)))

    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes as rows of the blocks; see ``TokenEncoder``."""
        whole = super().encode_hashes(hashed, dtype, distinct)
        ids, parts = whole.ids, []
        ends = np.cumsum([0, *self.config.blocks]) + 1  # the words' rows in the vocabulary begin at 1
        for part in range(len(self.rows)):
            last = part == len(self.rows) - 1
            begin, end = int(ends[part]), np.iinfo(np.int64).max if last else int(ends[part + 1])
            sizes, offsets = np.empty(len(ids.values), np.int32), np.zeros_like(ids.offsets)
            rows = np.empty(len(ids.values), ids.values.dtype)
            used = _take(ids.values, ids.offsets, begin, end, last, rows, sizes, offsets)
            parts.append(Ids(Ragged(rows[:used].copy(), offsets), Ragged(sizes, ids.offsets)))
        return Encoded(tuple(parts), whole.tokens)


@numba.njit(nogil=True, cache=True)
def _take(
    ids: np.ndarray,
    ends: np.ndarray,
    begin: int,
    end: int,
    last: bool,
    rows: np.ndarray,
    sizes: np.ndarray,
    offsets: np.ndarray,
) -> int:
    """Write the rows in ``[begin, end)`` of a vocabulary, counted from ``begin``; the last block has row 0 too, as its first."""
    used = 0
    for row in range(len(ends) - 1):
        for i in range(ends[row], ends[row + 1]):
            value = ids[i]
            if begin <= value < end:
                rows[used] = value - begin + last
                sizes[i] = 1
                used += 1
            elif last and value == 0:
                rows[used] = 0
                sizes[i] = 1
                used += 1
            else:
                sizes[i] = 0
        offsets[row + 1] = used
    return used
