"""A trained model in one process, to be asked: from Python, and by ``bigembed predict``."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import nn

from bigembed import run
from bigembed.batch import collate
from bigembed.composed import composed, is_composed
from bigembed.config.figures import losses_of
from bigembed.config.kinds import kind_of
from bigembed.config.physical import part_name, parts, physical
from bigembed.config.schema import BagHead, DType, Job, Of, RankingHead, RankingLoss, RetrievalHead, Which
from bigembed.encoders import Encoder, Scale
from bigembed.errors import UserError
from bigembed.examples import Examples, open_examples
from bigembed.joining import Catalogues, columns_of, joined, open_catalogues
from bigembed.managed import residents_of
from bigembed.model import Model
from bigembed.optim import OF_TABLES, collections
from bigembed.prepare import load_encoders, load_scales
from bigembed.recommending.asking import Scene, among, open_scene
from bigembed.recommending.finding import Recommender
from bigembed.recommending.tables import as_table, ids_of, schema_of


class Loaded:
    """A trained model; its tables are memory-mapped, so that only the rows asked for are read.

    Attributes
    ----------
    job : Job
        The configuration of the run.
    checkpoint : Path
        The checkpoint that was opened.
    """

    def __init__(
        self, job: Job, checkpoint: Path, encoders: Mapping[str, Encoder], scales: Mapping[str, Scale]
    ) -> None:
        self.job, self.checkpoint, self._encoders, self._scales = job, checkpoint, dict(encoders), dict(scales)
        names = physical(job).tables
        self._matrices = {name: run.read_array(checkpoint / "tables" / f"{name}.weight.npy") for name in names}
        self._model = _model(job, checkpoint, self._matrices)
        self._asked: tuple[Recommender, np.ndarray] | None = None

    def __repr__(self) -> str:
        """Return what is in it, in a line."""
        tables = ", ".join(
            f"{name} {rows:,} × {dim}" for name, (rows, dim) in ((n, m.shape) for n, m in self._matrices.items())
        )
        return f"<bigembed model of {self.checkpoint}: {tables}>"

    @property
    def columns(self) -> list[str]:
        """The columns that the model reads."""
        return list(columns_of(self.job))

    def check_predicts(self) -> None:
        """Refuse a model that predicts nothing.

        Raises
        ------
        UserError
            When it was trained without labels.
        """
        if isinstance(self.job.head, RetrievalHead):
            raise UserError(
                f"the model of {self.checkpoint} finds items for users (head={kind_of(self.job.head)}); ask it with bigembed recommend"
            )
        if not isinstance(self.job.head, BagHead | RankingHead):
            raise UserError(
                f"the model of {self.checkpoint} was trained without labels (head={kind_of(self.job.head)}) and predicts none; "
                "its vectors can be exported, or start another table: tables.NAME.pretrained.path=RUN"
            )

    def matrix(self, table: str | None = None) -> np.ndarray:
        """Return the embedding matrix of a table, shape (rows, dim), read-only: float32, float16, or (bf16) read as float32.

        A table that is made of several has several matrices, under their names ("text-0", "text-1").

        Raises
        ------
        UserError
            When there is no such table.
        """
        name = table if table in self._matrices else self._table(table)
        if name not in self._matrices:
            own = [part_name(name, part) for part in parts(self.job.tables[name])]
            raise UserError(f"table '{name}' is made of several; name one of them: {', '.join(own)}")
        return self._matrices[name]

    def words(self, table: str | None = None) -> list[str]:
        """Return the words of a table's vocabulary, most frequent first; empty for a table without one."""
        words = self._encoders[self._table(table)].words()
        return [] if words is None else words.to_pylist()

    def row(self, word: str | int, table: str | None = None) -> int:
        """Return the row of a word, or of a whole number that is a value; row 0 is that of the unknown words where there is a vocabulary.

        Raises
        ------
        UserError
            When the text is not one token of the table.
        """
        return self._encoders[self._table(table)].row_of(str(word))

    def vector(self, word: str | int, table: str | None = None) -> np.ndarray:
        """Return a copy of the vector of a word, shape (dim,), float32; put together where it is made of several rows.

        Raises
        ------
        UserError
            When the text is not one token of the table.
        """
        name = self._table(table)
        if not is_composed(self.job.tables[name]):
            return np.array(self.matrix(name)[self.row(word, name)], np.float32)
        words = pa.array([str(word)], pa.string())
        return composed(self.job, name, self.checkpoint, self._encoders[name], words)[:1][0]

    def predict(self, texts: Sequence[str] | pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (int64, one a text) and probabilities (float32, one row a text, one column a class).

        Of a ranking head the columns are its labels: probabilities, or ratings; and so are those of the labels, which are 1 where a click
        is likelier than none, and ratings rounded to whole numbers.

        Parameters
        ----------
        texts : sequence of str, or pa.Table
            Texts for the only column the model reads (for a table of ids: numbers with spaces between them), or a table
            with every column that it reads.

        Raises
        ------
        UserError
            When a column is missing, is not of the type that the model reads, or has ids that the model does not know; or when
            the model was trained without labels.
        """
        if isinstance(texts, str):
            raise UserError("predict takes a list of texts; for a single one give a list of one")
        answers = list(self.answers(texts if isinstance(texts, pa.Table) else self.table(texts)))
        head = self.job.head
        classes = len(head.labels) if isinstance(head, RankingHead) else head.classes  # type: ignore[attr-defined]
        probabilities = np.concatenate([part for _, part in answers] or [np.empty((0, classes), np.float32)])
        return self._labels(probabilities), probabilities

    def table(self, texts: Sequence[str], name: Callable[[int], str] = "text {}".format) -> pa.Table:
        """Return texts as a table for ``answers``; ``name`` calls text ``i`` (from 0 on) in messages.

        Raises
        ------
        UserError
            When the model reads several columns, or one that is no feature, or a text is no value of its column.
        """
        texts = [str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text for text in texts]
        wrong = next((number for number, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"{name(wrong)} is {texts[wrong]!r}, not a text")
        columns = self.columns
        if len(columns) > 1:
            raise UserError(f"the model reads the columns {', '.join(columns)}; give a table with all of them")
        table = next((feature.table for feature in self.job.features.values() if feature.column == columns[0]), None)
        if table is None:
            raise UserError(
                f"the model reads the column {columns[0]} only to find its row in a file of users or items; give a table with it"
            )
        return pa.table({columns[0]: self._encoders[table].from_texts(texts, name)})

    def answers(self, table: pa.Table) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield labels and probabilities of the rows of a table, as ``predict`` returns them, batch by batch.

        Raises
        ------
        UserError
            As ``predict``, before the first answer.
        """
        self.check_predicts()
        missing = [column for column in self.columns if column not in table.column_names]
        if missing:
            raise UserError(
                f"there is no column '{missing[0]}' to predict from; there are: {', '.join(table.column_names)}"
            )
        table = joined(self.job, table, self._catalogues, "input")
        examples = open_examples(self.job, self._encoders, self._scales, table, None, "input")
        size = self.job.trainer.eval_batch_size
        for start in range(0, len(table), size):
            probabilities = self._batch(examples, np.arange(start, min(start + size, len(table))))
            yield self._labels(probabilities), probabilities

    def recommend(
        self, users: Sequence[int] | Sequence[str] | None = None, k: int = 10, seen: bool = False
    ) -> pa.Table:
        """Return the best ``k`` items of users: columns user, item and score, the latter two lists, a row a user in the order asked.

        Users, items and their vectors are read at the first call and kept.

        Parameters
        ----------
        users : sequence of int or str, optional
            Their ids, of the type that the data has; by default all.
        k : int
            Items for each.
        seen : bool
            Recommend what a user has already as well.

        Raises
        ------
        UserError
            When the model finds no items for users, an id is not known, or the run's data is not where it was.
        """
        if not isinstance(self.job.head, RetrievalHead):
            raise UserError(f"the model of {self.checkpoint} finds no items for users; ask it with predict")
        if k < 1:
            raise UserError(f"k is {k}; lists have at least one item")
        if self._asked is None:
            scene, everybody = open_scene(self.job, self.checkpoint.parents[1])
            self._asked = self.recommender(scene), everybody
        recommender, asking = self._asked
        scene = recommender.scene
        if users is not None:
            asking = among(scene.users, users)
        found = recommender.lists(asking, min(k, len(scene.items)), seen, recommender.exact)
        ids = ids_of(scene, Of.user)
        tables = [as_table(ids, codes, lists) for codes, lists in found]
        return pa.concat_tables(tables) if tables else schema_of(ids).empty_table()

    def recommender(self, scene: Scene, of: Of = Of.user) -> Recommender:
        """Return what finds the items of a scene for users, or neighbours of items."""
        return Recommender(self.job, self._model, self._encoders, self._scales, scene, of)

    @cached_property
    def _catalogues(self) -> Catalogues:
        """The users and items that rows name, read when first asked for."""
        return open_catalogues(self.job, None)

    def _labels(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the likeliest classes (int64, one a row); of a ranking head clicks as 0 or 1, and ratings rounded, one a row and label."""
        head = self.job.head
        if not isinstance(head, RankingHead):
            return probabilities.argmax(1)
        binary = np.array([loss is RankingLoss.binary for loss in losses_of(head)])
        return np.where(binary, probabilities >= 0.5, np.rint(probabilities)).astype(np.int64)

    def _batch(self, examples: Examples, rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._model.head.probabilities(self._model.scores(collate(examples, rows))).numpy()

    def _table(self, name: str | None) -> str:
        if name is None and len(self.job.tables) == 1:
            return next(iter(self.job.tables))
        if name not in self.job.tables:
            raise UserError(f"name one of the tables: {', '.join(self.job.tables)}")
        return name


def load(folder: str | Path, checkpoint: str | None = None) -> Loaded:
    """Open the trained model in a run folder.

    Parameters
    ----------
    folder : str or Path
        The run folder that ``bigembed train`` wrote.
    checkpoint : {"best", "last"}, optional
        Which checkpoint; by default the one that training judged by.

    Raises
    ------
    UserError
        When the folder is no run, or a file in it is damaged.
    """
    folder = Path(folder)
    job, chosen = run.open_run(folder, Which(checkpoint) if checkpoint else None)
    kept = folder / run.ENCODERS
    return Loaded(job, chosen, load_encoders(job, kept), load_scales(job, kept))


def _model(job: Job, checkpoint: Path, matrices: Mapping[str, np.ndarray]) -> Model:
    """Return the plain, un-sharded model on the checkpoint's own memory."""
    job = copy.deepcopy(job)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to move
        model = Model(job, {name: len(matrix) for name, matrix in matrices.items()}, torch.device("meta"))
    there = physical(job)
    for name, module in _tables(model).items():
        mapped = np.load(checkpoint / "tables" / f"{name}.weight.npy", mmap_mode="c", allow_pickle=False)
        rows = torch.from_numpy(mapped)
        rows = rows.view(torch.bfloat16) if there.tables[name].dtype is DType.bf16 else rows
        module.weight = nn.Parameter(rows, requires_grad=False)
        assert module.weight.shape == matrices[name].shape
    for name, residents in residents_of(model).items():
        residents.look_up_in(run.read_array(checkpoint / "tables" / f"{name}.ids.npy"))
    tensors = load_file(checkpoint / "dense.safetensors")
    dense = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    missing, unexpected = model.load_state_dict(dense, strict=False)
    if unexpected or any(not key.startswith(OF_TABLES) for key in missing):
        raise UserError(
            f"{checkpoint} holds other parameters than the run's configuration has; the two do not belong together"
        )
    return model.eval()


def _tables(model: Model) -> dict[str, nn.Module]:
    """Return the modules whose weights are the tables, by table."""
    return {
        name: module
        for collection in collections(model).values()
        for name, module in _modules(getattr(collection, "_embedding_module", collection)).items()
    }


def _modules(collection: nn.Module) -> Any:
    return getattr(collection, "embedding_bags", None) or collection.embeddings
