"""What one step works on."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

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
