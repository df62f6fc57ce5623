"""Cutting texts into tokens, against a slow tokeniser of its own kind, and reaching them in any form of Arrow's."""

# ruff: noqa: RUF001
import re
import subprocess
import sys
import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bigembed.config.schema import Tokens
from bigembed.encoders import make_unicode_table
from bigembed.encoders.text import CLASS, SHIFT, TextColumn, Tokenizer, hash_words, tokenize, unicode_table
from bigembed.errors import UserError
from bigembed.hashing import hash_string

VISIBLE_FORMAT = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


@cache
def is_dropped(c):
    joins = c in "\u200b\u200c\u200d" or 0xE0020 <= ord(c) < 0xE0080
    return unicodedata.category(c) == "Cf" and not joins and ord(c) not in VISIBLE_FORMAT


def is_han(c):
    return re.match("CJK (UNIFIED|COMPATIBILITY) IDEOGRAPH", unicodedata.name(c, "")) is not None


@cache
def is_word(c):
    return (unicodedata.category(c)[0] in "LN" and not is_han(c)) or unicodedata.category(c) == "Pc"


@cache
def extends(c):
    return unicodedata.category(c)[0] == "M" or c in "\u200c\u200d" or 0xE0020 <= ord(c) < 0xE0080


@cache
def separates(c):
    return unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc") or c == "\u200b"


def slow_words(text, lower=True):
    text = "".join(c for c in text if not is_dropped(c))
    tokens, word_open, token_open = [], False, False
    for i, c in enumerate(text):
        apostrophe = c in "'’"
        inside = apostrophe and word_open and i + 1 < len(text) and is_word(text[i + 1])
        becomes = "'" if apostrophe else c.lower() if lower else c
        if separates(c):
            word_open = token_open = False
        elif inside or (is_word(c) and word_open) or (extends(c) and token_open):
            tokens[-1] += becomes
        else:
            tokens.append(becomes)
            token_open, word_open = True, is_word(c) or extends(c)
    return tokens


# Code points that the table's Unicode knows and this Python's may not are left out.
anything = st.characters(exclude_categories=("Cs", "Cn"))
telling = st.sampled_from(
    "aZ09_ \t\n\x00\x01\x1c\x85\u00a0\u3000.,<'’'’ßẞİıΣσςǅȺéE\u0301\u0308\u200b\u200c\u200d\ufe0f\u00ad\ufeff\u200e"
    "漢字かナ々〇ｱ한ก\u0e34नि👩🏽💻\U0001f3f4\U000e0067½²Ⅷ٣\u0600\u06dd\u2160\ue000\U000f0000\U0010fffd\uf900\U00020000"
)
wild = st.text(st.one_of(anything, telling, telling), max_size=60)


@given(wild, st.booleans())
@example("", True)
@example("don't 'quote' rock’n’roll it' 's ''", True)
def test_words_are_cut_as_the_slow_way_does(text, lower):
    assert tokenize(text, lower=lower) == slow_words(text, lower)


@given(wild)
def test_whitespace_cuts_as_python_does(text):
    assert tokenize(text, "whitespace", lower=False) == text.split()
    assert tokenize(text, "whitespace") == ["".join(c.lower() for c in word) for word in text.split()]


@given(wild, st.sampled_from([r"\w+", r"\S", r"(a)|(\w)\w", r"x*", r"\W", r"[\x00-\x10]"]))
def test_regular_expressions_match_as_python_does(text, pattern):
    assert tokenize(text, "regex", pattern, lower=False) == [m[0] for m in re.finditer(pattern, text) if m[0]]
    lowered = "".join(c.lower() for c in text)
    assert tokenize(text, "regex", pattern) == [m[0] for m in re.finditer(pattern, lowered) if m[0]]


