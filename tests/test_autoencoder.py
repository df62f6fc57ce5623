"""An autoencoder of bags of words: what is hidden and told from what, without labels, on any number of ranks, and what its table learns."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layout
from ranks import run_commands
from running import bigembed, tables_of
from torchrec import JaggedTensor

from bigembed import heads, run
from bigembed.batch import collate
from bigembed.config import saved
from bigembed.config.schema import AutoencoderHead
from bigembed.encoders import load as load_encoder
from bigembed.errors import UserError
from bigembed.evaluation import share
from bigembed.examples import Examples, alone, open_examples
from bigembed.heads.dropout import kept
from bigembed.inference import load
from bigembed.prepare import prepare
from bigembed.runtime import Runtime

# ---------------------------------------------------------------- the head

SEEDS = torch.randint(-(2**63), 2**63 - 1, (400,), generator=torch.Generator().manual_seed(3))


def softplus(value: float) -> float:
    return float(np.logaddexp(0.0, value))


def expected_scores(
    own: list[np.ndarray], other: list[np.ndarray], left: list[list[bool]], weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """What the head is to return, sample by sample and element by element, in float64."""
    found = []
    for rows, others, stays in zip(own, other, left, strict=True):
        seen = [row for row, stay in zip(rows, stays, strict=True) if stay]
        code = weight @ (np.mean(seen, 0) if seen else np.zeros(len(bias))) + bias
        mine = [float(row @ code) for row, stay in zip(rows, stays, strict=True) if not stay]
        others_scores = [float(row @ code) for row in others]
        loss = np.mean([softplus(-each) for each in mine]) if mine else 0.0
        loss += np.mean([softplus(each) for each in others_scores]) if others_scores else 0.0
        found.append([np.mean(others_scores) if others_scores else 0.0, np.mean(mine) if mine else 0.0, loss])
    return np.array(found).reshape(-1, 3)


def jagged(rows: list[np.ndarray], dim: int) -> JaggedTensor:
    """Sequences of rows as TorchRec gives them."""
    values = torch.tensor(np.concatenate([np.empty((0, dim)), *rows]), dtype=torch.float32)
    return JaggedTensor(values=values, lengths=torch.tensor([len(each) for each in rows], dtype=torch.int64))


@settings(max_examples=50)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6),
    dim=st.sampled_from([1, 4]),
    corruption=st.sampled_from([0.1, 0.5, 0.9]),
    training=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_hidden_elements_are_told_from_those_of_another_row(
    lengths: list[tuple[int, int]], dim: int, corruption: float, training: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    own, other = ([random.normal(size=(pair[side], dim)) for pair in lengths] for side in (0, 1))
    head = heads.build(AutoencoderHead(corruption=corruption), layout(0, {"text": dim, "another": dim})).train(training)
    with torch.no_grad():
        head.encoder.weight += torch.tensor(random.normal(size=(dim, dim)))
        head.encoder.bias += torch.tensor(random.normal(size=dim))
    seeds = SEEDS[: len(lengths)]
    with torch.no_grad():
        got = head(None, {"text": jagged(own, dim), "another": jagged(other, dim)}, seeds)
    left = [kept(each, torch.arange(len(rows)), corruption).tolist() for each, rows in zip(seeds, own, strict=True)]
    weight, bias = (each.detach().numpy().astype(float) for each in (head.encoder.weight, head.encoder.bias))
    expected = expected_scores(own, other, left, weight, bias)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(head.losses(got, torch.ones(len(lengths))).numpy(), got.numpy()[:, 2])
    right = head.probabilities(got).argmax(1).numpy() == 1
    sure = abs(expected[:, 1] - expected[:, 0]) > 1e-3
    np.testing.assert_array_equal(right[sure], (expected[:, 1] > expected[:, 0])[sure])


def test_the_encoder_begins_as_the_identity() -> None:
    head = heads.build(AutoencoderHead(), layout(0, {"text": 8, "another": 8}))
    assert torch.equal(head.encoder.weight, torch.eye(8)) and not head.encoder.bias.any()


@pytest.mark.parametrize("corruption", [0.2, 0.5, 0.8])
def test_the_share_asked_for_is_hidden_of_every_place(corruption: float) -> None:
    left = torch.stack([kept(SEEDS, torch.full((400,), place), corruption) for place in range(300)], 1).float()
    deviation = (corruption * (1 - corruption)) ** 0.5
    assert abs(left.mean().item() - (1 - corruption)) < 5 * deviation / (400 * 300) ** 0.5
    assert (left.mean(0) - (1 - corruption)).abs().max().item() < 5 * deviation / 400**0.5
    assert (left.mean(1) - (1 - corruption)).abs().max().item() < 5 * deviation / 300**0.5


@pytest.mark.parametrize("lengths", [([0], [0]), ([0, 3, 1], [2, 0, 1]), ([], [])])
def test_gradients_of_empty_texts_are_numbers(lengths: tuple[list[int], list[int]]) -> None:
    torch.manual_seed(1)
    head = heads.build(AutoencoderHead(), layout(0, {"text": 4, "another": 4}))
    sequences, leaves = {}, []
    for name, each in zip(("text", "another"), lengths, strict=True):
        leaves.append(torch.randn(sum(each), 4, requires_grad=True))
        sequences[name] = JaggedTensor(values=leaves[-1], lengths=torch.tensor(each, dtype=torch.int64))
    scores = head(None, sequences, SEEDS[: len(lengths[0])])
    head.losses(scores, None).sum().backward()
    for tensor in (*leaves, head.encoder.weight, head.encoder.bias):
        assert tensor.grad is not None and bool(torch.isfinite(tensor.grad).all())
    assert bool(torch.isfinite(scores).all())


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(2)
    head = heads.build(AutoencoderHead(), layout(0, {"text": 4, "another": 4}))
    rows = [[np.random.default_rng(place).normal(size=(3 + place % 4, 4)) for place in range(20)] for _ in range(2)]

    def scores(places: list[int]) -> torch.Tensor:
        own, other = ([side[place] for place in places] for side in rows)
        return head(None, {"text": jagged(own, 4), "another": jagged(other, 4)}, SEEDS[places])

    whole = scores(list(range(20)))
    torch.testing.assert_close(torch.cat([scores(list(range(7))), scores(list(range(7, 20)))]), whole)


# ---------------------------------------------------------------- rows of another

TOPICS = [[f"{topic}{word}" for word in range(12)] for topic in ("sea", "sky", "tree")]
OPTIONS = [
    "head=autoencoder",
    "+feature@features.another=column",
    "features.another.of_another=true",
    "features.another.pooling=none",
    "features.text.pooling=none",
    "tables.text.dim=8",
    "tables.text.ngrams=1",
    "tables.text.distinct=true",
    "data=files",
    "data.test=null",
    "data.validation_fraction=0.1",
    "trainer.batch_size=50",
    "trainer.epochs=6",
    "trainer.monitor=loss",
    "trainer.keep=9",
    "optim.tables.lr=0.5",
    "runtime.threads=1",
    "runtime.tensorboard=false",
]


def write_texts(folder: Path, rows: int = 437) -> Path:
    """Write texts of one topic each, some of them empty, and no labels."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(TOPICS[row % 3], 6)) for row in range(rows)]
    texts[5] = texts[77] = ""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), folder / "train.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert bigembed("train", *OPTIONS, f"data.path={data}", f"hydra.run.dir={folder}") == 0
    return folder


