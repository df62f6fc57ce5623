"""Data in the forms in which it is published: read as the publishers mean it, refused with its line where it is damaged."""

import gzip
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigembed.config.schema import FilesData, Format
from bigembed.data import lines, open_data, open_part
from bigembed.data.forms import FORMS, form_of
from bigembed.errors import UserError
from bigembed.wishes import IDS, NUMBERS, VALUES

PAIR = {"user": IDS, "item": IDS}


def read(path, columns, format, part="train", **options):
    return open_part(FilesData(path=str(path), format=format, **options), part, columns)


def saved(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refused(path, columns, format, *words, part="train", **options):
    with pytest.raises(UserError) as caught:
        read(path, columns, format, part, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# --- Criteo -----------------------------------------------------------------------------------------------------------

CRITEO = {"label": pa.int64(), "I1": NUMBERS, "I2": VALUES, "I13": IDS, "C1": VALUES, "C26": pa.string()}


def clicks(*rows):
    """Lines of Criteo's form, given label, I1, I2 and C1 of each; I13 is 7 and C26 is empty in all."""
    return "".join("\t".join([a, b, c, *[""] * 10, "7", d, *["x"] * 24, ""]) + "\n" for a, b, c, d in rows)


@pytest.mark.parametrize("name", ["train.tsv", "train.txt", "train.csv", "train", "train.txt.gz"])
def test_criteo_is_read_whatever_its_name_says(tmp_path, name):
    saved(tmp_path / name, clicks(("1", "-2", "3", '05db"9'), ("0", "", "", "")))
    table = read(tmp_path, CRITEO, Format.criteo)
    assert table.to_pydict() == {
        "label": [1, 0],
        "I1": [-2.0, None],
        "I2": [3, None],
        "I13": [7, 7],
        "C1": ['05db"9', ""],
        "C26": ["", ""],
    }
    assert table.schema.types[:3] == [pa.int64(), pa.float64(), pa.int64()]


def test_days_come_one_after_the_other_and_not_by_the_alphabet(tmp_path):
    for day in (10, 2, 0, 1):
        saved(tmp_path / f"day_{day}", clicks(("0", str(day), "", "")))
    table = read(tmp_path, {"I1": IDS}, Format.criteo, train="day_*")
    assert table["I1"].to_pylist() == [0, 1, 2, 10]


def test_windows_line_breaks_and_empty_lines_are_taken(tmp_path):
    content = clicks(("1", "1", "2", "a"), ("0", "3", "4", "b")).replace("\n", "\r\n\r\n")
    assert read(saved(tmp_path / "a", content), {"I1": IDS, "C26": VALUES}, Format.criteo).to_pydict() == {
        "I1": [1, 3],
        "C26": ["", ""],
    }


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (clicks(("1", "1.5", "", "")), ["'I1' is '1.5'", "whole number"]),
        (clicks(("yes", "1", "", "")), ["'label' is 'yes'"]),
        (clicks(("1", "9223372036854775808", "", "")), ["'I1' is '9223372036854775808'"]),
        (clicks(("1", "1", "", "")).replace("\tx", "", 1), ["39 columns", "has 40"]),
        ("1,2,3\n", ["1 columns with tabs", "label, I1"]),
    ],
)
def test_a_wrong_line_of_criteo_is_told_by_its_number(tmp_path, monkeypatch, line, words, block):
    monkeypatch.setattr(lines, "BLOCK", block)
    good = clicks(("1", "1", "2", "a"))
    path = saved(tmp_path / "train.txt", good + "\n" + good + line + good)
    refused(path, CRITEO, Format.criteo, "train.txt, line 4:", *words)


def test_a_column_that_criteo_does_not_have_is_refused(tmp_path):
    path = saved(tmp_path / "train.txt", clicks(("1", "1", "2", "a")))
    refused(path, {"C27": VALUES}, Format.criteo, "no column 'C27'", "'C26'")
    refused(path, {"C1": IDS}, Format.criteo, "'C1'", "not whole numbers")


# --- Avazu ------------------------------------------------------------------------------------------------------------