@given(wild, st.sampled_from(["words", "whitespace"]))
def test_a_token_is_its_own_only_token(text, tokens):
    for token in tokenize(text, tokens):
        assert tokenize(token, tokens) == [token]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The film's great — 10/10!", ["the", "film's", "great", "—", "10", "/", "10", "!"]),
        ("It’s a must-see<br />", ["it's", "a", "must", "-", "see", "<", "br", "/", ">"]),
        ("naïve NAÏVE nai\u0308ve", ["naïve", "naïve", "nai\u0308ve"]),
        ("İSTANBUL ΟΔΥΣΣΕΥΣ ẞ", ["i\u0307stanbul", "οδυσσευσ", "ß"]),
        ("漢字とかな", ["漢", "字", "とかな"]),
        ("हिन्दी ภาษาไทย", ["हिन्दी", "ภาษาไทย"]),
        ("👍🏽❤️", ["👍", "🏽", "❤️"]),
        ("co\u00adoperate \ufeffword a\u200bb", ["cooperate", "word", "a", "b"]),
        ("snake_case 3.14 $5", ["snake_case", "3", ".", "14", "$", "5"]),
        ("نمی\u200cخواهم", ["نمی\u200cخواهم"]),
    ],
)
def test_texts_of_many_scripts_are_cut_as_people_would(text, expected):
    assert tokenize(text) == expected


def test_every_code_point_is_cut_as_the_slow_way_does():
    points = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")]
    for text in (" ".join(f"a{c}b" for c in points), ".".join(points), " ".join(f"a'{c}'{c}" for c in points)):
        assert tokenize(text) == slow_words(text)


def test_the_stored_table_is_what_this_python_makes_for_the_code_points_it_knows():
    page_of, pages, version = unicode_table()
    points = np.array([c for c in range(0x110000) if unicodedata.category(chr(c)) != "Cn"])
    stored = pages[page_of[points >> 8], points & 255]
    assert stored.tolist() == [make_unicode_table.entry(c) for c in points.tolist()]
    if version == unicodedata.unidata_version:
        own_page_of, own_pages = make_unicode_table.make()
        assert np.array_equal(own_pages[own_page_of], pages[page_of])


def test_unassigned_code_points_are_symbols():
    page_of, pages, _ = unicode_table()
    for c in (0x0378, 0xFFFF, 0x10FFFF, 0xE0FFF):
        entry = pages[page_of[c >> 8], c & 255]
        assert (entry & CLASS, entry >> SHIFT) == (make_unicode_table.SYMBOL, 0)


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
CODES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
texts = st.lists(st.text(st.one_of(anything, st.just("a")), max_size=40), max_size=12)


def in_arrow(data, values):
    """Lay texts out in one of Arrow's ways: a type, dictionaries, chunks, slices, empty chunks."""
    kind = data.draw(st.sampled_from(TEXT_TYPES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    codes = data.draw(st.sampled_from([None, *CODES]))
    chunks = []
    for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True):
        around = ["before", *values[a:b], "after, and longer than a view holds"]
        if codes is None:
            chunks.append(pa.array(around, pa.string()).cast(kind).slice(1, b - a))
        else:
            entries = pa.array(["unused", *sorted(set(around))], pa.string()).cast(kind).slice(1)
            places = pa.array([sorted(set(around)).index(text) for text in around], codes)
            chunks.append(pa.DictionaryArray.from_arrays(places, entries).slice(1, b - a))
    return pa.chunked_array(chunks)


@given(st.data(), texts)
def test_rows_are_reached_at_random_in_every_form_of_arrows(data, values):
    column = TextColumn(in_arrow(data, values), "review")
    assert len(column) == len(values)
    index = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20)) if values else []
    assert list(column.spans(np.array(index, np.int64)).texts()) == [values[i] for i in index]
    assert [text for block in column.blocks() for text in block.texts()] == values


