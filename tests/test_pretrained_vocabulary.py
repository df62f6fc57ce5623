"""Which words have rows of their own: the data's, a file's, those in both, or in either."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import write_reviews

from bigembed import encoders, growth
from bigembed.config import saved
from bigembed.config.schema import (
    Fallback,
    FeatureConfig,
    FilesData,
    Job,
    PretrainedConfig,
    SubwordTable,
    Tokens,
    VocabTable,
    Vocabulary,
)
from bigembed.encoders import Encoder, TextColumn, tokenize
from bigembed.encoders.ids import IdsColumn
from bigembed.encoders.values import NUMBERS, TEXTS
from bigembed.errors import UserError
from bigembed.knowing.opening import open_job_data
from bigembed.pretrained import vocabulary
from bigembed.run import ENCODERS

TEXT = ["the cat sat", "the dog and the cat", "Paris in 1999", "a dog", "café zebra"]
NO_WORDS = pa.array([], pa.large_string()), np.empty(0, np.int64)


def write_vectors(path: Path, words: Sequence[str | bytes], dim: int = 4) -> str:
    """Write a word2vec text file of these words and return its path."""
    lines = [f"{len(words)} {dim}".encode()]
    for number, word in enumerate(words):
        text = word.encode() if isinstance(word, str) else word
        lines.append(b" ".join([text, *(f"{number}.{column}".encode() for column in range(dim))]))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def table_of(which: str, path: str, kind: type[Any] = VocabTable, **options: Any) -> Any:
    """A table with this vocabulary."""
    pretrained = PretrainedConfig(path=path, vocabulary=Vocabulary[which])
    for name in ("fallback", "lemmas", "others"):
        if name in options:
            setattr(pretrained, name, options.pop(name))
    return kind(pretrained=pretrained, dim=4, **{"ngrams": 1, **options})


def job_of(table: Any, **options: Any) -> Job:
    """A job of this table alone."""
    return Job(tables={"word": table}, features={"text": FeatureConfig("word")}, **options)


def learn(table: Any, texts: Sequence[str] = TEXT) -> Encoder:
    """The encoder that a new run learns from texts."""
    return growth.learn(job_of(table), "word", [TextColumn(pa.array(texts))], None, 1, None)


def words_of(encoder: Encoder) -> dict[str, int]:
    """Words, in their order, and their counts."""
    words, counts = encoder.words(), encoder.counts()
    assert words is not None and counts is not None and counts.dtype == np.int64
    return dict(zip(words.to_pylist(), counts.tolist(), strict=True))


def test_words_of_a_file_have_rows_in_its_order_each_once_as_far_as_they_can_be_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["zebra", "Paris", "the", "dog", "New York", "the", "paris", "cat,dog", b"caf\xe9", "café", "</s>"]
    encoder = learn(table_of("file", write_vectors(tmp_path / "v.vec", words), min_count=3))
    assert words_of(encoder) == {"zebra": 1, "the": 3, "dog": 2, "paris": 1, "café": 1}
    assert "5 of 11 words of the files are left out" in capsys.readouterr().err
    assert [encoder.row_of(word) for word in ("zebra", "paris", "café", "unknown")] == [1, 4, 5, 0]
    cased = learn(table_of("file", write_vectors(tmp_path / "v.vec", words), lower=False))
    assert list(words_of(cased)) == ["zebra", "Paris", "the", "dog", "paris", "café"]
    whole = learn(table_of("file", write_vectors(tmp_path / "v.vec", words), tokens=Tokens.whole, lower=False))
    assert list(words_of(whole)) == [word for word in dict.fromkeys(words) if isinstance(word, str)]
    assert set(words_of(whole).values()) == {0}


def test_max_size_bounds_the_words_of_files(tmp_path: Path) -> None:
    first = write_vectors(tmp_path / "a.vec", ["one", "two words", "two", "one", "three"])
    second = write_vectors(tmp_path / "b.vec", ["three", "four", "five"])
    both = learn(table_of("file", first, others=[second]))
    assert list(words_of(both)) == ["one", "two", "three", "four", "five"]
    for size in range(1, 6):
        cut = learn(table_of("file", first, others=[second], max_size=size))
        assert list(words_of(cut)) == list(words_of(both))[:size]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.text(st.sampled_from("aAbB'’_é\u0301 9.İß\u200b中"), min_size=1, max_size=4)
        | st.binary(min_size=1, max_size=3)
    ),
    tokens=st.sampled_from([Tokens.words, Tokens.whitespace, Tokens.whole, Tokens.regex]),
    lower=st.booleans(),
)
def test_words_of_a_file_are_those_that_the_table_cuts_into_themselves(
    words: list[str | bytes], tokens: Tokens, lower: bool
) -> None:
    pattern = r"\w+" if tokens is Tokens.regex else None
    expected: dict[str, None] = {}
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    for word in raw:
        text = word.decode(errors="replace")
        if text.encode() == word and tokenize(text, tokens.name, pattern, lower) == [text]:
            expected[text] = None

    class Words:
        path, has_words, size, consumed = "words", True, 1, 0

        @staticmethod
        def words() -> Any:
            for start in range(0, len(raw), 3):
                yield pa.array(raw, pa.binary())[start : start + 3]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "open_sources", lambda name, config: [Words])
        table = table_of("file", "words", tokens=tokens, pattern=pattern, lower=lower)
        if not expected:
            with pytest.raises(UserError, match="would be empty"):
                vocabulary.choose("word", table, TEXTS, *NO_WORDS)
            return
        chosen, counts = vocabulary.choose("word", table, TEXTS, *NO_WORDS)
    assert chosen.to_pylist() == list(expected)
    assert counts.tolist() == [0] * len(expected)
    chosen.validate(full=True)


def test_numbers_of_a_file_are_those_of_64_bits_written_as_the_data_writes_them(tmp_path: Path) -> None:
    largest, least = str(2**64 - 1), str(-(2**63))
    wrong = ["x", "007", "+1", "-0", "1.0", str(2**64), str(-(2**63) - 1), "9" * 20, "1e3", "٣"]
    alike = str(2**63)  # has the bits of the least
    path = write_vectors(tmp_path / "v.vec", ["7", *wrong, largest, "-3", least, "0", "7", alike])
    job = job_of(table_of("file", path))
    encoder = growth.learn(job, "word", [IdsColumn(pa.array([7, 7, -3, 5]), "ids")], None, 1, None)
    assert encoder.learned["values"] == NUMBERS
    assert words_of(encoder) == {"7": 2, largest: 0, "-3": 1, least: 0, "0": 0}
    assert [encoder.row_of(word) for word in ("7", "-3", "5")] == [1, 3, 0]


def test_words_in_both_are_the_datas_that_a_file_knows_in_a_form_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "lemmas").write_text("sat sit\n")
    words = ["THE", "dog", "paris", "cafe", "0000", "sit", "unseen", "cat"]
    path = write_vectors(tmp_path / "v.vec", words)

    def chosen(*fallback: Fallback, **options: Any) -> list[str]:
        return list(words_of(learn(table_of("intersection", path, fallback=list(fallback), **options))))

    assert chosen() == ["cat", "dog", "paris"]
    assert chosen(Fallback.subwords, Fallback.mean) == ["cat", "dog", "paris"]
    assert chosen(Fallback.case) == ["the", "cat", "dog", "paris"]
    assert chosen(Fallback.unicode, Fallback.digits) == ["cat", "dog", "1999", "café", "paris"]
    assert chosen(Fallback.lemma, lemmas=str(tmp_path / "lemmas")) == ["cat", "dog", "paris", "sat"]
    assert chosen(Fallback.case, min_count=2) == ["the", "cat", "dog"]
    assert chosen(Fallback.case, max_size=2) == ["the", "cat"]
    assert chosen(max_size=2) == ["cat", "dog"]  # what the file lacks takes no place
    second = write_vectors(tmp_path / "w.vec", ["zebra"])
    assert chosen(others=[second]) == ["cat", "dog", "paris", "zebra"]


def test_words_in_either_are_the_datas_and_then_the_files_others(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec", ["zebra", "dog", "New", "one two", "new", "old", "the"])
    counts = Counter(word for text in TEXT for word in tokenize(text))
    data = sorted(counts, key=lambda word: (-counts[word], word.encode()))
    both = words_of(learn(table_of("union", path)))
    assert list(both) == [*data, "new", "old"] and both == {**counts, "new": 0, "old": 0}
    frequent = words_of(learn(table_of("union", path, min_count=2)))
    assert list(frequent) == ["the", "cat", "dog", "zebra", "new", "old"] and frequent["zebra"] == 1
    assert list(words_of(learn(table_of("union", path, min_count=2, max_size=5)))) == list(frequent)[:5]
    assert list(words_of(learn(table_of("union", path, max_size=2)))) == data[:2]
    assert list(words_of(learn(table_of("union", path, min_count=9)))) == ["zebra", "dog", "new", "old", "the"]
    assert list(words_of(learn(table_of("union", path), [""]))) == ["zebra", "dog", "new", "old", "the"]


def test_the_datas_words_are_as_without_a_file(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec", ["zebra"])
    assert words_of(learn(table_of("data", path, min_count=2))) == words_of(learn(VocabTable(min_count=2, ngrams=1)))


@pytest.mark.parametrize(
    ("which", "words", "parts"),
    [
        ("file", ["a b", "X"], ["vocabulary of table 'word' would be empty", "all 2 words", "tables.word.lower"]),
        ("intersection", ["nothing"], ["none of the 11 words of the data is in", "tables.word.pretrained.fallback"]),
        ("intersection", None, ["no_words.npy", "tables.word.pretrained.word_list=FILE"]),
        ("file", None, ["no_words.npy", "without words"]),
    ],
)
def test_a_vocabulary_that_would_be_empty_is_one_sentence(
    which: str, words: list[str] | None, parts: list[str], tmp_path: Path
) -> None:
    if words is None:
        path = str(tmp_path / "no_words.npy")
        np.save(path, np.zeros((3, 4), np.float32))
    else:
        path = write_vectors(tmp_path / "v.vec", words)
    with pytest.raises(UserError) as caught:
        learn(table_of(which, path))
    text = str(caught.value)
    assert all(part in text for part in parts) and "\n" not in text


def test_a_subword_table_takes_the_words_of_a_fasttext_file(data_dir: Path) -> None:
    path = data_dir / "vectors" / "gensim" / "crime-and-punishment.bin"
    table = table_of("file", str(path), SubwordTable, tokens=Tokens.whitespace, lower=False, buckets=100)
    encoder = learn(table)
    lines = path.with_suffix(".vec").read_text().splitlines()
    assert list(words_of(encoder)) == [line.split(" ")[0] for line in lines[1:]] and len(lines) == 292
    assert encoder.rows == (391,)


def test_a_vocabulary_of_files_comes_back_from_its_file_and_a_look_at_the_job_gives_the_same(tmp_path: Path) -> None:
    reviews = write_reviews(tmp_path / "data")
    path = write_vectors(tmp_path / "v.vec", ["dreadful", "other", "word3", "was"])
    table = table_of("union", path, min_count=20)
    data = FilesData(path=str(reviews), test=None, validation_fraction=0.25)
    opened = open_job_data(job_of(table, data=data), "train").encoders["word"]
    assert list(words_of(opened))[:3] == [",", "review", "was"] and list(words_of(opened))[5:] == ["other", "word3"]
    assert words_of(opened)["was"] == 150 and 0 < words_of(opened)["word3"] < 20
    encoders.save(opened, tmp_path / "word")
    assert words_of(encoders.load(table, tmp_path / "word")) == words_of(opened)


def test_a_vocabulary_that_grows_gets_the_words_of_files_as_well(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ENCODERS).mkdir(parents=True)
    before = job_of(VocabTable(dim=4, ngrams=1), data=FilesData(path="x"))
    before = saved.from_dict({**saved.as_dict(before), "data": {"kind": "files"}, "head": {"kind": "bag"}})
    saved.save(before, run)
    column = [TextColumn(pa.array(["the old cat"]))]
    encoders.save(encoders.build("word", before.tables["word"], column), run / ENCODERS / "word")
    path = write_vectors(tmp_path / "v.vec", ["cat", "dog", "new"])
    after = job_of(table_of("file", path), grow=str(run))
    grown = growth.learn(after, "word", [TextColumn(pa.array(TEXT))], None, 1, None)
    assert words_of(grown) == {"the": 3, "cat": 2, "dog": 2, "new": 0, "old": 0}
    after.grow_drop = True
    dropped = growth.learn(after, "word", [TextColumn(pa.array(TEXT))], None, 1, None)
    assert words_of(dropped) == {"cat": 2, "dog": 2, "new": 0}


def test_what_is_left_out_is_told_once_and_names_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(table_of("file", write_vectors(tmp_path / "v.vec", ["a", "B", "c d"])))
    told = capsys.readouterr().err
    assert re.fullmatch(r"table word: 2 of 3 words of the files are left out, which .*\n", told)
