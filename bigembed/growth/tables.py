"""How the rows of every kind of table come from those of the same table with other words, or other numbers of rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import HashedTable, IdsTable, MixedTable, SubwordTable, VocabTable
from bigembed.encoders import Encoder
from bigembed.growth.rows import FRESH, Segment, cycled, fresh, listed, same, scaled


def rows_of(before: Encoder, after: Encoder) -> list[list[Segment]]:
    """Return where the rows of every part of a table come from; ``before`` and ``after`` are encoders of one kind."""
    return RULES.get(type(after.config), _unchanged)(before, after)


def _unchanged(before: Encoder, after: Encoder) -> list[list[Segment]]:
    assert before.rows == after.rows
    return [[same(rows, 0, 0)] for rows in after.rows]


def _ids(before: Encoder, after: Encoder) -> list[list[Segment]]:
    (old,), (new,) = before.rows, after.rows
    return [[same(min(old, new), 0, 0), fresh(max(new - old, 0))]]


def _hashed(before: Encoder, after: Encoder) -> list[list[Segment]]:
    return [[scaled(new, 0, old, 0)] for old, new in zip(before.rows, after.rows, strict=True)]


def _subword(before: Encoder, after: Encoder) -> list[list[Segment]]:
    old, new = before.word_rows[1], after.word_rows[1]
    words = listed(_places(before.words(), after.words()), 0)
    return [[words, cycled(after.rows[0] - new, old, before.rows[0] - old, new)]]


def _vocab(before: Encoder, after: Encoder) -> list[list[Segment]]:
    blocks = after.config.blocks if isinstance(after.config, MixedTable) else []
    places, begin, found = _places(before.words(), after.words()), 0, []
    for size in blocks:  # of words that have the same places in both
        found.append([listed(places[begin : begin + size] - begin, 0)])
        begin += size
    last = places[begin:]
    last = np.where(last == FRESH, FRESH, last - begin + 1)
    old, new = len(before.words() or ()) - begin + 1, len(last) + 1  # where the n-grams begin
    grams = scaled(after.rows[-1] - new, old, before.rows[-1] - old, new)
    return [*found, [same(1, 0, 0), listed(last, 1), grams]]


def _places(before: pa.StringArray | None, after: pa.StringArray | None) -> np.ndarray:
    """Return the place (int64) that each word had among those of before; ``FRESH`` for new ones."""
    return pc.fill_null(pc.index_in(after, value_set=before), FRESH).to_numpy().astype(np.int64)


RULES: dict[type, Callable[[Any, Any], list[list[Segment]]]] = {
    IdsTable: _ids,
    HashedTable: _hashed,
    SubwordTable: _subword,
    VocabTable: _vocab,
    MixedTable: _vocab,
}
