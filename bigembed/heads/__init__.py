"""What is predicted from the looked-up vectors: one file a head, one explicit dictionary."""

from typing import Any

from torch import nn

from bigembed.config.schema import (
    AttentionHead,
    AutoencoderHead,
    BagHead,
    DCNv2Head,
    DeepFMHead,
    DLRMHead,
    GRU4RecHead,
    HeadConfig,
    HistoryHead,
    SASRecHead,
    TwoTowerHead,
    WideDeepHead,
)
from bigembed.heads.attention import Attention
from bigembed.heads.autoencoder import Autoencoder
from bigembed.heads.bag import Bag
from bigembed.heads.dcnv2 import DCNv2
from bigembed.heads.deepfm import DeepFM
from bigembed.heads.dlrm import DLRM
from bigembed.heads.retrieval import TwoTower
from bigembed.heads.sequence import GRU4Rec, History, SASRec
from bigembed.heads.wide_deep import WideDeep
from bigembed.layout import Layout

HEADS: dict[type[HeadConfig], Any] = {
    BagHead: Bag,
    AttentionHead: Attention,
    AutoencoderHead: Autoencoder,
    DLRMHead: DLRM,
    DCNv2Head: DCNv2,
    DeepFMHead: DeepFM,
    WideDeepHead: WideDeep,
    TwoTowerHead: TwoTower,
    SASRecHead: SASRec,
    GRU4RecHead: GRU4Rec,
    HistoryHead: History,
}


def build(config: HeadConfig, layout: Layout) -> nn.Module:
    """Return the head of ``config`` over the vectors of the features."""
    return HEADS[type(config)](config, layout)
