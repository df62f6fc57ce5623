"""What a run recommends, held against plain numpy on the rows of its tables."""

import shutil
import sys
from pathlib import Path

import interactions as small
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import bigembed
from safetensors.numpy import load_file

from bigembed import load
from bigembed.config import saved
from bigembed.errors import UserError
from bigembed.recommending.asking import open_scene

K = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write(tmp_path_factory.mktemp("recommend") / "data")


def trained(data: Path, name: str, options: list[str]) -> Path:
    folder = data.parent / name
    assert bigembed("train", *options, "trainer.epochs=1", f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def factors(data: Path) -> Path:
    return trained(data, "factors", small.towers(data))


@pytest.fixture(scope="module")
def towers(data: Path) -> Path:
    features = [
        "data.users=users",
        "data.items=items",
        "+table@tables.about=vocab",
        "tables.about.dim=8",
        "tables.about.tokens=whole",
        "tables.about.ngrams=1",
        "+feature@features.taste=column",
        "features.taste.table=about",
        "features.taste.column=taste_name",
        "features.taste.of=user",
        "+feature@features.genres=column",
        "features.genres.table=about",
        "features.genres.column=genres",
        "features.genres.of=item",
    ]
    users = pq.read_table(data / "users.parquet")
    names = pa.array([f"taste {taste}" for taste in users["taste"].to_pylist()])
    pq.write_table(users.append_column("taste_name", names), data / "users.parquet")
    return trained(data, "towers", [*small.towers(data), *features])


@pytest.fixture(scope="module")
def histories(data: Path) -> Path:
    return trained(data, "histories", [*small.sequences(data, "history"), "head.layers=1"])


def rows_of(run: Path, table: str) -> dict[str, np.ndarray]:
    """The rows of a table by word; None for that of unknown words."""
    model = load(run)
    matrix = np.load(model.checkpoint / "tables" / f"{table}.weight.npy")
    return dict(zip([None, *model.words(table)], matrix, strict=True))


def had(data: Path) -> dict[int, set[int]]:
    """What every user has in the data."""
    tables = [pq.read_table(data / f"{part}.parquet") for part in ("train", "test")]
    found: dict[int, set[int]] = {}
    for table in tables:
        for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
            found.setdefault(user, set()).add(item)
    return found


def expected(vector: np.ndarray, items: dict[int, np.ndarray], out: set[int], k: int = K) -> list[tuple[int, float]]:
    scores = {item: float(vector @ row) for item, row in items.items() if item not in out}
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]


def check(row: dict[str, list], wanted: list[tuple[int, float]], found: str = "item") -> None:
    assert row[found] == [item for item, _ in wanted]
    assert np.allclose(row["score"], [score for _, score in wanted], rtol=1e-4, atol=1e-5)


def recommended(run: Path, output: Path, *arguments: str) -> list[dict[str, list]]:
    assert bigembed("recommend", f"run={run}", f"k={K}", f"output={output}", *arguments) == 0
    return pq.read_table(output).to_pylist()


def factor_rows(run: Path) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    sides = [rows_of(run, table) for table in ("text", "item")]
    users, items = ({int(word): row for word, row in side.items() if word is not None} for side in sides)
    return users, items


def test_lists_are_those_of_the_tables_without_what_users_have(data: Path, factors: Path, tmp_path: Path) -> None:
    users, items = factor_rows(factors)
    out = had(data)
    rows = recommended(factors, tmp_path / "lists.parquet", "trainer.eval_batch_size=7")
    assert [row["user"] for row in rows] == list(range(small.USERS))
    for row in rows:
        check(row, expected(users[row["user"]], items, out[row["user"]]))
    assert pq.read_schema(tmp_path / "lists.parquet").types == [
        pa.int64(),
        pa.list_(pa.int64()),
        pa.list_(pa.float32()),
    ]


