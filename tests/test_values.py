"""Columns of every kind as hashes: against a slow hash of its own, however the values lie; and vocabularies of values."""

import re
import time
import tracemalloc
from collections import Counter
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import HashedTable, Tokens, VocabTable
from bigembed.encoders import (
    HashedEncoder,
    IdsColumn,
    TextColumn,
    VocabEncoder,
    build,
    encode_all,
    load,
    save,
    tokenize,
)
from bigembed.encoders.text import Tokenizer
from bigembed.encoders.text_lists import TextListColumn
from bigembed.encoders.values import Crossed, hash_values, hashes_of, kind_of, open_values
from bigembed.encoders.vocab import count_words
from bigembed.errors import UserError
from bigembed.prepare import _fingerprint

MASK = (1 << 64) - 1
WHOLE = Tokenizer(Tokens.whole, lower=False)
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
CODES = [pa.int8(), pa.uint16(), pa.int32(), pa.int64()]


# --- a slow hash of its own -------------------------------------------------------------------------------------------


def slow_mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def slow_hash(value, salt=0):
    """Return the hash of a text taken whole, or of a number."""
    if isinstance(value, str):
        state = reduce(lambda state, byte: (state ^ byte) * 0x100000001B3 & MASK, value.encode(), 0xCBF29CE484222325)
        return max(slow_mix(state + slow_mix(salt) & MASK), 1)
    return max(slow_mix((value & MASK) + slow_mix(salt) + 0x9E3779B97F4A7C15 & MASK), 1)


def slow_combine(left, right):
    return max(slow_mix(left * 0xD6E8FEB86659FD93 + right & MASK), 1)


def hashes(column, index=None, tokenizer=WHOLE, salt=0):
    """Return the hashes of each row as lists."""
    spans = column.spans(np.arange(len(column)) if index is None else np.array(index, np.int64))
    hashed = hash_values(spans, tokenizer, salt)
    assert hashed.values.dtype == np.uint64
    assert len(hashed) == len(spans)
    return [hashed.values[a:b].tolist() for a, b in pairwise(hashed.offsets.tolist())]


def expected(rows, salt=0, cut=lambda text: [text] if text else []):
    """Return what ``hashes`` should: of texts by how they are cut, of numbers as they are."""

    def of(value):
        return [slow_hash(token, salt) for token in (cut(value) if isinstance(value, str) else [value])]

    return [[each for value in (row if isinstance(row, list) else [row]) for each in of(value)] for row in rows]


def test_hashes_keep_their_golden_values():
    golden = {
        "film": 0xA695EED7086B3B9B,
        "naïve": 0xDE6B847127CE5820,
        "68fd1e64": 0x9465C23110261B59,
        0: 0xE220A8397B1DCDAF,
        1: 0x910A2DEC89025CC1,
        -1: 0xE4D971771B652C20,
        2**63 - 1: 0x2A67D7552E039EA7,
    }
    for value, hashed in golden.items():
        assert slow_hash(value) == hashed
        assert hashes(open_values(pa.array([value]), "x")) == [[hashed]]
    assert hashes(open_values(pa.array(["film"]), "x"), salt=7) == [[0x5C1280BFC3FF9EAA]]
    assert hashes(open_values(pa.array([12]), "x"), salt=7) == [[0x21ED0D9E593BDD63]]


# --- every layout -----------------------------------------------------------------------------------------------------

anything = st.text(st.one_of(st.characters(exclude_categories=("Cs", "Cn")), st.sampled_from("aB é漢")), max_size=20)
texts = st.lists(anything, max_size=12)
lists_of_texts = st.lists(st.lists(anything, max_size=4), max_size=10)


def texts_in_arrow(data, values):
    """Lay texts out in a type, perhaps with a dictionary, with others before and after."""
    kind, codes = data.draw(st.sampled_from(TEXT_TYPES)), data.draw(st.sampled_from([None, *CODES]))
    around = ["before", *values, "after, and longer than a view holds"]
    if codes is None:
        return pa.array(around, pa.string()).cast(kind).slice(1, len(values))
    entries = pa.array(["unused", *sorted(set(around))], pa.string()).cast(kind).slice(1)
    places = pa.array([sorted(set(around)).index(text) for text in around], codes)
    return pa.DictionaryArray.from_arrays(places, entries).slice(1, len(values))


