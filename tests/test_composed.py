"""The vectors of words that are made of several rows: the same from a checkpoint's arrays as in the trained model."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from running import SMALL, bigembed

from bigembed import load
from bigembed.batch import collate
from bigembed.errors import UserError
from bigembed.examples import open_examples
from bigembed.inference import Loaded

KINDS = {
    "signed": "hashed tables.signed.buckets=97 tables.signed.functions=3 tables.signed.sign=true",
    "weighed": "hashed tables.weighed.buckets=97 tables.weighed.functions=2 tables.weighed.importance=31",
    "quotient": "quotient_remainder tables.quotient.partitions=[11,13]",
    "added": "compositional tables.added.partitions=[7,5,3] tables.added.combine=add",
    "beside": "compositional tables.beside.partitions=[11,13] tables.beside.combine=concat",
    "mixed": "mixed tables.mixed.blocks=[20,50] tables.mixed.buckets=30",
    "subword": "subword tables.subword.buckets=300",
    "managed": "managed tables.managed.rows=640",
}
WORDS = ["do", "not", "ba"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a table of every kind."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    tables = [
        f"+table@tables.{name}={kind} +feature@features.{name}=column features.{name}.table={name}"
        for name, kind in KINDS.items()
    ]
    arguments = " ".join(tables).split()
    small = [argument for argument in SMALL if not argument.startswith("tables.")]
    without = ("~table@tables.text", "~feature@features.text")
    assert bigembed("train", *small, *without, *arguments, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Loaded:
    return load(folder)


def pooled(model: Loaded, words: list[str]) -> dict[str, np.ndarray]:
    """What the trained model makes of texts of one word each, feature by feature."""
    examples = open_examples(model.job, model._encoders, {}, pa.table({"text": words}), None, "test")
    batch, inner = collate(examples, np.arange(len(words))), model._model
    with torch.no_grad():
        sums = [
            inner.tables(batch.features),
            inner.weighted(batch.weighted),
            inner.managed(batch.features)[0],
        ]
        rows = [module(batch.features) for module in inner.sequences.values()]
        vectors, _ = inner.composition(sums, rows, batch)
    width = [model.job.tables[name].dim for name in inner.composition.pooled]
    return dict(zip(inner.composition.pooled, np.split(vectors.numpy(), np.cumsum(width)[:-1], 1), strict=True))


def test_a_words_vector_is_what_the_model_makes_of_it(model: Loaded) -> None:
    found = pooled(model, WORDS)
    assert set(found) == set(KINDS)
    for name in KINDS:
        vectors = np.stack([model.vector(word, name) for word in WORDS])
        np.testing.assert_allclose(vectors, found[name], rtol=1e-5, atol=1e-6)
        assert np.abs(vectors).sum(1).min() > 0


def test_vectors_are_exported_as_they_are_asked_for_one_by_one(folder: Path, model: Loaded, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("\n".join(WORDS))
    for name, words in (("mixed", ""), ("subword", ""), ("quotient", f"words={tmp_path / 'words'}")):
        out = tmp_path / f"{name}.txt"
        assert bigembed("export", f"run={folder}", f"table={name}", f"out={out}", *words.split()) == 0
        lines = dict(line.split(" ", 1) for line in out.read_text().splitlines()[1:])
        for word in WORDS:
            np.testing.assert_allclose(np.fromstring(lines[word], sep=" "), model.vector(word, name), rtol=1e-6)


def test_what_has_no_vector_of_its_own_is_refused_in_one_sentence(
    folder: Path, model: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="'qqqq' is not in the vocabulary of table 'mixed'"):
        model.vector("qqqq", "mixed")
    with pytest.raises(UserError, match="'ba do' is 2 tokens as table 'quotient' cuts texts"):
        model.vector("ba do", "quotient")
    with pytest.raises(UserError, match="made of several; name one of them: quotient-0, quotient-1"):
        model.matrix("quotient")
    assert model.matrix("quotient-1").shape == (13, 16)
    assert model.vector("qqqq", "subword").shape == (16,)  # its n-grams have rows
    assert bigembed("export", f"run={folder}", "table=quotient", f"out={tmp_path / 'out'}") == 2
    assert "say of which words or values, one a line, with words=FILE" in capsys.readouterr().err


def test_numbers_are_asked_for_as_numbers_and_other_things_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.parquet"
    pq.write_table(pa.table({"text": [value % 30 for value in range(120)], "label": [0, 1] * 60}), path)
    table = "table@tables.text=compositional tables.text.partitions=[6,5] tables.text.values=30 tables.text.ngrams=1"
    plain = ["data.test=null", "trainer.epochs=1", "runtime.tensorboard=false", f"hydra.run.dir={tmp_path / 'run'}"]
    assert bigembed("train", "data=files", f"data.path={path}", *table.split(), *plain) == 0
    model = load(tmp_path / "run")
    assert model.vector("29").shape == (16,)
    for word in ("30", "-1", "5000"):
        with pytest.raises(
            UserError, match=f"'{word}' is no value of this table, whose values are the numbers 0 to 29"
        ):
            model.vector(word)
    np.testing.assert_array_equal(model.predict([1, 2])[1], model.predict(["1", "2"])[1])
    with pytest.raises(UserError, match="text 1 is None, not a text"):
        model.predict(["1", None])  # type: ignore[list-item]