def test_a_memory_mapped_file_of_many_chunks_is_read_in_place(tmp_path):
    values = [f"row {i} " + "x" * (i % 7) for i in range(6000)]
    schema = pa.schema({"text": pa.string()})
    with pa.ipc.new_file(tmp_path / "texts.arrow", schema) as writer:
        for start in range(0, 6000, 2):
            writer.write_batch(pa.record_batch([pa.array(values[start : start + 2])], schema=schema))
    with pa.memory_map(str(tmp_path / "texts.arrow")) as file:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(file).read_all()
        column = TextColumn(table["text"])
        assert table["text"].num_chunks == 3000
        index = np.random.default_rng(0).permutation(6000)
        assert list(column.spans(index).texts()) == [values[i] for i in index]
        assert pa.total_allocated_bytes() == before


def test_blocks_hold_some_megabytes_and_all_rows():
    sizes = [0, 10, 5_000_000, 3, 4, 1_500_000, 1_500_000, 7] + [100] * 200_000
    column = TextColumn(pa.array(["x" * size for size in sizes]))
    blocks = list(column.blocks())
    assert [size for block in blocks for size in (block.end - block.begin).tolist()] == sizes
    assert all(block[1:].size < 1 << 21 for block in blocks)
    some = np.arange(0, len(sizes), 3)
    assert sum(len(block) for block in column.blocks(some)) == len(some)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2]),
        pa.array([1.5]),
        pa.array([["a"], ["b"]]),
        pa.array([True]),
        pa.array([1, 2]).dictionary_encode(),
        pa.array([b"ab"], pa.binary(2)),
        pa.chunked_array([[{"a": 1}]]),
    ],
)
def test_columns_of_other_types_are_refused_by_the_name_of_the_type(array):
    with pytest.raises(UserError, match=f"column 'review' holds {re.escape(str(array.type))}"):
        TextColumn(array, "review")


@pytest.mark.parametrize("kind", [*TEXT_TYPES, "codes", "entries"])
def test_rows_without_a_text_are_refused_with_their_number(kind):
    values = [None, "a", "b", None, "c", None]
    chunks = [pa.array(["x", "y"]), pa.array(values).slice(1)]
    if kind == "codes":
        chunks = [chunk.dictionary_encode() for chunk in chunks]
    elif kind == "entries":
        entries = pa.array(["x", None])
        chunks = [pa.DictionaryArray.from_arrays(pa.array(codes), entries) for codes in ([0, 0], [0, 0, 1, 0, 1])]
    else:
        chunks = [chunk.cast(kind) for chunk in chunks]
    message = r"column 'review' has no text \(null\) in 2 of 7 rows, the first is row 4: .*fill them"
    with pytest.raises(UserError, match=message):
        TextColumn(pa.chunked_array(chunks), "review")


def test_a_column_of_nulls_alone_is_refused_as_such():
    with pytest.raises(UserError, match="3 of 3 rows, the first is row 0"):
        TextColumn(pa.nulls(3), "review")


def test_an_empty_column_has_no_rows():
    for array in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.array([], pa.string_view())):
        column = TextColumn(array)
        assert len(column) == 0
        assert list(column.blocks()) == []
        assert len(column.spans(np.empty(0, np.int64))) == 0


@pytest.mark.parametrize("row", [-1, 2, 2**40])
def test_rows_that_are_not_there_are_an_error(row):
    with pytest.raises(IndexError, match="'review', which has 2"):
        TextColumn(pa.array(["a", "b"]), "review").spans(np.array([0, row]))


def test_options_of_cutting_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="needs one"):
        Tokenizer(Tokens.regex)
    with pytest.raises(UserError, match="tokens=regex"):
        Tokenizer(Tokens.words, "x")
    with pytest.raises(UserError, match=r"'\(' is not a regular expression.*unterminated"):
        Tokenizer(Tokens.regex, "(")


@given(texts)
def test_words_are_hashed_as_the_format_says(values):
    words = pa.array(["before", *values], pa.string()).slice(1)
    assert hash_words(words).tolist() == [hash_string(value) for value in values]


def test_encoders_come_without_torch():
    code = "import sys, bigembed.encoders; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