def examples_of(trained: Path, data: Path) -> Examples:
    job = saved.load(trained)
    known = {"text": load_encoder(job.tables["text"], trained / run.ENCODERS / "text")}
    return open_examples(job, known, {}, pq.read_table(data / "train.parquet"), None, "train part")


def test_a_batch_has_the_values_of_the_next_row_of_the_global_batch_on_any_number_of_ranks(
    trained: Path, data: Path
) -> None:
    examples = examples_of(trained, data)
    rows = np.array([9, 3, 200, 5, 41, 8, 77])
    whole = collate(examples, rows).features.to_dict()
    found = _lists(whole["another"])
    assert found == _lists(collate(examples, np.roll(rows, -1)).features.to_dict()["text"])
    assert len(found[0]) > 0 and found[2] == [] == found[5]
    for world in (2, 3, 7, 9):
        parts, sizes = [], set()
        for rank in range(world):
            own, others, size = share(rows, Runtime(rank, world, torch.device("cpu")))
            batch = collate(examples, own, others, size)
            parts += _lists(batch.features.to_dict()["another"])[: len(own)]
            sizes.add(batch.features.stride())
        assert parts == found and len(sizes) == 1


def _lists(jagged: JaggedTensor) -> list[list[int]]:
    return [each.tolist() for each in jagged.to_dense()]


def test_a_column_that_two_features_look_up_is_encoded_once(trained: Path, data: Path) -> None:
    examples = examples_of(trained, data)
    rows = np.arange(40)
    before = collate(examples, rows).features
    size = examples.encode(np.arange(len(examples.features[0].column)))[0].nbytes
    examples.cache(size + 1000, 1, alone)
    own, another = examples.features
    assert own.cached is not None and own.cached is another.cached
    after = collate(examples, rows).features
    assert torch.equal(before.values(), after.values()) and torch.equal(before.lengths(), after.lengths())


