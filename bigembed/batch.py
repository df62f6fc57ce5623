"""What one step works on."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from bigembed.examples import Examples
from bigembed.ragged import concatenate

logging.getLogger("torch.fx._symbolic_trace").setLevel(
    logging.ERROR
)  # else the first KeyedJaggedTensor logs a note of torch's


@dataclass(slots=True)
class Batch(Pipelineable):
    """The samples of one step that belong to this rank.

    Attributes
    ----------
    features : KeyedJaggedTensor
        For every feature the ids (int64) of its samples, keys in the order of the job's features.
    labels : Tensor, shape (samples,), int64
        The labels; empty where there are none.
    weight : float
        What the sum of the samples' losses is multiplied with, so that the ranks' average is the mean over the global batch.
    rows : ndarray, shape (samples,), int64
        Which rows of the data part these are; stays on the host.
    tokens : int
        Tokens in the texts, n-grams not counted.
    """

    features: KeyedJaggedTensor
    labels: torch.Tensor
    weight: float
    rows: np.ndarray
    tokens: int

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        features = self.features.to(device, non_blocking=non_blocking)
        labels = self.labels.to(device, non_blocking=non_blocking)
        return Batch(features, labels, self.weight, self.rows, self.tokens)

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        self.features.record_stream(stream)
        self.labels.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return Batch(self.features.pin_memory(), self.labels.pin_memory(), self.weight, self.rows, self.tokens)


def collate(examples: Examples, rows: np.ndarray, weight: float) -> Batch:
    """Return ``rows`` (int64) of ``examples`` as a batch; ``weight`` is the batch's."""
    encoded = examples.encode(rows)
    ids = concatenate([part.ids for part in encoded]) if len(encoded) > 1 else encoded[0].ids
    features = KeyedJaggedTensor(
        keys=[feature.name for feature in examples.features],
        values=torch.from_numpy(ids.values.astype(np.int64, copy=False)),
        lengths=torch.from_numpy(ids.lengths),
    )
    labels = torch.from_numpy(examples.labels[rows] if examples.labels is not None else np.empty(0, np.int64))
    return Batch(features, labels, weight, rows, sum(int(part.tokens.sum()) for part in encoded))
