"""Lists of items as Arrow tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bigembed.config.schema import Of
from bigembed.interactions.keys import TEXTS, as_arrow
from bigembed.recommending.asking import Scene

Found = tuple[np.ndarray, np.ndarray]
"""Codes, int64, and scores, float32, of the best k items of each, shape (n, k), the best first; -1 where there are fewer."""


@dataclass(slots=True)
class Ids:
    """The ids that codes stand for, and what their columns are called.

    Attributes
    ----------
    asking, items : Array
        Those who ask, and what they find; int64 or large_string.
    names : list of str
        Columns: who asks, a list of what is found, and one of scores.
    """

    asking: pa.Array
    items: pa.Array
    names: list[str]


def ids_of(scene: Scene, of: Of) -> Ids:
    """Return the ids of those who ask and of the items, and the columns user, item, score, or item, neighbour, score."""
    if of is Of.user:
        return Ids(scene.users.keys, scene.items.keys, ["user", "item", "score"])
    return Ids(scene.items.keys, scene.items.keys, ["item", "neighbour", "score"])


def schema_of(ids: Ids) -> pa.Schema:
    """Return the types of the columns: whole numbers are int64, texts string."""
    asking, items = (pa.string() if each.type == TEXTS else each.type for each in (ids.asking, ids.items))
    return pa.schema(zip(ids.names, (asking, pa.list_(items), pa.list_(pa.float32())), strict=True))


def as_table(ids: Ids, codes: np.ndarray, found: Found) -> pa.Table:
    """Return the lists of those with ``codes``, a row each."""
    schema, (items, scores) = schema_of(ids), found
    there = items >= 0
    offsets = pa.array(np.concatenate([[0], there.sum(1).cumsum()]).astype(np.int32))
    asking = ids.asking.take(as_arrow(codes)).cast(schema.types[0])
    values = ids.items.take(as_arrow(items[there])).cast(schema.types[1].value_type)
    lists = [pa.ListArray.from_arrays(offsets, each) for each in (values, pa.array(scores[there]))]
    return pa.table([asking, *lists], schema=schema)
