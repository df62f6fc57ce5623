"""DeepFM (Guo et al. 2017, DeepFM: A Factorization-Machine based Neural Network for CTR Prediction)."""

from typing import Any

import torch
from torch import nn

from bigembed.config.schema import DeepFMHead
from bigembed.heads.ranking import Ranking, columns, width_of_all
from bigembed.layout import Layout


class DeepFM(Ranking):
    """A factorisation machine beside the deep part, which takes all columns.

    The first entry of a feature's vector is its weight of first order, the others are its factors; all features are equally wide.
    Both orders are added to every label's score. Numbers have weights of first order, each label its own, and no factors.
    """

    def __init__(self, config: DeepFMHead, layout: Layout) -> None:
        super().__init__(config, layout.width)
        self.embedded, numbers = columns(layout)
        self.dim = width_of_all(layout)
        self.linear = nn.Linear(numbers, len(config.labels), bias=False) if numbers else None

    def forward(self, pooled: torch.Tensor, sequences: Any, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, labels), of ``pooled``, shape (samples, width)."""
        vectors = pooled[:, : self.embedded].unflatten(1, (-1, self.dim))
        scores = self.deep(pooled, seeds) + machine(vectors).unsqueeze(1)
        return scores if self.linear is None else scores + self.linear(pooled[:, self.embedded :])


def machine(vectors: torch.Tensor) -> torch.Tensor:
    """Return Σ_f w_f + Σ_{f<g} <v_f, v_g> of every sample, shape (samples,).

    ``vectors`` has the shape (samples, features, dim), and holds w_f, then v_f. The pairs are ½ (|Σ_f v_f|² - Σ_f |v_f|²) (Rendle 2010,
    Factorization Machines, lemma 3.1).
    """
    sums = vectors.sum(1)
    pairs = (sums.square() - vectors.square().sum(1))[:, 1:].sum(1) / 2
    return sums[:, 0] + pairs
