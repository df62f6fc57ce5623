"""After training: evaluate, predict, export, and the model in Python."""

import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from running import bigembed, write_reviews

from bigembed import load
from bigembed.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = [
        "data=files",
        f"data.path={data}",
        "tables.text.dim=8",
        "tables.text.buckets=500",
        "trainer.batch_size=16",
    ]
    assert bigembed("train", *options, "runtime.tensorboard=false", f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def hashed(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hashed") / "run"
    options = [
        "data=files",
        f"data.path={data}",
        "table@tables.text=hashed",
        "tables.text.buckets=500",
        "runtime.tensorboard=false",
    ]
    assert bigembed("train", *options, f"hydra.run.dir={folder}") == 0
    return folder


def test_evaluating_gives_the_figures_of_the_end_of_training(trained, tmp_path, capsys):
    assert bigembed("evaluate", f"run={trained}", f"output={tmp_path}/figures.json") == 0
    figures, before = (
        json.loads((tmp_path / "figures.json").read_text()),
        json.loads((trained / "metrics.json").read_text()),
    )
    assert figures == {key: before[key] for key in ("checkpoint", "validation", "test")}
    assert f"{figures['test']['accuracy']:.4f}" in capsys.readouterr().out


def test_evaluating_on_other_data_looks_at_its_test_part_or_at_the_file(trained, data, tmp_path):
    for path, samples in ((data, 50), (data / "train.parquet", 200)):
        assert bigembed("evaluate", f"run={trained}", f"data.path={path}", f"output={tmp_path}/figures.json") == 0
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert figures["test"]["samples"] == samples and "validation" not in figures


def test_evaluating_cannot_change_the_model(trained, capsys):
    for option in ("tables.text.dim=16", "features.text.pooling=sum"):
        assert bigembed("evaluate", f"run={trained}", option) == 2
        assert "cannot be changed for bigembed evaluate" in capsys.readouterr().err


def typed(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))


def test_lines_of_standard_input_get_labels_with_probabilities(trained, monkeypatch, capsys):
    typed(monkeypatch, "it was wonderful\r\nit was dreadful\n\n  ünïcode 漢字 🎬\nlast line without end".encode())
    assert bigembed("predict", f"run={trained}") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    assert [label for label, _ in lines[:2]] == ["1", "0"]
    assert all(0.5 <= float(probability) <= 1 for _, probability in lines)


def test_no_lines_give_no_answers(trained, monkeypatch, capsys):
    typed(monkeypatch, b"")
    assert bigembed("predict", f"run={trained}") == 0
    assert capsys.readouterr().out == ""


def test_a_line_that_is_not_utf8_is_named(trained, monkeypatch, capsys):
    typed(monkeypatch, b"good\nb\xff\n")
    assert bigembed("predict", f"run={trained}") == 2
    assert "line 2 of standard input is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_of_a_file_are_predicted_into_a_file(trained, data, tmp_path, kind):
    table = pq.read_table(data / "test.parquet")
    source = tmp_path / f"texts.{kind}"
    if kind == "parquet":
        pq.write_table(table.select(["text"]), source)  # no labels: they are not needed
    else:
        pa.csv.write_csv(table.select(["text"]), source)
    assert bigembed("predict", f"run={trained}", f"input={source}", f"output={tmp_path}/out.parquet") == 0
    assert bigembed("predict", f"run={trained}", f"input={source}", f"output={tmp_path}/out.txt") == 0
    answers = pq.read_table(tmp_path / "out.parquet")
    probabilities = np.array(answers["probabilities"].to_pylist())
    assert probabilities.shape == (50, 2) and np.allclose(probabilities.sum(1), 1)
    assert np.array_equal(answers["label"].to_numpy(), probabilities.argmax(1))
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert [int(line.split("\t")[0]) for line in lines] == answers["label"].to_pylist()
    accuracy = json.loads((trained / "metrics.json").read_text())["test"]["accuracy"]
    assert np.mean(answers["label"].to_numpy() == table["label"].to_numpy()) == pytest.approx(accuracy)


def test_predictions_that_cannot_be_written_or_read_are_refused(trained, data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cases = [
        ([f"input={tmp_path}/none.parquet"], "none.parquet"),
        ([f"input={data}/test.parquet", f"output={tmp_path}/file/out.txt"], "cannot be written"),
        ([f"input={data}/test.parquet", f"output={tmp_path}/none/out.parquet"], "cannot be written"),
        (["trainer.keep=2"], "takes no options of the job"),
        (["checkpoint=newest"], "newest"),
    ]
    for arguments, words in cases:
        assert bigembed("predict", f"run={trained}", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_the_loaded_model_gives_matrix_vectors_words_and_predictions(trained):
    model = load(trained)
    assert model.matrix().shape[1] == 8 and model.matrix().dtype == np.float32
    words = model.words()
    assert "wonderful" in words and len(words) == len(set(words))
    row = 1 + words.index("wonderful")
    assert model.row("wonderful") == row
    assert np.array_equal(model.vector("wonderful"), model.matrix()[row])
    assert model.row("unheard") == 0
    labels, probabilities = model.predict(["wonderful", "dreadful"])
    assert labels.tolist() == [1, 0] and probabilities.shape == (2, 2)
    assert model.predict([])[1].shape == (0, 2)
    with pytest.raises(UserError, match="tokens"):
        model.vector("two words and more")
    with pytest.raises(UserError, match="name one of the tables: text"):
        model.matrix("word")
    with pytest.raises(UserError, match="list of one"):
        model.predict("a text alone")
    with pytest.raises(UserError, match="no column 'text'"):
        model.predict(pa.table({"review": ["x"]}))


def test_loading_does_not_touch_the_callers_random_numbers(trained):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(trained)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("kind", ["word2vec", "word2vec-binary"])
def test_gensim_opens_what_is_exported(trained, tmp_path, kind):
    gensim = pytest.importorskip("gensim.models")
    out = tmp_path / "vectors"
    assert bigembed("export", f"run={trained}", f"format={kind}", f"out={out}") == 0
    vectors = gensim.KeyedVectors.load_word2vec_format(str(out), binary=kind.endswith("binary"))
    model = load(trained)
    assert list(vectors.index_to_key) == model.words()
    assert np.array_equal(vectors["wonderful"], model.vector("wonderful"))


def test_arrays_are_exported_with_their_words_beside_them(trained, tmp_path):
    from safetensors.numpy import load_file

    model = load(trained)
    for kind in ("numpy", "safetensors"):
        out = tmp_path / f"vectors.{kind}"
        assert bigembed("export", f"run={trained}", f"format={kind}", f"out={out}") == 0
        rows = np.load(out) if kind == "numpy" else load_file(out)["embedding"]
        assert (tmp_path / f"vectors.{kind}.words.txt").read_text().splitlines() == model.words()
        assert np.array_equal(rows, model.matrix()[1 : 1 + len(rows)])


def test_a_hashed_table_exports_whole_or_for_given_words(hashed, tmp_path, capsys):
    out = tmp_path / "vectors"
    assert bigembed("export", f"run={hashed}", f"out={out}") == 2
    assert "words=FILE" in capsys.readouterr().err and not out.exists()
    assert bigembed("export", f"run={hashed}", f"out={out}", "format=numpy") == 0
    assert np.load(out).shape == (500, 16)
    (tmp_path / "words").write_text("wonderful\nunheard\n")
    assert bigembed("export", f"run={hashed}", f"out={out}", f"words={tmp_path}/words") == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "2 16" and [line.split()[0] for line in lines[1:]] == ["wonderful", "unheard"]
    assert np.array_equal(np.array(lines[1].split()[1:], np.float32), load(hashed).vector("wonderful"))


def test_exports_that_make_no_sense_are_refused(trained, tmp_path, capsys):
    (tmp_path / "words").write_text("unheard\n")
    (tmp_path / "empty").write_text("\n")
    out = f"out={tmp_path}/vectors"
    cases = [
        ([out, "format=csv"], "known: word2vec, word2vec-binary, glove, fasttext"),
        ([out, "table=word"], "table= must name one of the tables of the run: text"),
        ([out, f"words={tmp_path}/words"], "'unheard' is not in the vocabulary"),
        ([out, f"words={tmp_path}/empty"], "holds no words"),
        ([out, f"words={tmp_path}/none"], "cannot be read"),
        ([f"out={tmp_path}/none/vectors"], "cannot be written"),
        ([], "out= is missing"),
    ]
    for arguments, words in cases:
        assert bigembed("export", f"run={trained}", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "vectors").exists()
