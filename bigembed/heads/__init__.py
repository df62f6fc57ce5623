"""What is predicted from the looked-up vectors: one file a head, one explicit dictionary."""

from typing import Any

from torch import nn

from bigembed.config.schema import BagHead, HeadConfig
from bigembed.heads.bag import Bag

HEADS: dict[type[HeadConfig], Any] = {BagHead: Bag}


def build(config: HeadConfig, width: int) -> nn.Module:
    """Return the head of ``config`` over pooled vectors of ``width`` entries a sample."""
    return HEADS[type(config)](config, width)