def test_every_column_of_avazu_can_be_a_feature(tmp_path):
    content = "id,click,hour,site_id,C14\n10000169349117863715,0,14102100,1fbe01fe,15706\n1,1,14102101,,15707\n"
    saved(tmp_path / "train.gz", content)
    config = FilesData(train=str(tmp_path / "train.gz"), test=None, format=Format.csv)
    table = open_data(config, {"id": VALUES, "hour": VALUES, "site_id": VALUES, "C14": NUMBERS}, ["click"]).train
    assert table["id"].to_pylist() == ["10000169349117863715", "1"]
    assert table["hour"].to_pylist() == ["14102100", "14102101"]
    assert table["C14"].to_pylist() == [15706.0, 15707.0]
    assert table["click"].to_pylist() == [0, 1]


# --- MovieLens --------------------------------------------------------------------------------------------------------

RATINGS = {"user": [1, 2], "item": [1193, 661], "rating": [5.0, 3.5], "timestamp": [978300760, 978302109]}
FILMS = {"item": [1, 2], "title": ["Toy Story (1995)", "Café: X, (1996)"], "genres": [["Animation", "Comedy"], []]}
FLAGS = ["0|0|0|1|0|1" + "|0" * 13, "0" + "|0" * 18]
MOVIELENS = {
    "ratings.dat": ("1::1193::5::978300760\n2::661::3.5::978302109", RATINGS),
    "u.data": ("1\t1193\t5\t978300760\n2\t661\t3.5\t978302109\n", RATINGS),
    "u1.base": ("1\t1193\t5\t978300760\n2\t661\t3.5\t978302109\n", RATINGS),
    "ratings.csv": ("userId,movieId,rating,timestamp\n1,1193,5.0,978300760\n2,661,3.5,978302109\n", RATINGS),
    "users.dat": (
        "1::F::25::10::48067\n2::M::56::0::48067-9\n",
        {"user": [1, 2], "gender": ["F", "M"], "age": [25, 56], "occupation": [10, 0], "zip": ["48067", "48067-9"]},
    ),
    "u.user": (
        "1|25|F|writer|48067\n2|56|M||T8H1N\n",
        {
            "user": [1, 2],
            "gender": ["F", "M"],
            "age": [25, 56],
            "occupation": ["writer", ""],
            "zip": ["48067", "T8H1N"],
        },
    ),
    "movies.dat": ("1::Toy Story (1995)::Animation|Comedy\n2::Café: X, (1996)::\n", FILMS),
    "movies.csv": (
        'movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n2,"Café: X, (1996)",(no genres listed)\n',
        FILMS,
    ),
    "u.item": (
        f"1|Toy Story (1995)|1-Jan-1995||http://x|{FLAGS[0]}\n2|Café: X, (1996)|1-Jan-1996||http://x|{FLAGS[1]}\n",
        FILMS,
    ),
}


@pytest.mark.parametrize("name", MOVIELENS)
def test_each_file_of_movielens_is_read_by_its_name(tmp_path, name):
    content, expected = MOVIELENS[name]
    schema = form_of(tmp_path / name, Format.movielens).schema
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        table = read(saved(path, content), {field.name: field.type for field in schema}, Format.movielens)
        assert {column: table[column].to_pylist() for column in expected} == expected
        assert set(table.column_names) >= set(expected)


def test_titles_in_latin_1_are_read_as_they_are_meant(tmp_path):
    path = saved(tmp_path / "movies.dat", MOVIELENS["movies.dat"][0].encode("latin-1"))
    assert read(path, {"title": VALUES}, Format.movielens)["title"].to_pylist() == FILMS["title"]


def test_genres_can_be_read_alone_and_in_any_place(tmp_path):
    for name in ("movies.dat", "movies.csv", "u.item"):
        path = saved(tmp_path / name, MOVIELENS[name][0])
        assert read(path, {"genres": VALUES}, Format.movielens).to_pydict() == {"genres": FILMS["genres"]}
        assert read(path, {"genres": VALUES, "item": IDS}, Format.movielens).column_names == ["genres", "item"]


