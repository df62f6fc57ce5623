"""What the ranking heads share: the deep part, one score a label, and what a score means."""

from itertools import cycle, pairwise

import torch
from torch import nn
from torch.nn import functional

from bigembed.config.schema import RankingHead, RankingLoss
from bigembed.heads.dropout import Dropout
from bigembed.layout import Layout


class Linears(nn.Module):
    """Several linear layers of one shape, computed together; they start as torch's ``Linear`` does."""

    def __init__(self, copies: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(copies, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(copies, outputs))
        for each in (self.weight, self.bias):
            nn.init.uniform_(each, -(inputs**-0.5), inputs**-0.5)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return what every layer makes, shape (samples, copies, outputs).

        ``vectors`` has the shape (samples, inputs), and all layers take the same, or (samples, copies, inputs), and each has its own.
        """
        if vectors.dim() == 2:
            made = functional.linear(vectors, self.weight.flatten(0, 1), self.bias.flatten())
            return made.unflatten(1, self.bias.shape)
        # The weight is the first factor so that its gradient lies as it does itself, which ranks ask for that share gradients.
        return torch.baddbmm(self.bias.unsqueeze(2), self.weight, vectors.permute(1, 2, 0)).permute(2, 0, 1)


class Layers(nn.Module):
    """Hidden layers: linear, ReLU, dropout.

    Parameters
    ----------
    widths : list of int
        Of the inputs, then of every layer.
    dropout : float
        Share of the entries of each layer that is dropped in training.
    first : int
        Number of the first layer's dropout; each layer of a head needs one of its own.
    copies : int or None
        How many such stacks stand side by side, as in ``Linears``; None: one, whose vectors have no dimension for it.
    """

    def __init__(self, widths: list[int], dropout: float, first: int, copies: int | None = None) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*pair) if copies is None else Linears(copies, *pair) for pair in pairs)
        self.dropout = nn.ModuleList(Dropout(dropout, first + number) for number in range(len(pairs)))

    def forward(self, vectors: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return the last layer's vectors; ``vectors`` as they are where there is no layer."""
        for layer, dropout in zip(self.layers, self.dropout, strict=True):
            vectors = dropout(functional.relu(layer(vectors)), seeds)
        return vectors


class Deep(nn.Module):
    """Hidden layers that all labels share, or experts mixed for each, then every label's tower and score.

    With experts E_1 … E_n, hidden layers each, label k's tower gets sum_i g_i E_i(x) with g = softmax(W_k x) (Ma et al. 2018, Modeling
    Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, equations 6 and 7).

    Parameters
    ----------
    config : RankingHead
        Labels, hidden layers, towers, experts, dropout.
    width : int
        Width of the inputs x.
    """

    def __init__(self, config: RankingHead, width: int) -> None:
        super().__init__()
        labels, self.experts = len(config.labels), config.experts
        shared = [width, *config.hidden]
        self.hidden = Layers(shared, config.dropout, 0, config.experts or None)
        self.gates = nn.Linear(width, labels * config.experts, bias=False) if config.experts else None
        own = [shared[-1], *config.towers]
        self.towers = Layers(own, config.dropout, len(config.hidden), labels)
        self.output = Linears(labels, own[-1], 1)

    def forward(self, inputs: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, labels), of ``inputs``, shape (samples, width)."""
        vectors = self.hidden(inputs, seeds)
        if self.gates is not None:
            vectors = self.gates(inputs).unflatten(1, (-1, self.experts)).softmax(2) @ vectors
        return self.output(self.towers(vectors, seeds)).squeeze(2)


class Ranking(nn.Module):
    """A head that gives a row a score for every label; ``forward`` is each head's own.

    Parameters
    ----------
    config : RankingHead
        The options.
    width : int
        Width of what the deep part takes.
    """

    binary: torch.Tensor
    weights: torch.Tensor

    def __init__(self, config: RankingHead, width: int) -> None:
        super().__init__()
        self.deep = Deep(config, width)
        binary = [loss is RankingLoss.binary for _, loss in zip(config.labels, cycle(config.losses), strict=False)]
        self.all, self.any = all(binary), any(binary)
        self.register_buffer("binary", torch.tensor(binary), persistent=False)
        weights = torch.tensor(config.label_weights or [1.0] * len(binary))
        self.register_buffer("weights", weights, persistent=False)

    def losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each sample's loss, shape (samples,): the sum over labels of weight times cross entropy in nats, or squared error.

        Both ``scores`` and ``labels`` (floats) have the shape (samples, labels).
        """
        labels = labels.to(scores.dtype)
        if self.all:
            return functional.binary_cross_entropy_with_logits(scores, labels, reduction="none") @ self.weights
        losses = (scores - labels).square()
        if self.any:
            entropy = functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
            losses = torch.where(self.binary, entropy, losses)
        return losses @ self.weights

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return what is predicted, shape (samples, labels): probabilities of binary labels, the others as they are scored."""
        if self.all:
            return torch.sigmoid(scores)
        return torch.where(self.binary, torch.sigmoid(scores), scores) if self.any else scores


def columns(layout: Layout) -> tuple[int, int]:
    """Return how many columns are the features', which come first, and how many the numbers'."""
    return layout.width - len(layout.numbers), len(layout.numbers)


def width_of_all(layout: Layout) -> int:
    """Return the width that every pooled feature has; the configuration's check refuses features of several."""
    (width,) = {each.stop - each.start for each in layout.features.values()}
    return width
