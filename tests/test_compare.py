"""What texts mean to runs and files, side by side: the vectors are those that training has, the cosines and places those of numpy."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import bigembed

from bigembed import composed, encoders, run
from bigembed.batch import collate
from bigembed.commands.compare import places, similarities
from bigembed.commands.compare_picture import picture
from bigembed.config import saved
from bigembed.examples import open_examples
from bigembed.inference import load

TEXTS = ["A good film", "the Film was good, good", "bad"]
GLOVE = {"a": [1, 0, 0], "good": [0, 2, 0], "film": [0, 1, 1], "Film": [3, 0, 0], ",": [0, 0, 1], "bad": [0, -1, 0]}


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in GLOVE.items()))
    return path


def compared(tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "compared.json"
    assert bigembed("compare", *arguments, f"out={out}") == 0
    return json.loads(out.read_text())


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


# ---------------------------------------------------------------- files


def test_a_text_is_the_mean_of_its_words_as_they_stand_or_else_in_lower_case(
    glove: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(tmp_path, f"of=[{glove}]", 'texts=["A good film","the Film was good, good",bad]')
    vectors = {word: np.array(vector, float) for word, vector in GLOVE.items()}
    words = [["a", "good", "film"], ["Film", "good", ",", "good"], ["bad"]]
    means = [np.mean([vectors[word] for word in each], 0) for each in words]
    (source,) = found["of"]
    expected = [[cosine(one, other) for other in means] for one in means]
    np.testing.assert_allclose(source["cosines"], expected, atol=1e-6)
    assert found["texts"] == TEXTS
    assert source["path"] == str(glove) and source["told"] == "glove, 3 numbers" and source["missing"] == ["the", "was"]
    said = capsys.readouterr().out
    assert "without a vector: the, was" in said and f"{expected[0][1]:.3f}" in said


def test_words_of_a_file_of_ngrams_are_put_together_where_neither_case_is_known(tmp_path: Path) -> None:
    from bigembed.vectors import WRITERS, Ngrams
    from bigembed.vectors.blocks import Vectors

    random = np.random.default_rng(0)
    words, rows = ["fox", "Dog", "cat"], random.normal(size=(3, 4)).astype(np.float32)
    ngrams, ngram_rows = Ngrams(3, 4, 50, 50), random.normal(size=(50, 4)).astype(np.float32)
    path = tmp_path / "own.bin"
    vectors = Vectors(rows, range(3), pa.array(words))
    path.write_bytes(b"".join(bytes(block) for block in WRITERS["fasttext"](vectors, ngrams, [ngram_rows])))

    from bigembed.pretrained.looking_up import look_up
    from bigembed.run_vectors import open_vectors

    asked = ["fox", "Dog", "cats"]
    there, expected = look_up(open_vectors(str(path)), asked)
    assert there.all()
    (source,) = compared(tmp_path, f"of=[{path}]", "texts=[Fox,Dog,cats]")["of"]
    np.testing.assert_allclose(
        source["cosines"], [[cosine(one, other) for other in expected] for one in expected], atol=1e-5
    )
    assert source["missing"] == []


# ---------------------------------------------------------------- runs

KINDS = {
    "vocab": ["tables.text.buckets=200"],
    "hashed": ["tables.text.buckets=300", "tables.text.functions=2", "tables.text.sign=true"],
    "importance": ["tables.text.buckets=300", "tables.text.functions=2", "tables.text.importance=90"],
    "compositional": ["tables.text.partitions=[17,19]"],
    "concat": ["tables.text.partitions=[17,19]", "tables.text.combine=concat"],
    "subword": ["tables.text.buckets=300", "tables.text.ngrams=1"],
    "mixed": ["tables.text.blocks=[5,7]", "tables.text.widths=[8,4,4]", "tables.text.buckets=100"],
    "managed": ["tables.text.rows=96"],
    "tokenizer": ["tables.text.vocab_size=300"],
}
OTHER_NAMES = {"importance": "hashed", "concat": "compositional"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    words = ["good", "bad", "film", "was", "the", "a", *(f"wort{number}" for number in range(30))]
    texts = [" ".join(random.choice(words, 7)) for _ in range(120)]
    labels = [int("good" in text) for text in texts]
    pq.write_table(pa.table({"text": texts, "label": labels}), folder / "train.parquet")
    return folder


def trained(kind: str, data: Path, folder: Path, *more: str) -> Path:
    own = [f"table@tables.text={OTHER_NAMES.get(kind, kind)}", *KINDS[kind], "tables.text.dim=8"]
    common = ["data=files", f"data.path={data}", "data.test=null", "trainer.epochs=1", "trainer.batch_size=40"]
    common += ["runtime.tensorboard=false", "runtime.threads=1"]
    assert bigembed("train", *common, *own, *more, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_under_a_run_is_what_training_makes_of_it_in_every_kind_of_table(
    kind: str, data: Path, tmp_path: Path
) -> None:
    folder = trained(kind, data, tmp_path / "run")
    job, checkpoint = run.open_run(folder, None)
    encoder = encoders.load(job.tables["text"], folder / run.ENCODERS / "text")
    texts = [*TEXTS, "", "never seen wort1 wort2 wort2"]
    vectors, elements = composed.of_texts(job, "text", checkpoint, encoder, texts)
    assert vectors.shape == (5, 8) and vectors.dtype == np.float32 and elements[3] == 0 and not vectors[3].any()

    model, pooled = load(folder), []
    inner = model._model
    inner.composition.register_forward_hook(lambda module, inputs, outputs: pooled.append(outputs[0]))
    examples = open_examples(job, {"text": encoder}, {}, pa.table({"text": texts}), None, "input")
    with torch.no_grad():
        inner.scores(collate(examples, np.arange(len(texts))))
    expected = pooled[0].numpy()
    if kind == "subword":  # training takes the mean of all rows of a bag; here it is that of its words
        for place in (0, 1, 2, 4):
            words = [model.vector(word) for word in encoders.tokenize(texts[place])]
            expected[place] = np.mean(words, 0)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-6)


def test_a_run_whose_tokens_stay_a_sequence_and_one_checkpoint_of_two(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = ["head=attention", "features.text.pooling=none", "tables.text.ngrams=1", "trainer.epochs=2"]
    folder = trained("vocab", data, tmp_path / "run", *sequence, "trainer.save_every=1", "optim.tables.lr=5")
    (source,) = compared(tmp_path, f"of=[{folder}]", "texts=['good film','bad film']", "checkpoint=last")["of"]
    model = load(folder, "last")
    one, other = (np.mean([model.vector(word) for word in each.split()], 0) for each in ("good film", "bad film"))
    assert source["cosines"][0][1] == pytest.approx(cosine(one, other), abs=1e-5)
    assert model.checkpoint.name in source["told"] and "vocab" in source["told"]
    assert saved.load(folder).head.__class__.__name__ == "AttentionHead"


# ---------------------------------------------------------------- cosines and places


@settings(max_examples=60)
@given(
    texts=st.integers(2, 7),
    dim=st.integers(1, 6),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    seed=st.integers(0, 2**16),
)
def test_distances_in_the_plane_are_those_of_the_directions_as_far_as_it_shows_them(
    texts: int, dim: int, scale: float, seed: int
) -> None:
    vectors = (np.random.default_rng(seed).normal(size=(texts, dim)) * scale).astype(np.float32)
    cosines, (where, share) = similarities(vectors), places(vectors)
    expected = [[cosine(one, other) for other in vectors.astype(float)] for one in vectors.astype(float)]
    np.testing.assert_allclose(cosines, expected, atol=1e-9)
    assert where.shape == (texts, 2) and 0 < share <= 1 + 1e-12
    apart = ((where[:, None] - where[None]) ** 2).sum(2)
    assert (apart <= 2 - 2 * cosines + 1e-9).all()  # a plane never shows more
    if texts <= 3 or dim <= 2:
        np.testing.assert_allclose(apart, 2 - 2 * cosines, atol=1e-9)
        assert share == pytest.approx(1)
    again, _ = places(vectors * np.float32(4))
    np.testing.assert_array_equal(again, where)


def test_texts_of_one_direction_lie_in_one_place() -> None:
    where, share = places(np.array([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]]))
    assert abs(where).max() < 1e-12 and share == pytest.approx(1)


# ---------------------------------------------------------------- the picture


class Reader(HTMLParser):
    """What is in a page: how many of each element, all texts, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.count, self.texts = list[str](), dict[str, int](), list[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_picture_has_a_panel_a_source_and_a_point_a_text(glove: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.html"
    found = compared(tmp_path, f"of=[{glove},{glove}]", 'texts=["good <film>","bad & film",good]', f"picture={path}")
    reader = Reader()
    page = path.read_text()
    reader.feed(page)
    assert reader.open == [] and reader.count["svg"] == 2 and reader.count["circle"] == 6
    assert reader.count["section"] == 2 and reader.count["td"] == 18
    assert "good <film>" in reader.texts and "bad & film" in reader.texts  # escaped
    cosine_text = f"{found['of'][0]['cosines'][0][1]:.2f}"
    assert reader.texts.count(cosine_text) == 2 * 3  # on the line, and twice in the table
    assert not re.search(r"(src|href)=", page) and "nan" not in page
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)
    assert len(points) == 6 and all(40 <= float(x) <= 380 and 40 <= float(y) <= 380 for x, y in points)


def test_a_picture_of_texts_that_lie_in_one_place_has_numbers_alone() -> None:
    source = {"path": "x", "told": "y", "missing": [], "shown": 1.0, "cosines": np.ones((5, 5)).tolist()}
    page = picture({"texts": list("abcde"), "of": [{**source, "places": np.zeros((5, 2)).tolist()}]})
    assert "nan" not in page and page.count("<circle") == 5 and page.count("stroke-dasharray") == 0


# ---------------------------------------------------------------- what is refused


def test_texts_can_come_from_a_file(glove: Path, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_bytes(b"\xef\xbb\xbfgood, film\r\n\r\n  bad  \n")
    assert compared(tmp_path, f"of={glove}", f"input={lines}")["texts"] == ["good, film", "bad"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["texts=[a,b]"], ["of= is missing"]),
        (["of=[{glove}]"], ["2 to 100 texts", "there is none"]),
        (["of=[{glove}]", "texts=[good]"], ["there is 1", "input=FILE"]),
        (["of=[{glove}]", "texts=[good,bad]", "input=x"], ["texts= and input="]),
        (["of=[{glove}]", "input={folder}/none.txt"], ["none.txt cannot be read", "No such file"]),
        (["of=[{glove}]", "input={folder}/many.txt"], ["2 to 100 texts, but there are 101"]),
        (["of=[{glove}]", "input={folder}/latin.txt"], ["latin.txt is not UTF-8 after line 0", "convert"]),
        (["of=[{glove}]", "texts=[good,qwertz]"], ["no word of text 2, 'qwertz', has a vector in", "glove.txt"]),
        (["of=[{glove},{folder}/none.bin]", "texts=[good,bad]"], ["none.bin"]),
        (["of=[{folder}]", "texts=[good,bad]"], ["holds no job.yaml"]),
        (["of=[{glove}]", "texts=[good,bad]", "trainer.epochs=3"], ["takes no options of a job"]),
        (["of=[{glove}]", "texts=[good,bad]", "out={folder}/no/where.json"], ["cannot be written"]),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(
    arguments: list[str], parts: list[str], glove: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "many.txt").write_text("good\n" * 120)
    (tmp_path / "latin.txt").write_bytes("gut\nsch\xf6n\n".encode("latin-1"))
    assert bigembed("compare", *(each.format(glove=glove, folder=tmp_path) for each in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("bigembed: ") and "\n" not in said
    for part in parts:
        assert part in said


def test_a_run_of_several_tables_needs_the_name_of_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["+table@tables.b=hashed", "tables.b.buckets=50", "+feature@features.b=column", "features.b.table=b"]
    folder = trained("vocab", data, tmp_path / "run", *more)
    capsys.readouterr()
    assert bigembed("compare", f"of=[{folder}]", "texts=[good,bad]") == 2
    assert "table= must name one of the tables" in capsys.readouterr().err
    (source,) = compared(tmp_path, f"of=[{folder}]", "texts=[good,bad]", "table=b")["of"]
    assert "table b of" in source["told"] and "hashed" in source["told"]
