"""Generated reviews: the same everywhere, of a language that is known, with labels whose best accuracy is known."""

import hashlib
import math
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from bigembed.config.schema import GeneratedData
from bigembed.data import open_data, open_part
from bigembed.data.generated import NEGATIONS, SHARPNESS, best_accuracy, generate, polarity, spell
from bigembed.errors import UserError


@pytest.fixture(scope="module")
def reviews():
    return generate(GeneratedData())


def words_of(text):
    return re.findall("[a-z]+", text.lower())


def test_the_reviews_are_pinned():
    # Bit for bit on every machine: figures in documents and tests depend on it.
    train, test = generate(GeneratedData(rows=2000, test_rows=1000, vocabulary=5000, seed=3))
    digest = hashlib.sha256()
    for table in (train, test):
        digest.update("\n".join(table["text"].to_pylist()).encode())
        digest.update(table["label"].to_numpy().tobytes())
        digest.update(table["probability"].to_numpy().tobytes())
    assert digest.hexdigest()[:16] == "0a912d00e42b405a"


def test_a_longer_part_begins_with_the_shorter_one_and_the_parts_and_seeds_differ():
    short, test = generate(GeneratedData(rows=100, test_rows=100))
    long, _ = generate(GeneratedData(rows=9000, test_rows=1))
    assert long.slice(0, 100).equals(short)
    texts = [table["text"].to_pylist() for table in (short, test, generate(GeneratedData(rows=100, seed=1))[0])]
    assert len({text for part in texts for text in part}) == 300


def test_the_tables_have_the_promised_columns(reviews):
    for table, rows in zip(reviews, (40_000, 10_000), strict=True):
        assert table.schema == pa.schema([("text", pa.string()), ("label", pa.int8()), ("probability", pa.float64())])
        assert table.num_rows == rows
        table.validate(full=True)
        assert set(table["label"].unique().to_pylist()) == {0, 1}
        assert 0.48 < table["label"].to_numpy().mean() < 0.52


def test_the_probability_is_the_documented_function_of_the_words():
    size = 2000
    table, _ = generate(GeneratedData(rows=300, vocabulary=size))
    strengths = {spell(rank): polarity(rank, size) for rank in range(size)}
    for text, probability in zip(table["text"].to_pylist(), table["probability"].to_pylist(), strict=True):
        words = words_of(text)
        balance = sum(
            -strengths[word] if before in NEGATIONS else strengths[word]
            for before, word in zip(["", *words], words, strict=False)
            if word not in NEGATIONS
        )
        expected = 1.0 / (1.0 + math.exp(-SHARPNESS * balance / len(words)))
        assert probability == pytest.approx(expected, abs=1e-11)


def test_words_are_spelled_apart_and_never_like_a_negation():
    words = [spell(rank) for rank in range(60_000)]
    assert len(set(words)) == len(words)
    assert not set(words) & set(NEGATIONS)
    assert all(re.fullmatch("([bdfgklmprstvz][aeiou])+", word) for word in words)
    assert len(words[0]) <= len(words[-1])


def test_opposites_stand_side_by_side():
    strengths = [polarity(rank, 50_000) for rank in range(600)]
    assert {abs(strength) for strength in strengths} == {0, 1, 2, 3}
    assert all(a == -b for a, b in zip(strengths[::2], strengths[1::2], strict=True))
    assert not any(strengths[:8])


def test_word_frequencies_follow_zipf_and_lengths_vary(reviews):
    lengths = np.array([len(words_of(text)) for text in reviews[1]["text"].to_pylist()])
    assert lengths.min() >= 40
    assert lengths.max() <= 141
    assert 85 < lengths.mean() < 95
    assert 15 < lengths.std() < 25
    counts = Counter(word for text in reviews[0]["text"].to_pylist() for word in words_of(text))
    assert sum(count for word, count in counts.items() if word in NEGATIONS) / sum(counts.values()) > 0.04
    ranks = np.array([100, 300, 1000, 3000, 10_000])
    around = [np.mean([counts[spell(rank + i)] for i in range(-50, 50)]) for rank in ranks]
    slope = np.polyfit(np.log(ranks), np.log(around), 1)[0]
    assert -1.1 < slope < -0.9
    assert len(counts) > 49_900


def test_the_labels_are_drawn_with_the_probabilities(reviews):
    label, probability = (reviews[0][name].to_numpy() for name in ("label", "probability"))
    for low in np.arange(0.0, 1.0, 0.1):
        some = (probability >= low) & (probability < low + 0.1)
        deviation = np.sqrt((probability[some] * (1 - probability[some])).sum())
        assert abs(label[some].sum() - probability[some].sum()) < 4 * deviation


def test_the_best_accuracy_is_the_documented_one(reviews):
    best = best_accuracy(GeneratedData())
    assert best == pytest.approx(0.9447, abs=0.0001)
    ideal = (reviews[1]["probability"].to_numpy() > 0.5) == (reviews[1]["label"].to_numpy() == 1)
    assert ideal.mean() == pytest.approx(best, abs=0.01)


def test_who_does_not_see_negations_loses(reviews):
    strengths = {spell(rank): polarity(rank, 50_000) for rank in range(1000)}
    sums = np.array([sum(strengths.get(word, 0) for word in words_of(text)) for text in reviews[1]["text"].to_pylist()])
    probability = reviews[1]["probability"].to_numpy()
    blind = np.where(sums > 0, probability, np.where(sums < 0, 1.0 - probability, 0.5)).mean()
    assert blind < best_accuracy(GeneratedData()) - 0.03


@pytest.mark.parametrize("vocabulary", [100, 1000, 300_000])
def test_any_vocabulary_works(vocabulary):
    config = GeneratedData(rows=500, test_rows=500, vocabulary=vocabulary)
    known = {spell(rank) for rank in range(min(vocabulary, 1000))}
    texts = generate(config)[0]["text"].to_pylist()
    if vocabulary <= 1000:
        assert {word for text in texts for word in words_of(text)} <= known | set(NEGATIONS)
    assert 0.9 < best_accuracy(config) < 1.0


def test_only_the_wished_columns_are_opened_and_others_are_named():
    config = GeneratedData(rows=20, test_rows=10)
    parts = open_data(config, ["text"], ["label"])
    assert parts.validation is None
    assert parts.train.column_names == parts.test.column_names == ["text", "label"]
    assert open_part(config, "test", ["text"]).column_names == ["text"]
    with pytest.raises(UserError, match="no column 'review', it has 'text', 'label', 'probability'"):
        open_data(config, ["review"], ["label"])
    with pytest.raises(UserError, match="no validation part; it has train and test"):
        open_part(config, "validation", ["text"])