def test_without_the_data_there_are_lists_with_what_users_have(
    data: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users, items = factor_rows(factors)
    shutil.move(data / "train.parquet", data / "train.away")
    try:
        rows = recommended(factors, tmp_path / "lists.parquet", "seen=true", "users=all")
        assert bigembed("recommend", f"run={factors}") == 2
    finally:
        shutil.move(data / "train.away", data / "train.parquet")
    told = capsys.readouterr().err
    assert "data.path=DIR" in told and "history=FILE" in told and "seen=true" in told and "Traceback" not in told
    for row in rows:
        check(row, expected(users[row["user"]], items, set()))


def test_users_get_their_lists_in_the_order_of_the_file(factors: Path, data: Path, tmp_path: Path) -> None:
    users, items = factor_rows(factors)
    (tmp_path / "users.csv").write_text("user,name\n7,x\n3,y\n7,z\n")
    rows = recommended(factors, tmp_path / "lists.parquet", f"users={tmp_path}/users.csv")
    assert [row["user"] for row in rows] == [7, 3, 7]
    for row in rows:
        check(row, expected(users[row["user"]], items, had(data)[row["user"]]))


def test_users_whom_the_model_knows_nothing_of_are_left_out_and_told(
    factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recommended(factors, tmp_path / "lists.parquet", "users=900,3,901")
    assert [row["user"] for row in rows] == [3]
    assert "2 of 3 ids of users=900,3,901 are not known to the model, the first of them 900" in capsys.readouterr().err
    assert bigembed("recommend", f"run={factors}", "users=900,901") == 2
    assert "knows users by their ids alone" in capsys.readouterr().err


def test_what_a_file_of_interactions_has_is_left_out_instead(factors: Path, tmp_path: Path) -> None:
    users, items = factor_rows(factors)
    (tmp_path / "had.csv").write_text("user,item\n3,5\n3,9\n4,5\n3,12345\n")
    rows = recommended(factors, tmp_path / "lists.parquet", "users=3,5", f"history={tmp_path}/had.csv")
    check(rows[0], expected(users[3], items, {5, 9}))
    check(rows[1], expected(users[5], items, set()))


def test_new_users_and_items_are_known_by_their_features(
    data: Path, towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, of_items, about = (rows_of(towers, table) for table in ("text", "item", "about"))

    def item_vector(item: int, genres: list[str]) -> np.ndarray:
        return of_items.get(str(item), of_items[None]) + np.mean([about[genre] for genre in genres], 0)

    table = pq.read_table(data / "items.parquet").to_pylist()
    items = {row["item"]: item_vector(row["item"], row["genres"]) for row in table}
    new = {100: ["genre 1", "other 2"], 101: ["genre 3"], 5: ["genre 0"]}  # of which 5 is known
    pq.write_table(pa.table({"item": list(new), "genres": list(new.values())}), tmp_path / "new.parquet")
    items |= {item: item_vector(item, new[item]) for item in (100, 101)}
    (tmp_path / "users.csv").write_text("user,taste_name\n500,taste 2\n3,taste 0\n501,taste 1\n")
    arguments = [f"users={tmp_path}/users.csv", f"new_items={tmp_path}/new.parquet"]
    rows = recommended(towers, tmp_path / "lists.parquet", "k=42", *arguments)
    assert "1 of the 3 items" in capsys.readouterr().err
    assert [row["user"] for row in rows] == [500, 3, 501]
    tastes = {500: "taste 2", 3: f"taste {3 % small.TASTES}", 501: "taste 1"}  # what training knew of 3 stays
    for row in rows:
        user = row["user"]
        vector = own.get(str(user), own[None]) + about[tastes[user]]
        check(row, expected(vector, items, had(data).get(user, set()), 42))
        assert {100, 101} <= set(row["item"])


def test_users_of_a_file_without_features_are_left_out_with_the_reason(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.csv").write_text("user\n500\n3\n")
    rows = recommended(towers, tmp_path / "lists.parquet", f"users={tmp_path}/users.csv")
    assert [row["user"] for row in rows] == [3]
    assert "their features cannot be read" in (told := capsys.readouterr().err) and "'taste_name'" in told


def history_vectors(run: Path) -> tuple[dict[int, np.ndarray], np.ndarray, np.ndarray]:
    items = {int(word): row for word, row in rows_of(run, "text").items() if word is not None}
    dense = load_file(load(run).checkpoint / "dense.safetensors")
    weight, bias = (
        next(value for name, value in dense.items() if name.endswith(f"layers.0.{end}")) for end in ("weight", "bias")
    )
    return items, weight, bias


def read_history(table: pa.Table, known: dict[int, np.ndarray]) -> dict[int, list[int]]:
    """The latest six items of every user, the last one at the end."""
    rows = [row for row in table.to_pylist() if row["item"] in known]
    found: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        found.setdefault(row["user"], []).append(row["item"])
    return {user: items[-6:] for user, items in found.items()}


def test_a_sequence_model_reads_all_of_the_data(data: Path, histories: Path, tmp_path: Path) -> None:
    items, weight, bias = history_vectors(histories)
    table = pa.concat_tables([pq.read_table(data / f"{part}.parquet") for part in ("train", "test")])
    read, out = read_history(table, items), had(data)
    rows = recommended(histories, tmp_path / "lists.parquet")
    assert [row["user"] for row in rows] == list(range(small.USERS))
    for row in rows:
        vector = weight @ (np.mean([items[item] for item in read[row["user"]]], 0) * np.sqrt(8)) + bias
        check(row, expected(vector, items, out[row["user"]]))


def test_a_sequence_model_reads_the_histories_of_new_users(
    histories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, weight, bias = history_vectors(histories)
    table = pa.table(
        {"user": ["ann", "bob", "ann", "zoe"], "item": [4, 7, 11, 999], "time": [2.0, 1.0, 1.0, 1.0]}
    )  # 999: unknown
    pq.write_table(table, tmp_path / "had.parquet")
    rows = recommended(histories, tmp_path / "lists.parquet", f"history={tmp_path}/had.parquet", "seen=true")
    told = capsys.readouterr().err
    assert "1 of 4 interactions" in told and "1 of 3 users have no history" in told
    assert [row["user"] for row in rows] == ["ann", "bob"]
    for row, read in zip(rows, ([11, 4], [7]), strict=True):
        vector = weight @ (np.mean([items[item] for item in read], 0) * np.sqrt(8)) + bias
        check(row, expected(vector, items, set()))
    rows = recommended(histories, tmp_path / "one.parquet", f"history={tmp_path}/had.parquet", "users=bob")
    assert [row["user"] for row in rows] == ["bob"] and 7 not in rows[0]["item"]


def test_badly_rated_items_are_not_read_but_left_out(data: Path, histories: Path) -> None:
    job = saved.load(histories)
    job.interactions.rating, job.interactions.min_rating = "rating", 4.0
    scene, asking = open_scene(job, histories, asking="8,3")
    keys = np.array(scene.items.keys.to_pylist())
    table = pa.concat_tables([pq.read_table(data / f"{part}.parquet") for part in ("train", "test")]).to_pylist()
    for user, code in zip((8, 3), asking, strict=True):
        own = sorted((row for row in table if row["user"] == user), key=lambda row: row["time"])
        read, items = (each.take(np.array([code])).values for each in (scene.before.histories, scene.before.items))
        assert keys[read].tolist() == [row["item"] for row in own if row["rating"] >= 4]
        assert keys[items].tolist() == sorted({row["item"] for row in own})


def test_neighbours_are_by_the_cosine_and_without_the_item_itself(factors: Path, tmp_path: Path) -> None:
    _, items = factor_rows(factors)
    units = {item: row / np.linalg.norm(row) for item, row in items.items()}
    rows = recommended(factors, tmp_path / "lists.parquet", "items=all")
    assert [row["item"] for row in rows] == sorted(items)
    for row in rows:
        check(row, expected(units[row["item"]], units, {row["item"]}), "neighbour")


def test_text_is_a_line_an_item(factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = recommended(factors, tmp_path / "lists.parquet", "users=9,3")
    wanted = [[str(row["user"]), str(item)] for row in rows for item in row["item"]]
    capsys.readouterr()
    assert bigembed("recommend", f"run={factors}", f"k={K}", "users=9,3") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == wanted
    assert np.allclose([float(line[2]) for line in lines], np.concatenate([row["score"] for row in rows]))
    assert bigembed("recommend", f"run={factors}", f"k={K}", "users=9,3", f"output={tmp_path}/lists.txt") == 0
    assert [line.split("\t")[:2] for line in (tmp_path / "lists.txt").read_text().splitlines()] == wanted


def test_lists_are_no_longer_than_there_are_items(
    data: Path, factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, items = factor_rows(factors)
    rows = recommended(factors, tmp_path / "lists.parquet", "k=1000000", "users=3")
    assert sorted(rows[0]["item"]) == sorted(set(items) - had(data)[3])
    assert capsys.readouterr().err.count("items can be found") == 1


@pytest.mark.parametrize("arguments", [[], ["seen=true"], ["items=all"], ["users=3"]])
def test_an_index_finds_nearly_the_same(
    factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    exact = recommended(factors, tmp_path / "exact.parquet", *arguments)
    found = recommended(factors, tmp_path / "found.parquet", "search=approximate", *arguments)
    name = "neighbour" if "items=all" in arguments else "item"
    same = np.mean([len(set(a[name]) & set(b[name])) / K for a, b in zip(exact, found, strict=True)])
    assert same > 0.95
    for one, other in zip(exact, found, strict=True):
        if one[name] == other[name]:
            assert np.allclose(one["score"], other["score"], atol=1e-5)
    assert f"recall@{K} 1.0" in capsys.readouterr().err  # 40 items: the graph is as good as complete


def test_who_has_nearly_everything_still_gets_all_that_is_left(
    factors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigembed.recommending import approximate

    monkeypatch.setattr(approximate, "MORE", 0)  # as for a user with more items than are asked for besides
    _, items = factor_rows(factors)
    lines = [f"3,{item}\n" for item in sorted(items)[:-4]]
    (tmp_path / "had.csv").write_text("user,item\n" + "".join(lines))
    arguments = ["users=3,4", f"history={tmp_path}/had.csv", "search=approximate"]
    rows = recommended(factors, tmp_path / "lists.parquet", *arguments)
    assert sorted(rows[0]["item"]) == sorted(items)[-4:]
    assert len(rows[1]["item"]) == K


def test_usearch_is_asked_for_where_it_is_not(
    factors: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert bigembed("recommend", f"run={factors}", "search=approximate") == 2
    assert "pip install 'bigembed[search]'" in capsys.readouterr().err


def test_the_model_in_python_recommends_the_same(factors: Path, tmp_path: Path) -> None:
    rows = recommended(factors, tmp_path / "lists.parquet")
    model = load(factors)
    for asked, wanted in ((None, rows), ([9, 3], [rows[9], rows[3]]), ([], [])):
        found = model.recommend(asked, K).to_pylist()
        assert [row["user"] for row in found] == [row["user"] for row in wanted]
        for row, other in zip(found, wanted, strict=True):
            check(row, list(zip(other["item"], other["score"], strict=True)))
    for wrong in ([900], ["3"], [3, "4"], [None]):
        with pytest.raises(UserError):
            model.recommend(wrong, K)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "no_rows.csv").write_text("user,item\n")
    (tmp_path / "other.csv").write_text("name\n3\n")
    (tmp_path / "hole.csv").write_text('user\n3\n""\n4\n')
    (tmp_path / "word.csv").write_text("user\n3\nann\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + b"x" * 40)
    pq.write_table(pa.table({"user": ["3", "4"]}), tmp_path / "texts.parquet")
    pq.write_table(pa.table({"user": pa.array([3, None])}), tmp_path / "null.parquet")
    pq.write_table(pa.table({"item": [7, 7], "genres": [["a"], ["b"]]}), tmp_path / "twice.parquet")
    pq.write_table(pa.table({"item": [700], "genres": [7]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"item": [700]}), tmp_path / "bare.parquet")
    return tmp_path


WRONG = {
    "users=nowhere.csv": ["users=nowhere.csv does not exist"],
    "users=BAD/empty.csv": ["empty.csv is empty"],
    "users=BAD/no_rows.csv": ["no rows"],
    "users=BAD/other.csv": ["no column 'user'"],
    "users=BAD/hole.csv": ["'user'", "null"],
    "users=BAD/word.csv": ["line 3", "'ann'"],
    "users=BAD/cut.parquet": ["cut.parquet is not a Parquet file"],
    "users=BAD/texts.parquet": ["texts", "whole numbers", "'user'"],
    "users=BAD/null.parquet": ["Row 1", "null"],
    "users=ann": ["users=ann", "whole numbers", ".parquet"],
    "users=3,,4": ["empty id"],
    "users=99999999999999999999": ["whole numbers of 64 bits"],
    "history=BAD/other.csv": ["no column"],
    "items=3 users=4": ["leave one of them out"],
    "items=900": ["not known to the model", "new_items=FILE"],
    "new_items=BAD/bare.parquet": ["no column 'genres'"],
    "new_items=BAD/twice.parquet": ["Rows 0 and 1", "7"],
    "new_items=BAD/numbers.parquet": ["'genres'"],
    "output=BAD/nowhere/x.parquet": ["no folder"],
    "output=BAD": ["cannot be written"],
    "search=fast": ["exact or approximate"],
    "k=0": ["k is 0"],
    "k=many": ["k"],
    "features.text.column=x": ["cannot be changed for bigembed recommend"],
    "head.negatives=3": ["cannot be changed for bigembed recommend"],
}


@pytest.mark.parametrize("arguments", WRONG)
def test_what_is_wrong_is_told_in_a_sentence(
    towers: Path, bad: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    asked = [argument.replace("BAD", str(bad)) for argument in arguments.split()]
    assert bigembed("recommend", f"run={towers}", *asked) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.strip().count("\n") == 0, told.err
    assert told.err.startswith("bigembed: ")
    assert [part for part in WRONG[arguments] if part not in told.err] == [], told.err


def test_new_items_need_features(factors: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bigembed("recommend", f"run={factors}", f"new_items={bad}/bare.parquet") == 2
    assert "by their ids alone" in capsys.readouterr().err


def test_a_damaged_list_of_users_is_told(factors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(factors, tmp_path / "run")
    path = copy / "encoders" / "users.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    assert bigembed("recommend", f"run={copy}", "seen=true") == 2
    assert "users.arrow is not as it was written" in capsys.readouterr().err


def test_an_id_that_text_cannot_hold_is_refused(
    histories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"user": ["a\tb"], "item": [4], "time": [1.0]}), tmp_path / "had.parquet")
    arguments = ["recommend", f"run={histories}", f"history={tmp_path}/had.parquet"]
    assert bigembed(*arguments, f"output={tmp_path}/lists.txt") == 2
    assert "has a tab or a line break" in capsys.readouterr().err and not (tmp_path / "lists.txt").exists()
    rows = recommended(histories, tmp_path / "lists.parquet", *arguments[2:])
    assert [row["user"] for row in rows] == ["a\tb"]
