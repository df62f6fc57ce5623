"""How much of a table and of the running text files of vectors cover: told before training, as text, JSON and picture."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import bigembed, write_reviews

from bigembed import encoders, run
from bigembed.config.schema import (
    Fallback,
    HashedTable,
    IdsTable,
    Join,
    PretrainedConfig,
    SubwordTable,
    TokenizerTable,
    VocabTable,
)
from bigembed.encoders import Column, Encoder, TextColumn, tokenize
from bigembed.encoders.ids import IdsColumn
from bigembed.encoders.vocab import count_words
from bigembed.errors import UserError
from bigembed.pretrained.coverage import Coverage, of_placing, write
from bigembed.pretrained.coverage_picture import WAYS, picture
from bigembed.pretrained.coverage_text import MEANS
from bigembed.pretrained.measuring import measure
from bigembed.pretrained.placing import Placing, place
from bigembed.pretrained.sources import open_sources

TEXT = ["the cat sat on the mat", "The Dog 1999 and the cat", "Café zebra zebra", "unseen words of a kind", "a a a"]
COUNTS = Counter(word for text in TEXT for word in tokenize(text))
FILE = ["the", "Cat", "SAT", "dog", "0000", "cafe", "iPhone", "zebra", "zebra", "New York", "kind"]
ALL = [Fallback[name] for name in ("unicode", "case", "digits", "lemma")]


def write_vectors(path: Path, words: Sequence[str], dim: int = 4) -> str:
    """Write a word2vec text file of these words and return its path."""
    lines = [f"{len(words)} {dim}", *(f"{word} {' '.join(['0.5'] * dim)}" for word in words)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def learn(table: Any, columns: Sequence[Column]) -> Encoder:
    return encoders.build("word", table, columns)


def texts(values: Sequence[str] = TEXT) -> list[Column]:
    return [TextColumn(pa.array(values))]


def filled(table: Any, encoder: Encoder) -> Placing:
    """What training does, to its end."""
    placing = place("word", table, encoder, open_sources("word", table), seed=1)
    assert sum(1 for _ in placing.steps()) > 0
    return placing


def measured(table: Any, encoder: Encoder, columns: Sequence[Column] | None = None, **options: Any) -> Coverage:
    counted = None if columns is None else count_words(VocabTable(), columns)
    return measure("word", table, encoder, open_sources("word", table), counted, **options)


def pretrained(path: str, *fallback: Fallback, **options: Any) -> PretrainedConfig:
    return PretrainedConfig(path=path, fallback=list(fallback), **options)


def text_of(words: Sequence[str]) -> int:
    """How often these words come."""
    return sum(COUNTS[word] for word in words)


def test_words_and_running_text_are_told_by_the_way_that_each_word_was_found(tmp_path: Path) -> None:
    (tmp_path / "lemmas").write_text("words kind\n")
    path = write_vectors(tmp_path / "v.vec", FILE)
    start = pretrained(path, *ALL, Fallback.mean, lemmas=str(tmp_path / "lemmas"))
    table = VocabTable(dim=4, ngrams=1, pretrained=start)
    ways = {
        "exact": ["the", "dog", "zebra", "kind"],
        "unicode": ["café"],
        "case": ["cat", "sat"],
        "digits": ["1999"],
        "lemma": ["words"],
        "mean": ["on", "mat", "and", "unseen", "of", "a"],
        "missing": [],
    }
    found = measured(table, learn(table, texts()))
    assert found.words == {way: len(words) for way, words in ways.items()}
    assert found.occurrences == {way: text_of(words) for way, words in ways.items()}
    assert found.missing == [("a", 4), *((word, 1) for word in ("and", "mat", "of", "on", "unseen"))]
    assert sum(found.words.values()) == len(COUNTS) and sum(found.occurrences.values()) == COUNTS.total()
    values = found.as_dict()
    assert values["words_covered"] == 9 / 15 and values["text_covered"] == 1 - 9 / COUNTS.total()
    assert json.loads(json.dumps(values)) == values
    assert measured(table, learn(table, texts()), top=2).missing == [("a", 4), ("and", 1)]


@pytest.mark.parametrize("fallback", [[], [Fallback.case], [*reversed(ALL[:3]), Fallback.normal], [Fallback.zeros]])
@pytest.mark.parametrize("join", ["in_order", "concatenated"])
def test_what_is_told_before_is_what_training_finds(fallback: list[Fallback], join: str, tmp_path: Path) -> None:
    first = write_vectors(tmp_path / "a.vec", FILE)
    second = write_vectors(tmp_path / "b.vec", ["mat", "THE", "café", "UNSEEN"])
    start = pretrained(first, *fallback, others=[second], join=Join[join])
    table = VocabTable(dim=4 if join == "in_order" else 8, ngrams=1, min_count=1, pretrained=start)
    encoder = learn(table, texts())
    before, after = measured(table, encoder), of_placing("word", table, encoder, filled(table, encoder))
    assert before == after and before.files == [first, second]
    assert before.words["exact"] == 6


def test_words_without_a_row_are_a_part_of_the_running_text(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec", FILE)
    table = VocabTable(dim=4, ngrams=1, min_count=2, pretrained=pretrained(path))
    encoder = learn(table, texts())
    rare = [word for word, count in COUNTS.items() if count == 1]
    found = measured(table, encoder, texts())
    assert found.words == {"exact": 2, "missing": 2, "no row": len(rare)}
    assert found.occurrences == {"exact": text_of(["the", "zebra"]), "missing": 6, "no row": len(rare)}
    assert found.missing[:3] == [("a", 4), ("cat", 2), ("1999", 1)]
    placing = filled(table, encoder)
    assert of_placing("word", table, encoder, placing, COUNTS.total()).occurrences == found.occurrences
    assert "no row" not in of_placing("word", table, encoder, placing).occurrences


def test_words_with_ngrams_are_put_together(data_dir: Path, tmp_path: Path) -> None:
    path = str(data_dir / "vectors" / "gensim" / "crime-and-punishment.bin")
    words = ["landlady", "landladies", "x", "молодой", "Landlady"]
    for kind, options in ((VocabTable, {}), (SubwordTable, {"min_n": 3, "max_n": 6, "buckets": 100})):
        for fallback in ([Fallback.subwords], [Fallback.case, Fallback.subwords], []):
            start = pretrained(path, *fallback, dimension="pad")
            start.dimension = type(PretrainedConfig().dimension)["pad"]
            table = kind(dim=8, ngrams=1, lower=False, pretrained=start, **options)
            encoder = learn(table, texts([" ".join(words)]))
            before = measured(table, encoder)
            after = of_placing("word", table, encoder, filled(table, encoder))
            assert before == after
            assert before.words.get("subwords", 0) == (0 if not fallback else 3 - fallback.count(Fallback.case))
            assert sum(before.words.values()) == 5


@pytest.mark.parametrize("options", [{}, {"functions": 3, "sign": True, "salt": 7}, {"buckets": 5}])
@pytest.mark.parametrize("fallback", [[], [Fallback.case]])
def test_a_hashed_table_tells_rows_and_the_values_of_the_data(
    options: dict[str, Any], fallback: list[Fallback], tmp_path: Path
) -> None:
    path = write_vectors(tmp_path / "v.vec", FILE)
    table = HashedTable(dim=4, ngrams=1, pretrained=pretrained(path, *fallback), **{"buckets": 10_000, **options})
    columns = texts([*TEXT, "iphone"])
    encoder = learn(table, columns)
    found = measured(table, encoder, columns)
    assert found.told == filled(table, encoder).told and found.told["words of the files"] == len(FILE)
    exact, case = ["the", "dog", "zebra", "kind"], ["cat", "sat", "iphone"] if fallback else []
    counts = COUNTS | {"iphone": 1}
    missing = [word for word in counts if word not in {*exact, *case}]
    ways = {"exact": exact, "case": case, "missing": missing}
    assert found.words == {way: len(words) for way, words in ways.items()}
    assert found.occurrences == {way: sum(counts[word] for word in words) for way, words in ways.items()}
    assert found.missing[0] == ("a", 4)
    assert measured(table, encoder).told == found.told and measured(table, encoder).words == {}


def test_a_table_of_ids_tells_rows_and_the_numbers_of_the_data(tmp_path: Path) -> None:
    column = [IdsColumn(pa.array([0, 0, 3, 4, 4, 4, 9]), "ids")]
    np.save(tmp_path / "v.npy", np.ones((4, 4), np.float32))
    table = IdsTable(dim=4, rows=10, pretrained=pretrained(str(tmp_path / "v.npy")))
    found = measured(table, learn(table, column), column)
    assert found.told["rows given"] == 4
    assert (found.occurrences["exact"], found.occurrences["missing"]) == (3, 4)
    assert found.missing == [("4", 3), ("9", 1)]
    named = IdsTable(dim=4, rows=10, pretrained=pretrained(write_vectors(tmp_path / "v.vec", ["4", "9", "1"])))
    found = measured(named, learn(named, column), column)
    assert (found.words["exact"], found.words["missing"], found.told["rows given"]) == (2, 2, 3)
    assert found.missing == [("0", 2), ("3", 1)]
    assert found.told == filled(named, learn(named, column)).told


def test_files_that_training_would_refuse_are_refused_before(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.vec", FILE)
    np.save(tmp_path / "v.npy", np.ones((4, 4), np.float32))
    for table, part in (
        (VocabTable(dim=8, ngrams=1, pretrained=pretrained(path)), "tables.word.dim=4"),
        (VocabTable(dim=4, ngrams=1, pretrained=pretrained(str(tmp_path / "v.npy"))), "without words"),
        (IdsTable(dim=4, rows=3, pretrained=pretrained(str(tmp_path / "v.npy"))), "tables.word.rows"),
    ):
        columns: list[Column] = [IdsColumn(pa.array([1]), "ids")] if isinstance(table, IdsTable) else texts()
        with pytest.raises(UserError) as caught:
            measured(table, learn(table, columns), columns)
        assert part in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------- text, JSON, picture

ODD = Coverage(
    "word",
    ["a<b>.vec", "[red]b.vec"],
    {"exact": 1, "case": 2, "missing": 1},
    {"exact": 10, "case": 4, "missing": 6, "no row": 20},
    [("<b>&amp;", 5), ("[bold]x[/bold]", 1), ("ein sehr langes Wort ohne Ende", 1)],
    {},
)


def test_the_text_has_every_figure_and_odd_words_as_they_are() -> None:
    text = ODD.text()
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    assert lines[0] == "table word starts from a<b>.vec, [red]b.vec"
    assert "as it is 1 25.0% 10 25.0%" in lines and "in another case 2 50.0% 4 10.0%" in lines
    assert "no row of its own 20 50.0%" in lines and "all, and how much a file has 4 75.0% 40 35.0%" in lines
    assert "<b>&amp; 5 12.5%" in lines and "[bold]x[/bold] 1 2.5%" in lines
    assert not text.endswith("\n") and all(line == line.rstrip() for line in text.splitlines())
    bare = Coverage("word", ["f"], {}, {}, [], {"rows given": 1234}).text()
    assert bare == "table word starts from f\n  rows given: 1,234"


def test_the_picture_is_well_formed_and_its_bars_are_as_long_as_the_shares() -> None:
    page = picture([ODD.as_dict(), Coverage("other", ["f"], {}, {}, [], {"rows given": 3}).as_dict()])
    assert set(WAYS) == set(MEANS)
    drawings = [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page)]
    assert len(drawings) == 2
    words, text = [], []
    for bar in drawings[0].iter("rect"):
        (words if float(bar.get("y", "")) == 0 else text).append(float(bar.get("width", "")))
    whole = sum(words)
    assert words == pytest.approx([whole / 4, whole / 2, whole / 4], abs=0.11)
    assert text == pytest.approx([whole / 4, whole / 10, whole * 0.15, whole / 2], abs=0.11)
    missing = [float(bar.get("width", "")) for bar in drawings[1].iter("rect")]
    assert missing == pytest.approx([whole, whole / 5, whole / 5], abs=0.11)
    assert "rows given: 3" in page and "<b>&" not in page and "a<b>" not in page
    body = ET.fromstring(page.partition("<body>")[2].join(["<body>", ""]).partition("</html>")[0])
    assert [head.text for head in body.iter("h2")] == ["word", "other"]


def test_a_run_keeps_the_coverage_beside_its_files(tmp_path: Path) -> None:
    (tmp_path / "encoders").mkdir()
    write(ODD, tmp_path)
    assert sorted(path.name for path in (tmp_path / "pretrained").iterdir()) == ["word.html", "word.json"]
    assert json.loads((tmp_path / "pretrained" / "word.json").read_text()) == ODD.as_dict()
    assert (tmp_path / "pretrained" / "word.html").read_text() == picture([ODD.as_dict()])
    run.release(tmp_path)  # a run that ended before its first report leaves nothing
    assert not tmp_path.exists()


# ---------------------------------------------------------------- the command


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments for a job on small reviews."""
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "data")
    write_vectors(tmp_path / "v.vec", ["was", "Wonderful", "word1", "word2"], dim=8)
    return ["coverage", "data=files", "data.path=data", "tables.text.ngrams=1"]  # of any width