def lists_in_arrow(data, rows):
    """Lay lists of texts out in a type of lists of a type of texts, sliced."""
    around = [["before"], *rows, ["after", "and more"]]
    flat = texts_in_arrow(data, [text for row in around for text in row])
    large = data.draw(st.booleans())
    offsets = pa.array(np.cumsum([0, *map(len, around)]), pa.int64() if large else pa.int32())
    kind = pa.LargeListArray if large else pa.ListArray
    return kind.from_arrays(offsets, flat).slice(1, len(rows))


@given(st.data(), texts, st.integers(0, MASK))
def test_texts_taken_whole_are_hashed_as_the_slow_way_does(data, values, salt):
    column = open_values(texts_in_arrow(data, values), "x")
    assert (type(column), kind_of(column)) == (TextColumn, "texts")
    assert hashes(column, salt=salt) == expected(values, salt)


@given(st.data(), lists_of_texts, st.sampled_from(["whole", "words", "whitespace"]), st.booleans())
def test_lists_of_texts_are_hashed_text_by_text_in_any_order(data, rows, tokens, lower):
    cut = {"whole": lambda text: [text.lower() if lower else text] * bool(text)}
    cut = cut.get(tokens, lambda text: tokenize(text, tokens, lower=lower))
    column = open_values(lists_in_arrow(data, rows), "x")
    assert (type(column), kind_of(column), len(column)) == (TextListColumn, "texts", len(rows))
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)) if rows else []
    if tokens == "whole" and lower:  # Python's lower() is not ours for these
        rows = [[re.sub("[^a-zA-Zé漢 ]", "x", text) for text in row] for row in rows]
        column = open_values(pa.array(rows, pa.list_(pa.string())), "x")
    tokenizer = Tokenizer(Tokens[tokens], lower=lower)
    assert hashes(column, index, tokenizer) == expected([rows[row] for row in index], cut=cut)
    assert column.empty() == sum(not "".join(row) for row in rows)


@given(st.data(), lists_of_texts)
def test_regular_expressions_cut_the_texts_of_lists_too(data, rows):
    tokenizer, cut = Tokenizer(Tokens.regex, r"\w", lower=False), re.compile(r"\w").findall
    assert hashes(open_values(lists_in_arrow(data, rows), "x"), tokenizer=tokenizer) == expected(rows, cut=cut)


def layouts():
    """Yield arrays of the same kinds of rows in every way that Arrow has for them, but for those drawn above."""
    bags, words = [[3, 17, 5], [], [0], [99, 99], [1, 2, 3, 4, 5], [7]], [["a", "bc"], [], [""], ["d", "", "a"]]
    for kind in INTEGERS:
        yield f"{kind}", pa.array([3, 0, 99, 100], kind)
        yield f"list of {kind}", pa.array(bags, pa.list_(kind))
        yield f"dictionary of {kind}", pa.array([3, 0, 99, 3], kind).dictionary_encode()
    yield "large list", pa.array(bags, pa.large_list(pa.int32()))
    yield "fixed list", pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int64(), 2)).slice(1)
    yield "all lists empty", pa.array([[], [], []])
    yield "chunks of lists", pa.chunked_array([bags[:2], [], bags[2:]]).slice(1, 4)
    yield "texts in chunks", pa.chunked_array([["a", ""], [], ["bc"], ["d"]]).slice(1)
    yield "fixed list of texts", pa.array([["a", "b"], ["", "cd"], ["e", "f"]], pa.list_(pa.string(), 2)).slice(1)
    yield "fixed list of no texts", pa.array([[], []], pa.list_(pa.string(), 0))
    yield "lists of texts in chunks", pa.chunked_array([words[:1], [], words[1:3], words]).slice(1, 5)
    values = pa.array(["x", "y", *"abcdef"]).slice(2)
    yield "list of a slice of texts", pa.ListArray.from_arrays(pa.array([0, 2, 5, 6], pa.int32()), values).slice(1)
    dictionaries = [pa.array(row).dictionary_encode() for row in (["a", "b"], ["b", "c"])]
    chunks = [pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), each) for each in dictionaries]
    yield "lists of two dictionaries", pa.chunked_array(chunks)
    yield "nothing", pa.array([], pa.list_(pa.string()))


