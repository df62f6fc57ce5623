import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import Sampling, Split
from bigembed.errors import UserError
from bigembed.interactions import Sampler, catalogue_of, held_out, known, load, open_catalogue, save
from bigembed.interactions import keys as of_ids

WIDE = st.integers(-(2**63), 2**63 - 1)
IDS = st.one_of(st.lists(st.integers(-5, 40)), st.lists(WIDE), st.lists(st.text(max_size=4)))


def chunked(values, kind=None, cut=0):
    return pa.chunked_array([pa.array(values[:cut], kind), pa.array(values[cut:], kind)], kind)


def of(values):
    return pa.string() if values and isinstance(values[0], str) else pa.int64()


@given(IDS, IDS, st.integers(0, 10), st.sampled_from([1, 3, 1000]))
def test_a_catalogue_of_a_column_numbers_its_distinct_ids_in_their_order(values, others, cut, block):
    before, of_ids.BLOCK = of_ids.BLOCK, block
    try:
        catalogue = catalogue_of(chunked(values, of(values), cut), "user", "user")
        expected = sorted(set(values), key=lambda each: each.encode() if isinstance(each, str) else each)
        assert catalogue.keys.to_pylist() == expected == catalogue.table["user"].to_pylist()
        assert catalogue.codes(chunked(values, of(values), cut)).tolist() == [expected.index(value) for value in values]
        if not others or of(others) == of(values):
            others = [*others, *values[:3]]
            codes = [expected.index(value) if value in expected else -1 for value in others]
            assert catalogue.codes(chunked(others, of(values), cut)).tolist() == codes
            strange = list(dict.fromkeys(value for value in others if value not in expected))
            apart = [
                code if code >= 0 else -1 - strange.index(value) for code, value in zip(codes, others, strict=True)
            ]
            assert catalogue.codes(chunked(others, of(values), cut), apart=True).tolist() == apart
    finally:
        of_ids.BLOCK = before


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64()])
def test_whole_numbers_of_any_width_are_the_same_ids(kind):
    catalogue = catalogue_of(chunked([7, 3, 7], pa.int64(), 1), "item", "item")
    assert catalogue.codes(chunked([3, 7, 9], kind, 2)).tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_of_any_type_are_the_same_ids(kind):
    catalogue = catalogue_of(chunked(["b", "ä", "b", ""], kind, 1), "item", "item")
    assert catalogue.keys.to_pylist() == ["", "b", "ä"]
    assert catalogue.codes(pa.chunked_array([pa.array(["x", "ä", "b"])]).slice(1)).tolist() == [2, 1]


def test_two_texts_of_one_hash_are_two_ids():
    pair = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"]  # of one FNV-1a of 64 bits
    catalogue = catalogue_of(pa.chunked_array([pair]), "item", "item")
    assert catalogue.codes(pa.chunked_array([pair])).tolist() == [0, 1]
    alone = catalogue_of(pa.chunked_array([pair[:1]]), "item", "item")
    assert alone.codes(pa.chunked_array([pair])).tolist() == [0, -1]


def test_many_sparse_ids_are_found():
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 50_000)
    catalogue = catalogue_of(pa.chunked_array([ids]), "user", "user")
    assert np.array_equal(catalogue.keys.to_numpy()[catalogue.codes(pa.chunked_array([ids]))], ids)
    assert (catalogue.codes(pa.chunked_array([np.arange(1000)])) == -1).all()


@pytest.mark.parametrize(
    "values, message",
    [
        (pa.chunked_array([[1, 2], [3, None, None]]), "Row 3 of column 'user' of users is null, as are 2 of 5 rows"),
        (pa.chunked_array([[1.5]]), "column 'user' of users holds double, and ids are whole numbers or texts"),
        (pa.chunked_array([[[1]]]), "holds list<item: int64>"),
        (pa.chunked_array([[True]]), "holds bool"),
        (pa.chunked_array([[2**64 - 1]], pa.uint64()), "ids beyond 64 bits with a sign"),
        (pa.chunked_array([[None]], pa.null()), "Row 0 of column 'user' of users is null"),
    ],
)
def test_a_column_that_holds_no_ids_is_refused(values, message):
    with pytest.raises(UserError) as error:
        catalogue_of(values, "user", "user")
    assert message in str(error.value)
    if message.startswith("Row") or "64 bits" in message:
        with pytest.raises(UserError):
            catalogue_of(pa.chunked_array([[1]]), "user", "user").codes(values)