# ---------------------------------------------------------------- the whole


def test_words_that_come_together_get_vectors_that_lie_together(trained: Path) -> None:
    model = load(trained)
    vectors = np.stack([model.vector(word) for topic in TOPICS for word in topic])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = vectors @ vectors.T
    same = np.kron(np.eye(3), np.ones((12, 12))).astype(bool)
    assert near[same].min() > near[~same].max() + 0.2


def test_a_run_without_labels_is_trained_judged_and_exported(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads((trained / "metrics.json").read_text())
    assert figures["validation"]["accuracy"] > 0.6 and 0.3 < figures["validation"]["loss"] < 2 * math.log(2)
    assert "test" not in figures
    out = tmp_path / "figures.json"
    assert bigembed("evaluate", f"run={trained}", f"output={out}") == 0
    again = json.loads(out.read_text())["validation"]
    assert again == pytest.approx(figures["validation"])
    assert bigembed("evaluate", f"run={trained}", f"data.path={data}", "data.test=train", f"output={out}") == 0
    assert json.loads(out.read_text())["test"]["samples"] == 437
    capsys.readouterr()
    assert bigembed("export", f"run={trained}", f"out={tmp_path / 'vectors.txt'}") == 0
    assert (tmp_path / "vectors.txt").read_text().split("\n")[0] == "36 8"


def test_what_was_trained_without_labels_refuses_to_predict(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bigembed("predict", f"run={trained}") == 2
    said = capsys.readouterr().err.strip()
    assert "was trained without labels (head=autoencoder)" in said and "\n" not in said
    with pytest.raises(UserError, match="trained without labels"):
        load(trained).predict(["sea1 sea2"])


def test_training_says_what_can_follow(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert bigembed("train", *OPTIONS, "trainer.epochs=1", f"data.path={data}", f"hydra.run.dir={folder}") == 0
    said = capsys.readouterr().out
    assert f"bigembed export run={folder} out=FILE" in said and "predict" not in said


def test_a_continued_autoencoder_ends_in_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "metrics.json").unlink()
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    for path in checkpoints[2:]:
        shutil.rmtree(path)
    assert bigembed("train", f"resume={folder}") == 0
    assert tables_of(folder) == tables_of(trained) and len(checkpoints) >= 4


def test_two_ranks_train_the_same_autoencoder_as_one(trained: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["train", *OPTIONS, f"data.path={data}", f"hydra.run.dir={folder}", "sharding.kind=row_wise"]
    codes, said = run_commands([command] * 2, tmp_path / "log")
    assert codes == [0, 0], said
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (trained, folder)
    ]
    for one, two in zip(*lines, strict=True):
        assert one["step"] == two["step"]
        assert {name: two[name] for name in ("loss", "accuracy") if name in two} == pytest.approx(
            {name: one[name] for name in ("loss", "accuracy") if name in one}, rel=1e-4
        )
    one, two = (np.asarray(load(path).matrix()) for path in (trained, folder))
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4)


def test_labels_that_are_there_are_not_looked_at(data: Path, trained: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "train.parquet")
    with_labels = tmp_path / "data"
    with_labels.mkdir()
    pq.write_table(table.append_column("label", pa.array(["?"] * table.num_rows)), with_labels / "train.parquet")
    job = saved.load(trained)
    job.data.path = str(with_labels)  # type: ignore[attr-defined]
    prepared = prepare(job, trained)  # the same fingerprint as without them
    assert prepared.train.labels is not None and set(prepared.train.labels.tolist()) == {1}


def test_another_table_starts_from_the_vectors_of_the_autoencoder(trained: Path, data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "train.parquet")
    labelled = tmp_path / "data"
    labelled.mkdir()
    labels = pa.array([row % 3 for row in range(table.num_rows)])
    pq.write_table(table.append_column("label", labels), labelled / "train.parquet")
    options = ["data=files", f"data.path={labelled}", "data.test=null", "head.classes=3", "trainer.epochs=2"]
    options += ["tables.text.dim=8", "tables.text.ngrams=1", "runtime.tensorboard=false", "runtime.threads=1"]
    options += [f"tables.text.pretrained.path={trained}", "tables.text.pretrained.freeze=table"]
    folder = tmp_path / "run"
    assert bigembed("train", *options, "trainer.batch_size=50", f"hydra.run.dir={folder}") == 0
    before, after = load(trained), load(folder)
    for topic in TOPICS:
        for word in topic:
            assert np.array_equal(after.vector(word), before.vector(word))
