"""Figures of lists of items, as sums over cases, so that any split of the cases over ranks gives the same."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numba
import numpy as np

from bigembed.ragged import Ragged

FIGURES = ("hr", "recall", "precision", "ndcg", "mrr", "map")
_OF_SLICES = (0, 1, 3)  # of FIGURES
ItemSlice = tuple[Sequence[str], np.ndarray]


class ListFigures:
    r"""Figures of lists at lengths ``k``; all are means over cases.

    With :math:`h_r` whether the item at place :math:`r` of a case's list is one of its :math:`n` targets (those that cannot be found
    included) and :math:`H = \sum_{r \le k} h_r`:

    - ``hr@k``: 1 where :math:`H > 0`, else 0;
    - ``recall@k``: :math:`H / n`;
    - ``precision@k``: :math:`H / k`, also of a shorter list;
    - ``ndcg@k``: :math:`\sum_{r \le k} h_r / \log_2(r + 1)` over the same of the best list, :math:`\sum_{r \le \min(k, n)} 1 /
      \log_2(r + 1)` (Järvelin and Kekäläinen 2002; as in LightGCN's code);
    - ``mrr@k``: :math:`1 / r` of the first target in the list, 0 without one;
    - ``map@k``: :math:`\sum_{r \le k} h_r (\sum_{s \le r} h_s / r) / \min(k, n)`.

    Besides, ``coverage@k``: the share of all items that are in some list; ``popularity@k``: the mean over all listed items of
    ``log10(1 + training interactions)``; ``users``: cases; ``samples``: their targets.

    Parameters
    ----------
    at : sequence of int
        Lengths k.
    counts : ndarray, shape (items,), int64
        Training interactions of every item.
    slices : mapping of str to sequence of str
        Labels of every slicing of the cases, in the same order on all ranks: ``slices`` of ``update`` are places in them.
    item_slices : mapping of str to (sequence of str, ndarray of shape (items,))
        Labels of every slicing of the items, and the place of every item's label; -1: none. Of a case only the targets of one label
        count at a time, and cases without one are not in the mean.

    Attributes
    ----------
    covered : ndarray, shape (lengths, items), bool
        Whether an item is in a list of each length; ranks join theirs by "or".
    """

    def __init__(
        self,
        at: Sequence[int],
        counts: np.ndarray,
        slices: Mapping[str, Sequence[str]] | None = None,
        item_slices: Mapping[str, ItemSlice] | None = None,
    ) -> None:
        self._at = np.array(sorted(set(at)), np.int64)
        self._popularity = np.log10(1.0 + counts)
        self._slices, self._item_slices = dict(slices or {}), dict(item_slices or {})
        self._labels = [f"{name}={label}" for name, labels in self._slices.items() for label in labels]
        self._labels += [f"{name}={label}" for name, (labels, _) in self._item_slices.items() for label in labels]
        groups, lengths = 1 + len(self._labels), len(self._at)
        sizes = np.array([groups * lengths * len(FIGURES), groups, lengths, lengths, 1])
        self._flat = np.zeros(sizes.sum())
        # All in one array, which is what ranks add up; the names are views of its parts.
        figures, *others = np.split(self._flat, np.cumsum(sizes)[:-1])
        self._figures = figures.reshape(groups, lengths, len(FIGURES))
        self._cases, self._listed, self._popular, self._samples = others
        self.covered = np.zeros((lengths, len(counts)), np.bool_)

    def update(
        self, lists: np.ndarray, targets: Ragged, missing: np.ndarray, slices: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Add cases.

        Parameters
        ----------
        lists : ndarray, shape (cases, K), int64
            Codes of items, the best first, none twice; -1: none. What is longer than the largest k is not looked at, and shorter lists
            are taken as they are.
        targets : Ragged
            Of every case the codes to be found, ascending and distinct.
        missing : ndarray, shape (cases,), int64
            Further targets of every case, which cannot be found.
        slices : mapping of str to ndarray, shape (cases,), int64
            For every slicing of the cases, the place of the label of each; -1: none.
        """
        sizes = targets.lengths + missing
        each = figures_of_each(lists, targets, sizes, self._at)
        self._add(np.zeros(np.count_nonzero(sizes), np.int64), each[sizes > 0])
        self._samples += sizes.sum()
        group = 1
        for name, labels in self._slices.items():
            places = (slices or {})[name]
            inside = (places >= 0) & (sizes > 0)
            self._add(group + places[inside], each[inside])
            group += len(labels)
        for labels, places in self._item_slices.values():
            own = places[targets.values]
            for label in range(len(labels)):
                self._add_items(group + label, lists, targets, own == label)
            group += len(labels)
        _list(lists, self._at, self._popularity, self.covered, self._listed, self._popular)

    def _add(self, groups: np.ndarray, each: np.ndarray) -> None:
        """Add the figures of every case to those of its group."""
        np.add.at(self._figures, groups, each)
        np.add.at(self._cases, groups, 1.0)

    def _add_items(self, group: int, lists: np.ndarray, targets: Ragged, chosen: np.ndarray) -> None:
        """Add the cases that have chosen targets, as if they had no others."""
        offsets = np.append(0, np.cumsum(chosen))[targets.offsets]
        cases = np.flatnonzero(np.diff(offsets))
        kept = Ragged(targets.values[chosen], np.append(offsets[cases], offsets[-1]))
        each = figures_of_each(lists[cases], kept, kept.lengths, self._at)
        self._add(np.full(len(cases), group), each)

    def sums(self) -> np.ndarray:
        """Return what ranks add up, float64."""
        return self._flat.copy()

    def set_sums(self, sums: np.ndarray) -> None:
        """Take what ``sums`` gave, added up over ranks that were made alike; ``covered`` is the caller's to join."""
        self._flat[:] = sums

    def result(self) -> dict[str, float]:
        """Return the figures by name, those of slices as ``hr@10/gender=F``; empty where there was no case."""
        if not self._cases[0]:
            return {}
        found: dict[str, float] = {}
        for place, k in enumerate(self._at.tolist()):
            means = self._figures[0, place] / self._cases[0]
            found |= {f"{name}@{k}": float(mean) for name, mean in zip(FIGURES, means, strict=True)}
            found[f"coverage@{k}"] = float(self.covered[place].mean())
            if self._listed[place]:
                found[f"popularity@{k}"] = float(self._popular[place] / self._listed[place])
        found |= {"users": int(self._cases[0]), "samples": int(self._samples[0])}
        for group, label in enumerate(self._labels, start=1):
            if self._cases[group]:
                for place, k in enumerate(self._at.tolist()):
                    means = self._figures[group, place] / self._cases[group]
                    found |= {f"{FIGURES[i]}@{k}/{label}": float(means[i]) for i in _OF_SLICES}
                found[f"users/{label}"] = int(self._cases[group])
        return found


def figures_of_each(lists: np.ndarray, targets: Ragged, sizes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the figures of every case by itself.

    Parameters
    ----------
    lists, targets
        As for ``ListFigures.update``.
    sizes : ndarray, shape (cases,), int64
        All targets of every case, those that cannot be found included.
    at : ndarray, shape (lengths,), int64
        Lengths k, ascending.

    Returns
    -------
    ndarray, shape (cases, lengths, figures), float64
        In the order of ``FIGURES``; zeros for a case without targets.
    """
    out = np.zeros((len(lists), len(at), len(FIGURES)))
    gains = 1.0 / np.log2(np.arange(2, int(at.max(initial=0)) + 2))
    _each(lists, targets.values, targets.offsets, sizes, at, gains, np.append(0.0, np.cumsum(gains)), out)
    return out


def by_decade(counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return labels ``0``, ``1-9``, ``10-99``, … and the place of the label of each of ``counts`` (int64), int64."""
    borders = [1]
    while borders[-1] <= int(counts.max(initial=0)):
        borders.append(borders[-1] * 10)
    labels = ["0", *(f"{low}-{high - 1}" for low, high in pairwise(borders))]
    return labels, np.searchsorted(np.array(borders), counts, side="right").astype(np.int64)


@numba.njit(nogil=True, cache=True)
def _each(
    lists: np.ndarray,
    targets: np.ndarray,
    offsets: np.ndarray,
    sizes: np.ndarray,
    at: np.ndarray,
    gains: np.ndarray,
    ideal: np.ndarray,
    out: np.ndarray,
) -> None:
    for case in range(len(lists)):
        if sizes[case] == 0:
            continue
        hits, gained, precisions, first, place = 0, 0.0, 0.0, 0.0, 0
        own = targets[offsets[case] : offsets[case + 1]]
        for i in range(len(at)):
            k = at[i]
            while place < min(k, lists.shape[1]):
                code = lists[case, place]
                found = np.searchsorted(own, code)
                if found < len(own) and own[found] == code:
                    hits += 1
                    gained += gains[place]
                    precisions += hits / (place + 1)
                    if hits == 1:
                        first = 1.0 / (place + 1)
                place += 1
            best = min(k, sizes[case])
            out[case, i, 0] = hits > 0
            out[case, i, 1] = hits / sizes[case]
            out[case, i, 2] = hits / k
            out[case, i, 3] = gained / ideal[best]
            out[case, i, 4] = first
            out[case, i, 5] = precisions / best


@numba.njit(nogil=True, cache=True)
def _list(
    lists: np.ndarray,
    at: np.ndarray,
    popularity: np.ndarray,
    covered: np.ndarray,
    listed: np.ndarray,
    popular: np.ndarray,
) -> None:
    for case in range(len(lists)):
        count, total, place = 0, 0.0, 0
        for i in range(len(at)):
            while place < min(at[i], lists.shape[1]):
                code = lists[case, place]
                if code >= 0:
                    count += 1
                    total += popularity[code]
                    # The shortest length that holds it, and so all longer ones.
                    for longer in range(i, len(at)):
                        covered[longer, code] = True
                place += 1
            listed[i] += count
            popular[i] += total