def test_texts_are_not_looked_for_among_numbers():
    catalogue = catalogue_of(pa.chunked_array([[1, 2]]), "item", "item")
    with pytest.raises(UserError, match="The items are texts in one part of the data and whole numbers in another"):
        catalogue.codes(pa.chunked_array([["1"]]))
    assert catalogue.codes(pa.chunked_array([[]], pa.null())).tolist() == []
    assert catalogue.codes(pa.chunked_array([[]], pa.string())).tolist() == []


def test_an_opened_catalogue_keeps_its_rows_and_their_order():
    table = pa.table({"title": ["c", "a", "b"], "item": pa.array([30, 10, 20], pa.int16())})
    catalogue = open_catalogue(table, "item", "item", "data.items")
    assert catalogue.table is table and len(catalogue) == 3
    assert catalogue.codes(pa.chunked_array([[20, 30, 11]])).tolist() == [2, 0, -1]


@pytest.mark.parametrize(
    "table, message",
    [
        (
            {"item": [4, 5, 4, 5, 4]},
            "Rows 0 and 2 of column 'item' of data.items are both 4, and 3 rows in all repeat an id",
        ),
        ({"item": ["a", "b", "b"]}, "Rows 1 and 2 of column 'item' of data.items are both 'b', and 1 rows"),
        ({"item": [4, None]}, "Row 1 of column 'item' of data.items is null, as are 1 of 2 rows"),
        ({"id": [4]}, "data.items has no column 'item', it has 'id'; name the right one in interactions.item"),
        ({"item": pa.array([], pa.int64())}, "data.items has no rows"),
    ],
)
def test_a_table_that_is_no_catalogue_is_refused(table, message):
    with pytest.raises(UserError) as error:
        open_catalogue(pa.table(table), "item", "item", "data.items")
    assert message in str(error.value)


def test_a_catalogue_is_saved_and_loaded(tmp_path: Path):
    genres = pa.chunked_array([pa.array(["x", "y"]).dictionary_encode(), pa.array(["z"]).dictionary_encode()])
    table = pa.table({"item": ["b", "a", "c"], "genres": [["x"], [], ["y", "z"]], "kind": genres, "year": [1, None, 3]})
    catalogue = open_catalogue(table, "item", "item", "data.items")
    save(catalogue, tmp_path / "items.arrow")
    loaded = load(tmp_path / "items.arrow")
    assert (loaded.what, loaded.name, loaded.keys) == ("item", "item", catalogue.keys)
    assert loaded.table.to_pylist() == table.to_pylist()
    assert loaded.codes(pa.chunked_array([["c", "d"]])).tolist() == [2, -1]
    assert [path.name for path in tmp_path.iterdir()] == ["items.arrow"]


def test_a_damaged_catalogue_is_refused(tmp_path: Path):
    path = tmp_path / "users.arrow"
    save(catalogue_of(pa.chunked_array([np.arange(100)]), "user", "user"), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"users\.arrow is not as it was written"):
            load(path)
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"users\.arrow"):
            load(path)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be written"):
        save(catalogue_of(pa.chunked_array([[1]]), "user", "user"), tmp_path / "nowhere" / "users.arrow")


def test_catalogues_need_no_pandas():
    code = (
        "import sys, pyarrow as pa\n"
        "from bigembed.interactions import catalogue_of, load, save\n"
        "from pathlib import Path\n"
        "ints = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(b'\\1' * 16)])\n"
        "for values in (ints, ints.cast(pa.string())):\n"
        "    values = pa.chunked_array([values])\n"
        "    catalogue = catalogue_of(values, 'user', 'user')\n"
        "    assert catalogue.codes(values, apart=True).tolist() == [0, 0]\n"
        "assert 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


INTERACTIONS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.one_of(st.just(float("nan")), st.integers(-3, 3).map(float))),
    max_size=40,
)