def test_the_command_tells_writes_and_draws(
    reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["tables.text.pretrained.path=v.vec", "tables.text.pretrained.fallback=[case]", "top=3"]
    assert bigembed(*reviews, *asked, "out=c.json", "picture=c.html") == 0
    out = capsys.readouterr().out
    values = json.loads((tmp_path / "c.json").read_text())
    table = values["tables"]["text"]
    assert values["samples"] == 180 and table["files"] == ["v.vec"]
    counts = Counter(
        word
        for text in pq.read_table(tmp_path / "data" / "train.parquet")["text"].to_pylist()
        for word in tokenize(text)
    )
    assert 0.8 * counts["was"] < table["occurrences"]["exact"] and table["occurrences"]["case"] < counts["wonderful"]
    assert (table["words"]["exact"], table["words"]["case"]) == (3, 1) and "no row" not in table["occurrences"]
    assert [entry["word"] for entry in table["missing"]][:2] == [",", "review"] and len(table["missing"]) == 3
    assert "table text starts from v.vec" in out and "as it is" in out
    assert (tmp_path / "c.html").read_text() == picture([table])
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("kind", ["hashed", "subword", "tokenizer", "compositional"])
def test_the_command_takes_tables_of_other_kinds(
    kind: str, reviews: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = [*reviews[:3], f"table@tables.text={kind}", "tables.text.dim=8", "tables.text.pretrained.path=v.vec"]
    code = bigembed(*job, "out=c.json", *(["tables.text.vocab_size=320"] if kind == "tokenizer" else []))
    if kind == "compositional":
        assert code == 2 and "starts only from a run's table" in capsys.readouterr().err
        return
    assert code == 0
    table = json.loads((tmp_path / "c.json").read_text())["tables"]["text"]
    assert (table["words"]["exact"] > 0) == (kind != "tokenizer") and sum(table["occurrences"].values()) >= 900
    assert ("rows given" in table["told"]) == (kind == "hashed")


def test_the_command_counts_the_pieces_of_a_tokenizer(reviews: list[str], tmp_path: Path) -> None:
    job = [*reviews[:3], "table@tables.text=tokenizer", "tables.text.dim=8", "tables.text.pretrained.path=v.vec"]
    assert bigembed(*job, "tables.text.vocab_size=400", "data.validation_fraction=0", "out=c.json") == 0
    values = json.loads((tmp_path / "c.json").read_text())["tables"]["text"]
    rows = pq.read_table(tmp_path / "data" / "train.parquet")["text"]
    table = TokenizerTable(dim=8, vocab_size=400)
    encoder = learn(table, [TextColumn(rows)])
    pieces = [piece for text in rows.to_pylist() for piece in encoder.pieces_of(text)]  # type: ignore[attr-defined]
    assert sum(values["occurrences"].values()) == len(pieces)
    most, count = Counter(pieces).most_common(1)[0]
    assert {"word": most, "count": count} in values["missing"]


def test_only_tables_that_start_from_vectors_are_learned_and_told(reviews: list[str], tmp_path: Path) -> None:
    other = ["+table@tables.other=hashed", "+feature@features.other=column", "features.other.table=other"]
    assert bigembed(*reviews, *other, "tables.text.pretrained.path=v.vec", "out=c.json") == 0
    assert list(json.loads((tmp_path / "c.json").read_text())["tables"]) == ["text"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no table starts from vectors; name a file with tables.NAME.pretrained.path=FILE, NAME being one of text"),
        (["tables.text.pretrained.path=none.vec"], "none.vec"),
        (["tables.text.pretrained.path=v.vec", "top=0"], "top is 0; it must be at least 1"),
        (["tables.text.pretrained.path=v.vec", "-m"], "-m is for bigembed train"),
        (["tables.text.pretrained.path=v.vec", "hydra.run.dir=x"], "hydra.run.dir=x is for bigembed train"),
        (["tables.text.pretrained.path=v.vec", "out=no/such/folder"], "out=no/such/folder cannot be written"),
        (["tables.text.pretrained.path=data"], "holds no run"),
    ],
)
def test_what_the_command_cannot_do_is_one_sentence(
    arguments: list[str], part: str, reviews: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bigembed(*reviews, *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("bigembed: ") and part in said
