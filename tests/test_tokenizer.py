"""Tables of a tokenizer's pieces: against the library itself, trained twice, and read from files good and bad."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from bigembed.config.schema import Algorithm, TokenizerTable
from bigembed.encoders import cuts
from bigembed.encoders.columns import Spans
from bigembed.encoders.cuts import Memory, Parts, can_be_cut
from bigembed.encoders.encoder import encode_all
from bigembed.encoders.store import read, write
from bigembed.encoders.text import TextColumn
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.values import Crossed
from bigembed.errors import UserError
from bigembed.ragged import Ragged

REVIEWS = [
    "The film was not good; the actors were lost.",
    "",
    "  An unbelievably  good film!  Naïve café scenes,\tand the music… 漢字 too.",
    "the theatre's their there these\nthose",
    " ",
    "good better best 10/10 <br /><br /> [UNK] <unk> \u00a0nbsp \u0301mark 👍🏽",
] * 3
SOME = st.lists(
    st.text(st.sampled_from("ab the.,'!<>[UNK]MASK/s \t\n\u00a0\u0301éßΣ漢🙂\u3000\u200d"), max_size=40), max_size=8
)


def column(texts):
    return TextColumn(pa.array(texts, pa.large_string()), "text")


def trained(algorithm, texts=REVIEWS, **options):
    config = TokenizerTable(algorithm=Algorithm[algorithm], **{"vocab_size": 400, **options})
    return TokenizerEncoder.learn("t", config, [column(texts)], None, 1, None)


def loaded(tokenizer, folder):
    path = folder / "tokenizer.json"
    path.write_text(tokenizer if isinstance(tokenizer, str) else tokenizer.to_str(), encoding="utf-8")
    return TokenizerEncoder.learn("t", TokenizerTable(path=str(path)), [], None, 1, None)


def by_the_library(encoder, texts):
    return [each.ids for each in encoder.tokenizer.encode_batch(texts, add_special_tokens=False)]


def rows_of(encoder, texts, dtype=np.int32):
    source = column(texts)
    encoded = encoder.encode(source, np.arange(len(source)), dtype)
    assert encoded.ids.values.dtype == dtype
    assert encoded.tokens.tolist() == encoded.ids.lengths.tolist()
    offsets = encoded.ids.offsets
    return [encoded.ids.values[a:b].tolist() for a, b in pairwise(offsets.tolist())]


ENCODERS = {(name, lower): trained(name, lower=lower) for name in Algorithm.__members__ for lower in (False, True)}


@pytest.mark.parametrize("kind", ENCODERS, ids=str)
def test_rows_are_those_of_the_library(kind):
    encoder = ENCODERS[kind]
    assert len(ENCODERS) == 6
    assert encoder.rows == (encoder.tokenizer.get_vocab_size(with_added_tokens=True),)
    assert encoder.rows[0] <= 400
    for dtype in (np.int32, np.int64):
        for _ in range(2):  # from the library, then from memory
            assert rows_of(encoder, REVIEWS, dtype) == by_the_library(encoder, REVIEWS)


@pytest.mark.parametrize("kind", ENCODERS, ids=str)
@given(texts=SOME)
@settings(max_examples=60)
def test_rows_of_any_text_are_those_of_the_library(kind, texts):
    encoder = ENCODERS[kind]
    assert encoder._cuts
    assert rows_of(encoder, texts) == by_the_library(encoder, texts)


def test_threads_and_rows_in_any_order_change_nothing():
    encoder = trained("bpe")
    texts = [f"the film {number} was {word}" for number in range(3000) for word in ("good", "bad", "naïve")]
    whole = encode_all(encoder, column(texts), threads=1)
    assert [
        whole.ids.values[a:b].tolist() for a, b in zip(whole.ids.offsets[:50], whole.ids.offsets[1:51], strict=True)
    ] == (by_the_library(encoder, texts[:50]))
    other = encode_all(trained("bpe"), column(texts), threads=3)
    assert np.array_equal(whole.ids.values, other.ids.values)
    index = np.random.default_rng(0).permutation(len(texts))[:100]
    some = encoder.encode(column(texts), index)
    assert np.array_equal(some.ids.values, whole.ids.take(index).values)


TRAIN = """
import sys, hashlib, pyarrow as pa
from bigembed.config.schema import Algorithm, TokenizerTable
from bigembed.encoders.text import TextColumn
from bigembed.encoders.tokenizer import TokenizerEncoder
texts = TextColumn(pa.array(sys.stdin.read().split("\\n")))
for algorithm in Algorithm:
    encoder = TokenizerEncoder.learn("t", TokenizerTable(algorithm=algorithm, vocab_size=700), [texts], None, 1, None)
    print(algorithm.name, encoder.rows[0], hashlib.md5(encoder.learned["tokenizer"].encode()).hexdigest())