@given(INTERACTIONS, st.sampled_from(["none", "float", "whole"]))
def test_what_is_known_is_as_plain_python_finds_it(rows, kind):
    rows = [(u, i, 0.0 if kind == "whole" and t != t else t) for u, i, t in rows]
    user, item = (np.array([row[at] for row in rows], np.int64) for at in (0, 1))
    times = None if kind == "none" else np.array([row[2] for row in rows], np.int64 if kind == "whole" else np.float64)
    found = known(user, item, times, 6, 7)
    have = set()
    for who in range(6):
        own = [row for row in rows if row[0] == who]
        if times is not None:
            own = sorted(own, key=lambda row: -9 if row[2] != row[2] else row[2])
        span = slice(*found.histories.offsets[who : who + 2])
        assert found.histories.values[span].tolist() == [row[1] for row in own]
        if times is not None:
            first = next((row[2] for row in own if row[2] == row[2]), 0)
            assert found.times[span].tolist() == [first if row[2] != row[2] else row[2] for row in own]
        items = sorted({row[1] for row in own})
        assert found.items.take(np.array([who])).values.tolist() == items
        have |= {(who, each) for each in items}
    assert found.counts.tolist() == [sum(row[1] == each for row in rows) for each in range(7)]
    pairs = np.array([(u, i) for u in range(-2, 6) for i in range(-1, 7)])
    assert found.has(pairs[:, 0], pairs[:, 1]).tolist() == [(u, i) in have for u, i in pairs.tolist()]


def test_codes_out_of_range_are_refused():
    one = np.array([0, 1])
    for users, items in ((1, 2), (2, 1)):
        with pytest.raises(ValueError):
            known(one, one, None, users, items)
    with pytest.raises(ValueError):
        known(np.array([-1]), np.array([0]), None, 2, 2)


USERS = np.random.default_rng(1).integers(0, 300, 3000)
COUNTS = np.bincount(USERS)


def test_rows_are_a_share_of_all():
    held = held_out(USERS, None, Split.rows, 0.1, 5, "the training part")
    assert len(held) == len(set(held.tolist())) == 300 and (np.diff(held) > 0).all()
    assert not np.array_equal(held, held_out(USERS, None, Split.rows, 0.1, 6, "the training part"))
    assert len(held_out(USERS[:5], None, Split.rows, 0.01, 5, "")) == 1
    assert len(held_out(USERS[:2], None, Split.rows, 0.99, 5, "")) == 1
    for split in Split:
        assert held_out(USERS, None, split, 0.0, 5, "").tolist() == []


def test_the_last_is_set_aside_of_users_who_have_two():
    user = np.array([2, 0, 2, 1, 0, 2])
    assert held_out(user, None, Split.last, 0.1, 0, "").tolist() == [4, 5]
    assert held_out(user, np.array([1.0, 5, 9, 0, 5, 9]), Split.last, 0.1, 0, "").tolist() == [4, 5]
    assert held_out(user, np.array([10.0, 5, 9, 0, 4, 9]), Split.last, 0.1, 0, "").tolist() == [0, 1]


def test_one_of_every_user_is_drawn_evenly():
    user = np.concatenate([np.repeat(np.arange(3000), 3), [5000]])
    held = held_out(user, None, Split.one, 0.1, 3, "")
    assert np.array_equal(user[held], np.arange(3000))
    assert np.bincount(held % 3) == pytest.approx(np.full(3, 1000), abs=5 * 26)


