"""A trained model in one process, to be asked: from Python, and by ``bigembed predict``."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import nn

from bigembed import run
from bigembed.batch import collate
from bigembed.config.schema import Job, Which
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.examples import Examples, open_examples
from bigembed.model import Model
from bigembed.prepare import load_encoders, text_columns
from bigembed.sharding.place import TABLES


class Loaded:
    """A trained model; its tables are memory-mapped, so that only the rows asked for are read.

    Attributes
    ----------
    job : Job
        The configuration of the run.
    checkpoint : Path
        The checkpoint that was opened.
    """

    def __init__(self, job: Job, checkpoint: Path, encoders: Mapping[str, Encoder]) -> None:
        self.job, self.checkpoint, self._encoders = job, checkpoint, dict(encoders)
        self._matrices = {name: run.read_array(checkpoint / "tables" / f"{name}.weight.npy") for name in job.tables}
        self._model = _model(job, checkpoint, self._matrices)

    def __repr__(self) -> str:
        """Return what is in it, in a line."""
        tables = ", ".join(
            f"{name} {rows:,} × {dim}" for name, (rows, dim) in ((n, m.shape) for n, m in self._matrices.items())
        )
        return f"<bigembed model of {self.checkpoint}: {tables}>"

    @property
    def columns(self) -> list[str]:
        """The columns that the model reads."""
        return text_columns(self.job)

    def matrix(self, table: str | None = None) -> np.ndarray:
        """Return the embedding matrix of a table, shape (rows, dim), float32, read-only."""
        return self._matrices[self._table(table)]

    def words(self, table: str | None = None) -> list[str]:
        """Return the words of a table's vocabulary, most frequent first; empty for a table without one."""
        words = self._encoders[self._table(table)].words()
        return [] if words is None else words.to_pylist()

    def row(self, word: str, table: str | None = None) -> int:
        """Return the row of a word; row 0 is that of the unknown words where there is a vocabulary.

        Raises
        ------
        UserError
            When the text is not one token of the table.
        """
        return self._encoders[self._table(table)].row_of(word)

    def vector(self, word: str, table: str | None = None) -> np.ndarray:
        """Return a copy of the vector of a word, shape (dim,), float32."""
        return np.array(self.matrix(table)[self.row(word, table)])

    def predict(self, texts: Sequence[str] | pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (int64, one a text) and probabilities (float32, one row a text, one column a class).

        Parameters
        ----------
        texts : sequence of str, or pa.Table
            Texts for the only column the model reads, or a table with every column that it reads.

        Raises
        ------
        UserError
            When a column is missing, or is not text.
        """
        if isinstance(texts, str):
            raise UserError("predict takes a list of texts; for a single one give a list of one")
        columns = self.columns
        if not isinstance(texts, pa.Table):
            if len(columns) > 1:
                raise UserError(f"the model reads the columns {', '.join(columns)}; give a table with all of them")
            texts = pa.table({columns[0]: pa.array(texts, pa.large_string())})
        missing = [column for column in columns if column not in texts.column_names]
        if missing:
            raise UserError(
                f"there is no column '{missing[0]}' to predict from; there are: {', '.join(texts.column_names)}"
            )
        examples = open_examples(self.job, self._encoders, texts, None)
        size = self.job.trainer.eval_batch_size
        parts = [self._batch(examples, np.arange(at, min(at + size, len(texts)))) for at in range(0, len(texts), size)]
        classes = self.job.head.classes  # type: ignore[attr-defined]
        probabilities = np.concatenate(parts) if parts else np.empty((0, classes), np.float32)
        return probabilities.argmax(1), probabilities

    def _batch(self, examples: Examples, rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._model.head.probabilities(self._model.scores(collate(examples, rows, 1.0))).numpy()

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
    return Loaded(job, chosen, load_encoders(job, folder / run.ENCODERS))


def _model(job: Job, checkpoint: Path, matrices: Mapping[str, np.ndarray]) -> Model:
    """Return the plain, un-sharded model on the checkpoint's own memory."""
    job = copy.deepcopy(job)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to move
        model = Model(job, {name: len(matrix) for name, matrix in matrices.items()}, torch.device("meta"))
    bags = model.tables.embedding_bags
    for name, matrix in matrices.items():
        mapped = np.load(checkpoint / "tables" / f"{name}.weight.npy", mmap_mode="c", allow_pickle=False)
        bags[name].weight = nn.Parameter(torch.from_numpy(mapped), requires_grad=False)
        assert bags[name].weight.shape == matrix.shape
    tensors = load_file(checkpoint / "dense.safetensors")
    dense = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    missing, unexpected = model.load_state_dict(dense, strict=False)
    if unexpected or any(not key.startswith(f"{TABLES}.") for key in missing):
        raise UserError(
            f"{checkpoint} holds other parameters than the run's configuration has; the two do not belong together"
        )
    return model.eval()