LAYOUTS = dict(layouts())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_hashes_of_its_values_in_any_order(name):
    array = LAYOUTS[name]
    rows = array.to_pylist()
    column = open_values(array, "x")
    index = np.random.default_rng(0).integers(0, max(1, len(rows)), 3 * len(rows))
    assert hashes(column, index) == expected([rows[row] for row in index])
    assert sum(len(block) for block in column.blocks()) == len(column) == len(rows)
    texts_in = isinstance(column, TextColumn | TextListColumn)
    assert kind_of(column) == ("texts" if texts_in else "numbers")
    assert column.empty() == sum(row in ("", []) or (texts_in and set(row) == {""}) for row in rows)


def test_the_layouts_are_all_that_there_are():
    assert len(LAYOUTS) == 3 * len(INTEGERS) + 11


@given(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=20), st.integers(0, MASK))
def test_numbers_of_all_64_bits_are_hashed_by_their_bits(numbers, salt):
    for kind, low in ((pa.int64(), -(2**63)), (pa.uint64(), 0)):
        fitting = [number for number in numbers if low <= number < low + 2**64]
        assert hashes(open_values(pa.array(fitting, kind), "x"), salt=salt) == expected(fitting, salt)


def test_a_number_has_the_same_hash_whatever_its_type_and_a_text_of_its_digits_another():
    assert len({hashes(open_values(pa.array([[17]], pa.list_(kind)), "x"))[0][0] for kind in INTEGERS}) == 1
    assert hashes(open_values(pa.array([-1]), "x")) == hashes(open_values(pa.array([2**64 - 1], pa.uint64()), "x"))
    assert hashes(open_values(pa.array(["17"]), "x")) != hashes(open_values(pa.array([17]), "x"))


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("New York", "new york"),
        (" a\tB ", " a\tb "),
        ("İSTANBUL ẞ", "i\u0307stanbul ß"),
        ("\ufeffa\u00adb", "\ufeffa\u00adb"),
    ],
)
def test_a_text_taken_whole_is_one_value_lower_cased_only_if_asked_for(text, token):
    assert tokenize(text, "whole", lower=True) == [token]
    assert tokenize(text, "whole", lower=False) == tokenize(text, "whole") == [text]
    assert tokenize("", "whole") == []


def test_bytes_that_are_not_utf8_count_as_replacement_characters_in_whole_texts():
    for content in (b"a\xff", b"\xc3", b"\xed\xa0\x80b", b"\xf5\x80"):
        repaired = "".join(
            "\ufffd" if "\udc80" <= c <= "\udcff" else c for c in content.decode(errors="surrogateescape")
        )
        assert hashes(open_values(pa.array([content]), "x")) == [[slow_hash(repaired)]]


def test_lists_in_a_memory_mapped_file_are_read_where_they_lie(tmp_path):
    chunks = [pa.array([[f"word {i}", "a"], [], [f"{i}"]]) for i in range(300)]
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), pa.schema({"x": chunks[0].type})) as writer:
        for chunk in chunks:
            writer.write_batch(pa.record_batch([chunk], ["x"]))
    rows = pa.chunked_array(chunks).to_pylist()
    before = pa.total_allocated_bytes()
    mapped = pa.ipc.open_file(pa.memory_map(str(tmp_path / "x.arrow"))).read_all()["x"]
    column = open_values(mapped, "x")
    del mapped  # the column itself keeps the memory
    index = np.random.default_rng(1).permutation(len(rows))
    assert hashes(column, index) == expected([rows[row] for row in index])
    assert pa.total_allocated_bytes() - before < 4096
    with pytest.raises(IndexError, match=r"column 'x', which has 900"):
        column.spans(np.array([900]))


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_a_row_of_a_million_values_is_one_row_of_one_block(kind):
    values = pa.array(range(10**6)).cast(kind)
    ends = pa.array([0, 3, 3, 10**6 - 2, 10**6], pa.int32())
    column = open_values(pa.ListArray.from_arrays(ends, values), "x")
    encoder = HashedEncoder(HashedTable(tokens=Tokens.whole, buckets=2**40), {"values": kind_of(column)})
    encode_all(encoder, column)
    began = time.process_time()
    encoded = encode_all(encoder, column)
    assert time.process_time() - began < 2
    assert encoded.tokens.tolist() == [3, 0, 10**6 - 5, 2]
    hashed = [slow_hash(value) for value in values[:7].to_pylist()]
    assert encoded.ids.values[:7].tolist() == [each * 2**40 >> 64 for each in hashed]
    assert len(set(encoded.ids.values.tolist())) > 10**6 - 10


