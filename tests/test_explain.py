"""Which rows make up a word, and which values share a row; compared with the encoders, value by value."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from running import bigembed, write_reviews

from bigembed import encoders
from bigembed.admission import GROUP, Admission, Rules
from bigembed.commands.explain import rows_of_word
from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    HashedTable,
    IdsTable,
    ManagedTable,
    MixedTable,
    Scheme,
    SubwordTable,
    TableConfig,
    TokenizerTable,
    Tokens,
    VocabTable,
)
from bigembed.encoders import Crossed, HashedEncoder, tokenize
from bigembed.encoders.values import open_values
from bigembed.errors import UserError
from bigembed.knowing.names import Value, pieces_with, values_of_row

TEXTS = [f"The {a} was {b}, the {b} {c}" for a in ("film", "plot") for b in range(30) for c in ("bad", "good", "so so")]


def made(config: TableConfig, array: pa.Array) -> tuple[encoders.Encoder, encoders.Column]:
    column = encoders.KINDS[type(config)].open(array, "column")
    return encoders.build("table", config, [column]), column


def having(*arguments: Any, **options: Any) -> tuple[list[Value], int, int]:
    values, tally = values_of_row(*arguments, **options)
    return values, round(tally.distinct()), tally.total


def elements(texts: list[str], ngrams: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        tokens = tokenize(text)
        for length in range(1, ngrams + 1):
            counts.update(" ".join(tokens[i : i + length]) for i in range(len(tokens) - length + 1))
    return counts


SEVERAL = [
    HashedTable(buckets=20, ngrams=2),
    HashedTable(buckets=20, functions=3, sign=True, ngrams=3, distinct=True),
    HashedTable(buckets=20, functions=2, importance=4),
    CompositionalTable(partitions=[3, 5], ngrams=2),
    VocabTable(min_count=13, ngrams=2, buckets=9),
    MixedTable(min_count=13, ngrams=2, buckets=9, blocks=[2, 3]),
]


@pytest.mark.parametrize("config", SEVERAL, ids=lambda config: type(config).__name__)
def test_every_row_has_the_values_whose_rows_are_it(config: TableConfig) -> None:
    encoder, column = made(config, pa.array(TEXTS))
    counts = elements(TEXTS, config.ngrams)
    wished: dict[tuple[int, int], Counter[str]] = {}
    for value, count in counts.items():
        for row in rows_of_word(encoder, value):
            wished.setdefault((row["part"], row["row"]), Counter())[value] = count
    seen = 0
    for part, rows in enumerate(encoder.rows):
        for row in range(rows):
            wanted = wished.get((part, row), Counter())
            values, different, occurrences = having(encoder, part, row, [column], limit=1000)
            assert {value.text: value.count for value in values} == wanted
            assert (different, occurrences) == (len(wanted), wanted.total())
            assert [value.count for value in values] == sorted(wanted.values(), reverse=True)
            seen += bool(wanted)
    assert seen >= 6


def test_the_rows_to_look_at_and_the_limit_are_kept() -> None:
    encoder, column = made(HashedTable(buckets=1), pa.array(TEXTS))
    index = np.arange(3, 90, 4)
    counts = elements([TEXTS[i] for i in index], 1)
    values, different, occurrences = having(encoder, 0, 0, [column], index, limit=2)
    assert [value.count for value in values] == sorted(counts.values(), reverse=True)[:2]
    assert (different, occurrences) == (len(counts), counts.total())


def test_a_word_is_told_with_its_functions_and_signs() -> None:
    encoder, _ = made(HashedTable(buckets=1000, functions=3, sign=True), pa.array(TEXTS))
    encoded, rows = encoder.encode_token("film"), rows_of_word(encoder, "film")
    assert [row["row"] for row in rows] == encoded.parts[0].rows.values.tolist()
    assert [row["sign"] for row in rows] == encoded.signs.values.tolist()
    assert [row["by"] for row in rows] == ["hash function 0", "hash function 1", "hash function 2"]


def test_words_of_a_vocabulary_are_known_unknown_or_hashed() -> None:
    for config in (
        VocabTable(min_count=13, ngrams=2, buckets=9),
        MixedTable(min_count=13, ngrams=2, buckets=9, blocks=[2, 3]),
    ):
        encoder, _ = made(config, pa.array(TEXTS))
        notes = [rows_of_word(encoder, word)[0]["note"] for word in ("film", "so", "3", "so so")]
        assert notes[:2] == ["its own"] * 2
        assert notes[2].startswith("unknown") and notes[3].startswith("hashed")


def test_a_subword_row_names_the_words_and_the_ngram_that_has_it() -> None:
    encoder, column = made(SubwordTable(buckets=40, ngrams=2), pa.array(["where there, where", "the lines"]))
    rows = rows_of_word(encoder, "where")
    assert rows[0] == {"by": "where", "part": 0, "row": 0, "note": "its own"}
    assert [row["by"] for row in rows[1:]] == encoder.pieces_of("where")
    assert [row["row"] for row in rows] == encoder.rows_of("where").tolist()
    assert [row["by"] for row in rows_of_word(encoder, "unseen")] == encoder.pieces_of("unseen")
    gram = rows[3]
    values, _, _ = having(encoder, 0, gram["row"], [column])
    words = {value.text: value.count for value in values if " " not in value.text}
    assert words["where"] == 2
    assert words == {
        word: count
        for word, count in elements(["where there, where", "the lines"], 1).items()
        if gram["row"] in encoder.rows_of(word)
    }
    assert gram["by"] in pieces_with(encoder, "where", gram["row"]) and pieces_with(encoder, "a run", 3) == []
    run = rows_of_word(encoder, "the lines")
    assert len(run) == 1 and "the lines" in {value.text for value in having(encoder, 0, run[0]["row"], [column])[0]}


def test_pieces_of_a_tokenizer_and_their_rows() -> None:
    encoder, column = made(TokenizerTable(vocab_size=300, min_frequency=1), pa.array(TEXTS))
    rows = rows_of_word(encoder, "film plot")
    assert [row["by"] for row in rows] == encoder.pieces_of("film plot")
    assert [encoder.words()[row["row"]].as_py() for row in rows] == [row["by"] for row in rows]
    values, different, occurrences = having(encoder, 0, rows[0]["row"], [column])
    assert different == 1 and occurrences == values[0].count and values[0].text == rows[0]["by"]


def test_numbers_intervals_and_ids() -> None:
    encoder, column = made(
        BucketizedTable(scheme=Scheme.given, borders=[0.0, 2.0]), pa.array([1.5, 1.0, 1.5, 7.0, None])
    )
    (row,) = rows_of_word(encoder, "1.9")
    assert row["note"] == encoder.interval_of(row["row"])
    values, different, occurrences = having(encoder, 0, row["row"], [column])
    assert [(value.text, value.count) for value in values] == [("1.5", 2), ("1.0", 1)] and (different, occurrences) == (
        2,
        3,
    )
    assert [(value.text, value.count) for value in having(encoder, 0, 0, [column])[0]] == [("missing", 1)]
    encoder, column = made(IdsTable(rows=9), pa.array([[4, 4], [7]]))
    assert rows_of_word(encoder, "4")[0]["row"] == 4
    assert [(value.text, value.count) for value in having(encoder, 0, 4, [column])[0]] == [("4", 2)]
    encoder, column = made(CompositionalTable(partitions=[4, 5], values=20), pa.array([13, 13, 3]))
    assert [row["row"] for row in rows_of_word(encoder, "13")] == [2, 3]
    assert [(value.text, value.count) for value in having(encoder, 1, 3, [column])[0]] == [("13", 2), ("3", 1)]
    encoder, column = made(HashedTable(buckets=1), pa.array([2**64 - 1, 5], pa.uint64()))
    assert {value.text for value in having(encoder, 0, 0, [column])[0]} == {str(2**64 - 1), "5"}


def test_texts_taken_whole_and_lists_of_texts() -> None:
    encoder, column = made(
        HashedTable(buckets=1, tokens=Tokens.whole, lower=True), pa.array([["New York", "Rome"], ["rome"]])
    )
    assert {(value.text, value.count) for value in having(encoder, 0, 0, [column])[0]} == {
        ("new york", 1),
        ("rome", 2),
    }


def test_a_combination_of_crossed_columns_is_typed_as_it_is_shown() -> None:
    column = Crossed([open_values(pa.array(["New York", "Rome"]), "city"), open_values(pa.array([7, 8]), "hour")], "x")
    encoder = HashedEncoder(HashedTable(buckets=2**30), {"values": "texts × numbers"})
    rows = encoder.encode(column, np.arange(2)).ids.values
    assert [encoder.row_of(text) for text in ("New York × 7", "Rome × 8")] == rows.tolist()
    with pytest.raises(UserError, match="'Rome' is no combination of 2 values"):
        encoder.row_of("Rome")


def test_a_value_of_a_managed_table_has_a_row_or_shares_one() -> None:
    encoder, column = made(ManagedTable(rows=64), pa.array(np.arange(300)))
    admission = Admission(64, 0, 64, Rules())
    values = encoder.encode(column, np.arange(300)).ids.values
    rows, _ = admission.step(values)
    for number in (0, 1, 2, 150, 299):
        (row,) = rows_of_word(encoder, str(number), admission.ids)
        assert row["row"] == rows[number] and row["note"].startswith("shared") == (rows[number] % GROUP == 0)
    shared, different, _ = having(encoder, 0, 0, [column], residents=admission.ids, limit=999)
    assert different == (rows == 0).sum() and {int(value.text) for value in shared} == set(
        np.flatnonzero(rows == 0).tolist()
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    table = ["table@tables.text=quotient_remainder", "tables.text.partitions=[8,16]", "tables.text.dim=8"]
    few = ["trainer.epochs=1", "trainer.batch_size=16", "runtime.tensorboard=false"]
    assert bigembed("train", "data=files", f"data.path={data}", *table, *few, f"hydra.run.dir={folder}") == 0
    return folder


def test_the_command_tells_rows_and_values(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert bigembed("explain", f"run={trained}", "word=Wonderful", f"out={out}") == 0
    values = json.loads(out.read_text())
    assert [row["table"] for row in values["rows"]] == ["text-0", "text-1"]
    row = values["rows"][1]["row"]
    assert f"{row}" in capsys.readouterr().out
    assert bigembed("explain", f"run={trained}", f"row={row}", "part=1", "limit=3", f"out={out}") == 0
    values = json.loads(out.read_text())
    assert "wonderful" in {entry["value"] for entry in values["values"]}
    assert len(values["values"]) == 3 <= values["different"]
    told = capsys.readouterr().out
    assert f"{values['different']:,} different values of the training part" in told and "wonderful" in told
    assert (
        bigembed(
            "explain", f"run={trained}", f"row={row}", "part=1", f"data.path={data / 'test.parquet'}", f"out={out}"
        )
        == 0
    )
    assert json.loads(out.read_text())["occurrences"] < values["occurrences"]


WRONG = {
    "run=RUN": "give word=WORD, for its rows, or row=ROW",
    "run=RUN word=a row=1": "give word=WORD, for its rows, or row=ROW",
    "word=a": "run= is missing",
    "run=nowhere word=a": "nowhere is no folder",
    "run=RUN word=a table=words": "table= must name one of the tables of the run: text",
    "run=RUN row=8": "row=8 is no row of table text, whose rows are 0 to 7",
    "run=RUN row=-1": "row is -1; it must be at least 0",
    "run=RUN row=1 part=2": "part=2 is none of the parts of table text, which are numbered from 0 to 1",
    "run=RUN row=1 limit=0": "limit is 0; it must be at least 1",
    "run=RUN row=1 seed=3": "there is no option 'seed'",
    "run=RUN row=1 trainer.epochs=3": "cannot be changed for bigembed explain",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_mistakes_are_one_sentence(arguments: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bigembed("explain", *arguments.replace("RUN", str(trained)).split()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bigembed: ")]
    assert WRONG[arguments] in line


def test_a_word_of_several_tokens_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bigembed("explain", f"run={trained}", "word=one two three") == 2
    assert "is 3 tokens as this table cuts texts" in capsys.readouterr().err
