"""Encoders: ids against slow references in Python, vocabularies against a Counter, files against damage."""

import ctypes
import mmap
import re
import time
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed import hashing
from bigembed.config.schema import HashedTable, Tokens, VocabTable
from bigembed.encoders import HashedEncoder, TextColumn, VocabEncoder, build, encode_all, load, save, store, tokenize
from bigembed.encoders.columns import Spans
from bigembed.encoders.slots import make_slots
from bigembed.encoders.vocab import count_words
from bigembed.errors import UserError

MASK = (1 << 64) - 1
REVIEWS = ["The film is good.", "", "Not good, not good at all!", "It's naïve — the film", "   "]

letters = st.text(st.sampled_from("abcABC éÉ'.漢 "), max_size=40)
reviews = st.lists(letters, max_size=12)


def column(texts, kind=None):
    return TextColumn(pa.array(texts, kind or pa.string()), "text")


def hashed(**options):
    return HashedEncoder(HashedTable(**options), {"values": "texts"})


def everything(texts):
    return np.arange(len(texts))


def rows_of(encoded):
    offsets = encoded.ids.offsets.tolist()
    values = encoded.ids.values.tolist()
    return [values[a:b] for a, b in pairwise(offsets)]


def slow_combine(left, right):
    return int(hashing.mix(np.uint64(left * 0xD6E8FEB86659FD93 + right & MASK)))


def slow_ids(tokens, ngrams, word_row, gram_row, salt=0):
    """Return the ids of one text: each token's row, then those of the n-grams that end at it."""
    hashes = [hashing.hash_string(token, salt) for token in tokens]
    ids = []
    for i, token in enumerate(tokens):
        ids.append(word_row(token))
        for n in range(2, ngrams + 1):
            if n <= i + 1:
                gram = hashes[i - n + 1]
                for other in hashes[i - n + 2 : i + 1]:
                    gram = slow_combine(gram, other)
                ids.append(gram_row(gram))
    return ids


@given(reviews, st.integers(1, 5), st.sampled_from([1, 2, 1000, 2**33 + 7, 2**40]), st.integers(0, MASK))
def test_hashed_ids_are_those_of_the_slow_way(texts, ngrams, buckets, salt):
    config = HashedTable(ngrams=ngrams, buckets=buckets, salt=salt)
    encoder = build("text", config, [column(texts)])
    encoded = encoder.encode(column(texts), everything(texts))
    assert encoded.ids.values.dtype == np.int64
    assert encoded.tokens.tolist() == [len(tokenize(text)) for text in texts]
    assert rows_of(encoded) == [
        slow_ids(
            *(tokenize(text), ngrams),
            lambda token: hashing.hash_string(token, salt) * buckets >> 64,
            lambda gram: gram * buckets >> 64,
            salt,
        )
        for text in texts
    ]


@given(reviews, reviews, st.integers(1, 4), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 6)))
def test_vocabulary_ids_are_those_of_the_slow_way(texts, others, ngrams, min_count, max_size):
    config = VocabTable(ngrams=ngrams, min_count=min_count, max_size=max_size, buckets=1000)
    counts = Counter(token for text in texts for token in tokenize(text))
    kept = [word for word in counts if counts[word] >= min_count]
    kept = sorted(kept, key=lambda word: (-counts[word], word.encode()))[:max_size]
    if not kept:
        with pytest.raises(UserError, match="'text' would be empty"):
            build("text", config, [column(texts)])
        return
    encoder = build("text", config, [column(texts)])
    assert encoder.words().to_pylist() == kept
    assert encoder.counts().tolist() == [counts[word] for word in kept]
    assert encoder.word_rows == (1, 1 + len(kept))
    assert encoder.rows == (1 + len(kept) + (1000 if ngrams > 1 else 0),)
    row = {word: i for i, word in enumerate(kept, 1)}
    encoded = encoder.encode(column(texts + others), everything(texts + others))
    assert rows_of(encoded) == [
        slow_ids(
            tokenize(text), ngrams, lambda token: row.get(token, 0), lambda gram: 1 + len(kept) + (gram * 1000 >> 64)
        )
        for text in texts + others
    ]