def test_blocks_keep_rows_whole_and_small_ones_together():
    rows = [["word"] * size for size in [0, 1, 200_000, 3, 70_000] + [2] * 200_000]
    column = open_values(pa.array(rows), "x")
    tracemalloc.start()
    sizes = [np.diff(block.rows) for block in column.blocks()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.concatenate(sizes).tolist() == [len(row) for row in rows]
    assert len(sizes) < 20
    assert max(size.sum() for size in sizes) < 300_000
    assert peak < 40 * 300_000


def test_a_fingerprint_of_lists_of_texts_goes_by_the_values_and_not_by_how_they_lie():
    rows, labels = [["ab", "c"], [], ["d", ""], ["é"]], np.zeros(4, np.int64)

    def fingerprint(array):
        return _fingerprint([open_values(array, "x")], labels)

    same = [pa.array(rows, pa.list_(kind)) for kind in TEXT_TYPES]
    same += [pa.array(rows, pa.large_list(pa.string())), pa.chunked_array([rows[:1], rows[1:]])]
    same += [pa.array([["x"], *rows]).slice(1)]
    flat = pa.array([text for row in rows for text in row]).dictionary_encode()
    same += [pa.ListArray.from_arrays(pa.array([0, 2, 2, 4, 5], pa.int32()), flat)]
    assert len({fingerprint(array) for array in same}) == 1
    others = [[["ab"], ["c"], *rows[2:]], [["a", "bc"], *rows[1:]], [["ab", "c", ""], *rows[1:]], [*rows[:3], ["e"]]]
    assert len({fingerprint(pa.array(each)) for each in (rows, *others)}) == 5
    many = pa.array([[f"text {i} {j}" for j in range(i % 9)] for i in range(50_000)])  # more than one block
    assert fingerprint(many) == fingerprint(pa.chunked_array([many.slice(0, 777), many.slice(777)]))


# --- what is refused --------------------------------------------------------------------------------------------------


NULLS = {
    "no text (null) in 1 of 2 rows, the first is row 1": pa.array(["a", None]),
    "no text (null) in 3 of 3 rows, the first is row 0": pa.nulls(3),
    "no id (null) in 1 of 3 rows, the first is row 1": pa.array([1, None, 2]),
    "no list (null) in 2 of 4 rows, the first is row 2": pa.array([["a"], [], None, None]),
    "a text missing (null) in 2 of 4 rows, the first is row 1": pa.array(
        [[None], ["a"], ["b", None, None], [], [None]]
    ).slice(1),
    "a text missing (null) in 1 of 3 rows, the first is row 2": pa.array(
        [[None, "a"], ["b", "c"], ["d", "e"], ["f", None]], pa.list_(pa.string(), 2)
    ).slice(1),
    "a text missing (null) in 1 of 2 rows, the first is row 1": pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
    ),
    "an id missing (null) in 1 of 2 rows, the first is row 0": pa.array([[1, None], []]),
}


@pytest.mark.parametrize("message", NULLS)
def test_nulls_are_refused_with_their_row_and_a_remedy(message):
    with pytest.raises(UserError, match=re.escape(f"column 'x' has {message}: drop these rows or ")):
        open_values(NULLS[message], "x")


def test_a_null_outside_of_all_lists_is_no_matter():
    values = pa.array([None, "a", "b", None])
    column = open_values(pa.ListArray.from_arrays(pa.array([1, 2, 3], pa.int32()), values), "x")
    assert hashes(column) == expected([["a"], ["b"]])


@pytest.mark.parametrize("array", [pa.array([1.5]), pa.array([1.0], pa.float32()), pa.array([[1.5]])])
def test_numbers_with_a_fraction_are_sent_to_bucketized_tables(array):
    with pytest.raises(UserError, match=rf"column 'x' holds {re.escape(str(array.type))}, .* table of kind bucketized"):
        open_values(array, "x")


@pytest.mark.parametrize(
    "array", [pa.array([True]), pa.array([[["a"]]]), pa.array([{"a": 1}]), pa.array([b"ab"], pa.binary(2))]
)
def test_columns_of_something_else_are_refused(array):
    with pytest.raises(UserError, match=f"column 'x' holds {re.escape(str(array.type))}, not texts, whole numbers"):
        open_values(array, "x")
    with pytest.raises(UserError, match="not lists of texts"):
        TextListColumn(array, "x")


# --- crossed columns --------------------------------------------------------------------------------------------------


