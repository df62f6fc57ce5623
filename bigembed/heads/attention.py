"""Sequences pooled by a learned attention (Yang et al. 2016, Hierarchical Attention Networks), then the bag's layers."""

import torch
from torch import nn
from torchrec import JaggedTensor

from bigembed.config.schema import AttentionHead
from bigembed.heads.bag import Bag
from bigembed.layout import Layout


class Attention(Bag):
    """Every sequence feature becomes one vector, the mean of its tokens weighted by attention; an empty one becomes zeros."""

    def __init__(self, config: AttentionHead, layout: Layout) -> None:
        super().__init__(config, layout, sum(layout.sequences.values()))
        self.scorers = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(dim, config.attention), nn.Tanh(), nn.Linear(config.attention, 1, bias=False)
                )
                for name, dim in layout.sequences.items()
            }
        )

    def forward(
        self, pooled: torch.Tensor | None, sequences: dict[str, JaggedTensor], seeds: torch.Tensor
    ) -> torch.Tensor:
        """Return the scores, shape (samples, 1 or classes), of what is pooled and of the sequences."""
        vectors = [] if pooled is None else [pooled]
        for name, scorer in self.scorers.items():
            values, lengths = sequences[name].values().float(), sequences[name].lengths()
            vectors.append(attend(values, lengths, scorer(values).squeeze(1)))
        return super().forward(torch.cat(vectors, 1), None, seeds)


def attend(values: torch.Tensor, lengths: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return each sequence's mean of ``values`` weighted by the softmax of its ``scores``.

    Parameters
    ----------
    values : Tensor, shape (tokens, dim), float32
        The sequences' vectors, one after another.
    lengths : Tensor, shape (samples,), integer
        Tokens of every sequence.
    scores : Tensor, shape (tokens,), float32
        What the softmax is taken of.

    Returns
    -------
    Tensor, shape (samples, dim), float32
        Zeros for an empty sequence.
    """
    samples = len(lengths)
    sequence = torch.repeat_interleave(torch.arange(samples, device=values.device), lengths)
    highest = scores.new_zeros(samples).scatter_reduce(0, sequence, scores.detach(), "amax", include_self=False)
    weights = torch.exp(scores - highest[sequence])
    sums = scores.new_zeros(samples).index_add(0, sequence, weights)
    weighted = values.new_zeros(samples, values.shape[1]).index_add(0, sequence, values * weights.unsqueeze(1))
    return weighted / sums.clamp(min=torch.finfo(sums.dtype).tiny).unsqueeze(1)
