"""Words of files found for words of tables: against a slow reference in Python; and the other forms of words."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import Fallback
from bigembed.errors import UserError
from bigembed.pretrained.forms import other_forms, read_lemmas, valid_utf8
from bigembed.pretrained.matching import Matcher, hashes_of

letters = st.text(st.sampled_from("aAbé1 "), max_size=4)


def words(*texts):
    return pa.array(texts, pa.string())


def bytes_of(*texts):
    return pa.array([text if isinstance(text, bytes) else text.encode() for text in texts], pa.binary())


def forms(word, fallback):
    return [form.as_py() for _, some in other_forms(words(word), fallback) for form in some]


def found(matcher, *texts, file=0):
    targets, places = matcher.look(bytes_of(*texts), file)
    assert targets.dtype == places.dtype == np.int64
    return list(zip(targets.tolist(), places.tolist(), strict=True))


def ways(matcher):
    return [matcher.names[way] for way in matcher.ways]


def test_words_are_found_as_they_are_the_first_of_equal_ones():
    matcher = Matcher(words("the", "fox", "Fox"))
    assert found(matcher, "fox", "dog", "the", "fox") == [(1, 0), (0, 2)]
    assert ways(matcher) == ["exact", "exact", "missing"]
    assert found(matcher, "fox", "Fox") == [(2, 1)]
    assert matcher.found().tolist() == [0, 1, 2]


def test_words_need_not_be_utf8_in_files_nor_short_offsets_in_tables():
    matcher = Matcher(words("é", "").cast(pa.large_string()))
    assert found(matcher, b"\xe9", b"\xc3\xa9", b"\xff", b"") == [(0, 1), (1, 3)]


def test_a_slice_of_words_is_looked_up_as_its_own():
    whole = bytes_of("x", "fox", "y", "the")
    targets, places = Matcher(words("skip", "the", "fox").slice(1)).look(whole.slice(1))
    assert targets.tolist() == [1, 0] and places.tolist() == [0, 2]


def test_a_word_as_it_is_goes_before_another_form_of_the_first_file():
    matcher = Matcher(words("paris"), [Fallback.case], files=2)
    assert found(matcher, "PARIS", "Paris", file=0) == [(0, 0)]
    assert matcher.of_file(0).tolist() == [0] and ways(matcher) == ["case"]
    assert found(matcher, "Paris", "paris", file=1) == [(0, 1)]
    assert matcher.of_file(1).tolist() == [0] and matcher.of_file(0).tolist() == [] and ways(matcher) == ["exact"]


def test_an_earlier_file_goes_before_a_later_one_in_whatever_order_they_are_read():
    matcher = Matcher(words("a"), files=2)
    assert found(matcher, "a", file=1) == [(0, 0)]
    assert found(matcher, "a", file=0) == [(0, 0)]
    assert found(matcher, "a", file=1) == []


def test_several_words_may_want_the_same_form():
    matcher = Matcher(words("paris", "PARIS", "Paris"), [Fallback.case])
    assert sorted(found(matcher, "Paris")) == [(0, 0), (1, 0), (2, 0)]
    assert ways(matcher) == ["case", "case", "exact"]


def test_fall_backs_go_in_the_order_of_the_list():
    both = [Fallback.digits, Fallback.case]
    for fallback, best in ((both, "a0"), (both[::-1], "A1")):
        matcher = Matcher(words("a1"), fallback)
        places = dict(found(matcher, "x", "a0", "A1"))
        assert ["x", "a0", "A1"][places[0]] == best


def test_what_is_composed_is_claimed_unless_there_is_better():
    matcher = Matcher(words("a", "b", "c"), [Fallback.case, Fallback.subwords, Fallback.mean])
    found(matcher, "a", "B")
    assert matcher.worse_than("subwords").tolist() == [2]
    assert matcher.claim(np.array([0, 1, 2]), "subwords").tolist() == [2]
    assert matcher.claim(matcher.worse_than("mean"), "mean").tolist() == []
    assert ways(matcher) == ["exact", "case", "subwords"]
    assert found(matcher, "C", "c") == [(2, 0), (2, 1)]


def test_a_fresh_one_has_found_nothing_and_disturbs_nobody():
    matcher = Matcher(words("a"), [Fallback.case], files=3)
    found(matcher, "a", file=2)
    fresh = matcher.fresh()
    assert fresh.is_missing().tolist() == [True] and found(fresh, "A") == [(0, 0)]
    assert ways(matcher) == ["exact"] and ways(fresh) == ["case"]


@given(
    st.lists(letters, unique=True, max_size=8), st.lists(st.tuples(st.integers(0, 1), st.lists(letters)), max_size=6)
)
def test_the_best_of_all_blocks_is_that_of_a_slow_search(wanted, blocks):
    fallback = [Fallback.case, Fallback.digits]
    matcher, best = Matcher(words(*wanted), fallback, files=2), {}
    for number, (file, block) in enumerate(blocks):
        for target, place in found(matcher, *block, file=file):
            best[wanted[target]] = (number, place)
    for word in wanted:
        levels = [[word], forms(word, Fallback.case), forms(word, Fallback.digits)]
        every = [
            (way, file, number, place)
            for number, (file, block) in enumerate(blocks)
            for place, text in enumerate(block)
            for way, texts in enumerate(levels)
            if text in texts
        ]
        assert best.get(word) == (min(every)[2:] if every else None)


def test_forms_of_case_are_lower_first_upper_every_upper_and_upper():
    assert forms("iPhone case", Fallback.case) == ["iphone case", "Iphone case", "Iphone Case", "IPHONE CASE"]
    assert forms("paris", Fallback.case) == ["Paris", "PARIS"]  # that of every word is that of the first
    assert forms("123", Fallback.case) == []


def test_forms_of_unicode_are_normal_forms_and_without_accents():
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert forms(composed, Fallback.unicode) == [apart, "cafe"]
    assert forms(apart, Fallback.unicode) == [composed, "cafe"]
    assert forms("\ufb01n", Fallback.unicode) == ["fin"]
    assert forms("한국", Fallback.unicode) == [unicodedata.normalize("NFD", "한국")]  # syllables are no accents


def test_forms_of_digits_keep_their_number():
    assert forms("in 1984", Fallback.digits) == ["in 0000", "in ####"]
    assert forms("٣", Fallback.digits) == ["0", "#"]
    assert forms("no", Fallback.digits) == []


def test_forms_of_many_words_belong_to_the_right_ones():
    many = words(*(f"w{i}" for i in range(70_000)))
    wanting, upper = zip(*((at, form) for at, form in other_forms(many, Fallback.case) if len(at)), strict=True)
    at, texts = np.concatenate(wanting), pa.concat_arrays(upper)
    assert at.tolist() == list(range(70_000)) and texts[69_999].as_py() == "W69999"


def test_lemmas_are_read_with_tabs_or_spaces(tmp_path):
    path = tmp_path / "lemmas.txt"
    path.write_bytes(b"foxes fox\r\n\nwent\tgo\nNew York's \t New York\nbetter   good")
    read = [
        pair for block in read_lemmas(str(path)) for pair in zip(*(each.to_pylist() for each in block), strict=True)
    ]
    assert read == [("foxes", "fox"), ("went", "go"), ("New York's", "New York"), ("better", "good")]


def test_a_lemma_is_found_for_its_word_the_first_of_two(tmp_path):
    path = tmp_path / "lemmas.txt"
    path.write_text("foxes fox\nsaw see\nsaw saw\nsaw cut\nfox fox\n")
    matcher = Matcher(words("saw", "foxes", "fox", "cat"), [Fallback.lemma], str(path))
    assert sorted(found(matcher, "cut", "see", "fox")) == [(0, 1), (1, 2), (2, 2)]
    assert ways(matcher) == ["lemma", "lemma", "exact", "missing"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a b\none\n", "line 2: 'one' is not a word and its lemma"),
        (b"a b\n\na b c\n", "line 3: 'a b c' is not"),
        (b"a\tb\tc\n", "line 1: 'a.tb.tc' is not"),
        (b"a b\n\xff b\n", "line 2: it is not UTF-8"),
    ],
)
def test_a_bad_line_of_lemmas_is_told_by_its_number(tmp_path, content, told):
    path = tmp_path / "lemmas.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        Matcher(words("a"), [Fallback.lemma], str(path))


def test_a_file_of_lemmas_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.txt cannot be read"):
        Matcher(words("a"), [Fallback.lemma], str(tmp_path / "nothing.txt"))


def test_the_line_of_a_later_block_is_counted_from_the_first(tmp_path):
    path = tmp_path / "lemmas.txt"
    path.write_text("aa b\n" * 1_200_000 + "wrong\n")
    with pytest.raises(UserError, match="line 1200001: 'wrong'"):
        list(read_lemmas(str(path)))


@given(st.lists(st.binary(max_size=6) | st.text(max_size=3).map(str.encode), max_size=8))
def test_utf8_is_what_python_takes_for_it(texts):
    def valid(text):
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
        return True

    array = pa.array([b"skip\xff", *texts], pa.binary()).slice(1)
    assert valid_utf8(array).tolist() == [valid(text) for text in texts]


@pytest.mark.parametrize("edge", [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF])
def test_utf8_ends_where_unicode_does(edge):
    text = chr(edge).encode("utf-8", "surrogatepass")
    assert valid_utf8(bytes_of(text, text[:-1] + b"\xc0")).tolist() == [not 0xD800 <= edge < 0xE000, False]
    assert valid_utf8(bytes_of(b"\xf4\x90\x80\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf")).sum() == 0


def test_hashes_of_no_words_are_none():
    assert len(hashes_of(pa.array([], pa.binary()))) == 0
    assert hashes_of(words("")).tolist() == hashes_of(bytes_of("")).tolist()


def test_pieces_are_found_without_the_mark_of_a_space() -> None:
    pieces = pa.array(["Ġthe", "▁cat", "s", "Ġ", "Ġfile", "##ing"])
    matcher = Matcher(pieces, [Fallback.piece])
    matcher.look(pa.array(["the", "cat", "s", "Ġfile", "file"]))
    assert [matcher.names[way] for way in matcher.ways] == ["piece", "piece", "exact", "missing", "exact", "missing"]


def test_lemmas_in_what_is_no_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no regular file"):
        list(read_lemmas(str(tmp_path)))
