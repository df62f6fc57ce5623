"""Vectors put together of words' and n-grams' rows, against plain Python, fastText, gensim and the values that these state."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigembed.errors import UserError
from bigembed.pretrained import composing, ngram_pairs
from bigembed.pretrained.composing import composable, compose, sums
from bigembed.vectors.fasttext import open_fasttext
from bigembed.vectors.source import Block, Ngrams, Source
from bigembed.vectors.streams import open_stream


class Given(Source):
    """Rows that are in memory, in blocks of any size."""

    path, format, size = "given", "given", 0

    def __init__(self, words: list[bytes], table: np.ndarray, ngrams: Ngrams | None, block: int = 3) -> None:
        self.dim, self.count, self.ngrams, self.details = table.shape[1], len(words), ngrams, {}
        self.all_words, self.table, self.block, self.passes = words, table, block, 0

    def blocks(self) -> Iterator[Block]:
        self.passes += 1
        for begin, end in ((0, len(self.all_words)), (len(self.all_words), len(self.table))):
            for first in range(begin, end, self.block):
                last = min(first + self.block, end)
                words = None if begin else pa.array(self.all_words[first:last], pa.binary())
                yield Block(first, words if first < len(self.all_words) else None, self.table[first:last])


def hash_of(ngram: bytes) -> int:
    hashed = 2166136261
    for byte in ngram:
        hashed = ((hashed ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return hashed


def ngrams_of(word: bytes, ngrams: Ngrams) -> list[int]:
    """The rows of a word's n-grams, counted from the first n-gram's, as ``Dictionary::computeSubwords`` finds them."""
    if word == b"</s>":
        return []
    text, rows = b"<" + word + b">", []
    starts = [i for i, byte in enumerate(text) if byte & 0xC0 != 0x80] + [len(text)]
    for i in range(len(starts) - 1):
        for n in range(ngrams.min_n, ngrams.max_n + 1):
            if i + n >= len(starts) or (n == 1 and (i == 0 or starts[i + 1] == len(text))):
                continue
            bucket = hash_of(text[starts[i] : starts[i + n]]) % ngrams.buckets
            row = bucket if ngrams.places is None else int(ngrams.places[bucket])
            rows += [row] if row >= 0 else []
    return rows


def rows_of(word: bytes, source: Given) -> list[int]:
    """All rows that a word's vector is the mean of."""
    own = [source.all_words.index(word)] if word in source.all_words else []
    return own + [len(source.all_words) + row for row in (ngrams_of(word, source.ngrams) if source.ngrams else [])]


def added(adds: Iterator, rows: int, dim: int) -> np.ndarray:
    out = np.zeros((rows, dim))
    for add in adds:
        assert add.rows.dtype == np.int64 and add.sources.dtype == np.int32 and add.weights.dtype == np.float32
        assert len(add.rows) == len(add.sources) == len(add.weights) <= composing.AT_ONCE and add.column == 0
        np.add.at(out, add.rows, add.weights[:, None].astype(float) * add.vectors[add.sources])
    return out


def table_of(rows: int, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)


def small(monkeypatch: pytest.MonkeyPatch, pairs: int, at_once: int, bins: int) -> None:
    monkeypatch.setattr(ngram_pairs, "PAIRS", pairs)
    monkeypatch.setattr(ngram_pairs, "AT_ONCE", at_once)
    monkeypatch.setattr(composing, "AT_ONCE", at_once)
    monkeypatch.setattr(ngram_pairs, "BINS", bins)


words_of = st.lists(
    st.one_of(st.sampled_from([b"a", b"</s>", b"", b"aaaa", "\u65e5\u672c".encode()]), st.binary(max_size=7)),
    max_size=12,
)


