"""Numbers cut into intervals, and dense features: against numpy, with what is missing, infinite and repeated."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import BucketizedTable, NumberConfig, Scheme
from bigembed.encoders.bucketized import EXACT, BucketizedEncoder
from bigembed.encoders.encoder import encode_all
from bigembed.encoders.numbers import NumberColumn, Scale, learn_scale, read
from bigembed.encoders.values import Crossed
from bigembed.errors import UserError

TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TYPES += [pa.float16(), pa.float32(), pa.float64()]
ANY = st.one_of(st.none(), st.floats(width=64), st.integers(-5, 5).map(float))
FINITE = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=60)


def learn(values, index=None, **options):
    column = NumberColumn(pa.array(values, pa.float64()), "x")
    return BucketizedEncoder.learn("t", BucketizedTable(**options), [column], index, 1, None)


def given_borders(borders):
    return learn([0.0], scheme=Scheme.given, borders=borders)


def rows_of(encoder, array):
    column = encoder.open(array, "x")
    encoded = encoder.encode(column, np.arange(len(column)))
    assert encoded.ids.offsets.tolist() == list(range(len(column) + 1))
    assert encoded.tokens.tolist() == [1] * len(column)
    return encoded.ids.values.tolist()


def row_by_hand(value, borders):
    return 0 if value is None or math.isnan(value) else 1 + sum(border <= value for border in borders)


@given(st.lists(ANY, max_size=1100), st.lists(st.integers(-9, 9), unique=True, max_size=12))
def test_rows_are_those_of_the_slow_way(values, borders):
    borders = sorted(map(float, borders))
    encoder = given_borders(borders)
    assert encoder.rows == BucketizedEncoder.rows_at_most(encoder.config) == (len(borders) + 2,)
    assert rows_of(encoder, pa.array(values, pa.float64())) == [row_by_hand(value, borders) for value in values]


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 1000])
def test_every_border_begins_its_interval(count):
    borders = np.arange(count) * 1.5 - 7
    encoder = given_borders(borders.tolist())
    below = np.nextafter(borders, -np.inf)
    assert rows_of(encoder, pa.array(borders)) == list(range(2, count + 2))
    assert rows_of(encoder, pa.array(below)) == list(range(1, count + 1))
    assert rows_of(encoder, pa.array([-np.inf, np.inf, np.nan, None, -0.0])) == [
        *(1, count + 1, 0, 0, row_by_hand(0.0, borders))
    ]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_numbers_of_every_type_and_layout_are_read(kind):
    values = [3, 0, 100, None, 7, 7, None, 1]
    pieces = [pa.array(values[:3], kind), pa.array([], kind), pa.array([9, *values[3:], 9], kind).slice(1, 5)]
    column = NumberColumn(pa.chunked_array(pieces), "x")
    index = np.array([7, 3, 0, 0, 6, 2, 5, 1, 4])
    expected = [1, np.nan, 3, 3, np.nan, 100, 7, 0, 7]
    assert np.array_equal(read(column.spans(index)), expected, equal_nan=True)
    assert np.array_equal(np.concatenate(list(column.values())), [3, 0, 100, np.nan, 7, 7, np.nan, 1], equal_nan=True)
    assert len(TYPES) == 11


def test_nulls_far_into_chunks_of_any_offset_are_found():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000)
    missing = rng.random(1000) < 0.3
    array = pa.array(values, mask=missing)
    pieces = [array.slice(0, 13), array.slice(13, 500), array.slice(513)]
    column = NumberColumn(pa.chunked_array(pieces), "x")
    index = rng.integers(0, 1000, 3000)
    expected = np.where(missing, np.nan, values)[index]
    assert np.array_equal(read(column.spans(index)), expected, equal_nan=True)
    sizes, contents = zip(*column.contents(), strict=True)
    assert np.concatenate(sizes).tolist() == [1] * 1000
    assert np.array_equal(
        np.concatenate([part for parts in contents for part in parts])[index], expected, equal_nan=True
    )
    with pytest.raises(IndexError):
        column.spans(np.array([1000]))


@given(FINITE, st.integers(2, 40))
def test_quantiles_put_no_more_than_their_share_into_an_interval_of_distinct_numbers(values, bins):
    values = np.unique(values)
    encoder = learn(values.tolist(), bins=bins)
    sizes = np.bincount(rows_of(encoder, pa.array(values)), minlength=encoder.rows[0])
    assert encoder.rows[0] <= BucketizedEncoder.rows_at_most(encoder.config)[0]
    assert sizes[0] == 0
    assert sizes[1:].min() >= 1
    assert sizes.max() <= math.ceil(len(values) / bins)


def test_few_distinct_numbers_have_a_row_each_and_a_frequent_one_merges_borders():
    assert learn([0.0] * 50 + [1.0] * 49 + [2.0], bins=64).learned == {"borders": [1.0, 2.0]}
    encoder = learn([0.0] * 900 + list(range(1, 101)), bins=10)
    assert encoder.learned == {"borders": [1.0]}
    assert learn([5.0, 5.0], bins=4).rows == (2,)


def test_missing_and_infinite_numbers_move_no_border():
    plain = learn([1.0, 2.0, 3.0, 4.0], bins=2)
    assert learn([1.0, None, 2.0, np.inf, np.nan, 3.0, -np.inf, 4.0], bins=2).learned == plain.learned
    steps = learn([1.0, 2.0, 3.0, 4.0], bins=2, scheme=Scheme.log)
    assert learn([1.0, None, 4.0, np.inf, np.nan, -np.inf], bins=2, scheme=Scheme.log).learned == steps.learned


def test_only_the_training_rows_are_learned_from_and_all_columns_are():
    assert learn([1.0, 2.0, 300.0], np.array([0, 1])).learned == learn([1.0, 2.0]).learned
    columns = [NumberColumn(pa.array(values), "x") for values in ([1.0, 2.0], [8.0])]
    seen = []
    both = BucketizedEncoder.learn("t", BucketizedTable(), columns, None, 1, seen.append)
    assert both.learned == learn([1.0, 2.0, 8.0]).learned
    assert seen == [2, 3]


def test_log_steps_are_equal_and_turn_around_zero():
    encoder = learn([-1000.0, 5.0, 1000.0], bins=6, scheme=Scheme.log)
    borders = np.array(encoder.learned["borders"])
    assert len(borders) == 5
    assert np.allclose(borders, -borders[::-1])
    assert np.allclose(np.diff(np.sign(borders) * np.log1p(np.abs(borders))), 2 * np.log1p(1000) / 6)
    assert learn([3.0, 3.0], scheme=Scheme.log).rows == (2,)


def test_more_numbers_than_are_sorted_give_nearly_the_same_quantiles_every_time(monkeypatch):
    values = np.random.default_rng(1).normal(size=200_000)
    exact = learn(values, bins=10).learned["borders"]
    assert np.allclose(exact, np.quantile(values, np.arange(1, 10) / 10), atol=1e-3)
    monkeypatch.setattr("bigembed.encoders.bucketized.EXACT", 20_000)
    drawn = learn(values, bins=10).learned["borders"]
    assert drawn != exact
    assert np.allclose(drawn, exact, atol=0.05)
    assert learn(values, bins=10).learned["borders"] == drawn
    assert EXACT == 1 << 23


def test_borders_survive_json_and_the_encoder_its_restoring():
    encoder = learn(np.random.default_rng(0).lognormal(size=5000), bins=100)
    learned = json.loads(json.dumps(encoder.learned))
    again = BucketizedEncoder.restore(encoder.config, learned, pa.array([], pa.string()), np.empty(0, np.int64))
    assert again.learned == encoder.learned
    assert again.rows == encoder.rows == (101,)
    values = pa.array(np.random.default_rng(1).lognormal(size=40_000))
    column = encoder.open(values, "x")
    one, other = (encode_all(each, column, threads=threads) for each, threads in ((encoder, 1), (again, 3)))
    assert one.ids.values.dtype == np.int32
    assert np.array_equal(one.ids.values, other.ids.values)
    assert len(np.unique(one.ids.values)) == 100


def test_what_decides_the_rows_is_in_the_settings():
    settings = BucketizedEncoder.settings_of
    assert settings(BucketizedTable()) == {"scheme": "quantiles", "bins": 64}
    assert settings(BucketizedTable(scheme=Scheme.given, borders=[1, 2])) == {"scheme": "given", "borders": [1.0, 2.0]}


def test_a_row_is_told_as_its_interval_and_found_by_what_is_typed():
    encoder = given_borders([3.5, 7.0, 0.1 + 7])
    told = [encoder.interval_of(row) for row in range(encoder.rows[0])]
    assert told == ["missing", "[-inf, 3.5)", "[3.5, 7)", "[7, 7.1)", "[7.1, inf]"]
    assert [encoder.row_of(text) for text in ("", "nan", "-1e3", "3.5", " 7 ", "7.05", "inf")] == [0, 0, 1, 2, 3, 3, 4]
    for row in (-1, 5):
        with pytest.raises(IndexError):
            encoder.interval_of(row)
    assert given_borders([]).interval_of(1) == "[-inf, inf]"
    texts = encoder.from_texts(["1", "", "8"], "line {}".format)
    assert rows_of(encoder, texts) == [1, 0, 4]
    for text in ("3,5", "1_0", "seven"):
        with pytest.raises(UserError, match=f"^line 1: '{text}' is no number$"):
            encoder.from_texts(["1", text], "line {}".format)


@pytest.mark.parametrize("values", [[], [None, None], [np.nan, np.inf]])
@pytest.mark.parametrize("scheme", [Scheme.quantiles, Scheme.log])
def test_a_column_without_numbers_is_refused(values, scheme):
    with pytest.raises(UserError, match="table 't' cannot be learned: there is no number in column 'x'"):
        learn(values, scheme=scheme)


def test_columns_of_other_types_and_crossed_ones_are_refused():
    for array in (pa.array(["1"]), pa.array([[1.0]]), pa.array([True]), pa.array([b"1"])):
        with pytest.raises(UserError, match=r"column 'x' holds .*, not numbers: name a column"):
            NumberColumn(array, "x")
    encoder = given_borders([1.0])
    columns = [NumberColumn(pa.array([1.0]), name) for name in "xy"]
    encoder.check(columns[0], "f", "t", "train part")
    with pytest.raises(UserError, match=r"feature 'f' crosses columns, but tables\.t is of kind bucketized"):
        encoder.check(Crossed(columns, "x × y"), "f", "t", "train part")


def dense(values, index=None, **options):
    config = NumberConfig(column="x", **options)
    array = pa.array(values, pa.float64())
    scale = learn_scale(array, config, index)
    return scale, scale.apply(array, config, "train part")


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=1, max_size=50).filter(any), st.booleans())
def test_dense_features_are_standardised_as_numpy_does_it(values, log):
    scale, out = dense(values, log=log)
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    wanted = np.sign(numbers) * np.log1p(np.abs(numbers)) if log else numbers
    mean, deviation = np.nanmean(wanted), np.nanstd(wanted)
    reach = np.abs(wanted[~np.isnan(wanted)]).max()
    assert math.isclose(scale.mean, mean, rel_tol=1e-9, abs_tol=1e-9 * reach)
    assert math.isclose(scale.deviation, deviation, rel_tol=1e-6, abs_tol=1e-9 * reach)
    assert scale.missing == np.isnan(numbers).sum()
    assert out.dtype == np.float32
    if deviation > 1e-6 * reach:
        wanted = np.where(np.isnan(wanted), 0, (wanted - mean) / deviation)
        assert np.allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_many_blocks_far_from_zero_lose_no_digits():
    values = np.random.default_rng(0).normal(1e9, 1.0, 100_000)
    scale, out = dense(values)
    assert math.isclose(scale.mean, values.mean(), rel_tol=1e-14)
    assert math.isclose(scale.deviation, values.std(), rel_tol=1e-9)
    assert abs(out.astype(np.float64).mean()) < 1e-6
    assert abs(out.std() - 1) < 1e-5


def test_a_constant_column_is_only_centred():
    scale, out = dense([4.0, None, 4.0])
    assert (scale.mean, scale.deviation, scale.missing) == (4.0, 0.0, 1)
    assert out.tolist() == [0, 0, 0]
    later = scale.apply(pa.array([5, 4]), NumberConfig(column="x"))
    assert later.tolist() == [1, 0]


def test_numbers_that_are_not_standardised_keep_their_values_and_miss_the_mean():
    assert dense([1.0, None, 3.0], standardise=False)[1].tolist() == [1, 2, 3]
    assert np.allclose(dense([math.e - 1, np.nan], standardise=False, log=True)[1], [1, 1])


def test_only_training_rows_count_and_the_scale_survives_json():
    scale, out = dense([1.0, 3.0, 1000.0, None], np.array([0, 1]))
    assert scale == Scale(2.0, 1.0, 0)
    assert out.tolist() == [-1, 1, 998, 0]
    assert Scale(**json.loads(json.dumps({"mean": scale.mean, "deviation": scale.deviation, "missing": 0}))) == scale


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_numbers_that_float32_does_not_reach_are_refused_with_their_row(value):
    scale, _ = dense([1.0, 2.0])
    array = pa.array([1.0] * 20_000 + [None, value])
    with pytest.raises(UserError) as caught:
        scale.apply(array, NumberConfig(column="x"), "test part")
    assert str(caught.value) == (
        f"row 20001 of the test part holds {value} in column 'x', which a dense feature cannot be; mend the data, or use a "
        "table of kind bucketized"
    )


def test_dense_features_of_nothing_or_of_texts_are_refused():
    for values in ([], [None], [np.nan, np.inf]):
        with pytest.raises(UserError, match="column 'x' holds no number in the training rows"):
            dense(values)
    with pytest.raises(UserError, match="column 'x' holds string, not numbers"):
        learn_scale(pa.array(["a"]), NumberConfig(column="x"))
    with pytest.raises(UserError, match="column 'x' are too large for a mean; set log=true"):
        dense([1e300, -1e300])
    assert dense([1e300, -1e300], log=True)[1].tolist() == [1, -1]