def test_the_parts_of_a_folder_of_movielens_are_found(tmp_path):
    for name in ("ratings.dat", "users.dat", "movies.dat"):
        saved(tmp_path / name, MOVIELENS[name][0])
    config = FilesData(
        path=str(tmp_path), format=Format.movielens, train="ratings", test=None, users="users", items="movies"
    )
    assert open_data(config, PAIR).train["item"].to_pylist() == RATINGS["item"]
    assert open_part(config, "users", {"age": VALUES})["age"].to_pylist() == [25, 56]
    assert open_part(config, "items", {"genres": VALUES})["genres"].to_pylist() == FILMS["genres"]


def test_a_file_that_movielens_does_not_have_is_refused_with_those_that_are_known(tmp_path):
    path = saved(tmp_path / "tags.dat", "1::2::x::3\n")
    refused(path, PAIR, Format.movielens, "tags.dat", "ratings.dat", "u.item", "movies.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ratings.dat", "1::2::3::4\n1:2::3::4\n", ["line 2", "3 columns with '::'", "has 4: user, item, rating"]),
        ("ratings.dat", "1::2::3::4\n1::::3::4\n", ["line 2", "'item' is empty"]),
        ("ratings.dat", "1::2::3::4\n1::2\x01::3::4\n", ["line 2", "0x01"]),
        ("u.data", "1\t2\t3\t4\n\n1\t2\tgood\t4\n", ["line 3", "'rating' is 'good'", "not a number"]),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,x,4\n", ["line 2", "'rating'"]),
        ("u.item", f"1|a|b|c|d|{FLAGS[0]}|1\n", ["line 1", "25 columns with '|'"]),
        ("users.dat", "one::F::25::10::48067\n", ["line 1", "'user' is 'one'"]),
    ],
)
def test_a_wrong_line_of_movielens_is_told_by_its_number(tmp_path, name, content, words):
    schema = form_of(tmp_path / name, Format.movielens).schema
    wishes = {field.name: field.type for field in schema}
    refused(saved(tmp_path / name, content), wishes, Format.movielens, name, *words)


# --- NCF --------------------------------------------------------------------------------------------------------------


def ncf(folder, name="ml-1m"):
    saved(folder / f"{name}.train.rating", "0\t32\t4\t978824330\n1\t34\t5\t978824331\n")
    saved(folder / f"{name}.test.rating", "0\t25\t5\t978824351\n1\t133\t3\t978300174\n")
    saved(folder / f"{name}.test.negative", "(0,25)\t1064\t174\n(1,133)\t1072\t3154\t3368\n")
    options = {"train": "*.train.rating*", "test": "*.test.rating*", "negatives": "*.test.negative*"}
    return FilesData(path=str(folder), format=Format.ncf, **options)


def test_the_three_files_of_ncf_are_read(tmp_path):
    config = ncf(tmp_path)
    parts = open_data(config, {**PAIR, "rating": NUMBERS, "timestamp": pa.int64()})
    assert parts.train.to_pylist()[1] == {"user": 1, "item": 34, "rating": 5.0, "timestamp": 978824331}
    assert parts.test["item"].to_pylist() == [25, 133]
    negatives = open_part(config, "negatives", {**PAIR, "negatives": VALUES})
    assert negatives.to_pydict() == {
        "user": [0, 1],
        "item": [25, 133],
        "negatives": [[1064, 174], [1072, 3154, 3368]],
    }
    assert negatives.schema.field("negatives").type == pa.list_(pa.int64())


def test_two_data_sets_of_ncf_in_one_folder_are_not_put_together(tmp_path):
    ncf(tmp_path)
    config = ncf(tmp_path, "pinterest-20")
    with pytest.raises(UserError, match=r"ml-1m\.train\.rating and pinterest-20\.train\.rating.*one file"):
        open_data(config, PAIR)


@pytest.mark.parametrize(
    "line",
    [
        "0,25\t1",
        "(0,25\t1",
        "(0)\t1",
        "(0,25)\tx",
        "(0,25)\t(1",
        "(,25)\t1",
        "(0 1,2)\t3",
        "(0,25)\t-1",
        "((0,25)\t1",
        "(",
    ],
)
@pytest.mark.parametrize("last", ["", "\n(1,2)\t3"])
def test_a_wrong_line_of_negatives_is_told_by_its_number(tmp_path, line, last):
    path = saved(tmp_path / "x.test.negative", f"(0,25)\t1064\n\n{line}{last}")
    wishes = {**PAIR, "negatives": IDS}
    refused(path, wishes, Format.ncf, "x.test.negative, line 3", "(user,item)")