def test_ids_keep_their_golden_values():
    encoder = hashed(ngrams=2, buckets=1_000_000)
    encoded = encoder.encode(column(REVIEWS), everything(REVIEWS))
    # If these differ after a change of bigembed/hashing.py, kernels of before may be in __pycache__: delete it.
    assert rows_of(encoded)[0] == [562887, 650725, 579647, 486475, 976269, 965004, 353989, 443684, 42007]
    assert encoded.tokens.tolist() == [5, 0, 8, 5, 0]


def test_the_order_of_words_matters_to_their_bigram():
    encoder = hashed(ngrams=2, buckets=2**40)
    ids = rows_of(encoder.encode(column(["not good", "good not"]), np.arange(2)))
    assert ids[0][0] == ids[1][1]
    assert ids[0][2] != ids[1][2]


def test_salts_give_hashes_that_do_not_collide_together():
    words = [f"word{i}" for i in range(2000)]
    tables = [hashed(buckets=500, salt=salt) for salt in (0, 1)]
    one, other = (table.encode(column(words), everything(words)).ids.values for table in tables)
    pairs = Counter(zip(one.tolist(), other.tolist(), strict=True))
    assert sum(count > 1 for count in pairs.values()) < 40  # about 8 by chance


def layouts():
    values = [*REVIEWS, "after, and longer than a view can hold"]
    whole = pa.array(values)
    yield "large", whole.cast(pa.large_string())
    yield "view", whole.cast(pa.string_view())
    yield "binary", whole.cast(pa.binary())
    yield "dictionary", whole.dictionary_encode()
    yield "sliced", pa.array(["x", "yy", *values, "z"]).slice(2, len(values))
    yield "chunks", pa.chunked_array([[value] for value in values])
    yield "sliced chunks", pa.chunked_array([["-", *values[:2]], [], values[2:], ["+"]]).slice(1, len(values))
    dictionaries = [pa.array(values[:3]).dictionary_encode(), pa.array(values[3:]).dictionary_encode()]
    yield "two dictionaries", pa.chunked_array(dictionaries)


@pytest.mark.parametrize("array", [pytest.param(array, id=name) for name, array in layouts()])
def test_every_layout_gives_the_ids_of_one_plain_array(array):
    values = [*REVIEWS, "after, and longer than a view can hold"]
    index = np.array([5, 0, 0, 3, 2, 1, 4])
    config = VocabTable(ngrams=2, buckets=100)
    plain, other = build("text", config, [column(values)]), build("text", config, [TextColumn(array)])
    assert plain.words().equals(other.words())
    assert rows_of(other.encode(TextColumn(array), index)) == rows_of(plain.encode(column(values), index))


def many(count=4000, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in random.zipf(1.3, random.integers(0, 400)) % 50_000) for _ in range(count)]


def test_nothing_depends_on_the_number_of_threads():
    texts = many()
    rows = np.random.default_rng(1).permutation(len(texts))[:3000]
    encoders = [build("t", VocabTable(ngrams=2), [column(texts)], rows, threads) for threads in (1, 2, 5)]
    expected = encoders[0].encode(column(texts), rows)
    for encoder, threads in zip(encoders, (1, 2, 5), strict=True):
        assert encoder.words().equals(encoders[0].words())
        assert np.array_equal(encoder.counts(), encoders[0].counts())
        encoded = encode_all(encoder, column(texts), rows, threads)
        assert encoded.ids.values.dtype == np.int32
        assert np.array_equal(encoded.ids.values, expected.ids.values)
        assert np.array_equal(encoded.ids.offsets, expected.ids.offsets)
        assert np.array_equal(encoded.tokens, expected.tokens)


def test_a_vocabulary_that_outgrows_its_first_room_is_counted_right():
    texts = many(seed=2)
    texts += [" ".join("x" * 1000 + str(j) for j in range(i, i + 100)) for i in range(0, 1000, 100)]
    counts = Counter(word for text in texts for word in text.split())
    assert len(counts) > 1 << 14
    for threads in (1, 3):
        words, seen = count_words(VocabTable(), [column(texts)], threads=threads)
        assert dict(zip(words.to_pylist(), seen.tolist(), strict=True)) == counts


def test_columns_that_share_a_table_are_counted_together_and_rows_left_out_are_not():
    titles, bodies = ["good film", "unseen title"], ["a good one", "unseen body"]
    encoder = build("text", VocabTable(), [column(titles), column(bodies)], index=np.array([0]))
    assert dict(zip(encoder.words().to_pylist(), encoder.counts().tolist(), strict=True)) == {
        "good": 2,
        "a": 1,
        "film": 1,
        "one": 1,
    }


