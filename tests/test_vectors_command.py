"""``bigembed vectors`` and the tables of runs as files of vectors: told, looked up, converted."""

import gzip
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gensim.models import KeyedVectors
from gensim.models.fasttext import load_facebook_vectors
from running import SMALL, bigembed
from safetensors.numpy import load_file

from bigembed import encoders, report
from bigembed.commands import converting
from bigembed.config.arguments import parse
from bigembed.config.schema import VectorsOptions, Which
from bigembed.errors import UserError
from bigembed.run_vectors import RunSource, open_vectors
from bigembed.vectors import Block, Source

KINDS = {
    "plain": "vocab tables.plain.buckets=500",
    "hashed": "hashed tables.hashed.buckets=97 tables.hashed.ngrams=1",
    "signed": "hashed tables.signed.buckets=97 tables.signed.functions=3 tables.signed.sign=true",
    "quotient": "quotient_remainder tables.quotient.partitions=[11,13]",
    "mixed": "mixed tables.mixed.blocks=[20,50] tables.mixed.buckets=30",
    "subword": "subword tables.subword.buckets=300 tables.subword.ngrams=1",
    "managed": "managed tables.managed.rows=640",
}
DIM = 16
opened = cache(RunSource)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with tables of many kinds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    tables = [
        f"+table@tables.{name}={kind} tables.{name}.dim={DIM} +feature@features.{name}=column features.{name}.table={name}"
        for name, kind in KINDS.items()
    ]
    small = [argument for argument in SMALL if not argument.startswith(("tables.", "data.rows", "trainer.epochs"))]
    arguments = [*small, "data.rows=400", "trainer.epochs=1", "~table@tables.text", "~feature@features.text"]
    assert bigembed("train", *arguments, *" ".join(tables).split(), f"hydra.run.dir={folder}") == 0
    return folder


def whole(source: Source) -> tuple[list[bytes], np.ndarray]:
    """The words of a source and all of its rows."""
    words: list[bytes] = []
    rows = []
    for block in source.blocks():
        assert block.first == sum(map(len, rows))
        words += [] if block.words is None else block.words.to_pylist()
        rows.append(block.rows.copy())
    return words, np.concatenate(rows)


def array_of(folder: Path, name: str) -> np.ndarray:
    """An array of the run's last checkpoint."""
    return np.load(sorted((folder / "checkpoints").glob("step-*"))[-1] / "tables" / f"{name}.weight.npy")


# Tables of runs


def test_a_vocabulary_is_a_file_of_its_words(folder: Path) -> None:
    source = opened(folder, "plain")
    words, rows = whole(source)
    first, last = source.encoder.word_rows
    assert source.dictionary is not None and words == source.dictionary.to_pylist() and source.count == len(words) > 100
    assert np.array_equal(rows, array_of(folder, "plain")[first:last])
    assert (source.format, source.dim, source.ngrams, source.has_words) == ("run", DIM, None, True)
    assert source.consumed == source.size == array_of(folder, "plain").nbytes
    assert [word for some in source.words() for word in some.to_pylist()] == words


def test_a_table_of_ngrams_is_as_fasttexts_files_are(folder: Path) -> None:
    source = opened(folder, "subword")
    words, rows = whole(source)
    assert source.ngrams is not None
    assert (source.ngrams.min_n, source.ngrams.max_n) == (source.config.min_n, source.config.max_n)
    assert (source.ngrams.buckets, source.ngrams.rows, source.ngrams.places) == (300, 300, None)
    assert np.array_equal(rows, array_of(folder, "subword")) and len(rows) == len(words) + 300
    assert np.array_equal(np.concatenate(list(source.ngram_rows())), rows[len(words) :])


def test_a_vocabulary_of_many_widths_is_put_together(folder: Path) -> None:
    words, rows = whole(opened(folder, "mixed"))
    vectors = opened(folder, "mixed").vectors(pa.array([words[5].decode(), words[150].decode()]))
    assert rows.shape == (len(words), DIM)
    ((_, found),) = vectors.blocks()
    assert np.array_equal(found, rows[[5, 150]])


def test_rows_without_words_come_alone_and_what_is_no_row_is_refused(folder: Path) -> None:
    source = opened(folder, "hashed")
    assert not source.has_words and source.count == 97
    words, rows = whole(source)
    assert words == [] and np.array_equal(rows, array_of(folder, "hashed"))
    for name in ("signed", "quotient", "managed"):
        source = opened(folder, name)
        assert not source.has_words and source.count is None
        with pytest.raises(UserError, match=f"the vectors of table '{name}' are not plain rows of it"):
            next(source.blocks())