def crossed(*arrays):
    columns = [open_values(pa.array(array), name) for array, name in zip(arrays, "abc", strict=False)]
    return Crossed(columns, " × ".join(column.name for column in columns))


combinations = st.lists(st.tuples(anything, st.integers(-9, 2**40), anything), min_size=1, max_size=12)


@given(st.data(), combinations, st.integers(0, MASK))
def test_crossed_columns_combine_the_hashes_of_their_values_in_order(data, rows, salt):
    column = crossed(*map(list, zip(*rows, strict=True)))
    wanted = [
        [reduce(slow_combine, [slow_hash(value, salt) for value in row])] if row[0] and row[2] else [] for row in rows
    ]
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    assert hashes(column, index, salt=salt) == [wanted[row] for row in index]
    assert column.empty() == wanted.count([])
    assert kind_of(column) == "texts × numbers × texts"


def test_texts_that_are_crossed_are_taken_whole_however_the_table_cuts_others():
    column = crossed(["New York", "new york"], [1, 1])
    words, plain = Tokenizer(Tokens.words, lower=True), Tokenizer(Tokens.words)
    lowered = hashes(column, tokenizer=words)
    assert lowered[0] == lowered[1] == [slow_combine(slow_hash("new york"), slow_hash(1))]
    assert hashes(column, tokenizer=plain)[0] != lowered[0]
    assert hashes(crossed([1], [2])) != hashes(crossed([2], [1]))


def test_crossed_columns_are_encoded_by_blocks_like_any_other():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 1000, 150_000), rng.integers(0, 1000, 150_000)
    column = Crossed([IdsColumn(pa.array(left), "a"), TextColumn(pa.array(right).cast(pa.string()), "b")], "a × b")
    encoder = HashedEncoder(HashedTable(buckets=2**40), {"values": kind_of(column)})
    assert len(list(column.blocks())) > 1
    whole, parts = encoder.encode(column, np.arange(len(column))), encode_all(encoder, column, threads=2)
    assert np.array_equal(whole.ids.values, parts.ids.values)
    assert len(set(parts.ids.values.tolist())) == len(set(zip(left.tolist(), right.tolist(), strict=True)))
    assert parts.tokens.tolist() == [1] * 150_000


def test_the_fingerprint_of_crossed_columns_is_that_of_both():
    def fingerprint(*arrays):
        return _fingerprint([crossed(*arrays)], np.zeros(2, np.int64))

    different = [(["a", "b"], [1, 2]), (["a", "b"], [1, 3]), (["a", "c"], [1, 2])]
    assert len({fingerprint(*arrays) for arrays in different}) == 3


def test_what_cannot_be_crossed_is_refused():
    plain = open_values(pa.array([1]), "a")
    for array in (pa.array([["b"]]), pa.array([[1]])):
        with pytest.raises(UserError, match="column 'b' holds lists, and what is crossed must have one value a row"):
            Crossed([plain, open_values(array, "b")], "a × b")
    with pytest.raises(ValueError, match="two or more columns of the same number of rows"):
        Crossed([plain], "a")
    with pytest.raises(ValueError, match="the same number of rows"):
        Crossed([plain, open_values(pa.array([1, 2]), "b")], "a × b")


# --- vocabularies of values -------------------------------------------------------------------------------------------


def counted(columns, **options):
    words, counts = count_words(VocabTable(tokens=Tokens.whole, lower=False, **options), columns)
    return dict(zip(words.to_pylist(), counts.tolist(), strict=True))


@given(st.sampled_from(INTEGERS), st.lists(st.lists(st.integers(0, 127), max_size=5), max_size=10), st.integers(1, 3))
def test_numbers_are_counted_as_decimal_words(kind, rows, threads):
    column = open_values(pa.array(rows, pa.list_(kind)), "x")
    words, counts = count_words(VocabTable(), [column], threads=threads)
    wanted = Counter(str(number) for row in rows for number in row)
    assert dict(zip(words.to_pylist(), counts.tolist(), strict=True)) == wanted


