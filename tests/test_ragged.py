"""Rows of unequal length: taken, joined, and rid of repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.ragged import Ragged, concatenate

rows = st.lists(st.lists(st.integers(0, 40) | st.integers(-(2**62), 2**62), max_size=30), max_size=12)


def ragged_of(values, dtype=np.int64):
    flat = [value for row in values for value in row]
    return Ragged(np.array(flat, dtype), np.cumsum([0, *map(len, values)]))


def lists_of(ragged):
    return [ragged.values[a:b].tolist() for a, b in zip(ragged.offsets, ragged.offsets[1:], strict=False)]


@given(rows, st.data())
def test_rows_are_taken_in_the_order_asked_for(values, data):
    index = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20)) if values else []
    taken = ragged_of(values).take(np.array(index, np.int64))
    assert lists_of(taken) == [values[row] for row in index]
    assert taken.lengths.tolist() == [len(values[row]) for row in index]


@given(st.lists(rows, min_size=1, max_size=4))
def test_parts_are_joined_one_after_the_other(parts):
    assert lists_of(concatenate([ragged_of(part) for part in parts])) == [row for part in parts for row in part]


def test_parts_of_different_types_are_joined_in_the_widest():
    joined = concatenate([ragged_of([[1, 2]], np.int32), ragged_of([[2**40]])])
    assert joined.values.dtype == np.int64 and lists_of(joined) == [[1, 2], [2**40]]


@given(rows)
def test_repeats_go_and_the_first_of_each_stays(values):
    assert lists_of(ragged_of(values).distinct()) == [list(dict.fromkeys(row)) for row in values]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_repeats_in_a_long_row_go_in_linear_time(dtype):
    values = np.arange(2_000_000) // 2
    ragged = Ragged(values.astype(dtype), np.array([0, len(values)]))
    assert np.array_equal(ragged.distinct().values, np.arange(1_000_000))
    assert ragged.distinct().values.dtype == dtype
