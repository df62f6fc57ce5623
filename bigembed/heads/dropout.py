"""Dropout that depends on nothing but the sample: the same on any number of ranks, on every device, after a restart."""

import torch
from torch import nn

_MULTIPLIERS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # splitmix64's, as signed numbers
_STEP = -0x61C8864680B583EB  # splitmix64's increment
_BITS = 30


class Dropout(nn.Module):
    """Zero a share of the entries in training, and scale the others up.

    Parameters
    ----------
    share : float
        Which share, in ``[0, 1)``.
    layer : int
        Tells the layers of a head apart.
    """

    def __init__(self, share: float, layer: int) -> None:
        super().__init__()
        self.share, self.layer = share, layer

    def forward(self, vectors: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return ``vectors``, shape (samples, ...), with entries dropped as ``seeds`` (int64, (samples,)) say."""
        if not self.training or not self.share:
            return vectors
        shape = vectors.shape[1:]
        places = torch.arange(shape.numel(), device=vectors.device).view(shape) + (self.layer << 32)
        return vectors * kept(seeds.view(-1, *(1 for _ in shape)), places, self.share) / (1 - self.share)


def kept(seeds: torch.Tensor, places: torch.Tensor, share: float) -> torch.Tensor:
    """Return whether what is at ``places`` of the samples with ``seeds`` stays when a ``share`` of it is dropped.

    Both are int64, and broadcast; the answer is a tensor of bool.
    """
    drawn = (mixed(seeds, places) >> 31) & ((1 << _BITS) - 1)
    return drawn >= int(share * (1 << _BITS))


def mixed(seeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return a seed for each place of the samples with ``seeds``; all are int64, and broadcast."""
    bits = seeds + (places + 1) * _STEP
    for multiplier in _MULTIPLIERS:
        bits = (bits ^ (bits >> 30)) * multiplier
    return bits