def test_a_share_of_every_user_is_drawn_and_never_all():
    held = held_out(USERS, None, Split.share, 0.25, 3, "")
    expected = [min(round(0.25 * n), max(n - 1, 0)) for n in COUNTS.tolist()]
    assert np.bincount(USERS[held], minlength=300).tolist() == expected
    assert held_out(np.zeros(4, np.int64), None, Split.share, 0.99, 0, "").tolist() != []
    assert len(held_out(np.zeros(4, np.int64), None, Split.share, 0.99, 0, "")) == 3
    again = held_out(USERS, None, Split.share, 0.25, 4, "")
    assert not np.array_equal(held, again)
    places = np.concatenate([held_out(np.zeros(10, np.int64), None, Split.share, 0.2, s, "") for s in range(2000)])
    assert np.bincount(places) == pytest.approx(np.full(10, 400), abs=5 * 18)


def test_the_latest_are_set_aside_and_no_time_is_on_both_sides():
    times = np.array([3.0, 1, 2, 3, 0, 3])
    assert held_out(np.zeros(6, np.int64), times, Split.time, 0.2, 0, "").tolist() == [0, 3, 5]
    assert held_out(np.zeros(6, np.int64), np.arange(6.0), Split.time, 0.34, 0, "").tolist() == [4, 5]
    with pytest.raises(
        UserError, match="leaves nothing to train on: all 6 rows of the training part are of the time 7"
    ):
        held_out(np.zeros(6, np.int64), np.full(6, 7.0), Split.time, 0.2, 0, "the training part")


@pytest.mark.parametrize("split", [Split.time, Split.last])
def test_unknown_times_are_refused_where_the_split_needs_them(split):
    with pytest.raises(
        UserError, match=f"1 of 2 rows of the training part have no time, and the split '{split.value}'"
    ):
        held_out(np.zeros(2, np.int64), np.array([1.0, np.nan]), split, 0.5, 0, "the training part")
    with pytest.raises(UserError, match=r"name its column in interactions\.time"):
        held_out(np.zeros(2, np.int64), None, Split.time, 0.5, 0, "the training part")
    assert len(held_out(np.zeros(2, np.int64), np.array([1.0, np.nan]), Split.one, 0.5, 0, "")) == 1


SEEN = np.array([900, 0, 100, 25, 1, 0, 4])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_draws_follow_the_power_of_the_counts(power):
    sampler = Sampler(Sampling.popularity, power, SEEN)
    expected = SEEN**power / (SEEN**power).sum()
    assert sampler.probability(np.arange(7)) == pytest.approx(expected, rel=1e-5, abs=2e-9)
    drawn, out = sampler.each(np.arange(1000), 400, np.full(1000, -1), np.full(1000, -1))
    assert not out.any()
    assert np.bincount(drawn.ravel(), minlength=7) / 400_000 == pytest.approx(expected, abs=5 * 0.5 / 632)
    assert (np.bincount(drawn.ravel(), minlength=7)[expected == 0] == 0).all()


def test_draws_of_many_items_follow_their_weights():
    counts = np.random.default_rng(0).zipf(1.3, 20_000).clip(max=10**6)
    sampler = Sampler(Sampling.popularity, 0.75, counts)
    assert sampler.probability(np.arange(20_000)).sum() == pytest.approx(1.0)
    drawn = sampler.each(np.arange(1000), 500, np.full(1000, -1), np.full(1000, -1))[0].ravel()
    expected = 500_000 * sampler.probability(np.arange(20_000))
    tested = np.append(np.flatnonzero(expected > 50), -1)
    seen = np.bincount(drawn, minlength=20_000)
    rest = [seen.sum() - seen[tested[:-1]].sum()], [500_000 - expected[tested[:-1]].sum()]
    seen, expected = np.append(seen[tested[:-1]], rest[0]), np.append(expected[tested[:-1]], rest[1])
    chi = ((seen - expected) ** 2 / expected).sum()
    assert abs(chi - len(seen)) < 5 * np.sqrt(2 * len(seen))


