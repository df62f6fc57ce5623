"""A denoising autoencoder of bags of words with one table as encoder and decoder (Vincent et al. 2010, Stacked Denoising Autoencoders)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchrec import JaggedTensor

from bigembed.config.schema import AutoencoderHead
from bigembed.heads.dropout import kept
from bigembed.layout import Layout


class Autoencoder(nn.Module):
    """A share of a sequence's elements is hidden, and told from the others: the sequence's own from those of another.

    With r the rows of a sequence's elements, h = W · mean(r of those that are left) + b, and an element scores <r, h>, by which the
    sequence's hidden elements shall be told (a logistic regression) from the elements of another sequence. Only the hidden ones are
    told, Vincent's "full emphasis": one that is left would be told from itself, by the length of its row. What is hidden is
    hidden in evaluation as well, since otherwise there were nothing to tell; it is a function of the sample's seed and of the
    element's place.
    """

    def __init__(self, config: AutoencoderHead, layout: Layout) -> None:
        super().__init__()
        self.feature, self.another, self.corruption = config.feature, config.another, config.corruption
        dim = layout.sequences[config.feature]
        self.encoder = nn.Linear(dim, dim)
        nn.init.eye_(self.encoder.weight)
        nn.init.zeros_(self.encoder.bias)

    def forward(self, pooled: Any, sequences: dict[str, JaggedTensor], seeds: torch.Tensor) -> torch.Tensor:
        """Return what ``losses`` and ``probabilities`` are made of.

        Returns
        -------
        Tensor, shape (samples, 3), float32
            The mean score of the other sequence's elements, that of the own hidden ones, and the loss in nats: the sum of the mean
            losses of both. A sequence without elements adds 0.
        """
        own, another = sequences[self.feature], sequences[self.another]
        rows, samples = own.values().float(), len(seeds)
        sample, other_sample = _samples(own.lengths()), _samples(another.lengths())
        places = torch.arange(len(rows), device=rows.device) - own.offsets()[sample]
        left = kept(seeds[sample], places, self.corruption).to(rows.dtype)
        codes = self.encoder(_means(rows, sample, left, samples))
        scores = (rows * codes[sample]).sum(1)
        of_other = (another.values().float() * codes[other_sample]).sum(1)
        mine = _means(torch.stack([scores, functional.softplus(-scores)], 1), sample, 1 - left, samples)
        others = torch.stack([of_other, functional.softplus(of_other)], 1)
        others = _means(others, other_sample, torch.ones_like(of_other), samples)
        return torch.stack([others[:, 0], mine[:, 0], others[:, 1] + mine[:, 1]], 1)

    def losses(self, scores: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return each sample's loss in nats, shape (samples,)."""
        return scores[:, 2]

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return, shape (samples, 2), the softmax of the mean scores of the other's elements and of the own: 1 is the right class."""
        return torch.softmax(scores[:, :2], 1)


def _samples(lengths: torch.Tensor) -> torch.Tensor:
    """Return the sample of every element, shape (elements,), int64."""
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)


def _means(values: torch.Tensor, sample: torch.Tensor, weights: torch.Tensor, samples: int) -> torch.Tensor:
    """Return the means, shape (samples, n), of the values, shape (elements, n), whose weight is 1 and not 0; zeros where there is none."""
    sums = values.new_zeros(samples, values.shape[1]).index_add(0, sample, values * weights.unsqueeze(1))
    counts = weights.new_zeros(samples).index_add(0, sample, weights)
    return sums / counts.clamp(min=1).unsqueeze(1)
