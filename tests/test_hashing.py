"""The hash, the counted random numbers and the shuffle: golden values, and what they promise."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bigembed import hashing

MASK = (1 << 64) - 1
words = st.integers(0, MASK)


def slow_mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def slow_hash(content: bytes, salt: int = 0) -> int:
    state = 0xCBF29CE484222325
    for byte in content:
        state = (state ^ byte) * 0x100000001B3 & MASK
    return slow_mix(state + slow_mix(salt) & MASK) or 1


def test_golden_values_hold_for_as_long_as_the_name_does():
    assert hashing.NAME == "fnv1a64-mix-v1"
    strings = [hashing.hash_string(text) for text in ("", "a", "the", "naïve", "漢")]
    assert strings == [
        0xF52A15E9A9B5E89B,
        0x02C0BDBF481420F8,
        0x901962260B6A34D5,
        0xDE6B847127CE5820,
        0x33D992809809B128,
    ]


def test_golden_values_of_what_is_made_of_a_hash():
    hashed = np.uint64(0x901962260B6A34D5)
    assert [int(hashing.nth_hash(hashed, np.uint64(k))) for k in range(3)] == [
        0x901962260B6A34D5,
        0x8639D7F9A71A137C,
        0x44057A4618EB5F57,
    ]
    assert [int(digit) for digit in hashing.split(hashed, np.uint64(1000))] == [562, 0xE327649C96DE6008]
    signs = [int(hashing.sign_of(np.uint64(hashing.hash_string(text)))) for text in "abcdefgh"]
    assert signs == [1, 1, 1, 1, -1, 1, 1, 1]


@given(words, st.integers(0, 2**20))
def test_further_hashes_are_the_slow_ones(hashed, number):
    expected = hashed if number == 0 else slow_mix(hashed + number * 0x9E3779B97F4A7C15 & MASK)
    assert int(hashing.nth_hash(np.uint64(hashed), np.uint64(number))) == expected
    assert int(hashing.sign_of(np.uint64(hashed))) == 1 - 2 * (slow_mix(hashed ^ 0xA0761D6478BD642F) & 1)


@given(words, st.lists(st.integers(1, 2**20), min_size=2, max_size=3))
def test_digits_of_a_hash_are_those_of_one_number_in_a_mixed_radix(hashed, sizes):
    digits, rest = [], np.uint64(hashed)
    for size in sizes:
        digit, rest = hashing.split(np.uint64(rest), np.uint64(size))
        digits.append(int(digit))
    number = hashed * math.prod(sizes) >> 64
    for digit, size in zip(reversed(digits), reversed(sizes), strict=True):
        assert digit == number % size
        number //= size


@given(st.lists(st.binary(max_size=30), max_size=20), words)
def test_hash_of_strings_is_the_slow_one(strings, salt):
    offsets = np.cumsum([0] + [len(string) for string in strings])
    values = np.frombuffer(b"".join(strings), np.uint8)
    for kind in (np.int32, np.int64):
        hashed = hashing.hash_bytes(values, offsets.astype(kind), salt)
        assert hashed.dtype == np.uint64
        assert hashed.tolist() == [slow_hash(string, salt) for string in strings]


@given(st.text(), words)
def test_hash_of_one_string_is_that_of_its_utf8(text, salt):
    assert hashing.hash_string(text, salt) == slow_hash(text.encode(), salt)
    assert hashing.stream_of(text) == slow_hash(text.encode())


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1), words)
@example([-(2**63), -1, 0, 1, 2**63 - 1], 0)
def test_hash_of_numbers_is_the_slow_one_and_never_collides(numbers, salt):
    hashed = hashing.hash_integers(np.array(numbers), salt).tolist()
    assert hashed == [slow_mix(number + slow_mix(salt) + 0x9E3779B97F4A7C15 & MASK) for number in numbers]
    assert len(set(hashed)) == len(numbers)


@given(words, words)
def test_combining_minds_the_order(left, right):
    combined = int(hashing.combine(np.uint64(left), np.uint64(right)))
    assert combined == slow_mix(left * 0xD6E8FEB86659FD93 + right & MASK)
    assume((left - right) % 2**63)  # an odd factor cannot tell these apart
    assert combined != int(hashing.combine(np.uint64(right), np.uint64(left)))


@given(words, st.integers(1, 2**63))
def test_reducing_scales_the_range(hashed, size):
    assert int(hashing.reduce(np.uint64(hashed), np.uint64(size))) == hashed * size >> 64


@pytest.mark.parametrize("of", ["string", "salt", "number"])
def test_every_flipped_bit_flips_half_of_the_hash(of):
    random = np.random.default_rng(0)
    rates = np.zeros((64, 64))
    trials = 500
    for _ in range(trials):
        value = int(random.integers(0, 1 << 63))
        flipped = np.array([value, *(value ^ 1 << bit for bit in range(64))], np.uint64)
        if of == "string":
            hashed = hashing.hash_bytes(flipped.view(np.uint8), np.arange(66) * 8)
        elif of == "number":
            hashed = hashing.hash_integers(flipped.view(np.int64))
        else:
            hashed = np.array([hashing.hash_string("word", salt) for salt in flipped.tolist()], np.uint64)
        bits = np.unpackbits((hashed[1:] ^ hashed[0]).view(np.uint8).reshape(64, 8), axis=1)
        rates += bits
    # Five standard deviations and a little for looking at 4096 rates.
    assert np.abs(rates / trials - 0.5).max() < 6 * 0.5 / math.sqrt(trials)


def test_hashes_of_similar_words_spread_evenly_over_buckets():
    texts = [f"word{i}".encode() for i in range(100_000)]
    hashed = hashing.hash_bytes(np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)]))
    assert len(np.unique(hashed)) == len(texts)
    for buckets in (hashed % np.uint64(1000), hashed >> np.uint64(54)):
        counts = np.bincount(buckets.astype(np.int64))
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert abs(chi2 - len(counts)) < 6 * math.sqrt(2 * len(counts))


def whole(rows, width, low=-0.5, high=0.5, seed=7, stream=11):
    table = np.empty((rows, width), np.float32)
    hashing.fill_uniform(table, seed, stream, 0, 0, width, low, high, threads=1)
    return table


def test_random_rows_keep_their_golden_values():
    table = whole(2, 3, 0.0, 1.0, seed=1, stream=hashing.stream_of("text"))
    assert (table * 2**24).astype(int).tolist() == [[10718591, 4513698, 16661643], [15101156, 14212069, 13228177]]


@given(st.data())
def test_a_part_of_a_table_is_filled_as_the_whole_is(data):
    rows, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, width - 1))
    shape = data.draw(st.integers(0, rows - row)), data.draw(st.integers(0, width - col))
    part = np.empty(shape, np.float32)
    hashing.fill_uniform(part, 7, 11, row, col, width, -0.5, 0.5, threads=data.draw(st.integers(1, 3)))
    assert np.array_equal(part, whole(rows, width)[row : row + shape[0], col : col + shape[1]])


def test_many_threads_fill_what_one_does():
    table = np.empty((5000, 128), np.float32)
    hashing.fill_uniform(table, 7, 11, 0, 0, 128, -0.5, 0.5)
    assert np.array_equal(table, whole(5000, 128))


def test_rows_far_down_are_filled_like_any_others():
    far = np.empty((2, 4), np.float32)
    hashing.fill_uniform(far, 7, 11, 2**60, 0, 4, 0.0, 1.0)
    key = slow_mix(slow_mix(7 + 0x9E3779B97F4A7C15) + 11)
    expected = [slow_mix(key + (2**62 + i) * 0x9E3779B97F4A7C15 & MASK) >> 40 for i in range(8)]
    assert (far * 2**24).astype(int).ravel().tolist() == expected


def test_random_rows_are_uniform_and_differ_by_seed_and_stream():
    table = whole(2000, 512)
    tables = [table, whole(2000, 512, seed=8), whole(2000, 512, stream=12), np.roll(table, 1)]
    count = table.size
    for i, one in enumerate(tables):
        assert abs(one.mean()) < 5 / math.sqrt(12 * count)
        assert abs(one.var() - 1 / 12) < 5 / math.sqrt(180 * count)
        for other in tables[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(count)
    counts = np.histogram(table, 1000, (-0.5, 0.5))[0]
    assert abs(((counts - counts.mean()) ** 2 / counts.mean()).sum() - 1000) < 6 * math.sqrt(2000)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.1, 0.1), (1.0, 2.0), (-1 / 3, 1e-6), (1e6, 1e6 + 1), (0, 1e-30)]
)
def test_random_numbers_never_reach_the_upper_end(low, high):
    table = whole(4000, 1000, low, high)
    assert table.min() >= np.float32(low)
    assert table.max() < np.float32(high)


def test_filling_refuses_what_it_would_get_wrong():
    with pytest.raises(ValueError, match="float32"):
        hashing.fill_uniform(np.empty((2, 2)), 0, 0, 0, 0, 2, 0, 1)
    with pytest.raises(ValueError, match="contiguous"):
        hashing.fill_uniform(np.empty((4, 4), np.float32)[:, ::2], 0, 0, 0, 0, 4, 0, 1)
    with pytest.raises(ValueError, match="width 3"):
        hashing.fill_uniform(np.empty((2, 2), np.float32), 0, 0, 0, 2, 3, 0, 1)


@given(words, words, st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 50))
def test_counted_numbers_depend_on_their_place_alone(seed, stream, start, skip, count):
    numbers = hashing.uniform(seed, stream, start, skip + count)
    assert np.array_equal(numbers[skip:], hashing.uniform(seed, stream, start + skip, count))
    assert ((numbers >= 0) & (numbers < 1)).all()


@given(st.one_of(st.integers(1, 300), st.integers(1, 20_000)), words)
@example(1, 0)
@example(2, 0)
@example(3, 0)
@example(65_536, 1)
@example(65_537, 1)
def test_shuffling_is_one_to_one(n, key):
    shuffled = hashing.permuted(np.arange(n), n, key)
    assert np.array_equal(np.sort(shuffled), np.arange(n))


@given(st.integers(1, 2**62), words, st.data())
def test_shuffling_works_piecewise_for_any_length(n, key, data):
    positions = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=50))
    shuffled = hashing.permuted(np.array(positions, np.int64), n, key).tolist()
    assert all(0 <= place < n for place in shuffled)
    assert len(set(shuffled)) == len(positions)
    assert shuffled == [int(hashing.permuted(np.array([place]), n, key)[0]) for place in positions]


@pytest.mark.parametrize("n", [2, 3, 5, 6, 12, 31])
def test_shuffles_of_few_send_each_position_everywhere_equally_often(n):
    keys = 6000
    counts = np.zeros((n, n))
    for key in range(keys):
        counts[np.arange(n), hashing.permuted(np.arange(n), n, key)] += 1
    assert np.abs(counts / keys - 1 / n).max() < 5.5 * math.sqrt((1 - 1 / n) / n / keys)


def test_shuffles_show_no_order_of_their_own():
    n = 1_000_003
    places = np.arange(n)
    one, other = hashing.permuted(places, n, 1), hashing.permuted(places, n, 2)
    for a, b in ((one, places), (one, other), (one[1:], one[:-1]), (one[1000:], one[:-1000])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(n)
    steps = np.bincount((one[1:] - one[:-1]) % n * 100 // n)
    assert abs(((steps - steps.mean()) ** 2 / steps.mean()).sum() - 100) < 6 * math.sqrt(200)


def test_shuffle_keeps_its_golden_values():
    assert hashing.permuted(np.arange(10), 10, 0).tolist() == [6, 3, 8, 1, 7, 2, 9, 5, 4, 0]


def test_shuffling_refuses_positions_that_are_not_there():
    for positions, n in (([3], 3), ([-1], 3), ([0], 0), ([0], 2**62 + 1)):
        with pytest.raises(ValueError, match=r"permuted|positions"):
            hashing.permuted(np.array(positions), n, 0)
