"""DLRM (Naumov et al. 2019, Deep Learning Recommendation Model for Personalization and Recommendation Systems)."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from bigembed.config.schema import DLRMHead
from bigembed.heads.ranking import Layers, Ranking, columns, width_of_all
from bigembed.layout import Layout


class DLRM(Ranking):
    """Numbers become one more vector; the dot products of all pairs of vectors, beside that vector, go into the deep part.

    The features are equally wide, and there are two vectors at least; without numbers only the features' own.
    """

    def __init__(self, config: DLRMHead, layout: Layout) -> None:
        embedded, numbers = columns(layout)
        dim = width_of_all(layout)
        vectors = embedded // dim + (numbers > 0)
        super().__init__(config, vectors * (vectors - 1) // 2 + dim * (numbers > 0))
        self.embedded, self.dim = embedded, dim
        self.bottom = Bottom(config, numbers, dim) if numbers else None

    def forward(self, pooled: torch.Tensor, sequences: Any, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, labels), of ``pooled``, shape (samples, width)."""
        if self.bottom is None:
            return self.deep(pair_products(pooled.unflatten(1, (-1, self.dim))), seeds)
        # One split, whose way back is one pass; that of two slices would fill tensors of zeros.
        sums, numbers = pooled.split([self.embedded, pooled.shape[1] - self.embedded], 1)
        dense = self.bottom(numbers, seeds)
        vectors = torch.cat([dense, sums], 1).unflatten(1, (-1, self.dim))
        return self.deep(torch.cat([dense, pair_products(vectors)], 1), seeds)


class Bottom(nn.Module):
    """Numbers to a vector as wide as the features': hidden layers, then one more with ReLU."""

    def __init__(self, config: DLRMHead, numbers: int, dim: int) -> None:
        super().__init__()
        widths = [numbers, *config.bottom]
        self.hidden = Layers(widths, config.dropout, len(config.hidden) + len(config.towers))
        self.last = nn.Linear(widths[-1], dim)

    def forward(self, numbers: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return the vectors, shape (samples, dim), of ``numbers``, shape (samples, numbers)."""
        return functional.relu(self.last(self.hidden(numbers, seeds)))


def pair_products(vectors: torch.Tensor) -> torch.Tensor:
    """Return the dot products of every two of a sample's vectors, in the order (1, 0), (2, 0), (2, 1) and so on.

    ``vectors`` has the shape (samples, n, dim), the result (samples, n (n - 1) / 2).
    """
    return _Pairs.apply(vectors)


class _Pairs(torch.autograd.Function):
    """One product of matrices each way, where autograd makes three and scatters; half of the time, measured on two cores."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors)
        count = vectors.shape[1]
        row, column = torch.tril_indices(count, count, -1, device=vectors.device)
        return torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1).index_select(1, row * count + column)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: torch.Tensor) -> torch.Tensor:
        (vectors,) = ctx.saved_tensors
        count = vectors.shape[1]
        row, column = torch.tril_indices(count, count, -1, device=vectors.device)
        pairs = torch.arange(len(row), device=vectors.device)
        places = torch.full(
            (count, count), len(row), device=vectors.device
        )  # of a pair in both orders; none on the diagonal
        places[row, column] = places[column, row] = pairs
        square = functional.pad(gradients, (0, 1)).index_select(1, places.flatten()).unflatten(1, (count, count))
        return torch.bmm(square, vectors)
