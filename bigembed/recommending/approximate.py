"""The best items by an index (HNSW; Malkov & Yashunin 2018) instead of a look at all, by the library usearch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from bigembed.errors import UserError
from bigembed.ragged import Ragged
from bigembed.recommending.finding import ENTRIES, Recommender, Search
from bigembed.recommending.tables import Found
from bigembed.report import telling
from bigembed.top import Best

MORE = 1000  # items asked for beyond k, at most, in place of those that a user has already
SAMPLE = 1000  # who ask twice, for the recall


class Index:
    """An index of the items of a recommender.

    Dot products are searched as they are: made into cosines by one more entry (Bachrach et al. 2014), they are found far less often.

    Parameters
    ----------
    recommender : Recommender
        Whose items are searched, and who helps where too few are found.

    Raises
    ------
    UserError
        usearch is not installed.
    """

    def __init__(self, recommender: Recommender) -> None:
        try:
            from usearch.index import Index as Graph
        except ImportError:
            raise UserError(
                "search=approximate needs usearch, which is not installed: pip install 'bigembed[search]', or use search=exact"
            ) from None
        self._recommender, self._items = recommender, recommender.items.numpy()
        self._threads = torch.get_num_threads()
        self._graph: Any = Graph(ndim=self._items.shape[1], metric="ip", dtype="f32")
        tell = telling("items in the index", len(self._items))
        self._graph.add(np.arange(len(self._items)), self._items, threads=self._threads, progress=_going_on(tell))

    def search(self, vectors: torch.Tensor, removed: Ragged | None, k: int) -> Found:
        """Search the index; those who find fewer than there are ask all items. See ``Search``."""
        users = vectors.numpy()
        removed = Ragged(np.empty(0, np.int64), np.zeros(len(users) + 1, np.int64)) if removed is None else removed
        count = min(len(self._items), k + min(MORE, int(removed.lengths.max(initial=0))))
        codes = self._nearest(users, count)
        best = Best(len(users), k)
        best.add(codes, _scores(users, self._items, codes, removed.values, removed.offsets))
        codes, scores = best.ordered()
        short = np.flatnonzero((codes >= 0).sum(1) < np.minimum(k, len(self._items) - removed.lengths))
        if len(short):
            codes[short], scores[short] = self._recommender.exact(vectors[short], removed.take(short), k)
        return codes, scores

    def _nearest(self, users: np.ndarray, count: int) -> np.ndarray:
        """Return the codes that the graph finds, shape (users, count); -1 where it finds fewer."""
        codes = np.full((len(users), count), -1, np.int64)
        found = self._graph.search(users, count, threads=self._threads)
        if len(users) == 1:  # usearch answers one without the axis of several
            codes[0, : len(found.keys)] = found.keys
            return codes
        inside = np.arange(count) < found.counts[:, None]
        codes[inside] = found.keys[inside]
        return codes


def _going_on(tell: Callable[[int], None]) -> Callable[[int, int], bool]:
    """Return a function that tells how far usearch is, and that it is to go on."""

    def told(done: int, total: int) -> bool:
        tell(done)
        return True

    return told


@dataclass(slots=True)
class Measured:
    """How an index does on a sample.

    Attributes
    ----------
    asked : int
        Size of the sample.
    recall : float
        Share of the lists of the exact search that the index finds.
    exact, approximate : float
        Lists a second.
    """

    asked: int
    recall: float
    exact: float
    approximate: float


def measure(recommender: Recommender, index: Index, asking: np.ndarray, k: int, seen: bool) -> Measured:
    """Search in both ways for some of those who ask (int64 codes)."""
    size = min(SAMPLE, len(asking), max(1, ENTRIES // k))
    places = np.linspace(0, len(asking) - 1, size).astype(np.int64)
    vectors, removed = recommender.queries(asking[places], seen)
    right, exact = _timed(recommender.exact, vectors, removed, k)
    found, approximate = _timed(index.search, vectors, removed, k)
    there = right >= 0
    # An item of a list as one number, so that the lists are compared at once.
    rows = np.arange(size)[:, None] * len(recommender.items)
    hits = np.isin((rows + right)[there], (rows + found)[found >= 0])
    return Measured(size, float(hits.mean()) if len(hits) else 1.0, exact, approximate)


def _timed(search: Search, vectors: torch.Tensor, removed: Ragged | None, k: int) -> tuple[np.ndarray, float]:
    """Return the codes that a search finds, and lists a second."""
    search(vectors[:1], None if removed is None else removed.take(np.zeros(1, np.int64)), k)  # compiles
    began = time.perf_counter()
    codes, _ = search(vectors, removed, k)
    return codes, len(vectors) / (time.perf_counter() - began)


@numba.njit(nogil=True, cache=True)
def _scores(
    users: np.ndarray, items: np.ndarray, codes: np.ndarray, removed: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Return the dot products with the items named by ``codes``; NaN, which is never among the best, for those that are left out."""
    out = np.full(codes.shape, np.nan, np.float32)
    for i in range(len(codes)):
        own = removed[offsets[i] : offsets[i + 1]]
        for j in range(codes.shape[1]):
            place = np.searchsorted(own, codes[i, j])
            if codes[i, j] >= 0 and (place == len(own) or own[place] != codes[i, j]):
                out[i, j] = 0
                for entry in range(users.shape[1]):
                    out[i, j] += users[i, entry] * items[codes[i, j], entry]
    return out
