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
        """Return ``vectors``, shape (samples, width), with entries dropped as ``seeds`` (int64, (samples,)) say."""
        if not self.training or not self.share:
            return vectors
        width = vectors.shape[1]
        places = torch.arange(width, device=vectors.device) + (self.layer << 32)
        bits = seeds.unsqueeze(1) + (places + 1) * _STEP
        for multiplier in _MULTIPLIERS:
            bits = (bits ^ (bits >> 30)) * multiplier
        drawn = (bits >> 31) & ((1 << _BITS) - 1)
        kept = drawn >= int(self.share * (1 << _BITS))
        return vectors * kept / (1 - self.share)
