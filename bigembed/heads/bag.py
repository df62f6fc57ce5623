"""fastText's classifier (Joulin et al. 2016): pooled vectors, linear layers, one score a class."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bigembed.config.schema import BagHead
from bigembed.heads.dropout import Dropout
from bigembed.layout import Layout


class Bag(nn.Module):
    """Pooled vectors to class scores.

    Two classes need one score: the logit of class 1. More have one each, for a softmax. ``more`` is the width of what stands beside
    the pooled vectors.
    """

    def __init__(self, config: BagHead, layout: Layout, more: int = 0) -> None:
        super().__init__()
        self.binary = config.classes == 2
        widths = [layout.width + more, *config.hidden, 1 if self.binary else config.classes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.ModuleList(Dropout(config.dropout, layer) for layer in range(len(self.layers)))

    def forward(self, pooled: torch.Tensor, sequences: Any, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, 1 or classes), of ``pooled``, shape (samples, width)."""
        for number, (dropout, layer) in enumerate(zip(self.dropout, self.layers, strict=True)):
            pooled = layer(dropout(functional.relu(pooled) if number else pooled, seeds))
        return pooled

    def losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each sample's cross entropy in nats, shape (samples,), for ``labels`` (int64)."""
        if self.binary:
            return functional.binary_cross_entropy_with_logits(
                scores.squeeze(1), labels.to(scores.dtype), reduction="none"
            )
        return functional.cross_entropy(scores, labels, reduction="none")

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the probability of every class, shape (samples, classes)."""
        if self.binary:
            positive = torch.sigmoid(scores)
            return torch.cat([1 - positive, positive], 1)
        return torch.softmax(scores, 1)
