"""Tables filled from vectors: every kind, option and fall-back against plain numpy, from files in memory."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pretrained_matching import forms
from test_subword import slow_hash, slow_pieces

from bigembed.config.schema import (
    CompositionalTable,
    Fallback,
    HashedTable,
    IdsTable,
    Join,
    ManagedTable,
    Mismatch,
    MixedTable,
    PretrainedConfig,
    SubwordTable,
    TokenizerTable,
    VocabTable,
)
from bigembed.encoders import KINDS, HashedEncoder, IdsEncoder, VocabEncoder
from bigembed.encoders.subword import SubwordEncoder
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.errors import UserError
from bigembed.pretrained import affine, fitting
from bigembed.pretrained.by_rows import numbers_in
from bigembed.pretrained.composing import compose
from bigembed.pretrained.placing import place
from bigembed.pretrained.steps import Add, Normalise, Put
from bigembed.run_vectors import RunSource
from bigembed.vectors import open_source
from bigembed.vectors.source import Block, Ngrams, Source

FIRST = np.float32(7.0)  # what rows hold that nobody fills


class Memory(Source):
    """A file of vectors that is none; the rows behind those of its words are of n-grams."""

    path, format, details, size = "memory.vec", "memory", {}, 1

    def __init__(self, words, rows, ngrams=None, block=3, path="memory.vec", count=True):
        self.rows = np.asarray(rows, np.float32)
        self.dim, self.path, self.ngrams, self.block = self.rows.shape[1], path, ngrams, block
        self.has_words = words is not None
        self.of_words = len(self.rows) - (ngrams.rows if ngrams else 0)
        self.count = self.of_words if count else None
        self.texts = None if words is None else pa.array([_bytes(word) for word in words], pa.binary())
        self.dictionary = self.texts if ngrams else None
        self.passes = 0

    def blocks(self):
        self.passes += 1
        starts = [*range(0, self.of_words, self.block), *range(self.of_words, len(self.rows), self.block)]
        for start, end in pairwise([*starts, len(self.rows)]):
            words = self.texts.slice(start, end - start) if self.has_words and start < self.of_words else None
            yield Block(start, words, self.rows[start:end])


def _bytes(word):
    return word if isinstance(word, bytes) else word.encode()


def numbers(rows, dim=4, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (rows, dim)).astype(np.float32)


def with_ngrams(words, dim=4, min_n=2, max_n=3, buckets=11, seed=5, **options):
    rows = numbers(len(words) + buckets, dim, seed)
    return Memory(words, rows, Ngrams(min_n, max_n, buckets, buckets), path="grams.bin", **options)


def composed(source, word):
    """Return what fastText makes of a word, or None."""
    words, ngrams = source.texts.to_pylist(), source.ngrams
    own = [words.index(word.encode())] if word.encode() in words else []
    pieces = slow_pieces(word, ngrams.min_n, ngrams.max_n)
    rows = own + [len(words) + slow_hash(piece) % ngrams.buckets for piece in pieces]
    return source.rows[rows].astype(np.float64).mean(0) if rows else None


def filled(placing, *shapes):
    """Return what the steps make of tables that held ``FIRST``, and which rows are said to be given."""
    tables, given = [np.full(shape, FIRST, np.float32) for shape in shapes], np.zeros(shapes[0][0], bool)
    for step in placing.steps():
        if isinstance(step, Put):
            assert step.rows.dtype == np.int64 and step.vectors.dtype == np.float32
            assert step.vectors.nbytes <= 1 << 23 and len(step.vectors) in (1, len(step.rows))
            columns = slice(step.column, step.column + step.vectors.shape[1])
            for at, row in enumerate(step.rows):
                tables[step.part][row, columns] = step.vectors[min(at, len(step.vectors) - 1)]
            if step.part == 0:
                given[step.rows] = step.given
        elif isinstance(step, Add):
            columns = slice(step.column, step.column + step.vectors.shape[1])
            for row, source, weight in zip(step.rows, step.sources, step.weights, strict=True):
                tables[0][row, columns] += weight * step.vectors[source]
        else:
            assert isinstance(step, Normalise)
            assert len(np.unique(step.rows)) == len(step.rows)
            part = tables[0][step.rows, step.column : step.column + step.width]
            tables[0][step.rows, step.column : step.column + step.width] = unit(part)
    return tables[0] if len(shapes) == 1 else tables, given


def unit(rows):
    lengths = np.linalg.norm(np.asarray(rows, np.float64), axis=-1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def vocab(words, dim=4, **options):
    table = VocabTable(dim=dim, pretrained=PretrainedConfig(path="x", **options))
    return table, VocabEncoder(table, {"values": "texts"}, pa.array(words, pa.string()), np.arange(len(words), 0, -1))


def of_vocab(words, *sources, dim=4, seed=3, **options):
    """Return the rows of the words, whether each is given, and how each was found."""
    table, encoder = vocab(words, dim, **options)
    placing = place("word", table, encoder, sources, seed)
    rows, given = filled(placing, (1 + len(words), dim))
    assert (rows[0] == FIRST).all()  # that of unknown words
    return rows[1:], given[1:], [placing.names[way] for way in placing.ways]


# ---- a vocabulary, from files without n-grams


def test_words_get_their_vectors_and_others_stay():
    file = Memory(["the", "fox", "dog", "fox", "a"], numbers(5))
    rows, given, ways = of_vocab(["fox", "cat", "the"], file)
    np.testing.assert_array_equal(rows, [file.rows[1], [FIRST] * 4, file.rows[0]])
    assert ways == ["exact", "missing", "exact"] and given.tolist() == [True, False, True]


def test_a_file_is_read_once():
    file = Memory(["a", "b"], numbers(2))
    of_vocab(["a", "b"], file, fallback=[Fallback.case])
    assert file.passes == 1


def test_words_are_found_by_fall_backs_the_better_one_wins_whenever_it_comes():
    file = Memory(["PARIS", "Paris", "ROME", "x", "rome", "Cafe", "cafe"], numbers(7), block=2)
    words = ["paris", "rome", "café", "zoo"]
    rows, given, ways = of_vocab(words, file, fallback=[Fallback.case, Fallback.unicode])
    np.testing.assert_array_equal(rows[:3], file.rows[[0, 4, 6]])
    assert ways == ["case", "exact", "unicode", "missing"] and given.tolist() == [True, True, True, False]


def test_the_order_of_files_decides_among_equals():
    first, second = Memory(["a", "B"], numbers(2)), Memory(["a", "b", "c"], numbers(3, seed=1))
    rows, _, ways = of_vocab(["a", "b", "c"], first, second, fallback=[Fallback.case])
    np.testing.assert_array_equal(rows, [first.rows[0], second.rows[1], second.rows[2]])
    assert ways == ["exact"] * 3


@pytest.mark.parametrize("fallback", [Fallback.mean, Fallback.zeros, Fallback.normal])
def test_what_is_in_no_file_gets_a_mean_a_draw_or_zeros(fallback):
    file, words = Memory([f"w{i}" for i in range(40)], numbers(40)), ["w0", *(f"x{i}" for i in range(500))]
    rows, given, ways = of_vocab(words, file, fallback=[fallback])
    assert ways == ["exact"] + [fallback.value] * 500 and given.tolist() == [True] + [False] * 500
    mean, deviation = file.rows.mean(0), file.rows.std(0)
    if fallback is Fallback.normal:
        assert np.abs(rows[1:].mean(0) - mean).max() < 0.5 and np.abs(rows[1:].std(0) / deviation - 1).max() < 0.2
        again, _, _ = of_vocab(words, file, fallback=[fallback])
        other, _, _ = of_vocab(words, file, fallback=[fallback], seed=4)
        assert (rows == again).all() and (rows[1:] != other[1:]).all()
    else:
        expected = mean if fallback is Fallback.mean else np.zeros(4)
        np.testing.assert_allclose(rows[1:], np.tile(expected, (500, 1)), rtol=1e-6, atol=1e-6)


def test_draws_do_not_hang_on_the_size_of_steps(monkeypatch):
    file, words = Memory(["a", "b"], numbers(2)), [f"x{i}" for i in range(100)]
    whole, _, _ = of_vocab(words, file, fallback=[Fallback.normal])
    monkeypatch.setattr(fitting, "STEP_BYTES", 100)
    small, _, _ = of_vocab(words, file, fallback=[Fallback.normal])
    assert (whole == small).all()


def pca(rows):
    """Return the principal directions of rows, as columns, by the singular values of the centred rows."""
    directions = np.linalg.svd(rows - rows.mean(0), full_matrices=True)[2].T
    greatest = np.abs(directions).argmax(0)
    return directions * np.sign(directions[greatest, np.arange(len(directions))])


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("remove", [0, 2])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("normalise", [False, True])
def test_vectors_are_centred_freed_projected_and_scaled(centre, remove, width, normalise):
    words = [f"w{i}" for i in range(60)]
    file = Memory(words, numbers(60, 8) * np.arange(8, 0, -1), block=7)
    options = {"centre": centre, "remove_components": remove, "normalise": normalise, "dimension": Mismatch.project}
    rows, _, _ = of_vocab([*words, "x"], file, dim=width, fallback=[Fallback.mean], **options)
    exact = file.rows.astype(np.float64)
    directions = pca(exact)
    expected = exact - exact.mean(0) if centre or remove else exact
    expected = expected - expected @ directions[:, :remove] @ directions[:, :remove].T
    expected = expected @ directions[:, remove : remove + width] if width < 8 else expected
    expected = np.vstack([expected, expected.mean(0)])
    if normalise and (centre or remove):
        expected[-1], rows[-1] = 0, 0  # of a mean of zero only rounding has a direction
    np.testing.assert_allclose(rows, unit(expected) if normalise else expected, atol=2e-5)


@pytest.mark.parametrize("rows", [3, 1000])
def test_many_rows_are_mapped_as_one_product_has_them(rows):
    vectors, directions = numbers(rows, 300), pca(numbers(400, 300, 1)).astype(np.float32)
    removed, projection = directions[:, :2], directions[:, 2:62]
    mapped = affine.Affine(vectors[0], removed, projection)(vectors)
    centred = vectors.astype(np.float64) - vectors[0]
    np.testing.assert_allclose(mapped, (centred - centred @ removed @ removed.T) @ projection, atol=1e-4)


def test_statistics_are_of_the_first_vectors(monkeypatch):
    monkeypatch.setattr(affine, "SAMPLE_WORDS", 10)
    words = [f"w{i}" for i in range(20)]
    file = Memory(words, numbers(20), block=3)
    rows, _, _ = of_vocab(words, file, centre=True)
    np.testing.assert_allclose(rows, file.rows - file.rows[:10].mean(0), atol=1e-6)


def test_narrow_vectors_are_padded():
    file, wide = Memory(["a", "b"], numbers(2, 3)), Memory(["b", "c"], numbers(2, 4, 1))
    rows, _, _ = of_vocab(["a", "b", "c", "d"], file, wide, dimension=Mismatch.pad, fallback=[Fallback.mean])
    np.testing.assert_array_equal(rows[:2], np.pad(file.rows, [(0, 0), (0, 1)]))
    np.testing.assert_array_equal(rows[2], wide.rows[1])
    np.testing.assert_allclose(rows[3], [*file.rows.mean(0), 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_files_side_by_side_fill_their_columns(normalise):
    first, second = Memory(["a", "b"], numbers(2, 3)), Memory(["B", "c"], numbers(2, 4, 1))
    options = {"join": Join.concatenated, "dimension": Mismatch.pad, "normalise": normalise}
    words = ["a", "b", "c", "d", "e"]
    rows, given, ways = of_vocab(words, first, second, dim=8, fallback=[Fallback.case, Fallback.mean], **options)
    none, padding = np.zeros(4), [0]
    expected = np.array(
        [
            [*first.rows[0], *none, *padding],
            [*first.rows[1], *second.rows[0], *padding],
            [0, 0, 0, *second.rows[1], *padding],
            *[[*first.rows.mean(0), *second.rows.mean(0), *padding]] * 2,
        ]
    )
    np.testing.assert_allclose(rows, unit(expected) if normalise else expected, rtol=1e-5, atol=1e-6)
    assert ways == ["exact", "exact", "exact", "mean", "mean"] and given.tolist() == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    ("dims", "dim", "options", "told"),
    [
        ([300], 100, {}, "set tables.word.dim=300, or tables.word.pretrained.dimension=project"),
        ([100], 300, {}, "set tables.word.dim=100, or tables.word.pretrained.dimension=pad"),
        ([50], 16, {}, "set tables.word.dim=52 and tables.word.pretrained.dimension=pad, as rows are"),
        ([8], 16, {"dimension": Mismatch.project}, "set tables.word.dim=8, or tables.word.pretrained.dimension=pad"),
        ([16], 8, {"dimension": Mismatch.pad}, "dimension=project"),
        ([8, 12], 8, {}, "vectors of second.vec are 12"),
        ([8, 12], 8, {"join": Join.concatenated}, "side by side, are 20: set tables.word.dim=20$"),
        ([8, 12], 8, {"join": Join.concatenated, "dimension": Mismatch.project}, "tables.word.dim=20$"),
    ],
)
def test_another_width_is_refused_with_what_to_set(dims, dim, options, told):
    sources = [
        Memory(["a"], numbers(1, width), path=path) for width, path in zip(dims, ["x", "second.vec"], strict=False)
    ]
    with pytest.raises(UserError, match=told):
        place("word", *vocab(["a"], dim, **options), sources, 0)


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        (numbers(0), {"centre": True}, "holds no vectors"),
        (numbers(0), {"fallback": [Fallback.mean]}, "holds no vectors"),
        (numbers(5), {"remove_components": 4}, "numbers, which have no 4 components"),
        (np.full((2, 4), 3e38) * [[1], [-1]], {"remove_components": 1}, "numbers too large"),
        (numbers(3, 2052), {"remove_components": 1}, "components are found of at most 2,048"),
    ],
)
def test_what_has_no_statistics_is_refused(rows, options, told):
    rows = np.asarray(rows)
    file = Memory([f"w{i}" for i in range(len(rows))], rows)
    placing = place("word", *vocab(["w0"], rows.shape[1], **options), [file], 0)
    with pytest.raises(UserError, match=told):
        list(placing.steps())


def test_vectors_without_words_are_refused_for_words():
    with pytest.raises(UserError, match=r"memory.vec holds vectors without words.*tables.word.pretrained.word_list"):
        place("word", *vocab(["a"]), [Memory(None, numbers(2))], 0)


@pytest.mark.parametrize(
    "table",
    [
        CompositionalTable(dim=4, partitions=[8, 8]),
        ManagedTable(dim=4),
        MixedTable(dim=8, widths=[8, 4], blocks=[5]),
    ],
)
def test_other_kinds_start_from_no_file(table):
    class Kind:
        kind = KINDS[type(table)].kind
        words = staticmethod(lambda: None)

    with pytest.raises(UserError, match=f"is of kind {Kind.kind}, .* leave out tables.word.pretrained.path"):
        place("word", table, Kind(), [Memory(["a"], numbers(1, table.dim))], 0)


def test_steps_are_small_and_progress_is_told(monkeypatch):
    monkeypatch.setattr(fitting, "STEP_BYTES", 64)
    file, told = Memory(["a", "b", "c", "d", "e", "f", "g"], numbers(7)), []
    table, encoder = vocab(["a", "g", "c", "b", "d", "x"], fallback=[Fallback.zeros])
    placing = place("word", table, encoder, [file], 0, lambda source, words: told.append((source, words)))
    assert max(step.vectors.nbytes for step in placing.steps()) <= 64
    assert told == [(file, 3), (file, 6), (file, 7)]


def test_pieces_of_a_tokenizer_are_words():
    model = {"type": "WordLevel", "vocab": {"the": 0, "fox": 1, "[UNK]": 2}, "unk_token": "[UNK]"}
    content = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "model": model}
    missing = dict.fromkeys(["normalizer", "pre_tokenizer", "post_processor", "decoder"])
    table = TokenizerTable(dim=4, path="x", pretrained=PretrainedConfig(path="x"))
    encoder = TokenizerEncoder(table, {"tokenizer": json.dumps(content | missing)})
    file = Memory(["fox", "dog", "the"], numbers(3))
    rows, _ = filled(place("word", table, encoder, [file], 0), (3, 4))
    np.testing.assert_array_equal(rows, [file.rows[2], file.rows[0], [FIRST] * 4])


# ---- a vocabulary, from files with n-grams


def test_known_words_are_composed_and_so_are_unknown_ones():
    file = with_ngrams(["the", "fox", "Cat"])
    words = ["fox", "foxes", "the", "cat", "x"]
    rows, given, ways = of_vocab(words, file, fallback=[Fallback.case, Fallback.subwords])
    expected = [composed(file, word) for word in ("fox", "foxes", "the", "Cat", "x")]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    assert ways == ["exact", "subwords", "exact", "case", "subwords"] and given.all()


def test_without_the_fall_back_unknown_words_are_not_composed():
    file = with_ngrams(["fox"])
    rows, _, ways = of_vocab(["fox", "foxes"], file, fallback=[])
    np.testing.assert_allclose(rows[0], composed(file, "fox"), rtol=1e-5, atol=1e-6)
    assert (rows[1] == FIRST).all() and ways == ["exact", "missing"]


def test_what_has_no_ngrams_falls_on():
    file = with_ngrams(["fox"], min_n=5, max_n=6)
    rows, _, ways = of_vocab(["a", "foxes"], file, fallback=[Fallback.subwords, Fallback.zeros])
    np.testing.assert_allclose(rows, [np.zeros(4), composed(file, "foxes")], rtol=1e-5, atol=1e-6)
    assert ways == ["zeros", "subwords"]


def test_composing_goes_where_the_list_has_it():
    for fallback, way in (
        ([Fallback.case, Fallback.subwords], "case"),
        ([Fallback.subwords, Fallback.case], "subwords"),
    ):
        file = with_ngrams(["Fox"])
        rows, _, ways = of_vocab(["fox"], file, fallback=fallback)
        assert ways == [way]
        np.testing.assert_allclose(rows[0], composed(file, "Fox" if way == "case" else "fox"), rtol=1e-5, atol=1e-6)


def test_a_word_of_another_file_goes_before_a_composed_one():
    grams, plain = with_ngrams(["the"]), Memory(["foxes"], numbers(1))
    for sources in ([grams, plain], [plain, grams]):
        rows, _, ways = of_vocab(["foxes", "the", "dogs"], *sources)
        np.testing.assert_allclose(
            rows, [plain.rows[0], composed(grams, "the"), composed(grams, "dogs")], rtol=1e-5, atol=1e-6
        )
        assert ways == ["exact", "exact", "subwords"]


def test_only_the_first_file_with_ngrams_composes_unknown_words():
    first, second = with_ngrams(["a"]), with_ngrams(["bb"], seed=9)
    rows, _, _ = of_vocab(["a", "bb", "cc"], first, second)
    np.testing.assert_allclose(
        rows, [composed(first, "a"), composed(second, "bb"), composed(first, "cc")], rtol=1e-5, atol=1e-6
    )


def test_composed_vectors_are_mapped_like_plain_ones():
    file = with_ngrams([f"word{i}" for i in range(50)], dim=8)
    words = [*(f"word{i}" for i in range(50)), "other", "_"]
    options = {"remove_components": 1, "dimension": Mismatch.project, "fallback": [Fallback.subwords, Fallback.mean]}
    for normalise in (False, True):
        rows, _, _ = of_vocab(words, file, normalise=normalise, **options)
        exact = np.array([composed(file, word) for word in words[:-1]])
        first = exact[:50]
        directions = pca(first)
        expected = (exact - first.mean(0)) @ directions[:, 1:5]
        np.testing.assert_allclose(rows[:-1], unit(expected) if normalise else expected, atol=1e-5)


def test_files_with_ngrams_lie_side_by_side():
    grams, plain = with_ngrams(["fox"], dim=5), Memory(["dog", "fox"], numbers(2, 3))
    rows, _, ways = of_vocab(["fox", "foxes", "dog"], plain, grams, dim=8, join=Join.concatenated)
    expected = [
        [*plain.rows[1], *composed(grams, "fox")],
        [0, 0, 0, *composed(grams, "foxes")],
        [*plain.rows[0], *composed(grams, "dog")],
    ]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    assert ways == ["exact", "subwords", "exact"]


# ---- a table of words and n-grams


def subword(words, dim=4, min_n=2, max_n=3, buckets=11, **options):
    table = SubwordTable(
        dim=dim, min_n=min_n, max_n=max_n, buckets=buckets, pretrained=PretrainedConfig(path="x", **options)
    )
    return table, SubwordEncoder(table, pa.array(words, pa.string()), np.arange(len(words), 0, -1))


def of_subword(words, *sources, dim=4, **options):
    table, encoder = subword(words, dim, **options)
    placing = place("word", table, encoder, sources, 0)
    rows, given = filled(placing, (len(words) + table.buckets, dim))
    return rows, given, [placing.names[way] for way in placing.ways]


def test_rows_of_words_and_ngrams_are_copied():
    file = with_ngrams(["the", "fox", "Cat"])
    rows, given, ways = of_subword(["fox", "cat", "dog", "q"], file, fallback=[Fallback.case, Fallback.subwords])
    np.testing.assert_array_equal(rows, [file.rows[1], file.rows[2], [FIRST] * 4, [FIRST] * 4, *file.rows[3:]])
    assert ways == ["exact", "case", "subwords", "subwords"]
    assert given.tolist() == [True, True, False, False] + [True] * 11


def test_a_table_that_starts_so_gives_the_vectors_of_the_file():
    file = with_ngrams(["the", "fox"])
    table, encoder = subword(["fox", "the"])
    rows, _ = filled(place("word", table, encoder, [file], 0), (13, 4))
    for word in ("fox", "the", "wolf"):
        np.testing.assert_allclose(rows[encoder.rows_of(word)].mean(0), composed(file, word), rtol=1e-5, atol=1e-6)


def test_copied_rows_are_centred_by_the_mean_of_composed_vectors():
    words = [f"word{i}" for i in range(30)]
    file = with_ngrams(words)
    rows, _, _ = of_subword([*words, "x"], file, centre=True, fallback=[Fallback.mean])
    mean = np.mean([composed(file, word) for word in words], 0)
    np.testing.assert_allclose(np.delete(rows, 30, 0), file.rows - mean, atol=1e-5)
    np.testing.assert_allclose(rows[30], np.zeros(4), atol=1e-5)


def test_a_plain_file_gives_the_rows_of_words_alone():
    file = Memory(["fox"], numbers(1))
    rows, _, ways = of_subword(["fox", "dog"], file, normalise=True)
    np.testing.assert_allclose(rows[0], unit(file.rows[0]), rtol=1e-6, atol=1e-6)
    assert (rows[1:] == FIRST).all() and ways == ["exact", "missing"]


def test_ngrams_side_by_side_with_a_plain_file_have_zeros_in_its_columns():
    grams, plain = with_ngrams(["fox"], dim=5), Memory(["dog", "fox"], numbers(2, 3))
    rows, _, _ = of_subword(["fox", "dog", "cat"], plain, grams, dim=8, join=Join.concatenated)
    np.testing.assert_array_equal(rows[0], [*plain.rows[1], *grams.rows[0]])
    np.testing.assert_array_equal(rows[1], [*plain.rows[0], *np.zeros(5)])
    np.testing.assert_array_equal(rows[2], [FIRST] * 8)  # in no file, but composed of n-grams
    np.testing.assert_array_equal(rows[3:], np.pad(grams.rows[1:], [(0, 0), (3, 0)]))


def test_ngrams_are_padded():
    file = with_ngrams(["fox"], dim=3)
    rows, _, _ = of_subword(["fox"], file, dimension=Mismatch.pad)
    np.testing.assert_array_equal(rows, np.pad(file.rows, [(0, 0), (0, 1)]))


@pytest.mark.parametrize(
    ("sources", "options", "told"),
    [
        ([with_ngrams(["a"], buckets=12)], {}, "set tables.word.min_n=2 tables.word.max_n=3 tables.word.buckets=12$"),
        ([with_ngrams(["a"], max_n=6)], {}, "has n-grams of 2 to 6 characters in 11 buckets"),
        ([with_ngrams(["a"])], {"normalise": True}, "leave out tables.word.pretrained.normalise"),
        ([with_ngrams(["a"]), with_ngrams(["b"])], {}, "both have n-grams"),
    ],
)
def test_ngrams_of_another_kind_are_refused(sources, options, told):
    with pytest.raises(UserError, match=told):
        place("word", *subword(["a"], **options), sources, 0)


def test_a_pruned_file_is_refused_for_ngrams():
    file = with_ngrams(["a"])
    file.ngrams = Ngrams(2, 3, 11, 5, np.arange(11, dtype=np.int32) % 6 - 1)
    with pytest.raises(UserError, match="it is pruned"):
        place("word", *subword(["a"]), [file], 0)


# ---- tables whose rows stand for no words


def hashed(dim=4, buckets=1000, values="texts", fallback=(), normalise=False, **options):
    pretrained = PretrainedConfig(path="x", fallback=list(fallback), normalise=normalise)
    table = HashedTable(dim=dim, buckets=buckets, pretrained=pretrained, **options)
    return table, HashedEncoder(table, {"values": values})


def of_rows(table, encoder, *sources):
    placing = place("word", table, encoder, sources, 0)
    rows, given = filled(placing, (encoder.rows[0], table.dim))
    assert placing.ways is None
    return rows, given, placing.told


def test_words_are_placed_where_they_are_hashed_to():
    table, encoder = hashed(salt=3)
    file = Memory(["fox", "two words", "the", b"\xff\xfe", "Upper", "fox"], numbers(6))
    rows, given, told = of_rows(table, encoder, file)
    for word, vector in (("fox", file.rows[0]), ("the", file.rows[2])):
        np.testing.assert_array_equal(rows[encoder.row_of(word)], vector)
    assert given.sum() == 2 and (rows[~given] == FIRST).all()
    assert list(told.values()) == [6, 2, 1, 3, 2]


def test_another_case_is_placed_where_asked_for_and_gives_way_to_the_word_as_it_is():
    table, encoder = hashed(fallback=[Fallback.case])
    file = Memory(["Fox", "The", "FOX", "fox", "THE", "fox"], numbers(6), block=2)
    rows, given, told = of_rows(table, encoder, file)
    np.testing.assert_array_equal(rows[encoder.row_of("fox")], file.rows[3])
    np.testing.assert_array_equal(rows[encoder.row_of("the")], file.rows[1])
    assert given.sum() == 2 and told["words placed"] == 3 and told["rows given"] == 2


@pytest.mark.parametrize("sign", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_several_functions_add_up_to_the_vector(sign, normalise):
    table, encoder = hashed(functions=3, sign=sign, buckets=100_000, normalise=normalise)
    words = ["fox", "the", "dog"]
    file = Memory(words, numbers(3))
    rows, given, _ = of_rows(table, encoder, file)
    for word, vector in zip(words, file.rows, strict=True):
        encoded = encoder.encode_token(word)
        signs = encoded.signs.values[:, None] if sign else 1
        total = (rows[encoded.parts[0].rows.values] * signs).sum(0)
        np.testing.assert_allclose(total, unit(vector) if normalise else vector, rtol=1e-5, atol=1e-6)
    assert given.sum() == 9


def test_the_first_word_keeps_a_row_that_two_share():
    words = [f"w{i}" for i in range(300)]
    table, encoder = hashed(buckets=50)
    file = Memory(words, numbers(300), block=7)
    rows, given, told = of_rows(table, encoder, file)
    first = {}
    for at, word in enumerate(words):
        first.setdefault(encoder.row_of(word), at)
    for row, at in first.items():
        np.testing.assert_array_equal(rows[row], file.rows[at])
    assert told["rows given"] == given.sum() == len(first)
    assert told["words whose rows an earlier one had taken"] == 300 - len(first)


def test_the_first_file_keeps_a_row():
    table, encoder = hashed()
    first, second = Memory(["a"], numbers(1)), Memory(["a", "b"], numbers(2, seed=1))
    rows, _, _ = of_rows(table, encoder, first, second)
    np.testing.assert_array_equal(rows[[encoder.row_of("a"), encoder.row_of("b")]], [first.rows[0], second.rows[1]])


@pytest.mark.parametrize("functions", [1, 3])
def test_words_with_ngrams_are_composed_in_hashed_rows(functions):
    table, encoder = hashed(functions=functions, buckets=100_000, fallback=[Fallback.case])
    file = with_ngrams(["The", "the", "fox", "Dog", "the"])
    rows, given, _ = of_rows(table, encoder, file)
    for word, of in (("the", "the"), ("fox", "fox"), ("dog", "Dog")):
        total = rows[encoder.encode_token(word).parts[0].rows.values].sum(0)
        np.testing.assert_allclose(total, composed(file, of), rtol=1e-5, atol=1e-6)
    assert given.sum() == 3 * functions


def test_composed_hashed_rows_are_scaled():
    table, encoder = hashed(normalise=True)
    file = with_ngrams(["the"])
    rows, _, _ = of_rows(table, encoder, file)
    np.testing.assert_allclose(rows[encoder.row_of("the")], unit(composed(file, "the")), rtol=1e-5, atol=1e-6)


def test_a_table_of_numbers_takes_words_that_are_numbers():
    table, encoder = hashed(values="numbers")
    words = ["17", "-3", "x", "018", str(2**64 - 1), str(2**64), str(-(2**63)), str(-(2**63) - 1), b"\xff", "-0"]
    file = Memory(words, numbers(len(words)))
    rows, given, told = of_rows(table, encoder, file)
    for at in (0, 1, 4, 6):
        np.testing.assert_array_equal(rows[encoder.row_of(words[at])], file.rows[at])
    assert given.sum() == told["words placed"] == 4


@given(st.lists(st.integers(-(2**65), 2**65).map(str) | st.text(st.sampled_from("-019x"), max_size=21), max_size=20))
def test_numbers_are_those_that_python_writes_so(words):
    at, found = numbers_in(pa.array([word.encode() for word in words], pa.binary()))
    right = [i for i, word in enumerate(words) if is_number(word)]
    assert at.tolist() == right
    assert found.tolist() == [(int(words[i]) + 2**63) % 2**64 - 2**63 for i in right]


def is_number(word):
    digits = word.removeprefix("-")
    return digits.isdecimal() and str(int(word)) == word and -(2**63) <= int(word) < 2**64


def ids(rows=10, dim=4, **options):
    table = IdsTable(dim=dim, rows=rows, pretrained=PretrainedConfig(path="x", **options))
    return table, IdsEncoder(table)


def test_vectors_without_words_are_rows_by_number():
    file = Memory(None, numbers(7))
    rows, given, told = of_rows(*ids(), file)
    np.testing.assert_array_equal(rows[:7], file.rows)
    assert given.tolist() == [True] * 7 + [False] * 3 and told["vectors placed"] == 7


def test_words_that_are_numbers_are_rows():
    file = Memory(["3", "0", "3", "9"], numbers(4))
    rows, given, told = of_rows(*ids(), file)
    np.testing.assert_array_equal(rows[[3, 0, 9]], file.rows[[0, 1, 3]])
    assert given.sum() == 3 and told["words whose rows an earlier one had taken"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [(["1", "x"], "a vector for 'x'"), (["10"], "'10', which is no row"), (["-1"], "'-1'"), ([b"\xff"], "")],
)
def test_words_that_are_no_rows_are_refused(words, told):
    placing = place("word", *ids(), [Memory(words, numbers(len(words)))], 0)
    with pytest.raises(UserError, match=told + ".*numbers 0 to 9"):
        list(placing.steps())


@pytest.mark.parametrize("count", [True, False])
def test_more_vectors_than_rows_are_refused(count):
    placing = place("word", *ids(5), [Memory(None, numbers(7), count=count)], 0)
    with pytest.raises(UserError, match="7 vectors" if count else "more than 5 vectors"):
        list(placing.steps())


@pytest.mark.parametrize(
    ("made", "sources", "told"),
    [
        (hashed(), [Memory(None, numbers(1))], "holds vectors without words"),
        (hashed(fallback=[Fallback.mean]), [Memory(["a"], numbers(1))], "fallback=mean is for words"),
        (ids(fallback=[Fallback.case]), [Memory(["1"], numbers(1))], "fallback=case is for words"),
        (ids(join=Join.concatenated), [Memory(["1"], numbers(1, 2))] * 2, "concatenated needs words"),
        (hashed(values="texts × numbers"), [Memory(["a"], numbers(1))], "combinations of values"),
        (hashed(functions=2, normalise=True), [with_ngrams(["a"])], "functions=1"),
    ],
)
def test_what_tables_without_words_cannot_take_is_refused(made, sources, told):
    with pytest.raises(UserError, match=told):
        place("word", *made, sources, 0)


# ---- a run's table


class Run(RunSource):
    """A table of a run whose rows mean the same."""

    def __init__(self, parts):
        self.path, self.arrays = "run", parts

    def parts(self, encoder):
        return self.arrays


def test_the_rows_of_an_equal_table_are_copied_part_by_part():
    table, encoder = hashed(buckets=6, functions=2, importance=5)
    own = [numbers(6), numbers(5, 4, 1)]
    rows, given = filled(placing := place("word", table, encoder, [Run(own)], 0), (6, 4), (5, 4))
    np.testing.assert_array_equal(rows[0], own[0])
    np.testing.assert_array_equal(rows[1], own[1])
    assert given.all() and placing.told == {"rows given": 11}


def test_words_of_an_equal_table_are_all_exact():
    table, encoder = vocab(["a", "b"])
    own = numbers(3)
    placing = place("word", table, encoder, [Run([own])], 0)
    rows, _ = filled(placing, (3, 4))
    np.testing.assert_array_equal(rows, own)
    assert placing.ways.tolist() == [0, 0] and placing.names == ("exact", "missing")


# ---- all at once


@given(
    st.lists(st.text(st.sampled_from("aAbé0"), min_size=1, max_size=3), unique=True, max_size=6),
    st.lists(st.lists(st.text(st.sampled_from("aAbé0"), min_size=1, max_size=3), max_size=6), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.permutations([Fallback.case, Fallback.unicode, Fallback.digits, Fallback.subwords]),
)
def test_files_in_order_are_as_a_slow_search_has_them(words, files, of_ngrams, fallback):
    sources = [
        with_ngrams(list(dict.fromkeys(texts)), seed=i) if grams else Memory(texts, numbers(len(texts), seed=i))
        for i, (texts, grams) in enumerate(zip(files, of_ngrams, strict=False))
    ]
    rows, _, ways = of_vocab(words, *sources, fallback=fallback)
    for word, row, way in zip(words, rows, ways, strict=True):
        expected = slow(word, sources, fallback)
        assert way == expected[0]
        np.testing.assert_allclose(row, expected[1], rtol=1e-5, atol=1e-6)


def slow(word, sources, fallback):
    def vector(source, at):
        text = source.texts[at].as_py()
        return composed(source, text.decode()) if source.ngrams else source.rows[at]

    composing = next((source for source in sources if source.ngrams), None)
    for each in [None, *fallback]:
        if each is Fallback.subwords:
            if composing and composed(composing, word) is not None:
                return "subwords", composed(composing, word)
            continue
        wanted = [word.encode()] if each is None else [form.encode() for form in forms(word, each)]
        for source in sources:
            for at, text in enumerate(source.texts.to_pylist()):
                if text in wanted:
                    return each.value if each else "exact", vector(source, at)
    return "missing", [FIRST] * 4


# ---- files of the peers


def test_a_file_of_fasttext_gives_the_vectors_that_its_authors_state(data_dir):
    folder = data_dir / "vectors" / "gensim"
    grams, plain = (
        open_source(str(folder / "crime-and-punishment.bin")),
        open_source(str(folder / "crime-and-punishment.vec")),
    )
    own = [word.as_py().decode() for block in plain.words() for word in block]
    stated = {  # gensim's test_fasttext.py
        "steamtrain": [0.031988, 0.022966, 0.059483, 0.094547, 0.062693],
        "паровоз": [-0.0033987, 0.056236, 0.036073, 0.094008, 0.00085222],
    }
    rows, _, ways = of_vocab([*own, *stated], grams, dim=8, dimension=Mismatch.pad)
    vectors = np.concatenate([block.rows for block in plain.blocks()])
    np.testing.assert_allclose(rows[:, :5], [*vectors, *stated.values()], atol=1e-5)
    assert ways == ["exact"] * len(own) + ["subwords"] * 2 and (rows[:, 5:] == 0).all()


def test_a_table_of_ngrams_starts_as_the_file_of_fasttext_is(data_dir):
    source = open_source(str(data_dir / "vectors" / "gensim" / "crime-and-punishment.bin"))
    table, encoder = subword(["landlady", "of"], 8, 3, 6, 100, dimension=Mismatch.pad)
    rows, _ = filled(place("word", table, encoder, [source], 0), (102, 8))
    for word in ("landlady", "of", "steamtrain"):
        expected = compose(source, pa.array([word]))[0]
        np.testing.assert_allclose(rows[encoder.rows_of(word)].mean(0)[:5], expected, atol=1e-6)