# --- lists of items ---------------------------------------------------------------------------------------------------


def by_hand(content):
    rows = [[int(word) for word in line.split()] for line in content.splitlines()]
    return [row[0] for row in rows for _ in row[1:]], [item for row in rows for item in row[1:]]


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_lists_of_items_are_read_in_their_order(tmp_path, monkeypatch, block, ending):
    monkeypatch.setattr(lines, "BLOCK", block)
    content = "0 7 3 5 \n1\n\n2 9\t4\r\n 10 9223372036854775807 0 0\n3 1"
    path = saved(tmp_path / f"train.{ending}", content)
    table = read(path, PAIR, Format.user_items)
    assert (table["user"].to_pylist(), table["item"].to_pylist()) == by_hand(content)
    assert table.schema.types == [pa.int64(), pa.int64()]
    assert table.num_rows == 9


def test_long_lists_come_in_small_batches(tmp_path):
    draw = random.Random(0)
    content = "\n".join(
        " ".join(str(draw.randrange(10 ** draw.randrange(1, 12))) for _ in range(draw.choice([1, 2, 50, 3000])))
        for _ in range(400)
    )
    content += "\n7 " + " ".join(map(str, range(300_000)))
    table = read(saved(tmp_path / "train.txt", content), PAIR, Format.user_items)
    assert (table["user"].to_pylist(), table["item"].to_pylist()) == by_hand(content)
    assert max(batch.num_rows for batch in table.to_batches()[:-1]) < 1 << 17 < table.to_batches()[-1].num_rows


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("1 2 x3", "'x3'"),
        ("1 -2", "'-2'"),
        ("1 2.5", "'2.5'"),
        ("1 9223372036854775808", "2^63"),
        ("(1,2)\t3", "'(1,2)'"),
    ],
)
def test_a_wrong_line_of_lists_is_told_by_its_number(tmp_path, line, word):
    path = saved(tmp_path / "train.txt", f"0 1 2\n\n1 5\n{line}\n2 3\n")
    refused(path, PAIR, Format.user_items, "train.txt, line 4", word, "user item item")


def test_users_alone_are_no_rows(tmp_path):
    refused(saved(tmp_path / "train.txt", "1\n2\n"), PAIR, Format.user_items, "no rows")


# --- where parts are --------------------------------------------------------------------------------------------------


def test_what_stands_beside_lists_may_be_of_another_kind(tmp_path):
    saved(tmp_path / "train.txt", "0 1 2\n")
    saved(tmp_path / "films.csv", "item,title\n1,a\n2,b\n")
    config = FilesData(path=str(tmp_path), format=Format.user_items, items="films.csv", test=None)
    assert open_part(config, "items", {"item": IDS, "title": VALUES})["title"].to_pylist() == ["a", "b"]
    saved(tmp_path / "users.txt", "1 2\n")
    config = FilesData(path=str(tmp_path), format=Format.user_items, users="users", test=None)
    assert open_part(config, "users", {"user": IDS})["user"].to_pylist() == [1]


def test_beside_a_single_file_users_are_a_file_of_their_own(tmp_path):
    train = saved(tmp_path / "train.csv", "user,item\n1,2\n")
    users = saved(tmp_path / "users.csv", "user,age\n1,30\n")
    config = FilesData(path=str(train), users=str(users))
    assert open_part(config, "users", {"age": NUMBERS})["age"].to_pylist() == [30.0]
    assert open_part(config, "test", {"item": IDS})["item"].to_pylist() == [2]
    config = FilesData(hub="nowhere/nothing", users=str(users))
    assert open_part(config, "users", {"age": NUMBERS})["age"].to_pylist() == [30.0]


