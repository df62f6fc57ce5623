"""What one step works on."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from bigembed.examples import Examples
from bigembed.hashing import hash_integers
from bigembed.ragged import concatenate

logging.getLogger("torch.fx._symbolic_trace").setLevel(
    logging.ERROR
)  # else the first KeyedJaggedTensor logs a note of torch's


@dataclass(slots=True)
class Batch(Pipelineable):
    """The samples of one step that belong to this rank, filled up with empty ones to the number that every rank has.

    Attributes
    ----------
    features : KeyedJaggedTensor
        For every feature the ids (int64) of its samples, keys in the order of the job's features.
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

    features: KeyedJaggedTensor
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
        return replace(
            self,
            features=self.features.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            seeds=self.seeds.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        self.features.record_stream(stream)
        self.labels.record_stream(stream)
        self.seeds.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return replace(
            self,
            features=self.features.pin_memory(),
            labels=self.labels.pin_memory(),
            seeds=self.seeds.pin_memory(),
        )


def collate(examples: Examples, rows: np.ndarray, size: int | None = None, weight: float = 1.0, salt: int = 0) -> Batch:
    """Return ``rows`` (int64) of ``examples`` as a batch of ``size`` samples (default: as many as rows).

    ``weight`` is the batch's; ``salt`` tells the seeds of one epoch from those of another.
    """
    encoded = examples.encode(rows)
    ids = concatenate([part.ids for part in encoded]) if len(encoded) > 1 else encoded[0].ids
    empty = 0 if size is None else size - len(rows)
    lengths = ids.lengths
    if empty:
        lengths = np.pad(lengths.reshape(len(encoded), len(rows)), ((0, 0), (0, empty))).reshape(-1)
    features = KeyedJaggedTensor(
        keys=[feature.name for feature in examples.features],
        values=torch.from_numpy(ids.values.astype(np.int64, copy=False)),
        lengths=torch.from_numpy(lengths),
    )
    labels = np.empty(0, np.int64) if examples.labels is None else np.pad(examples.labels[rows], (0, empty))
    seeds = np.pad(hash_integers(rows, salt).view(np.int64), (0, empty))
    tokens = sum(int(part.tokens.sum()) for part in encoded)
    return Batch(features, torch.from_numpy(labels), torch.from_numpy(seeds), weight, rows, tokens)
