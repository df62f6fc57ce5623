"""Cutting texts into tokens, against a slow tokeniser of its own kind, and reaching them in any form of Arrow's."""

# ruff: noqa: RUF001, RUF003
import ctypes
import re
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bigembed.config.schema import Tokens
from bigembed.encoders import make_unicode_table
from bigembed.encoders.text import CLASS, SHIFT, Spans, TextColumn, Tokenizer, hash_words, tokenize, unicode_table
from bigembed.encoders.encoder import Plan  # noqa: F401
from bigembed.errors import UserError
from bigembed.hashing import hash_string

VISIBLE_FORMAT = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def is_dropped(c):
    joins = c in "\u200b\u200c\u200d" or 0xE0020 <= ord(c) < 0xE0080
    return unicodedata.category(c) == "Cf" and not joins and ord(c) not in VISIBLE_FORMAT


def is_han(c):
    return re.match("CJK (UNIFIED|COMPATIBILITY) IDEOGRAPH", unicodedata.name(c, "")) is not None


def is_word(c):
    return unicodedata.category(c)[0] in "LN" and not is_han(c) or unicodedata.category(c) == "Pc"


def extends(c):
    return unicodedata.category(c)[0] == "M" or c in "\u200c\u200d" or 0xE0020 <= ord(c) < 0xE0080


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


def tokens_of_bytes(content, tokens="words"):
    """Cut bytes that may not be UTF-8, with nothing readable after them."""
    column = TextColumn(pa.array([content], pa.binary()))
    encoded = [token for text in column.spans(np.zeros(1, np.int64)).texts() for token in tokenize(text, tokens)]
    return encoded


def bad_to_mark(content):
    return re.sub("[\ud800-\udfff]", "\ufffd", content.decode(errors="surrogateescape"))


@given(st.one_of(st.binary(max_size=20), st.lists(st.sampled_from([b"a", b" ", b"\xc3\xa9", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80", b"\x80"])).map(b"".join)))
def test_bytes_that_are_not_utf8_count_as_replacement_characters(content):
    from bigembed.config.schema import HashedTable
    from bigembed.encoders import HashedEncoder

    for tokens in (Tokens.words, Tokens.whitespace):
        encoder = HashedEncoder(HashedTable(tokens=tokens, buckets=2**40))
        bad = encoder.encode(TextColumn(pa.array([content], pa.binary())), np.zeros(1, np.int64))
        good = encoder.encode(TextColumn(pa.array([bad_to_mark(content)])), np.zeros(1, np.int64))
        assert bad.ids.values.tolist() == good.ids.values.tolist()