def test_a_part_that_is_not_named_is_refused(tmp_path):
    train = saved(tmp_path / "train.csv", "user,item\n1,2\n")
    for part in ("users", "items", "negatives"):
        with pytest.raises(UserError, match=f"no {part} part.*data.{part}=FILE"):
            open_part(FilesData(path=str(train)), part, PAIR)


# --- anything at all --------------------------------------------------------------------------------------------------

NAMES = {
    Format.criteo: ["a.tsv"],
    Format.movielens: list(MOVIELENS),
    Format.ncf: ["a.rating", "a.test.negative"],
    Format.user_items: ["a.txt"],
}
PIECES = [
    *(content.encode() for content, _ in MOVIELENS.values()),
    clicks(("1", "2", "", "a")).encode(),
    *(
        b"(0,1)\t2",
        b"0 1 2",
        b"\n",
        b"\r",
        b"\t",
        b" ",
        b"|",
        b"::",
        b",",
        b'"',
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"9" * 30,
    ),
]


@pytest.mark.parametrize(("format", "name"), [(format, name) for format in FORMS for name in NAMES[format]])
@settings(max_examples=25)
@given(pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=5)), max_size=6))
def test_any_bytes_are_rows_or_one_sentence(tmp_path_factory, format, name, pieces):
    path = saved(tmp_path_factory.mktemp("any") / name, b"".join(pieces))
    schema = form_of(path, format).schema
    try:
        table = read(path, {field.name: field.type for field in schema}, format)
    except UserError as error:
        assert "\n" not in str(error)
        assert path.name in str(error)
    else:
        table.validate(full=True)
        assert table.num_rows
        assert table.schema.types == schema.types


@given(st.lists(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), min_size=1, max_size=8))
def test_any_lists_of_numbers_are_read_back(tmp_path_factory, rows):
    content = "\n".join(" ".join(map(str, row)) for row in rows)
    path = saved(tmp_path_factory.mktemp("lists") / "train.txt", content)
    if all(len(row) == 1 for row in rows):
        refused(path, PAIR, Format.user_items, "no rows")
    else:
        table = read(path, PAIR, Format.user_items)
        assert (table["user"].to_pylist(), table["item"].to_pylist()) == by_hand(content)


def test_forms_need_no_pandas(tmp_path):
    saved(tmp_path / "movies.dat", MOVIELENS["movies.dat"][0])
    saved(tmp_path / "u.item", MOVIELENS["u.item"][0])
    code = f"""
import sys
import pyarrow as pa
from bigembed.config.schema import FilesData, Format
from bigembed.data import open_part
from bigembed.wishes import VALUES
for name in ("movies.dat", "u.item"):
    open_part(FilesData(path={str(tmp_path)!r} + "/" + name, format=Format.movielens), "train", {{"genres": VALUES}})
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- real data --------------------------------------------------------------------------------------------------------


def test_gowalla_and_beauty_are_read_as_by_hand(data_dir):
    for path in (data_dir / "gowalla" / "test.txt", data_dir / "sequences" / "Beauty.txt"):
        users, items = by_hand(path.read_text())
        table = read(path, PAIR, Format.user_items)
        assert np.array_equal(table["user"].to_numpy(), users)
        assert np.array_equal(table["item"].to_numpy(), items)
    train = read(data_dir / "gowalla", PAIR, Format.user_items)
    assert train.num_rows == 810_128


def test_the_sample_of_criteo_is_read_as_by_hand(data_dir):
    folder = data_dir / "criteo-sample"
    rows = [line.split("\t") for line in (folder / "train.csv").read_text().splitlines()]
    table = read(folder, {"I3": NUMBERS, "C26": VALUES, "label": pa.int64()}, Format.criteo)
    assert table["label"].to_pylist() == [int(row[0]) for row in rows]
    assert table["I3"].to_pylist() == [float(row[3]) if row[3] else None for row in rows]
    assert table["C26"].to_pylist() == [row[39] for row in rows]


def test_the_sample_of_avazu_is_read(data_dir):
    table = read(data_dir / "avazu-sample", {"id": VALUES, "C21": VALUES, "click": pa.int64()}, Format.csv)
    assert table["id"][0].as_py() == "10000169349117863715"
    assert set(table["click"].to_pylist()) == {0, 1}