@settings(max_examples=100)
@given(
    known=words_of,
    wanted=words_of,
    buckets=st.integers(1, 60),
    min_n=st.integers(1, 4),
    lengths=st.integers(0, 3),
    pruned=st.booleans(),
    pairs=st.sampled_from([1, 5, 40, 1 << 23]),
    at_once=st.sampled_from([1, 7, 1 << 18]),
    bins=st.sampled_from([1, 8, 1 << 21]),
    block=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_weighted_means_are_added_to_rows(
    known: list[bytes],
    wanted: list[bytes],
    buckets: int,
    min_n: int,
    lengths: int,
    pruned: bool,
    pairs: int,
    at_once: int,
    bins: int,
    block: int,
    seed: int,
) -> None:
    rng, places, rows = np.random.default_rng(seed), None, buckets
    if pruned:
        kept = rng.permutation(buckets)[: max(1, buckets // 2)]
        places, rows = np.full(buckets, -1, np.int32), len(kept)
        places[kept] = rng.permutation(rows)
    ngrams = Ngrams(min_n, min_n + lengths, buckets, rows, places)
    source = Given(known, table_of(len(known) + rows), ngrams, block)
    wanted += known[:2] * 2
    targets, weights = rng.integers(0, 5, len(wanted)), rng.normal(size=len(wanted)).astype(np.float32)
    expected = np.zeros((5, 4))
    for word, target, weight in zip(wanted, targets, weights, strict=True):
        if found := rows_of(word, source):
            expected[target] += weight * source.table[found].astype(float).mean(0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch, pairs, at_once, bins)
        array = pa.array(wanted, pa.binary())
        got = added(sums(source, array, targets, weights), 5, 4)
        assert source.passes == 1
        assert np.allclose(got, expected, atol=1e-5)
        assert composable(source, array).tolist() == [bool(rows_of(word, source)) for word in wanted]


def test_a_source_without_ngrams_gives_its_rows() -> None:
    source = Given([b"b", b"a", b"b", b"c"], table_of(4), None)
    wanted = pa.array(["a", "b", "none", "a"])
    assert np.array_equal(compose(source, wanted), source.table[[1, 0, 0, 1]] * [[1], [1], [0], [1]])
    assert composable(source, wanted).tolist() == [True, True, False, True]
    rows = np.array([1, 1, 0, 0])
    assert np.allclose(added(sums(source, wanted, rows), 2, 4), [source.table[1], source.table[0] + source.table[1]])


def test_words_may_be_a_slice_and_a_source_may_hold_none() -> None:
    source = Given([b"the", b"cat"], table_of(2 + 9), Ngrams(2, 3, 9, 9))
    wanted = pa.array(["x", "the", "cats", "y"])
    assert np.array_equal(compose(source, wanted.slice(1, 2)), compose(source, wanted)[1:3])
    assert compose(source, wanted.slice(0, 0)).shape == (0, 4) and len(composable(source, wanted.slice(0, 0))) == 0
    without = Given([], source.table[2:], source.ngrams)
    assert np.allclose(
        compose(without, pa.array(["cats"])), source.table[2:][ngrams_of(b"cats", source.ngrams)].mean(0)
    )


def test_vectors_are_added_into_an_array_that_is_given(tmp_path: Path) -> None:
    source = Given([b"the"], table_of(1 + 9), Ngrams(2, 3, 9, 9))
    wanted, out = pa.array(["the", "cats"]), np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (2, 4))
    assert compose(source, wanted, out) is out
    assert np.array_equal(np.load(tmp_path / "out.npy"), compose(source, wanted))


def test_no_row_of_an_ngram_is_asked_for_twice_however_many_words_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 1000, 300, 1 << 21)
    source = Given([], table_of(2), Ngrams(2, 4, 2, 2), 2)
    wanted = [f"word{number}" for number in range(2000)]  # some 20,000 pairs with each of the two rows
    got = compose(source, pa.array(wanted))
    for word in (0, 999, 1999):
        assert np.allclose(got[word], source.table[ngrams_of(wanted[word].encode(), source.ngrams)].mean(0), atol=1e-5)
    assert source.passes == 1


@pytest.mark.parametrize("buckets", [3, 200_000])
def test_memory_for_pairs_is_bounded_however_many_words(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 1 << 19, 1 << 16, 1 << 21)
    source = Given([b"a"], table_of(1 + buckets), Ngrams(3, 6, buckets, buckets), 1 << 16)
    words, total = pa.array([f"{number:015}" for number in range(150_000)]), 0
    tracemalloc.start()
    for add in sums(source, words, np.zeros(len(words), np.int64)):
        total += len(add.rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 150_000 * (15 + 14 + 13 + 12)  # 8 million: 65 MB at once
    assert (1 << 19) * 8 < peak < 25e6


# ---- real files


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    found = data_dir / "vectors"
    if not found.is_dir():
        pytest.skip(f"no files of vectors in {data_dir}")
    return found


def opened(path: Path) -> Source:
    return open_fasttext(open_stream(str(path)))


STATED = {
    ("crime-and-punishment", "steamtrain"): "0.031988 0.022966 0.059483 0.094547 0.062693",
    ("crime-and-punishment", "паровоз"): "-0.0033987 0.056236 0.036073 0.094008 0.00085222",
    (
        "crime-and-punishment",
        "rechtsschutzversicherungsgesellschaften",
    ): "-0.012889 0.029756 0.018020 0.099077 0.041939",
    ("toy-model", "quick"): "0.023393 0.11499 0.11684 -0.13349 0.022543",
    ("toy-model", "brown"): "0.015288 0.050404 -0.041395 -0.090371 0.06441",
    ("toy-model", "fox"): "0.061692 0.082914 0.020081 -0.039159 0.03296",
    ("toy-model", "jumps"): "0.070107 0.081465 0.051763 0.012084 0.0050402",
    ("toy-model", "over"): "0.055023 0.03465 0.01648 -0.11129 0.094555",
    ("toy-model", "lazy"): "-0.022103 -0.020126 -0.033612 -0.049473 0.0054174",
    ("toy-model", "dog"): "0.084983 0.09216 0.020204 -0.13616 0.01118",
    (
        "lee_fasttext_new",
        "hundred",
    ): "-0.025627 -0.11448 0.18116 -0.96779 0.2532 -0.93224 0.3929 0.12679 -0.19685 -0.13179",
    (
        "lee_fasttext_new",
        "rejection",
    ): "-0.49111 -0.13122 -0.02109 -0.88769 -0.20105 -0.91732 0.47243 0.19708 -0.17856 0.19815",
    (
        "lee_fasttext",
        "hundred",
    ): "-0.57144 -0.0085561 0.15748 -0.67855 -0.25459 -0.58077 -0.09913 1.1447 0.23418 0.060007",
    (
        "lee_fasttext",
        "rejection",
    ): "-0.21929 -0.53778 -0.22463 -0.41735 0.71737 -1.59758 -0.24833 0.62028 0.53203 0.77568",
}


@pytest.mark.parametrize(("name", "word"), STATED)
def test_known_and_unseen_words_have_the_values_that_are_stated(name: str, word: str, folder: Path) -> None:
    got = compose(opened(folder / "gensim" / f"{name}.bin"), pa.array([word]))
    expected = np.array(STATED[name, word].split(), float)
    assert np.allclose(got[0], expected, atol=1e-5 if name[0] != "l" else 1e-4)


@pytest.mark.parametrize("name", ["crime-and-punishment", "toy-model", "lee_fasttext"])
def test_the_words_of_a_model_have_the_vectors_of_its_text_file(name: str, folder: Path) -> None:
    lines = (folder / "gensim" / f"{name}.vec").read_bytes().rstrip().split(b"\n")[1:]
    words = [line.split(b" ")[0] for line in lines]
    expected = np.array([line.rstrip().split(b" ")[1:] for line in lines]).astype(float)
    source = opened(folder / "gensim" / f"{name}.bin")
    assert len(words) == source.count > 20
    same = np.isclose(compose(source, pa.array(words, pa.binary())), expected, atol=1e-5, rtol=1e-4).all(1)
    # fastText gave the end of a line n-grams when it wrote the old layout, and does not any more.
    assert [word for word, one in zip(words, same, strict=True) if not one] == [b"</s>"] * (name == "lee_fasttext")


def test_neighbours_are_those_that_finalfusion_states(folder: Path) -> None:
    source = opened(folder / "finalfusion" / "fasttext.bin")
    words = source.dictionary.cast(pa.string()).to_pylist()
    rows = compose(source, pa.array([*words, "unknown"]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for word, expected in (
        ("über", {"auf": 0.568513, "vor": 0.551551, "durch": 0.547349}),
        ("unknown", {"einer": 0.691177, "und": 0.576449, "des": 0.570398}),
    ):
        place = [*words, "unknown"].index(word)
        alike = rows[: len(words)] @ rows[place]
        order = [near for near in np.argsort(-alike) if near != place][:3]
        assert [words[near] for near in order] == list(expected)
        assert np.allclose(alike[order], list(expected.values()), atol=1e-5)


UNSEEN = [
    "steamtrain",
    "паровоз",
    "日本語テスト",
    "at the",
    "x",
    "</s>",
    "\U0001f600\U0001f601",
    "a" * 300,
    "__label__nix",
]


@pytest.mark.parametrize(
    "name",
    [
        "gensim/crime-and-punishment.bin",
        "gensim/toy-model.bin",
        "gensim/toy-model-pretrained.bin",
        "gensim/lee_fasttext_new.bin",
        "gensim/pang_lee_polarity_fasttext.bin",
        "finalfusion/fasttext.bin",
        "fasttext-lid/lid.176.ftz",
    ],
)
def test_every_word_and_unseen_ones_have_the_vectors_of_fasttext(name: str, folder: Path) -> None:
    peer = pytest.importorskip("fasttext").load_model(str(folder / name))
    source = opened(folder / name)
    words = [word.decode(errors="replace") for word in source.dictionary.to_pylist()]
    words = [word for word in words if "\ufffd" not in word] + UNSEEN
    expected = np.stack([peer.get_word_vector(word) for word in words])
    got = compose(source, pa.array(words))
    assert len(words) > 20
    assert np.allclose(got, expected, atol=2e-5, rtol=1e-5)
    known = np.arange(len(words)) < len(words) - len(UNSEEN)  # of which some are zeros
    assert np.array_equal(composable(source, pa.array(words)), known | np.any(expected != 0, axis=1))


@pytest.mark.parametrize("name", ["lee_fasttext", "cp852_fasttext", "non_ascii_fasttext"])
def test_models_of_the_old_layout_have_the_vectors_of_gensim(name: str, folder: Path) -> None:
    from gensim.models.fasttext import load_facebook_vectors

    peer = load_facebook_vectors(str(folder / "gensim" / f"{name}.bin"))
    words = [word.decode(errors="replace") for word in opened(folder / "gensim" / f"{name}.bin").dictionary.to_pylist()]
    # To gensim </s> has n-grams, and bytes that are not UTF-8 are spelt out.
    words = [word for word in words if "\ufffd" not in word and word != "</s>"] + UNSEEN[:5]
    got = compose(opened(folder / "gensim" / f"{name}.bin"), pa.array(words))
    has = composable(opened(folder / "gensim" / f"{name}.bin"), pa.array(words))
    assert has.sum() > 100
    assert np.allclose(
        got[has], [peer[word] for word, one in zip(words, has, strict=True) if one], atol=2e-6, rtol=1e-5
    )


def test_a_damaged_file_is_refused_on_the_way(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "gensim" / "toy-model.bin").read_bytes())
    words, rows = opened(folder / "gensim" / "toy-model.bin"), b""
    rows = b"".join(block.rows.tobytes() for block in words.blocks())
    at = bytes(content).index(rows) + len(rows) - 4
    content[at : at + 4] = b"\0\0\xc0\x7f"
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UserError, match="not finite"):
        compose(opened(tmp_path / "model.bin"), pa.array(["fox"]))