def test_the_table_is_the_one_named_or_its_namesake_or_the_only_one(folder: Path, tmp_path: Path) -> None:
    assert open_vectors(str(folder), table="mixed", own="plain").details["table"] == "mixed"
    assert open_vectors(str(folder), own="plain").details["table"] == "plain"
    for given in ({}, {"own": "other"}, {"table": "other"}):
        with pytest.raises(UserError, match="table= must name one of the tables of the run: plain, hashed"):
            open_vectors(str(folder), **given)
    with pytest.raises(UserError, match="is a folder, but holds no run"):
        open_vectors(str(tmp_path))
    (tmp_path / "v.txt").write_text("1 2\na 0.5 1\n")
    with pytest.raises(UserError, match="is no run folder, so it has no table 'text'"):
        open_vectors(str(tmp_path / "v.txt"), table="text")
    assert opened(folder, "plain", Which.last).details["checkpoint"].startswith("step-")


@pytest.mark.parametrize("name", ["plain", "hashed", "signed", "quotient", "subword"])
def test_parts_are_given_to_a_table_whose_rows_mean_the_same(folder: Path, name: str) -> None:
    source = opened(folder, name)
    same = encoders.load(source.config, folder / "encoders" / name)
    parts = source.parts(same)
    assert parts is not None and [len(part) for part in parts] == list(same.rows)
    first = {"quotient": "quotient-0"}.get(name, name)
    assert np.array_equal(parts[0], array_of(folder, first))
    other = opened(folder, {"plain": "subword"}.get(name, "plain")).encoder
    assert source.parts(other) is None
    wider = encoders.load(replace(source.config, dim=DIM * 2), folder / "encoders" / name)
    assert source.parts(wider) is None


@pytest.mark.parametrize("name", ["mixed", "managed"])
def test_parts_that_mean_nothing_alone_are_not_given(folder: Path, name: str) -> None:
    assert opened(folder, name).parts(opened(folder, name).encoder) is None


@pytest.fixture(scope="module")
def subwords(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of n-grams, exported as fastText's file."""
    out = tmp_path_factory.mktemp("exported") / "subword.bin"
    assert bigembed("export", f"run={folder}", "table=subword", f"out={out}", "format=fasttext") == 0
    return out


def test_gensim_finds_known_and_unseen_words_in_an_exported_table_of_ngrams(folder: Path, subwords: Path) -> None:
    theirs, ours = load_facebook_vectors(str(subwords)), opened(folder, "subword")
    assert ours.dictionary is not None
    known = [word.decode() for word in ours.dictionary.to_pylist()[::17]]
    for word in [*known, "unheardof", "ba"]:
        ((_, rows),) = ours.vectors(pa.array([word])).blocks()
        np.testing.assert_allclose(theirs[word], rows[0], rtol=1e-5, atol=1e-7)


def test_tables_are_exported_in_every_format(folder: Path, tmp_path: Path) -> None:
    words, rows = whole(opened(folder, "plain"))
    for form in ("glove", "parquet", "fasttext"):
        out = tmp_path / form
        assert bigembed("export", f"run={folder}", "table=plain", f"out={out}", f"format={form}") == 0
        found, numbers = whole(open_vectors(str(out)))
        assert found == words and np.array_equal(numbers, rows)
    theirs = load_facebook_vectors(str(tmp_path / "fasttext"))
    assert np.array_equal(theirs[words[3].decode()], rows[3])


def test_an_exported_table_of_ngrams_keeps_all_its_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words").write_text("ba\n")
    arguments = [f"run={folder}", "table=subword", f"out={tmp_path / 'out'}", "format=fasttext"]
    assert bigembed("export", *arguments, f"words={tmp_path / 'words'}") == 2
    assert "leave words out" in capsys.readouterr().err


# Files

WORDS = ["the", "naïve", "日本語", "fox", "a", "the"]
ROWS = np.random.default_rng(5).standard_normal((len(WORDS), 4)).astype(np.float32)


def text_file(path: Path, header: bool = True, count: int = len(WORDS)) -> Path:
    """A file of text; the last of all its words is there twice."""
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS[:count], ROWS, strict=False)]
    path.write_text("\n".join([*([f"{count} 4"] if header else []), *lines, ""]))
    return path


