"""Subword tables: rows against a slow reference in Python, gensim's, and what the fastText program itself printed and trained."""

import json
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import SubwordTable, Tokens
from bigembed.encoders import encode_all, tokenize
from bigembed.encoders.subword import SubwordEncoder
from bigembed.errors import UserError

MASK = (1 << 64) - 1
REVIEWS = ["The film is good.", "", "Not good, not good at all!", "It's naïve — the film", "   ", "a 漢 I"]

wild = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.text(st.sampled_from("abA éÉ'.漢<> "), max_size=30)
reviews = st.lists(wild | plain, max_size=10)
lengths = st.tuples(st.integers(1, 7), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
sizes_of_buckets = st.sampled_from([1, 2, 3, 100, 2_000_000, 2**31 - 1, 2**31]) | st.integers(1, 2**31)


def table(words=("the",), **options):
    """Return the encoder of a table that knows these words."""
    counts = np.arange(len(words), 0, -1)
    return SubwordEncoder(SubwordTable(**options), pa.array(words, pa.string()), counts)


def encoded(encoder, values, dtype=np.int64):
    """Return rows and sizes of every value, and the numbers of tokens."""
    column = encoder.open(values if isinstance(values, pa.Array) else pa.array(values, pa.string()), "text")
    result = encoder.encode(column, np.arange(len(column)), dtype)
    assert result.ids.values.dtype == dtype and result.parts[0].sizes.values.dtype == np.int32
    return lists(result.ids), lists(result.parts[0].sizes), result.tokens.tolist()


def lists(ragged):
    return [ragged.values[a:b].tolist() for a, b in pairwise(ragged.offsets.tolist())]


@cache
def slow_hash(text):
    hashed = 2166136261
    for byte in text.encode():
        signed = byte - 256 if byte > 127 else byte
        hashed = ((hashed ^ signed & 0xFFFFFFFF) * 16777619) & 0xFFFFFFFF
    return hashed


def slow_pieces(word, shortest, longest):
    """Return the n-grams of a word, by where they begin, then by length."""
    letters = ["<", *word, ">"]
    edges = ((0, 1), (len(letters) - 1, len(letters)))
    return [
        "".join(letters[i:j])
        for i in range(len(letters))
        for j in range(i + shortest, i + longest + 1)
        if j <= len(letters) and (i, j) not in edges and word != "</s>"
    ]


def slow_word(word, words, config):
    own = [words.index(word)] if word in words else []
    pieces = slow_pieces(word, config.min_n, config.max_n)
    return own + [len(words) + slow_hash(piece) % config.buckets for piece in pieces]


def slow_elements(tokens, words, config):
    """Return the rows of each element of a sample of these tokens."""
    signed = [slow_hash(token) - (slow_hash(token) >> 31 << 32) & MASK for token in tokens]
    elements = []
    for last, token in enumerate(tokens):
        elements.append(slow_word(token, words, config))
        for first in range(last - 1, max(-1, last - config.ngrams), -1):
            hashed = signed[first]
            for other in signed[first + 1 : last + 1]:
                hashed = hashed * 116049371 + other & MASK
            elements.append([len(words) + hashed % config.buckets])
    return elements


def slow_distinct(elements):
    seen, kept = set(), []
    for rows in elements:
        new = [row for i, row in enumerate(rows) if row not in seen and row not in rows[:i]]
        seen.update(new)
        kept += [new] if new else []
    return kept


def flat(elements):
    return [row for rows in elements for row in rows]


@given(
    reviews, lengths, sizes_of_buckets, st.integers(1, 4), st.sampled_from(["words", "whitespace", "whole"]), st.data()
)
def test_rows_of_texts_are_those_of_the_slow_way(texts, shortest_longest, buckets, ngrams, tokens, data):
    shortest, longest = shortest_longest
    lower, distinct = data.draw(st.booleans()), data.draw(st.booleans())
    options = dict(min_n=shortest, max_n=longest, buckets=buckets, ngrams=ngrams, distinct=distinct)
    config = SubwordTable(tokens=Tokens[tokens], lower=lower, **options)
    cut = [tokenize(text, tokens, lower=lower) for text in texts]
    met = sorted({token for each in cut for token in each})
    words = data.draw(st.lists(st.sampled_from(met), unique=True)) if met else []
    encoder = SubwordEncoder(config, pa.array(words, pa.string()), np.ones(len(words), np.int64))
    assert encoder.rows == (len(words) + buckets,)
    expected = [slow_elements(each, words, config) for each in cut]
    expected = [slow_distinct(elements) for elements in expected] if distinct else expected
    rows, sizes, counts = encoded(encoder, texts)
    assert rows == [flat(elements) for elements in expected]
    assert sizes == [[len(element) for element in elements] for elements in expected]
    assert counts == [len(each) for each in cut]


@given(st.lists(st.lists(plain, max_size=4), max_size=6), st.integers(1, 3))
def test_the_texts_of_a_list_are_one_sample(samples, ngrams):
    encoder = table(["a", "é"], ngrams=ngrams, buckets=1000)
    rows, sizes, counts = encoded(encoder, pa.array(samples, pa.list_(pa.string())))
    cut = [[token for text in texts for token in tokenize(text)] for texts in samples]
    expected = [slow_elements(tokens, ["a", "é"], encoder.config) for tokens in cut]
    assert rows == [flat(elements) for elements in expected]
    assert sizes == [[len(element) for element in elements] for elements in expected]
    assert counts == [len(tokens) for tokens in cut]


def test_words_are_learned_by_their_frequency():
    config = SubwordTable(min_count=2, buckets=50)
    column = SubwordEncoder.open(pa.array(REVIEWS), "text")
    encoder = SubwordEncoder.learn("text", config, [column], None, 2, None)
    counts = Counter(token for text in REVIEWS for token in tokenize(text))
    frequent = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word.encode()))
    assert encoder.words().to_pylist() == frequent == ["good", "film", "not", "the"]
    assert encoder.counts().tolist() == [counts[word] for word in frequent]
    assert encoder.word_rows == (0, 4) and encoder.rows == (54,) and encoder.dtype == np.int32
    assert [encoder.row_of(word) for word in frequent] == [0, 1, 2, 3]


