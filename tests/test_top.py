"""The best of many scores, found block by block."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigembed.ragged import Ragged
from bigembed.retrieving import _best_of_block
from bigembed.top import Best


def naive(scores: np.ndarray, removed: list[list[int]], k: int) -> list[list[int]]:
    """The k best codes of each row, the best first, of equal ones the lower code first."""
    found = []
    for row, gone in zip(scores, removed, strict=True):
        left = [code for code in range(len(row)) if code not in gone and not np.isnan(row[code])]
        found.append(sorted(left, key=lambda code: (-row[code], code))[:k])
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], int, int]:
    rows, items = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 1.0, np.nan])
    scores = np.array(draw(st.lists(st.lists(values, min_size=items, max_size=items), min_size=rows, max_size=rows)))
    removed = [sorted(draw(st.sets(st.integers(0, items - 1)))) for _ in range(rows)]
    return scores.astype(np.float32), removed, draw(st.integers(1, 14)), draw(st.integers(1, 5))


def ragged(lists: list[list[int]]) -> Ragged:
    return Ragged(np.array([code for codes in lists for code in codes], np.int64), np.cumsum([0, *map(len, lists)]))


@given(cases(), st.integers(1, 3))
def test_the_best_are_those_of_a_full_sort(case: tuple[np.ndarray, list[list[int]], int, int], threads: int) -> None:
    scores, removed, k, width = case
    best = Best(len(scores), k)
    for start in range(0, scores.shape[1], width):
        best.add_block(np.ascontiguousarray(scores[:, start : start + width]), start, ragged(removed), threads)
    codes, found = best.ordered()
    for row, wanted in enumerate(naive(scores, removed, k)):
        assert codes[row, : len(wanted)].tolist() == wanted
        assert (codes[row, len(wanted) :] == -1).all()
        assert found[row, : len(wanted)].tolist() == scores[row, wanted].tolist()


@given(cases())
def test_parts_found_apart_are_joined_in_any_order(case: tuple[np.ndarray, list[list[int]], int, int]) -> None:
    scores, removed, k, width = case
    joined = Best(len(scores), k)
    for start in reversed(range(0, scores.shape[1], width)):
        part = Best(len(scores), k)
        part.add_block(np.ascontiguousarray(scores[:, start : start + width]), start, ragged(removed))
        joined.add(part.codes, part.scores)
    assert [[code for code in row if code >= 0] for row in joined.ordered()[0].tolist()] == naive(scores, removed, k)


@given(cases())
def test_a_device_finds_the_same_scores(case: tuple[np.ndarray, list[list[int]], int, int]) -> None:
    scores, removed, k, width = case
    scores = np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)
    best, on_device = Best(len(scores), k), Best(len(scores), k)
    for start in range(0, scores.shape[1], width):
        block = np.ascontiguousarray(scores[:, start : start + width])
        best.add_block(np.where(block == -np.inf, np.nan, block), start, ragged(removed))
        on_device.add(*_best_of_block(torch.from_numpy(block.copy()), start, ragged(removed), k))
    assert on_device.ordered()[1].tolist() == best.ordered()[1].tolist()