def facts(output: str) -> dict[str, str]:
    """What was told, by name."""
    return dict(line.split(maxsplit=1) for line in output.splitlines())


def test_a_file_is_told_by_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = text_file(tmp_path / "v")
    assert bigembed("vectors", f"path={path}") == 0
    told = facts(capsys.readouterr().out)
    assert (told["format"], told["dim"], told["words"]) == ("word2vec", "4", "6 (as its first line says)")
    assert told["first"] == "the naïve 日本語 fox a the" and told["size"] == f"{path.stat().st_size} bytes"
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(text_file(tmp_path / "g", header=False).read_bytes()))
    assert bigembed("vectors", f"path={packed}") == 0
    told = facts(capsys.readouterr().out)
    assert (told["format"], told["compression"], told["words"]) == ("glove", "gz", "6")  # counted


def test_words_are_printed_as_they_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = text_file(tmp_path / "v")
    assert bigembed("vectors", f"path={path}", "words=[fox,the,fox]") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["fox", "the", "fox"]
    found = np.array([line[1:] for line in lines], np.float32)
    assert np.array_equal(found, ROWS[[3, 0, 3]])  # of the two, the first


def test_words_that_are_missing_are_named_after_the_others_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = text_file(tmp_path / "v")
    assert bigembed("vectors", f"path={path}", "words=[no,'a, b',fox,\x1b[31m]") == 2
    told = capsys.readouterr()
    assert told.out.split()[0] == "fox" and told.out.count("\n") == 1
    assert told.err == f"bigembed: {path} has no vector for 'no', 'a, b', '\\x1b[31m'\n"


def test_words_of_other_encodings_are_found_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"2 1\n\xe9t\xe9 1\nb 2\n")
    assert bigembed("vectors", f"path={path}", "words=\udce9t\udce9") == 0
    assert capsys.readouterr().out == "\\xe9t\\xe9 1\n"
    assert bigembed("vectors", f"path={path}") == 0
    assert facts(capsys.readouterr().out)["first"] == "\\xe9t\\xe9 b"


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("word2vec", lambda path: KeyedVectors.load_word2vec_format(str(path)).vectors),
        ("word2vec-binary", lambda path: KeyedVectors.load_word2vec_format(str(path), binary=True).vectors),
        ("glove", lambda path: KeyedVectors.load_word2vec_format(str(path), no_header=True).vectors),
        ("numpy", lambda path: np.load(path)),
        ("safetensors", lambda path: load_file(path)["embedding"]),
        ("parquet", lambda path: np.stack(pq.read_table(path)["vector"].to_pylist()).astype(np.float32)),
        ("fasttext", lambda path: load_facebook_vectors(str(path)).vectors),
    ],
)
def test_a_file_is_converted_to_what_others_read(form: str, read: Callable[[Path], np.ndarray], tmp_path: Path) -> None:
    count = 5 if form == "fasttext" else 6  # a word can be there only once
    path, out = text_file(tmp_path / "v", count=count), tmp_path / "out"
    assert bigembed("vectors", f"path={path}", f"out={out}", f"format={form}") == 0
    assert np.array_equal(read(out)[:5], ROWS[:5])  # gensim drops the second "the"
    words, rows = whole(open_vectors(str(out)))
    assert words == [word.encode() for word in WORDS[:count]] and np.array_equal(rows, ROWS[:count])
    back = tmp_path / "back"
    assert bigembed("vectors", f"path={out}", f"out={back}") == 0
    assert back.read_bytes() == path.read_bytes()


def test_words_that_are_no_utf8_are_kept_where_they_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"2 4\nb 2 3 4 5\n\xe9t\xe9 1 2 3 4\n")
    for form in converting.OF_BYTES:
        assert bigembed("vectors", f"path={path}", f"out={tmp_path / form}", f"format={form}") == 0
        assert whole(open_vectors(str(tmp_path / form)))[0] == [b"b", b"\xe9t\xe9"]
    capsys.readouterr()
    assert bigembed("vectors", f"path={path}", f"out={tmp_path / 'out'}", "format=parquet") == 2
    assert "the word b'\\xe9t\\xe9', which is no UTF-8" in capsys.readouterr().err