def test_an_encoder_comes_back_from_its_words():
    column = SubwordEncoder.open(pa.array(REVIEWS), "text")
    config = SubwordTable(ngrams=2, buckets=1000)
    encoder = SubwordEncoder.learn("text", config, [column], None, 1, None)
    settings = SubwordEncoder.settings_of(config)
    assert json.loads(json.dumps(settings)) == settings
    again = SubwordEncoder.restore(config, encoder.learned, encoder.words(), encoder.counts())
    assert encoded(again, REVIEWS) == encoded(encoder, REVIEWS)
    for other in ({"min_n": 2}, {"max_n": 5}, {"buckets": 999}, {"ngrams": 1}, {"lower": False}):
        assert SubwordEncoder.settings_of(SubwordTable(**{"ngrams": 2, "buckets": 1000, **other})) != settings


def test_the_words_of_a_slice_are_known():
    words = pa.array(["never", "the", "film"])[1:]
    encoder = SubwordEncoder(SubwordTable(buckets=70), words, np.ones(2, np.int64))
    assert encoded(encoder, ["film never"])[0] == [
        slow_word("film", ["the", "film"], encoder.config) + slow_word("never", ["the", "film"], encoder.config)
    ]


def test_rows_are_the_same_in_both_types_and_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    words = ["the", "film", "naïve", "漢字", "unheard-of", "I"]
    texts = [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(20_000)]  # more than one block
    encoder = table(["the", "film"], ngrams=2, buckets=1000)
    column = encoder.open(pa.array(texts), "text")
    whole = encoder.encode(column, np.arange(len(texts)), np.int64)
    for threads in (1, 3):
        parts = encode_all(encoder, column, threads=threads)
        assert parts.ids.values.dtype == np.int32 and (parts.ids.values == whole.ids.values).all()
        for one, other in ((parts.ids, whole.ids), (parts.parts[0].sizes, whole.parts[0].sizes)):
            assert (one.values == other.values).all() and (one.offsets == other.offsets).all()
        assert (parts.tokens == whole.tokens).all()
    some = [7, 19_999, 0]
    assert lists(encoder.encode(column, np.array(some)).ids) == [lists(whole.ids)[row] for row in some]


def test_rows_beyond_31_bits_are_of_64():
    encoder = table(["a"], buckets=2**31)
    rows = slow_word("unknown", ["a"], encoder.config)
    assert encoder.dtype == np.int64 and max(rows) > 1 << 30
    assert encoder.rows_of("unknown").tolist() == rows


def test_there_is_room_for_texts_of_many_short_tokens():
    encoder = table(["a"], tokens=Tokens.whitespace, min_n=1, max_n=16, ngrams=8, buckets=1000)
    text = "a b cd " * 5000
    rows, sizes, counts = encoded(encoder, ["b", text, "a"])
    expected = slow_elements(text.split(), ["a"], encoder.config)
    assert rows[1] == flat(expected) and sizes[1] == [len(element) for element in expected] and counts == [1, 15_000, 1]
    assert rows[0] == slow_word("b", ["a"], encoder.config) and rows[2] == slow_word("a", ["a"], encoder.config)