def test_numbers_at_the_edges_are_words_that_are_found_again():
    signed = [-(2**63), -1, 0, 2**63 - 1, -1]
    unsigned = [2**64 - 1, 2**63, 0, 5, 2**63]
    for kind, numbers in ((pa.int64(), signed), (pa.uint64(), unsigned)):
        column = open_values(pa.array(numbers, kind), "x")
        assert counted([column]) == Counter(map(str, numbers))
        encoder = build("t", VocabTable(), [column])
        assert encoder.learned == {"values": "numbers"}
        assert hashes_of(encoder.words(), "numbers").tolist() == [
            slow_hash(int(word)) for word in encoder.words().to_pylist()
        ]
        row = {int(word): i for i, word in enumerate(encoder.words().to_pylist(), 1)}
        encoded = encoder.encode(column, np.arange(5))
        assert encoded.ids.values.tolist() == [row[number] for number in numbers]


def test_a_vocabulary_of_many_numbers_is_counted_right_by_any_number_of_threads():
    numbers = np.random.default_rng(0).zipf(1.2, 300_000) % (1 << 40) - 1000
    column = open_values(pa.array(numbers), "x")
    wanted = Counter(map(str, numbers.tolist()))
    assert len(wanted) > 1 << 14  # more than the counter's first room
    encoders = [build("t", VocabTable(max_size=30_000), [column], threads=threads) for threads in (1, 3)]
    kept = sorted(wanted, key=lambda word: (-wanted[word], word.encode()))[:30_000]
    for encoder in encoders:
        assert encoder.words().to_pylist() == kept
        assert encoder.counts().tolist() == [wanted[word] for word in kept]


def test_lists_of_texts_taken_whole_are_words_and_unseen_ones_have_row_0(tmp_path):
    rows = [["New York", "b"], [], ["b", "", "b"], ["New York"]]
    config = VocabTable(tokens=Tokens.whole, lower=False)
    column = open_values(pa.array(rows), "x")
    encoder = build("t", config, [column])
    assert encoder.words().to_pylist() == ["b", "New York"]
    assert encoder.counts().tolist() == [3, 2]
    others = open_values(pa.array([["New York", "new york", "b"]]), "x")
    assert encoder.encode(others, np.zeros(1, np.int64)).ids.values.tolist() == [2, 0, 1]
    save(encoder, tmp_path / "t")
    again = load(config, tmp_path / "t")
    assert isinstance(again, VocabEncoder) and again.learned == {"values": "texts"}
    assert again.row_of("New York") == 2


@given(texts.filter(any), st.booleans())
def test_every_whole_text_of_a_vocabulary_is_found_again(values, lower):
    values += ["\x00", "\x01A"]
    encoder = build("t", VocabTable(tokens=Tokens.whole, lower=lower), [open_values(pa.array(values), "x")])
    rows = encoder.encode(open_values(pa.array(values), "x"), np.arange(len(values))).ids
    assert rows.lengths.tolist() == [int(value != "") for value in values]
    words = [None, *encoder.words().to_pylist()]
    assert [words[row] for row in rows.values] == [tokenize(text, "whole", lower=lower)[0] for text in values if text]


def test_a_saved_vocabulary_of_numbers_comes_back_the_same(tmp_path):
    column = open_values(pa.array([[2**63, 7], [7], []], pa.list_(pa.uint64())), "x")
    encoder = build("t", VocabTable(ngrams=2, buckets=1000), [column])
    save(encoder, tmp_path / "t")
    again = load(VocabTable(ngrams=2, buckets=1000), tmp_path / "t")
    assert again.words().to_pylist() == ["7", str(2**63)]
    one, other = (each.encode(column, np.arange(3)) for each in (encoder, again))
    assert np.array_equal(one.ids.values, other.ids.values)
    first, gram = again.word_rows[1], slow_combine(slow_hash(2**63), slow_hash(7))
    assert other.ids.values.tolist() == [2, 1, first + (gram * 1000 >> 64), 1]
    assert again.row_of("7") == 1


def test_a_word_that_is_no_number_is_not_taken_for_one():
    for word in ("a", "1.5", "", str(2**64), "-9223372036854775809"):
        with pytest.raises(ValueError):
            hashes_of(pa.array([word]), "numbers")


def test_columns_of_both_kinds_and_crossed_ones_have_no_vocabulary():
    one, other = open_values(pa.array(["a"]), "a"), open_values(pa.array([1]), "b")
    with pytest.raises(UserError, match="columns 'a' and 'b' share a table, but hold texts and numbers"):
        build("t", VocabTable(), [one, other])
    with pytest.raises(UserError, match=r"column 'a × b' is crossed, and a vocabulary keeps no combinations: .*hashed"):
        build("t", VocabTable(), [Crossed([one, other], "a × b")])