def test_runs_are_told_looked_up_and_converted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"path={folder}"
    assert bigembed("vectors", run, "table=subword") == 0
    told = facts(capsys.readouterr().out)
    assert (told["format"], told["kind"], told["n-grams"]) == ("run", "subword", "3 to 6 characters in 300 buckets")
    assert bigembed("vectors", run, "table=signed") == 0
    assert "words" not in facts(capsys.readouterr().out)
    assert bigembed("vectors", run, "table=signed", "words=[unheard,of]") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["unheard", "of"]
    assert bigembed("vectors", run, "table=plain", "words=[do,unheard]") == 2
    told = capsys.readouterr()
    assert told.out.startswith("do ") and "has no vector for 'unheard'" in told.err
    assert bigembed("vectors", run, "table=signed", f"out={tmp_path / 'out'}") == 2
    for form in ("word2vec", "fasttext"):
        assert bigembed("vectors", run, "table=subword", f"out={tmp_path / form}", f"format={form}") == 0
    composed, theirs = (
        whole(open_vectors(str(tmp_path / "word2vec")))[1],
        load_facebook_vectors(str(tmp_path / "fasttext")),
    )
    np.testing.assert_allclose(theirs.vectors, composed, rtol=1e-5, atol=1e-7)


# Files with n-grams


