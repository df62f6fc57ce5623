"""What is predicted from the looked-up vectors: one file a head, one explicit dictionary."""

from typing import Any

from torch import nn

from bigembed.config.schema import AttentionHead, AutoencoderHead, BagHead, HeadConfig
from bigembed.heads.attention import Attention
from bigembed.heads.autoencoder import Autoencoder
from bigembed.heads.bag import Bag

HEADS: dict[type[HeadConfig], Any] = {BagHead: Bag, AttentionHead: Attention, AutoencoderHead: Autoencoder}


def build(config: HeadConfig, width: int, sequences: dict[str, int]) -> nn.Module:
    """Return the head of ``config`` over pooled vectors of ``width`` entries and sequences of vectors, by feature their width."""
    return HEADS[type(config)](config, width, sequences)
