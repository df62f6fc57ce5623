"""Data that cannot be used, through the command: one clear sentence, exit code 2, no traceback; odd data that can be used, used."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import bigembed, tables_of, write_reviews

TEXTS = ["a good film", "a bad film", "good", "bad"] * 10


def write(path: Path, texts=TEXTS, labels=None, kind=None) -> None:
    labels = pa.array([1, 0] * (len(texts) // 2) if labels is None else labels, kind)
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "label": labels}), path)


def train(folder: Path, *options: str) -> int:
    small = ["tables.text.buckets=64", "runtime.tensorboard=false", "trainer.epochs=1", f"hydra.run.dir={folder}/run"]
    return bigembed("train", "data=files", f"data.path={folder}", *small, *options)


def nothing(folder: Path) -> None:
    (folder / "train.parquet").unlink()


def cut(folder: Path) -> None:
    content = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(content[: len(content) // 2])


def csv(folder: Path, content: bytes) -> None:
    (folder / "train.parquet").unlink()
    (folder / "train.csv").write_bytes(content)


CASES = {
    "missing part": (nothing, ["train"]),
    "empty file": (lambda folder: (folder / "train.parquet").write_bytes(b""), ["train.parquet", "empty"]),
    "cut Parquet": (cut, ["train.parquet"]),
    "no rows": (lambda folder: write(folder / "train.parquet", []), ["train.parquet"]),
    "null label": (lambda folder: write(folder / "train.parquet", labels=[1, None] * 20), ["label", "null"]),
    "label out of range": (
        lambda folder: write(folder / "train.parquet", labels=[1, 2] * 20),
        ["label", "2", "head.classes"],
    ),
    "negative label": (lambda folder: write(folder / "train.parquet", labels=[-1, 1] * 20), ["label", "-1"]),
    "label of another type": (
        lambda folder: write(folder / "train.parquet", labels=["pos", "neg"] * 20),
        ["label", "pos"],
    ),
    "label with a fraction": (lambda folder: write(folder / "train.parquet", labels=[0.5, 1.0] * 20), ["label", "0.5"]),
    "bad label in the test part": (
        lambda folder: write(folder / "test.parquet", labels=[7, 1] * 20),
        ["label", "test", "7"],
    ),
    "null text": (lambda folder: write(folder / "train.parquet", ["good", None] * 20), ["text", "null"]),
    "empty vocabulary": (lambda folder: write(folder / "train.parquet", ["", " "] * 20), ["text", "empty"]),
    "invalid UTF-8": (lambda folder: csv(folder, b"text,label\ngood,1\nb\xffd,0\n"), ["train.csv", "3"]),
    "malformed CSV": (lambda folder: csv(folder, b"text,label\ngood,1\nbad,0,7\n"), ["train.csv", "3"]),
    "label that is no number": (
        lambda folder: csv(folder, b"text,label\ngood,1\nbad,zero\n"),
        ["train.csv", "label", "zero"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_data_is_refused_in_one_sentence(tmp_path, capsys, case):
    harm, words = CASES[case]
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    harm(tmp_path)
    assert train(tmp_path) == 2
    error = capsys.readouterr().err
    *before, last = error.splitlines()
    assert last.startswith("bigembed: ") and all(line.startswith(("warning: ", "run ")) for line in before)
    assert all(word in last for word in words), error


def test_a_missing_column_names_those_that_are_there(tmp_path, capsys):
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    for option in ("features.text.column=review", "head.label=review"):
        assert train(tmp_path, option) == 2
        error = capsys.readouterr().err
        assert "review" in error and "text" in error and "label" in error and error.count("\n") == 2


def test_a_path_that_is_not_there_is_named(tmp_path, capsys):
    assert bigembed("train", "data=files", f"data.path={tmp_path}/nowhere", f"hydra.run.dir={tmp_path}/run") == 2
    assert f"{tmp_path}/nowhere does not exist" in capsys.readouterr().err


def test_a_run_refused_for_its_data_leaves_no_folder_in_the_way(tmp_path):
    write(tmp_path / "train.parquet", labels=[1, None] * 20)
    write(tmp_path / "test.parquet")
    assert train(tmp_path) == 2
    assert not (tmp_path / "run").exists()
    write(tmp_path / "train.parquet")
    assert train(tmp_path) == 0


def test_a_text_of_ten_megabytes_and_empty_ones_train(tmp_path, capsys):
    long = "a very good film indeed " * 420_000
    write(tmp_path / "train.parquet", [long, "bad", "", "good"] * 5)
    write(tmp_path / "test.parquet", ["good", ""] * 5)
    assert train(tmp_path) == 0
    error = capsys.readouterr().err
    assert "warning: 5 of 20 texts in column 'text' of the train part are empty" in error
    assert "warning: 5 of 10 texts in column 'text' of the test part are empty" in error
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["samples"] == 10


def test_data_larger_than_is_kept_in_memory_gives_the_same_bytes(tmp_path):
    data = write_reviews(tmp_path / "data")
    options = ["data=files", f"data.path={data}", "tables.text.buckets=64", "runtime.tensorboard=false"]
    mapped = ["data.in_memory_mib=0", "data.cache_mib=0", f"data.work_dir={tmp_path}/work"]
    assert bigembed("train", *options, f"hydra.run.dir={tmp_path}/a") == 0
    assert bigembed("train", *options, *mapped, f"hydra.run.dir={tmp_path}/b") == 0
    assert list((tmp_path / "work").glob("*.arrow"))
    assert tables_of(tmp_path / "a") == tables_of(tmp_path / "b")


def test_a_sweep_goes_on_after_a_bad_job(tmp_path, capsys):
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet")
    options = ["data=files", f"data.path={tmp_path}", "tables.text.buckets=64", "runtime.tensorboard=false"]
    sweep = ["-m", "features.text.column=review,text", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert bigembed("train", *options, *sweep) == 2
    assert "job 0 of the sweep failed" in capsys.readouterr().err
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists() and not (
        tmp_path / "sweep" / "0" / "metrics.json"
    ).exists()