@pytest.mark.parametrize("sampling", [Sampling.uniform, Sampling.popularity])
def test_neither_the_own_item_nor_known_ones_are_drawn(sampling):
    rng = np.random.default_rng(0)
    have = known(rng.integers(0, 50, 400), rng.integers(0, 30, 400), None, 50, 30)
    sampler = Sampler(sampling, 0.75, have.counts, have.items)
    users, own = rng.integers(-1, 60, 500), rng.integers(0, 30, 500)
    drawn, out = sampler.each(rng.integers(-(2**62), 2**62, 500), 20, users, own)
    wrong = (drawn == own[:, None]) | have.has(np.repeat(users, 20), drawn.ravel()).reshape(500, 20)
    assert np.array_equal(wrong, out) and not out.any()
    plain = Sampler(sampling, 0.75, have.counts).each(np.arange(500), 20, users, own)
    assert have.has(np.repeat(users, 20), plain[0].ravel()).any() and not (plain[0] == own[:, None]).any()


def test_draws_that_cannot_count_are_told():
    have = known(np.array([0, 0, 1]), np.array([0, 1, 0]), None, 2, 3)
    codes, out = Sampler(Sampling.uniform, 0.0, have.counts, have.items).each(
        np.arange(3), 5, np.array([0, 1, 0]), np.array([2, 1, 0])
    )
    assert out.tolist() == [[True] * 5, [False] * 5, [False] * 5]
    assert (codes[1:] == 2).all() and ((codes >= 0) & (codes < 3)).all()
    assert Sampler(Sampling.uniform, 0.0, np.array([5])).each(np.arange(2), 1, np.arange(2), np.zeros(2, int))[1].all()


def test_draws_depend_on_their_seed_alone():
    sampler = Sampler(Sampling.popularity, 0.75, SEEN)
    seeds, users, own = np.arange(100) * 7919, np.arange(100), np.arange(100) % 7
    whole = sampler.each(seeds, 6, users, own)[0]
    assert np.array_equal(whole[40:60], sampler.each(seeds[40:60], 6, users[40:60], own[40:60])[0])
    assert np.array_equal(whole[:, :3], sampler.each(seeds, 3, users, own)[0])
    assert (
        len({row.tobytes() for row in Sampler(Sampling.uniform, 1, np.ones(1000)).each(seeds, 6, users, own)[0]}) == 100
    )


@pytest.mark.parametrize("items", [200, 100_000])
def test_shared_draws_are_distinct_ascending_and_as_likely_as_told(items):
    counts = np.random.default_rng(0).integers(0, 50, items)
    sampler = Sampler(Sampling.popularity, 0.75, counts)
    times = np.zeros(items)
    for key in range(2000 if items == 200 else 20):
        codes = sampler.shared(64, key)
        assert (np.diff(codes) > 0).all() and 0 < len(codes) <= 64
        times[codes] += 1
    if items == 200:
        told = np.exp(sampler.log_inclusion(np.arange(200), 64, 0))
        # Poisson's for the binomial: here off by less than 0.5 %.
        assert times / 2000 == pytest.approx(told, abs=5 * np.sqrt(0.25 / 2000))
        assert times.mean() / 2000 == pytest.approx(told.mean(), rel=0.01)
    assert not np.array_equal(sampler.shared(64, 1), sampler.shared(64, 2))
    assert np.array_equal(sampler.shared(64, -3), sampler.shared(64, 2**64 - 3))


def test_the_logarithm_of_being_among_the_negatives():
    sampler = Sampler(Sampling.uniform, 0.75, SEEN)
    codes = np.array([0, 1, 4])
    mean = 10 / 7 + 32 * SEEN[codes] / SEEN.sum()
    assert sampler.log_inclusion(codes, 10, 32) == pytest.approx(np.log(1 - np.exp(-mean)), rel=1e-6)
    assert sampler.log_inclusion(codes, 10, 32).dtype == np.float32
    assert np.isfinite(sampler.log_inclusion(codes, 0, 32)).all()
    every = Sampler(Sampling.all, 0.75, SEEN)
    assert every.shared(3, 0).tolist() == list(range(7))
    assert every.log_inclusion(codes, 10, 32).tolist() == [0.0, 0.0, 0.0]


def test_there_must_be_something_to_draw():
    with pytest.raises(ValueError):
        Sampler(Sampling.uniform, 1.0, np.zeros(0, np.int64))
    with pytest.raises(ValueError):
        Sampler(Sampling.popularity, 1.0, np.zeros(3, np.int64))