def test_progress_is_told_up_to_the_last_row():
    texts = many()
    seen = []
    encoder = build("text", VocabTable(), [column(texts), column(texts)], progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 2 * len(texts)
    seen.clear()
    encode_all(encoder, column(texts), progress=seen.append)
    assert seen[-1] == len(texts)


def test_encoding_stops_where_it_would_take_too_much_memory():
    texts = many()
    encoder = hashed(ngrams=2, buckets=1000)
    encoded = encode_all(encoder, column(texts), threads=2)
    size = encoded.ids.values.nbytes + encoded.ids.offsets.nbytes + encoded.tokens.nbytes
    assert encode_all(encoder, column(texts), threads=2, limit=size // 2) is None
    assert encode_all(encoder, column(texts), threads=2, limit=size + 10_000) is not None


def test_tables_of_more_rows_than_int32_counts_give_int64():
    encoder = hashed(buckets=2**31)
    assert encoder.dtype == np.int64
    assert hashed(buckets=2**31 - 1).dtype == np.int32
    encoded = encode_all(encoder, column(["many different words are here"]))
    assert encoded.ids.values.dtype == np.int64


def test_no_texts_give_no_rows():
    encoder = build("text", VocabTable(ngrams=3), [column(REVIEWS)])
    for encoded in (encoder.encode(column([]), np.empty(0, np.int64)), encode_all(encoder, column([]), threads=2)):
        assert len(encoded.ids) == 0
        assert encoded.ids.offsets.tolist() == [0]
    assert rows_of(encode_all(encoder, column(["", "  ", "\u00ad"]))) == [[], [], []]


def test_an_empty_vocabulary_says_why():
    with pytest.raises(UserError, match=r"'text' would be empty, all 13 .* fewer than 5 times, lower min_count"):
        build("text", VocabTable(min_count=5), [column(REVIEWS)])
    with pytest.raises(UserError, match=r"'text' would be empty, the data holds no words"):
        build("text", VocabTable(), [column(["", " "])])


def test_regular_expressions_and_whitespace_make_tables_too():
    for config in (VocabTable(tokens=Tokens.whitespace), VocabTable(tokens=Tokens.regex, pattern="[a-z]+")):
        encoder = build("text", config, [column(REVIEWS)], threads=2)
        counts = Counter(t for text in REVIEWS for t in tokenize(text, config.tokens.name, config.pattern))
        assert dict(zip(encoder.words().to_pylist(), encoder.counts().tolist(), strict=True)) == counts
        encoded = encoder.encode(column(REVIEWS), everything(REVIEWS))
        assert encoded.tokens.tolist() == [len(tokenize(t, config.tokens.name, config.pattern)) for t in REVIEWS]


@pytest.mark.parametrize("config", [VocabTable(ngrams=2, buckets=50), HashedTable(ngrams=2, buckets=50)])
def test_the_row_of_a_word_or_bigram_is_the_one_that_texts_get(config):
    encoder = build("text", config, [column(REVIEWS)])
    film, _, gram = rows_of(encoder.encode(column(["film GOOD"]), np.zeros(1, np.int64)))[0]
    assert encoder.row_of("Film") == film
    assert encoder.row_of("film good") == gram
    for text, count in (("", 0), ("a film good", 3)):
        with pytest.raises(UserError, match=f"'{text}' is {count} tokens"):
            encoder.row_of(text)
    if encoder.rows == (config.buckets,):
        assert encoder.words() is None
        assert encoder.word_rows == (0, 0)
    else:
        assert encoder.row_of("unheard") == 0
        rows = [encoder.row_of(word) for word in encoder.words().to_pylist()]
        assert rows == list(range(*encoder.word_rows))


def test_bytes_that_are_not_utf8_count_as_replacement_characters_and_nothing_beyond_is_read():
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + page), page, mmap.PROT_READ & 0) == 0
    random = np.random.default_rng(0)
    pieces = [b"a", b" ", b"'", b"\xc3\xa9", b"\xe6\xbc\xa2", b"\xf0\x9f\x92\xbb", b"\xc2\xad", b"\xcc\x81"]
    pieces += [b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xff"]
    encoders = [hashed(tokens=t, buckets=2**40) for t in (Tokens.words, Tokens.whitespace)]
    for _ in range(3000):
        content = b"".join(pieces[i] for i in random.integers(0, len(pieces), random.integers(0, 8)))
        memory[page - len(content) : page] = content
        ends = np.array([start + page])
        repaired = re.sub("[\ud800-\udfff]", "\ufffd", content.decode(errors="surrogateescape"))
        for encoder in encoders:
            bad = encoder.encode_spans(Spans(ends - len(content), ends, memory))
            good = encoder.encode(column([repaired]), np.zeros(1, np.int64))
            assert rows_of(bad) == rows_of(good), content


# What is repeated to ten megabytes, how many tokens each time, and how many more at the end.
LONG = {"a": (0, 1), ". ": (1, 0), "'": (1, 0), "a'": (0, 2), "a'\u00ad": (0, 2), "a b ": (2, 0), "漢": (1, 0)}


@pytest.mark.parametrize("piece", LONG)
def test_a_text_of_ten_megabytes_takes_its_share_of_time_and_memory(piece):
    times = 10**7 // len(piece.encode())
    text = piece * times
    texts = column([text, "short"])
    encoder = build("text", VocabTable(ngrams=2), [column(REVIEWS)])
    encoder.encode(column(["compile"]), np.zeros(1, np.int64))
    tracemalloc.start()
    began = time.process_time()
    encoded = encoder.encode(texts, np.arange(2))
    words, _ = count_words(VocabTable(), [texts])
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each, more = LONG[piece]
    assert encoded.tokens.tolist() == [each * times + more, 1]
    assert len(words) <= 3
    assert seconds < 10
    assert peak < 8 * len(text.encode()) + 4 * encoded.ids.values.nbytes


@pytest.mark.parametrize(
    "config",
    [
        VocabTable(ngrams=2, buckets=50, min_count=2),
        VocabTable(tokens=Tokens.regex, pattern=r"\w+", lower=False),
        HashedTable(ngrams=3, buckets=99, salt=5),
    ],
)
def test_a_saved_encoder_comes_back_the_same(config, tmp_path):
    encoder = build("text", config, [column(REVIEWS)])
    save(encoder, tmp_path / "text.arrow")
    again = load(config, tmp_path / "text.arrow")
    assert [path.name for path in tmp_path.iterdir()] == ["text.arrow"]
    assert (again.kind, again.rows, again.word_rows) == (encoder.kind, encoder.rows, encoder.word_rows)
    assert again.words() == encoder.words()
    texts = [*REVIEWS, "entirely new words"]
    assert rows_of(again.encode(column(texts), everything(texts))) == rows_of(
        encoder.encode(column(texts), everything(texts))
    )


def test_a_saved_vocabulary_is_an_arrow_file_that_anyone_can_read(tmp_path):
    save(build("text", VocabTable(max_size=2), [column(REVIEWS)]), tmp_path / "text.arrow")
    table = pa.ipc.open_file(tmp_path / "text.arrow").read_all()
    assert table.to_pydict() == {"word": ["good", "film"], "count": [3, 2]}


@pytest.mark.parametrize(
    ("other", "different"),
    [
        (VocabTable(ngrams=2, lower=False), r"lower=True \(here False\)"),
        (VocabTable(ngrams=2, tokens=Tokens.whitespace), r"tokens='words' \(here 'whitespace'\)"),
        (VocabTable(ngrams=2, tokens=Tokens.regex, pattern="x"), r"pattern=None \(here 'x'\)"),
        (VocabTable(ngrams=3), r"ngrams=2 \(here 3\)"),
        (VocabTable(ngrams=2, buckets=7), r"buckets=1000000 \(here 7\)"),
        (HashedTable(ngrams=2), r"kind='vocab' \(here 'hashed'\)"),
    ],
)
def test_an_encoder_of_other_options_is_refused_by_what_differs(other, different, tmp_path):
    save(build("text", VocabTable(ngrams=2), [column(REVIEWS)]), tmp_path / "text.arrow")
    assert load(VocabTable(ngrams=2, min_count=9, max_size=1), tmp_path / "text.arrow").rows == (1_000_014,)
    with pytest.raises(UserError, match=different):
        load(other, tmp_path / "text.arrow")


@pytest.mark.parametrize("name", ["NAME", "FORMAT"])
def test_a_vocabulary_of_another_hash_or_format_is_refused(name, tmp_path, monkeypatch):
    encoder = build("text", VocabTable(), [column(REVIEWS)])
    with monkeypatch.context() as patch:
        patch.setattr(store, name, "an older one")
        save(encoder, tmp_path / "text.arrow")
    with pytest.raises(UserError, match=r"='an older one' \(here"):
        load(VocabTable(), tmp_path / "text.arrow")


def test_a_vocabulary_of_another_unicode_is_refused(tmp_path, monkeypatch):
    encoder = build("text", VocabTable(), [column(REVIEWS)])
    settings = {"kind": "vocab", **VocabEncoder.settings_of(VocabTable())}
    store.write(
        tmp_path / "text.arrow", {**settings, "unicode": "3.0.0"}, encoder.learned, encoder.words(), encoder.counts()
    )
    with pytest.raises(UserError, match=r"unicode='3.0.0' \(here"):
        load(VocabTable(), tmp_path / "text.arrow")


def test_any_flipped_bit_or_missing_end_is_noticed_or_does_not_matter(tmp_path):
    config = VocabTable(ngrams=2, buckets=10)
    encoder = build("text", config, [column(REVIEWS)])
    path = tmp_path / "text.arrow"
    save(encoder, path)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            again = load(config, path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert again.words() == encoder.words()
            assert np.array_equal(again.counts(), encoder.counts())
    assert refused > len(whole) / 12
    for size in range(0, len(whole), 17):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="is damaged"):
            load(config, path)


def test_files_that_are_no_vocabulary_are_refused(tmp_path):
    path = tmp_path / "text.arrow"
    with pytest.raises(UserError, match=r"text.arrow cannot be read: No such file"):
        load(VocabTable(), path)
    with pa.ipc.new_file(path, pa.schema({"word": pa.string()})):
        pass
    with pytest.raises(UserError, match=r"columns word"):
        load(VocabTable(), path)
    words = pa.array(["twice", "twice"])
    settings = {"kind": "vocab", **VocabEncoder.settings_of(VocabTable())}
    store.write(path, settings, {"values": "texts"}, words, np.array([1, 1]))
    with pytest.raises(ValueError, match="word 1 is there twice"):
        load(VocabTable(), path)


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path):
    encoder = hashed()
    with pytest.raises(UserError, match=r"nowhere/text.arrow cannot be written: No such file"):
        save(encoder, tmp_path / "nowhere" / "text.arrow")


