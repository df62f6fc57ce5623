"""DCN-v2 (Wang et al. 2021, DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems)."""

from typing import Any

import torch
from torch import nn

from bigembed.config.schema import CrossNet, DCNv2Head
from bigembed.heads.ranking import Ranking
from bigembed.layout import Layout


class DCNv2(Ranking):
    """Cross layers over all columns, then the deep part (stacked), or the deep part beside them (parallel).

    In parallel, a label's score is that of the deep part and a linear function of what the cross layers make.
    """

    def __init__(self, config: DCNv2Head, layout: Layout) -> None:
        super().__init__(config, layout.width)
        self.crosses = nn.ModuleList(Cross(layout.width, config.rank) for _ in range(config.cross_layers))
        parallel = config.structure is CrossNet.parallel
        self.crossed = nn.Linear(layout.width, len(config.labels), bias=False) if parallel else None

    def forward(self, pooled: torch.Tensor, sequences: Any, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, labels), of ``pooled``, shape (samples, width)."""
        vectors = pooled
        for cross in self.crosses:
            vectors = cross(pooled, vectors)
        if self.crossed is None:
            return self.deep(vectors, seeds)
        return self.deep(pooled, seeds) + self.crossed(vectors)


class Cross(nn.Module):
    """x_{l+1} = x_0 ⊙ (W x_l + b) + x_l (equation 1), with W = U Vᵀ of a rank (equation 2), or full where ``rank`` is None."""

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        self.down = None if rank is None else nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(width if rank is None else rank, width)

    def forward(self, first: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return x_{l+1} of x_0, ``first``, and x_l, ``vectors``, all of shape (samples, width)."""
        inner = vectors if self.down is None else self.down(vectors)
        return torch.addcmul(vectors, first, self.up(inner))