@pytest.mark.parametrize("known", [True, False])
def test_a_word_of_a_million_letters(known):
    word = "aé漢𝄞" * 250_000
    encoder = table([word] if known else ["a"], tokens=Tokens.whitespace, min_n=5, max_n=6, buckets=10_007)
    words = encoder.words().to_pylist()
    rows, sizes, counts = encoded(encoder, ["", f"a {word} b"], np.int32)
    long = slow_word(word, words, encoder.config)
    assert len(long) == 2_000_000 - 5 + known
    assert rows[1] == slow_word("a", words, encoder.config) + long + slow_word("b", words, encoder.config)
    assert sizes == [[], [int(not known), len(long), 0]] and counts == [0, 3]


def test_short_words_may_have_no_row():
    encoder = table(["I"], lower=False, min_n=4, max_n=6)
    rows, sizes, counts = encoded(encoder, ["a", "I a"])
    assert (rows, sizes, counts) == ([[], [0]], [[0], [1, 0]], [1, 2])
    assert encoder.rows_of("a").tolist() == [] == encoder.pieces_of("a")


def test_brackets_are_letters_within_a_word():
    encoder = table(["<"], tokens=Tokens.whitespace, min_n=1, max_n=2)
    assert encoder.pieces_of("<") == ["<<", "<", "<>"]
    assert encoder.pieces_of(">a") == ["<>", ">", ">a", "a", "a>"]
    assert encoder.rows_of("<").tolist() == slow_word("<", ["<"], encoder.config)


def test_bytes_that_are_no_text_count_as_replacement_characters():
    encoder = table(tokens=Tokens.whitespace, buckets=99)
    rows, *_ = encoded(encoder, pa.array([b"ab\xffcd \xc3"]))
    assert rows == [flat(slow_word(word, ["the"], encoder.config) for word in ("ab\ufffdcd", "\ufffd"))]


def test_regular_expressions_cut_words_too():
    encoder = table(["film"], tokens=Tokens.regex, pattern=r"[a-z]+", buckets=99)
    assert encoded(encoder, ["9 Films, FILM!"])[0] == [
        flat(slow_word(word, ["film"], encoder.config) for word in ("films", "film"))
    ]


def test_rows_and_pieces_of_a_word_go_together():
    encoder = table(["the", "film"], ngrams=2, distinct=True, buckets=10)
    for word, own in (("Film", [1]), ("films", []), ("ЖЖ", [])):
        pieces = slow_pieces(word.lower(), 3, 6)
        assert encoder.pieces_of(word) == pieces
        assert encoder.rows_of(word).tolist() == own + [2 + slow_hash(piece) % 10 for piece in pieces]
    assert encoder.row_of("Film") == 1
    assert [encoder.row_of("the film")] == slow_elements(["the", "film"], ["the", "film"], encoder.config)[-1]


def test_what_has_no_row_of_its_own_is_refused():
    encoder = table(["the"], ngrams=2, min_n=4)
    for token in ("films", "a"):
        with pytest.raises(UserError, match=f"'{token}' has no row of its own in this table"):
            encoder.row_of(token)
    for token, count in (("", 0), ("  ", 0), ("the good film", 3)):
        with pytest.raises(UserError, match=f"'{token}' is {count} tokens as this table cuts texts"):
            encoder.row_of(token)
    for ask in (encoder.rows_of, encoder.pieces_of):
        with pytest.raises(UserError, match="'the film' is 2 tokens as this table cuts texts; name one word"):
            ask("the film")


@pytest.mark.parametrize("array", [pa.array([1, 2]), pa.array([[1], []]), pa.array([], pa.list_(pa.int8()))])
def test_numbers_are_refused(array):
    with pytest.raises(
        UserError, match=r"column 'age' holds .*int.*, and a subword table is made for texts; use a table"
    ):
        SubwordEncoder.open(array, "age")


def test_the_rows_are_bounded_where_the_words_are():
    assert SubwordEncoder.rows_at_most(SubwordTable(max_size=7, buckets=10)) == (17,)
    assert SubwordEncoder.rows_at_most(SubwordTable()) is None