def test_unseen_words_are_put_together(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data_dir / "vectors" / "gensim" / "crime-and-punishment.bin"
    assert bigembed("vectors", f"path={path}", "words=[steamtrain,паровоз]") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = [
        [0.031988, 0.022966, 0.059483, 0.094547, 0.062693],
        [-0.0033987, 0.056236, 0.036073, 0.094008, 0.00085222],
    ]
    assert [line[0] for line in lines] == ["steamtrain", "паровоз"]
    np.testing.assert_allclose(np.array([line[1:] for line in lines], float), expected, atol=1e-5)
    assert bigembed("vectors", f"path={path}") == 0
    told = facts(capsys.readouterr().out)
    assert (told["words"], told["dim"]) == ("291", "5") and told["n-grams"].startswith(
        "3 to 6 characters in 100 buckets"
    )


def test_a_file_with_ngrams_becomes_plain_words_or_keeps_them(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "vectors" / "gensim" / "crime-and-punishment.bin"
    assert bigembed("vectors", f"path={path}", f"out={tmp_path / 'plain'}") == 0
    words, rows = whole(open_vectors(str(tmp_path / "plain")))
    theirs_words, theirs = whole(open_vectors(str(path.with_suffix(".vec"))))
    assert words == theirs_words
    np.testing.assert_allclose(rows, theirs, atol=1e-5)
    assert bigembed("vectors", f"path={path}", f"out={tmp_path / 'kept.bin'}", "format=fasttext") == 0
    kept, before = load_facebook_vectors(str(tmp_path / "kept.bin")), load_facebook_vectors(str(path))
    for word in ("landlady", "steamtrain", "хозяйка"):
        assert np.array_equal(kept[word], before[word])
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_pruned_file_becomes_plain_words_alone(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data_dir / "vectors" / "fasttext-lid" / "lid.176.ftz"
    assert bigembed("vectors", f"path={path}", f"out={tmp_path / 'out'}", "format=fasttext") == 2
    assert "a pruned file" in capsys.readouterr().err
    assert bigembed("vectors", f"path={path}", f"out={tmp_path / 'out'}", "format=word2vec-binary") == 0
    assert len(whole(open_vectors(str(tmp_path / "out")))[0]) == 7235


# What cannot be


def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = text_file(tmp_path / "v"), f"out={tmp_path / 'out'}"
    (tmp_path / "spaces").write_text("1 2\na b 0.5 1\n")
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.write(path, "v")
    np.save(tmp_path / "bare.npy", ROWS)
    cases = [
        ([f"path={path}", out, "words=a"], "give one of the two"),
        ([f"path={path}", out, "format=csv"], "there is no format 'csv'; known: word2vec, word2vec-binary"),
        ([f"path={path}", out, "data.path=x"], "takes no options of a job"),
        ([f"path={path}", f"out={path}"], "is the file that is read"),
        ([f"path={tmp_path}/z::v", f"out={tmp_path}/z"], "is the file that is read"),
        ([f"path={path}", f"out={tmp_path}/none/v"], "cannot be written"),
        ([f"path={path}", f"out={tmp_path}"], "it is a folder or a device"),
        ([f"path={path}", "out=/dev/null"], "it is a folder or a device"),
        ([f"path={tmp_path}/none"], "none"),
        ([f"path={tmp_path}"], "holds no run"),
        ([f"path={path}", "words=[a"], "words=[a is no list of texts"),
        ([f"path={tmp_path}/spaces", out], "'a b' is empty or holds white space"),
        ([f"path={tmp_path}/bare.npy", "words=a"], "holds numbers without words"),
        ([f"path={tmp_path}/bare.npy", out], "stand for no words"),
        ([], "path= is missing"),
    ]
    for arguments, text in cases:
        assert bigembed("vectors", *arguments) == 2
        told = capsys.readouterr().err
        assert text in told and told.count("\n") == 1, arguments
    assert {each.name for each in tmp_path.iterdir()} == {"v", "z", "spaces", "bare.npy"}


class Made(Source):
    """Vectors that are made as they are read; ``changes`` more of them the second time."""

    path, format, size, details = "made", "made", 1000, {}
    count, ngrams, dictionary = None, None, None

    def __init__(self, sizes: list[int], dim: int, changes: int = 0) -> None:
        self.sizes, self.dim, self.changes = sizes, dim, changes

    def words(self) -> Iterator[pa.BinaryArray]:
        """Their words alone."""
        for first, size in zip(np.cumsum([0, *self.sizes]), self.sizes, strict=False):
            yield pa.array([b"w%d" % i for i in range(first, first + size)], pa.binary())

    def blocks(self) -> Iterator[Block]:
        """All."""
        first = 0
        for size in [*self.sizes[:-1], self.sizes[-1] + self.changes]:
            rows = np.arange(first, first + size, dtype=np.float32)[:, None].repeat(self.dim, 1)
            yield Block(first, pa.array([b"w"] * size, pa.binary()), rows)
            first += size


def test_blocks_of_any_size_are_written_in_order(tmp_path: Path) -> None:
    converting.convert(Made([3, 0, 70_000, 1, 0, 40_000, 9, 0], 8), tmp_path / "out", "numpy")
    rows = np.load(tmp_path / "out")
    assert rows.shape == (110_013, 8) and np.array_equal(rows[:, 3], np.arange(110_013))
    converting.convert(Made([0], 8), tmp_path / "none", "numpy")
    assert np.load(tmp_path / "none").shape == (0, 8)


def test_memory_stays_small_however_long_the_file(tmp_path: Path) -> None:
    tracemalloc.start()
    converting.convert(Made([500] * 100, 300), tmp_path / "out", "numpy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size > 60e6 and peak < 12e6


@pytest.mark.parametrize("changes", [-1, 1])
def test_a_file_that_changes_while_it_is_read_leaves_nothing(changes: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made does not hold 12 vectors any more"):
        converting.convert(Made([5, 7], 4, changes), tmp_path / "out", "word2vec-binary")
    assert list(tmp_path.iterdir()) == []


def test_reading_is_told_with_bytes_words_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(report.time, "perf_counter", lambda: next(clock))
    tell = report.reading("v.bin", 4_000_000_000)
    for done, words in ((10, 1), (1_000_000_000, 50_000), (1_500_000_000, 60_000), (2_000_000_000, 100_000)):
        tell(done, words)
    assert capsys.readouterr().err.splitlines() == [
        "v.bin: 1,000 of 4,000 MB (25%), 50,000 words, 18 s left",
        "v.bin: 2,000 of 4,000 MB (50%), 100,000 words, 12 s left",
    ]


def test_writing_is_told_with_bytes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 1.0, 6.0, 6.0])
    monkeypatch.setattr(report.time, "perf_counter", lambda: next(clock))
    tell = report.writing("v.txt")
    tell(10)
    tell(2_345_000_000)
    assert capsys.readouterr().err == "v.txt: 2,345 MB written\n"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("[a,'b, c',no,1.50,null]", ["a", "b, c", "no", "1.50", "null"]),
        ("fox", ["fox"]),
        ("", []),
        ("[]", []),
        ("[\"a' b\", d'or , ]]", ["a' b", "d'or", "]"]),
        ("['', \udce9,a: b]", ["", "\udce9", "a: b"]),
    ],
)
def test_lists_are_texts_as_they_are_typed(typed: str, words: list[str]) -> None:
    assert parse(["path=x", f"words={typed}"], VectorsOptions)[0].words == words
    for wrong in ("[a", "[", "[a,,b]", "['a]", "['a'b]", "[,]"):
        with pytest.raises(UserError, match="is no list of texts"):
            parse(["path=x", f"words={wrong}"], VectorsOptions)