def test_a_hash_table_finds_all_and_refuses_repeats():
    hashes = np.random.default_rng(0).integers(1, 2**63, 50_000).astype(np.uint64)
    slots = make_slots(hashes)
    assert 3 * len(hashes) <= 2 * len(slots)
    assert np.array_equal(np.sort(slots[slots[:, 0] > 0, 1]), np.arange(1, 50_001))
    with pytest.raises(ValueError, match="word 2 is there twice"):
        make_slots(np.array([5, 6, 5], np.uint64))


def test_imdb_is_encoded_as_the_slow_way_does(data_dir):
    if not (data_dir / "imdb" / "train.parquet").exists():
        pytest.skip("no imdb in the folder of real data")
    texts = pq.read_table(data_dir / "imdb" / "train.parquet", columns=["text"])["text"]
    config = VocabTable(ngrams=2, min_count=2, buckets=100_000)
    encoder = build("text", config, [TextColumn(texts)], threads=2)
    some = texts.slice(100, 600).to_pylist()
    row = {word: i for i, word in enumerate(encoder.words().to_pylist(), 1)}
    first = encoder.word_rows[1]
    encoded = encode_all(encoder, TextColumn(texts), np.arange(100, 700), threads=2)
    assert rows_of(encoded) == [
        slow_ids(tokenize(text), 2, lambda token: row.get(token, 0), lambda gram: first + (gram * 100_000 >> 64))
        for text in some
    ]
    simple = re.compile(r"[a-z0-9_]+(?:'[a-z0-9_]+)*|[!-~]")
    for text in some:
        if text.isascii():
            assert tokenize(text) == simple.findall(text.lower())
    assert encoder.words()[:5].to_pylist() == ["the", ".", ",", "and", "a"]
