"""The order of the samples: a shuffle that is whole, can be entered anywhere, and needs no memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.data.order import Order

rows = st.integers(1, 3000)
fractions = st.one_of(st.just(0.0), st.floats(0.0, 0.99))
seeds = st.integers(0, 2**63 - 1)


@given(rows, fractions, seeds, st.integers(0, 1000))
def test_every_epoch_visits_each_training_row_once_and_no_validation_row(rows, fraction, seed, epoch):
    order = Order(rows, fraction, seed)
    train = order.train_rows(epoch, 0, order.train_size)
    validation = order.validation_rows(0, order.validation_size)
    assert train.dtype == validation.dtype == np.int64
    assert sorted(np.concatenate([train, validation]).tolist()) == list(range(rows))


@given(rows, fractions, seeds, st.data())
def test_any_slicing_gives_the_same_order(rows, fraction, seed, data):
    order = Order(rows, fraction, seed)
    for size, take in (
        (order.train_size, lambda *at: order.train_rows(3, *at)),
        (order.validation_size, order.validation_rows),
    ):
        cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
        pieces = [take(a, b) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        np.testing.assert_array_equal(np.concatenate(pieces), take(0, size))


@given(rows, st.floats(0.0, 0.99))
def test_the_validation_part_has_the_asked_size_but_never_all_rows(rows, fraction):
    order = Order(rows, fraction, 0)
    assert order.train_size >= 1
    assert order.train_size + order.validation_size == rows
    if fraction == 0.0 or rows == 1:
        assert order.validation_size == 0
    else:
        assert order.validation_size == min(rows - 1, max(1, round(fraction * rows)))


def test_seeds_and_epochs_differ_and_are_shuffled():
    rows = 10_000
    orders = [Order(rows, 0.1, seed).train_rows(epoch, 0, 9_000) for seed in (0, 1) for epoch in (0, 1)]
    for i, one in enumerate(orders):
        assert np.mean(one == np.arange(9_000)) < 0.01
        for other in orders[:i]:
            assert np.mean(one == other) < 0.01
    assert abs(np.corrcoef(orders[0][:-1], orders[0][1:])[0, 1]) < 0.05


def test_seeds_differ_in_the_validation_part_and_epochs_do_not():
    parts = [set(Order(10_000, 0.1, seed).validation_rows(0, 1000).tolist()) for seed in (0, 1)]
    assert len(parts[0] & parts[1]) < 200
    mean = np.mean(list(parts[0]))
    assert 4_600 < mean < 5_400


def test_a_long_part_costs_no_memory_and_no_time():
    order = Order(10**12, 0.1, 7)
    assert order.validation_size == 10**11
    taken = order.train_rows(2, 5 * 10**11, 5 * 10**11 + 1000)
    assert len(np.unique(taken)) == 1000
    assert taken.max() < 10**12


def test_the_order_is_pinned():
    # A checkpoint continues in this order: it may only change together with the checkpoints' version.
    order = Order(1000, 0.1, 42)
    assert order.train_rows(0, 0, 5).tolist() == [836, 322, 145, 370, 865]
    assert order.validation_rows(0, 5).tolist() == [83, 360, 111, 397, 212]


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 91)])
def test_positions_outside_of_the_part_are_refused(start, stop):
    with pytest.raises(ValueError, match="do not lie in"):
        Order(100, 0.1, 0).train_rows(0, start, stop)
