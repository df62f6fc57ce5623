"""What one step works on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from bigembed.config.physical import is_weighted, part_name, parts, per_element
from bigembed.config.schema import Job
from bigembed.encoders import Encoded
from bigembed.examples import Examples, Feature
from bigembed.hashing import hash_integers
from bigembed.ragged import Ragged, concatenate
from bigembed.weighing import weigh

logging.getLogger("torch.fx._symbolic_trace").setLevel(
    logging.ERROR
)  # else the first KeyedJaggedTensor logs a note of torch's


TENSORS = ("features", "weighted", "sizes", "numbers", "labels", "seeds")


@dataclass(slots=True)
class Batch(Pipelineable):
    """The samples of one step that belong to this rank, filled up with empty ones to the number that every rank has.

    Attributes
    ----------
    features : KeyedJaggedTensor or None
        For every feature of ``config.physical`` whose ids have no weights its ids (int64), keys in the order of the job's features.
    weighted : KeyedJaggedTensor or None
        The same of the features whose ids have weights, with these (float32).
    sizes : KeyedJaggedTensor or None
        For features that are looked up row by row, and whose elements have each another number of rows, these numbers (int64).
    numbers : Tensor, shape (samples or more, numbers), float32
        Dense features.
    labels : Tensor, shape (samples or more,), int64
        The labels; empty where there are none.
    seeds : Tensor, shape (samples or more,), int64
        What is random in training (dropout) is drawn by these, so that it does not depend on the ranks.
    weight : float
        What the sum of the samples' losses is multiplied with, so that the ranks' average is the mean over the global batch.
    rows : ndarray, shape (samples,), int64
        Which rows of the data part these are; stays on the host.
    tokens : int
        Tokens in the texts, n-grams not counted.
    """

    features: KeyedJaggedTensor | None
    weighted: KeyedJaggedTensor | None
    sizes: KeyedJaggedTensor | None
    numbers: torch.Tensor
    labels: torch.Tensor
    seeds: torch.Tensor
    weight: float
    rows: np.ndarray
    tokens: int

    @property
    def samples(self) -> int:
        """Samples that count."""
        return len(self.rows)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        for name in TENSORS:
            value = getattr(self, name)
            if value is not None:
                value.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> "Batch":
        values = {name: getattr(self, name) for name in TENSORS}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})


def collate(
    examples: Examples,
    rows: np.ndarray,
    others: np.ndarray | None = None,
    size: int | None = None,
    weight: float = 1.0,
    salt: int = 0,
) -> Batch:
    """Return ``rows`` (int64) of ``examples`` as a batch of ``size`` samples (default: as many as rows).

    ``others``, one for each row, are those that features of another row are taken from (default: the next of the batch);
    ``weight`` is the batch's; ``salt`` tells the seeds of one epoch from those of another.
    """
    empty = 0 if size is None else size - len(rows)
    plain, weighted, sizes = Keyed([]), Keyed([], []), Keyed([])
    tokens = 0
    for feature, encoded in zip(examples.features, examples.encode(rows, others), strict=True):
        _place(examples.job, feature, encoded, examples.rows_of(feature, rows, others), plain, weighted, sizes)
        tokens += int(encoded.tokens.sum())
    labels = np.empty(0, np.int64) if examples.labels is None else np.pad(examples.labels[rows], (0, empty))
    seeds = np.pad(hash_integers(rows, salt).view(np.int64), (0, empty))
    numbers = np.pad(examples.numbers[rows], ((0, empty), (0, 0)))
    return Batch(
        *(keyed.tensor(len(rows), empty) for keyed in (plain, weighted, sizes)),
        *(torch.from_numpy(each) for each in (numbers, labels, seeds)),
        weight,
        rows,
        tokens,
    )


@dataclass(slots=True)
class Keyed:
    """What becomes a KeyedJaggedTensor: a ragged array for each key, with weights where there are any."""

    entries: list[tuple[str, Ragged]]
    weights: list[np.ndarray] | None = None

    def tensor(self, samples: int, empty: int) -> KeyedJaggedTensor | None:
        """Return the tensor, ``empty`` samples added to those of every key; None without keys."""
        if not self.entries:
            return None
        entries = [ragged for _, ragged in self.entries]
        joined = concatenate(entries) if len(entries) > 1 else entries[0]
        lengths = joined.lengths
        if empty:
            lengths = np.pad(lengths.reshape(len(entries), samples), ((0, 0), (0, empty))).reshape(-1)
        return KeyedJaggedTensor(
            keys=[key for key, _ in self.entries],
            values=torch.from_numpy(joined.values.astype(np.int64, copy=False)),
            lengths=torch.from_numpy(lengths),
            weights=None if self.weights is None else torch.from_numpy(np.concatenate(self.weights)),
        )


def _place(
    job: Job, feature: Feature, encoded: Encoded, rows: np.ndarray, plain: Keyed, weighted: Keyed, sizes: Keyed
) -> None:
    """Add a feature's ids, weights and sizes to what becomes the tensors of a batch."""
    config = job.features[feature.name]
    own = parts(job.tables[config.table])
    entries = [(part_name(feature.name, part), ids.rows) for part, ids in zip(own, encoded.parts, strict=True)]
    if is_weighted(job, config):
        assert weighted.weights is not None
        given = None if feature.weights is None else feature.weights.take(rows)
        weighted.weights += weigh(job.tables[config.table], config, encoded, given)
        weighted.entries += entries
    else:
        plain.entries += entries
    if per_element(job, config):
        for (key, _), part, ids in zip(entries, own, encoded.parts, strict=True):
            if part.per_element == 0:
                assert ids.sizes is not None
                sizes.entries.append((key, ids.sizes))