@given(wild.filter(lambda word: word not in ("", "</s>")), lengths, st.integers(1, 2**31))
def test_rows_are_those_of_gensim(word, shortest_longest, buckets):
    fasttext = pytest.importorskip("gensim.models.fasttext")
    shortest, longest = shortest_longest
    encoder = table([], tokens=Tokens.whole, lower=False, min_n=shortest, max_n=longest, buckets=buckets)
    assert encoder.rows_of(word).tolist() == fasttext.ft_ngram_hashes(word, shortest, longest, buckets)


@pytest.fixture(scope="module")
def russian(data_dir):
    """Return a model that the fastText program trained: words, and the matrix of its words and buckets."""
    vectors = pytest.importorskip("gensim.models.fasttext").load_facebook_vectors(
        data_dir / "vectors" / "gensim" / "crime-and-punishment.bin"
    )
    return vectors.index_to_key, np.concatenate([vectors.vectors_vocab, vectors.vectors_ngrams])


def test_n_grams_are_those_that_fasttext_prints(data_dir, russian):
    words, matrix = russian
    encoder = table(words, tokens=Tokens.whole, lower=False, buckets=100)
    seen = []
    for block in (data_dir / "vectors" / "gensim" / "fb-ngrams.txt").read_text("utf-8").split("<start>\n")[1:]:
        word, whole, *lines, _ = block.removesuffix("\n").split("\n")
        assert whole == f"{word} 0 0 0 0 0 "  # of an unknown word
        printed = [line.removesuffix(" ").rsplit(" ", 5) for line in lines]
        assert [piece for piece, *_ in printed] == encoder.pieces_of(word)
        vectors = np.array([numbers for _, *numbers in printed], np.float32)
        np.testing.assert_allclose(matrix[encoder.rows_of(word)], vectors, rtol=1e-4)
        seen.append((word, len(vectors)))
    assert seen == [("test", 10), ("at the", 18), ("atnthe", 18), ("тест", 10), ("テスト", 6), ("試し", 3)]


def test_vectors_of_words_are_those_that_fasttext_wrote(data_dir, russian):
    words, matrix = russian
    encoder = table(words, tokens=Tokens.whole, lower=False, buckets=100)
    lines = (data_dir / "vectors" / "gensim" / "crime-and-punishment.vec").read_text("utf-8").splitlines()[1:]
    written = {word: np.array(numbers, np.float32) for word, *numbers in (line.split() for line in lines)}
    # Of unknown words, by the program (and by gensim's tests).
    written["steamtrain"] = np.array([0.031988, 0.022966, 0.059483, 0.094547, 0.062693], np.float32)
    written["паровоз"] = np.array([-0.0033987, 0.056236, 0.036073, 0.094008, 0.00085222], np.float32)
    assert len(written) == 293
    for word, vector in written.items():
        np.testing.assert_allclose(matrix[encoder.rows_of(word)].mean(0), vector, atol=1e-5)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return a model of the fastText library, of runs of three words, whose rows are random, and these rows."""
    fasttext = pytest.importorskip("fasttext")
    path = tmp_path_factory.mktemp("fasttext") / "train.txt"
    path.write_text("__label__0 the film is good\n__label__1 naïve 漢字 film\n")
    options = dict(wordNgrams=3, minn=2, maxn=4, bucket=500)
    model = fasttext.train_supervised(str(path), dim=4, epoch=0, verbose=0, **options)
    rows = np.random.default_rng(0).random((len(model.get_words()) + 500, 4), np.float32)
    model.set_matrices(rows, np.zeros((2, 4), np.float32))
    return model, rows


@given(st.lists(wild | st.sampled_from(["the", "film", "漢字", "</s>"]), max_size=6))
def test_texts_are_encoded_as_by_the_fasttext_library(library, parts):
    model, matrix = library
    words = model.get_words()
    encoder = table(words, tokens=Tokens.whitespace, lower=False, ngrams=3, min_n=2, max_n=4, buckets=500)
    # Other characters are white space to fastText, and it reads no further than the end of a line, which it adds.
    tokens = [part for part in parts if "\0" not in part and tokenize(part, "whitespace", lower=False) == [part]]
    tokens = tokens[: tokens.index("</s>")] if "</s>" in tokens else tokens
    for token in tokens:
        pieces, rows = model.get_subwords(token)
        assert rows.tolist() == encoder.rows_of(token).tolist()
        assert pieces == ([token] if token in words else []) + encoder.pieces_of(token)
    (rows,), *_ = encoded(encoder, [" ".join([*tokens, "</s>"])])
    np.testing.assert_allclose(model.get_sentence_vector(" ".join(tokens)), matrix[rows].mean(0), atol=1e-6)