"""


def test_the_same_texts_give_the_same_tokenizer_in_every_process_and_with_any_threads():
    rng = np.random.default_rng(0)
    syllables = ["ka", "to", "ri", "na", "mo", "é", "st", "漢", "q", "x", "z", "ß", "un", "ing", "the", "er"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 6))) for _ in range(600)]
    texts = "\n".join(" ".join(rng.choice(words, 12)) for _ in range(250))
    answers = set()
    for parallel, threads in (("false", "1"), ("true", "4")):
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN], input=texts, env=environment, capture_output=True, text=True, check=True
        )
        answers.add(done.stdout)
    assert len(answers) == 1
    assert [line.split()[0] for line in answers.pop().splitlines()] == ["bpe", "wordpiece", "unigram"]


@pytest.mark.parametrize("algorithm", Algorithm.__members__)
def test_a_trained_tokenizer_holds_frequent_words_and_no_special_tokens(algorithm):
    # Unigram's pieces are what several words have in common.
    texts = ["the film was good"] * 90 + ["then films wash goods"] * 20 + ["there filmed wasp goody"] * 20
    encoder = trained(algorithm, texts, vocab_size=300)
    assert len(encoder.pieces_of("the film was good")) == 4
    assert json.loads(encoder.learned["tokenizer"])["added_tokens"] == []
    for text in ("[UNK]", "<unk>"):
        assert len(encoder.pieces_of(f"{text} film")) > 1
    first, last = encoder.words().to_pylist()[:1], encoder.pieces_of("film")
    assert encoder.words().to_pylist()[encoder.row_of("film")] == last[0]
    assert first == {"bpe": ["!"], "wordpiece": ["[UNK]"], "unigram": ["<unk>"]}[algorithm]


def test_unknown_characters_have_the_unknown_row_and_none_in_bytes():
    texts = ["the film was good"] * 50
    assert rows_of(trained("wordpiece", texts), ["漢"]) == [[0]]
    assert 0 in rows_of(trained("unigram", texts), ["漢"])[0]
    bpe = trained("bpe", texts)
    assert len(rows_of(bpe, ["漢"])[0]) == 4  # a space and three bytes
    assert bpe.rows[0] >= 256


def test_the_training_rows_alone_are_learned_from_and_frequency_counts():
    texts = ["abcabc abcabc abcabc", "xyzxyz xyzxyz xyzxyz"]
    config = TokenizerTable(vocab_size=300)
    seen = []
    some = TokenizerEncoder.learn("t", config, [column(texts)], np.array([1]), 1, seen.append)
    assert some.learned == TokenizerEncoder.learn("t", config, [column(texts[1:])], None, 1, None).learned
    assert seen == [1]
    assert len(some.pieces_of("xyzxyz")) == 1
    assert len(some.pieces_of("abcabc")) == 7
    assert len(trained("bpe", texts, min_frequency=4).pieces_of("xyzxyz")) > 1
    two = TokenizerEncoder.learn("t", config, [column(texts[:1]), column(texts[1:])], None, 1, seen.append)
    assert two.learned == TokenizerEncoder.learn("t", config, [column(texts)], None, 1, None).learned
    assert seen == [1, 1, 2]


def test_progress_of_a_tokenizer_that_reads_the_texts_twice_never_goes_back():
    seen = []
    TokenizerEncoder.learn(
        *("t", TokenizerTable(algorithm=Algorithm.wordpiece), [column(REVIEWS), column(REVIEWS)], None, 1, seen.append)
    )
    assert seen == [len(REVIEWS), 2 * len(REVIEWS)]


def test_lower_case_is_part_of_the_tokenizer():
    for algorithm in Algorithm.__members__:
        plain, lower = (trained(algorithm, ["Good good GOOD film"] * 9, lower=each) for each in (False, True))
        assert rows_of(lower, ["GOOD"]) == rows_of(lower, ["good"])
        assert rows_of(plain, ["GOOD"]) != rows_of(plain, ["good"])


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
@pytest.mark.parametrize("algorithm", Algorithm.__members__)
def test_nothing_to_train_on_is_refused(algorithm, texts):
    with pytest.raises(UserError, match="the tokenizer of table 't' cannot be trained: all texts are empty"):
        trained(algorithm, texts)


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_more_characters_than_pieces_are_refused(algorithm):
    with pytest.raises(
        UserError, match=r"more different characters than .* raise tables\.t\.vocab_size=300, or take .*=bpe"
    ):
        trained(algorithm, ["".join(map(chr, range(0xC000, 0xC800)))], vocab_size=300)


def test_a_row_is_found_by_its_text_or_as_the_tokenizer_spells_it():
    encoder = trained("bpe", ["the film was good"] * 50, vocab_size=300)
    words = encoder.words().to_pylist()
    assert encoder.word_rows == (0, len(words))
    assert encoder.counts() is None
    assert words[encoder.row_of("film")] == "Ġfilm"
    assert encoder.row_of("Ġfilm") == encoder.row_of("film")
    assert [encoder.tokenizer.token_to_id(word) for word in words] == list(range(len(words)))
    for text, told in (("film goods", "3 pieces"), ("", "0 pieces")):
        with pytest.raises(UserError, match=f"'{text}' has no row of its own in this table: it is {told}"):
            encoder.row_of(text)


def test_a_saved_encoder_needs_no_other_file(tmp_path):
    encoder = loaded(trained("unigram").tokenizer, tmp_path)
    kept = tmp_path / "kept"
    write(kept, encoder.settings_of(encoder.config), encoder.learned, pa.array([], pa.string()), np.empty(0, np.int64))
    (tmp_path / "tokenizer.json").unlink()
    again = TokenizerEncoder.restore(encoder.config, *read(kept, encoder.settings_of(encoder.config)))
    assert rows_of(again, REVIEWS) == rows_of(encoder, REVIEWS)
    assert again.words() == encoder.words()
    assert again.learned == encoder.learned
    with pytest.raises(UserError, match="made with"):
        read(kept, encoder.settings_of(TokenizerTable()))


def word_level(**options):
    words = {
        word: i for i, word in enumerate(["[UNK]", "the", "film", "was", "good", ",", ".", "</s>", "<mask>", "x y"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, value in options.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_what_a_file_adds_around_texts_is_left_out(tmp_path):
    tokenizer = word_level()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 7)])
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(max_length=2)
    encoder = loaded(tokenizer, tmp_path)
    assert rows_of(encoder, ["the film was good", "good"]) == [[1, 2, 3, 4], [4]]
    assert rows_of(encoder, ["the</s>film"]) == [[1, 7, 2]]
    assert encoder.rows == (10,)


def test_dropout_of_a_file_is_switched_off(tmp_path):
    content = json.loads(trained("bpe", ["the film was good"] * 50).tokenizer.to_str())
    content["model"]["dropout"] = 0.9
    encoder = loaded(json.dumps(content), tmp_path)
    assert rows_of(encoder, ["the film was good"]) == [
        [encoder.row_of(word) for word in ["the", "film", "was", "good"]]
    ]


def test_numbers_without_a_piece_keep_their_rows(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 5}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = loaded(tokenizer, tmp_path)
    assert encoder.rows == (6,)
    assert TokenizerEncoder.rows_at_most(encoder.config) == (6,)
    assert encoder.words().to_pylist() == ["[UNK]", "<row 1>", "<row 2>", "<row 3>", "<row 4>", "the"]
    assert rows_of(encoder, ["the a"]) == [[5, 0]]


BAD = {
    "empty": ("", "EOF while parsing"),
    "no json": ("words of mine", "expected value"),
    "other json": ('{"a": 1}', "line 1"),
    "a list": ("[]", "invalid type"),
    "no pieces": ('{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}', "it numbers 0 pieces"),
    "absurd number": (
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}}',
        "it numbers 1",
    ),
    "no unknown": ('{"version": "1.0", "model": {"type": "Unigram", "vocab": [["a", -1]], "unk_id": null}}', "unk_id"),
    "panic": (
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": ["a b"]}}',
        "range end",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_tokenizer_is_refused_with_its_name(tmp_path, name):
    content, why = BAD[name]
    with pytest.raises(UserError) as caught:
        loaded(content, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'tokenizer.json'} is no tokenizer that can be used (")
    assert why in str(caught.value)
    assert str(caught.value).endswith("or train one with path=null")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path):
    for path, why in ((tmp_path / "nothing.json", "No such file"), (tmp_path, "Is a directory")):
        for use in (
            TokenizerEncoder.rows_at_most,
            lambda config: TokenizerEncoder.learn("t", config, [], None, 1, None),
        ):
            with pytest.raises(UserError, match=f"the tokenizer {path} cannot be read: {why}"):
                use(TokenizerTable(path=str(path)))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no tokenizer that can be used"):
        TokenizerEncoder.rows_at_most(TokenizerTable(path=str(tmp_path / "binary.json")))


def test_columns_that_are_no_texts_are_refused():
    with pytest.raises(UserError, match="column 'x' holds int64, not texts"):
        TokenizerEncoder.open(pa.array([1]), "x")
    encoder = trained("bpe")
    encoder.check(column(["a"]), "f", "t", "train part")
    with pytest.raises(UserError, match=r"feature 'f' crosses columns, but tables\.t is of kind tokenizer"):
        encoder.check(Crossed([column(["a"]), column(["b"])], "x × y"), "f", "t", "train part")
    assert encoder.from_texts(["a b", ""], str).to_pylist() == ["a b", ""]


def test_what_decides_the_rows_is_in_the_settings():
    settings_of = TokenizerEncoder.settings_of
    assert settings_of(TokenizerTable(path="a.json")) == {"path": "a.json"}
    trained_one = {"algorithm": "bpe", "vocab_size": 30_000, "min_frequency": 2, "lower": False}
    assert settings_of(TokenizerTable()) == trained_one
    assert TokenizerEncoder.rows_at_most(TokenizerTable()) == (30_000,)


# Where a text may be cut.

CUT = {
    "bert": {"normalizer": normalizers.BertNormalizer(), "pre_tokenizer": pre_tokenizers.BertPreTokenizer()},
    "gpt2": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False)},
    "t5": {
        "normalizer": normalizers.Sequence(
            [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        ),
        "pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always"),
    },
    "first": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")},
    "albert": {
        "normalizer": normalizers.Sequence(
            [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        ),
        "pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    },
    "digits": {
        "pre_tokenizer": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
        )
    },
    "words": {"normalizer": normalizers.NFC(), "pre_tokenizer": pre_tokenizers.Whitespace()},
}
WHOLE = {
    "nothing": {"pre_tokenizer": None},
    "llama": {
        "normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        "pre_tokenizer": None,
    },
    "strip": {"normalizer": normalizers.Strip(), "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False)},
    "regex": {"pre_tokenizer": pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")},
    "no regex": {"pre_tokenizer": pre_tokenizers.ByteLevel(use_regex=False)},
    "no split": {"pre_tokenizer": pre_tokenizers.Metaspace(split=False)},
    "punctuation": {"pre_tokenizer": pre_tokenizers.Punctuation()},
    "replace": {"normalizer": normalizers.Replace(Regex(" t"), "s"), "pre_tokenizer": pre_tokenizers.Whitespace()},
}


def of_bytes(**options):
    """Return a BPE of bytes and of some merges of what a text may become, which has a piece for almost everything."""
    tokenizer = Tokenizer.from_str(
        trained("bpe", [*REVIEWS, "▁the ▁film ▁the ▁was the film was"] * 2).learned["tokenizer"]
    )
    tokenizer.model.unk_token = "!"
    for name, value in {"normalizer": None, **options}.items():
        setattr(tokenizer, name, value)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("</s>", single_word=True)])
    tokenizer.add_tokens([AddedToken("film,", normalized=True)])
    return tokenizer


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
def test_a_text_is_cut_only_where_that_changes_no_piece(tmp_path, name):
    encoder = loaded(of_bytes(**{**CUT, **WHOLE}[name]), tmp_path)
    assert len(CUT) + len(WHOLE) == 15
    assert encoder._cuts == (name in CUT)
    rng = np.random.default_rng(0)
    parts = [
        "the",
        "film,",
        "was",
        "10",
        " ",
        "  ",
        "\n",
        "\u00a0",
        "``",
        "é",
        "e\u0301",
        "漢",
        "<mask>",
        "</s>",
        "'s",
        ".",
    ]
    joined = [sep.join(rng.choice(parts, 12)) for sep in ("", " ") for _ in range(300)]
    assert rows_of(encoder, joined) == by_the_library(encoder, joined)
    assert rows_of(encoder, REVIEWS) == by_the_library(encoder, REVIEWS)


def test_added_tokens_that_swallow_or_hold_spaces_keep_texts_whole(tmp_path):
    for token in (AddedToken("<mask>", rstrip=True), AddedToken("x y")):
        tokenizer = word_level()
        tokenizer.add_special_tokens([token])
        encoder = loaded(tokenizer, tmp_path)
        assert not encoder._cuts
        texts = ["the <mask> film x y.", "x y"]
        assert rows_of(encoder, texts) == by_the_library(encoder, texts)
    assert can_be_cut(json.loads(word_level().to_str()))


def slow_parts(text):
    data, cut = text.encode(), [0]
    for at in range(1, len(data) - 1):
        if data[at] == 0x20 and 0x20 < data[at - 1] < 0x7F and 0x20 < data[at + 1] < 0x7F:
            cut.append(at)
    return [data[a:b] for a, b in zip(cut, [*cut[1:], len(data)], strict=True)] if data else []


@given(SOME)
def test_parts_are_numbered_as_they_are_first_seen(texts):
    parts, known = Parts(), {}
    for _ in range(2):
        numbers, new = parts.look_up(column(texts).spans(np.arange(len(texts))))
        expected = [[known.setdefault(part, len(known)) for part in slow_parts(text)] for text in texts]
        assert [numbers.values[a:b].tolist() for a, b in pairwise(numbers.offsets.tolist())] == expected
        assert len(new) == (len(known) if _ == 0 else 0)
        assert parts.known == len(known)


def lengths(spans: Spans) -> Ragged:
    """Return for each text its bytes, once for each: what a memory can be held to."""
    sizes = spans.end - spans.begin
    return Ragged(np.repeat(sizes, sizes).astype(np.int32), np.append(0, np.cumsum(sizes)))


def test_a_memory_grows_and_when_it_is_full_begins_anew(monkeypatch):
    words = [f"w{number:x}" for number in np.random.default_rng(0).integers(0, 30_000, 60_000)]
    texts = [" ".join(words[start : start + 300]) for start in range(0, len(words), 300)]
    expected = [[len(part) for part in slow_parts(text) for _ in part] for text in texts]

    def check(memory):
        for start in range(0, len(texts), 20):
            spans = column(texts[start : start + 20]).spans(np.arange(20))
            encoded = memory.encode(spans, np.int64)
            rows = [encoded.values[a:b].tolist() for a, b in pairwise(encoded.offsets.tolist())]
            assert rows == expected[start : start + 20]
        return memory._parts.known

    distinct = len({part for text in texts for part in slow_parts(text)})
    assert check(Memory(lengths)) == distinct > 20_000
    monkeypatch.setattr(cuts, "MOST_PARTS", 8_000)
    assert check(Memory(lengths)) < 16_000
    monkeypatch.setattr(cuts, "MOST_PARTS", 1 << 19)
    monkeypatch.setattr(cuts, "MOST_IDS", 50_000)
    assert check(Memory(lengths)) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", Algorithm.__members__)
def test_real_reviews_have_the_rows_of_the_library(data_dir, algorithm):
    texts = pq.read_table(data_dir / "imdb" / "train.parquet", columns=["text"])["text"].slice(0, 2000)
    config = TokenizerTable(algorithm=Algorithm[algorithm], vocab_size=8000)
    encoder = TokenizerEncoder.learn("t", config, [TextColumn(texts, "text")], None, 1, None)
    assert encoder.rows == (8000,)
    assert rows_of(encoder, texts.to_pylist()) == by_the_library(encoder, texts.to_pylist())
