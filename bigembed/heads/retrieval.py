"""Two towers: a vector of the user, one of the item, whose dot product is the score (Covington et al. 2016; Yi et al. 2019)."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from bigembed.config.schema import Of, RetrievalHead, Similarity
from bigembed.heads.dropout import Dropout
from bigembed.heads.losses import retrieval_losses, squares
from bigembed.layout import Layout

ITEM_LAYERS = 1 << 10  # numbers of the layers, by which dropout tells them apart, begin here in the tower of items


class Tower(nn.Module):
    """The vectors of one side's features made one: added up, or side by side through layers with ReLU between them.

    Parameters
    ----------
    layout : Layout
        The columns of the pooled vectors.
    of : Of
        Whose features and numbers are read; others are left alone.
    hidden : list of int
        Widths of the layers; none: the vectors, which are of one width then, are added up.
    dropout : float
        Share of the entries dropped before every layer, and of the vectors that are added up.
    first : int
        The first layer's number, for dropout.

    Attributes
    ----------
    features : list of slice
        The columns of the looked-up vectors.
    dim : int
        Width of the vector that is made; 0 without features.
    """

    def __init__(self, layout: Layout, of: Of, hidden: list[int], dropout: float, first: int = 0) -> None:
        super().__init__()
        self.features = [columns for name, columns in layout.features.items() if layout.of[name] is of]
        numbers = [columns for name, columns in layout.numbers.items() if layout.number_of[name] is of]
        self.columns = self.features + numbers
        widths = [columns.stop - columns.start for columns in self.columns]
        steps = pairwise([sum(widths), *hidden] if widths else [])
        self.layers = nn.ModuleList(nn.Linear(*step) for step in steps)
        self.dropout = nn.ModuleList(Dropout(dropout, first + layer) for layer in range(max(1, len(self.layers))))
        self.dim = hidden[-1] if widths and hidden else widths[0] if widths else 0

    def forward(self, pooled: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        """Return the vectors, shape (slots, dim), of ``pooled``, shape (slots, width).

        Entries are dropped by ``seeds``, int64 (slots,); without them none are.
        """
        vectors = beside(pooled, self.columns)
        for number, dropout in enumerate(self.dropout):
            if number:
                vectors = functional.relu(vectors)
            if seeds is not None:
                vectors = dropout(vectors, seeds)
            if self.layers:
                vectors = self.layers[number](vectors)
        if self.layers or len(self.columns) == 1:
            return vectors
        return vectors.view(len(vectors), len(self.columns), self.dim).sum(1)


class TwoTower(nn.Module):
    """Users and items by a tower each; a sample is a user and an item that belongs to him.

    A batch has slots: in slot i the user's features are those of sample i, the item's features those of the i-th distinct item of
    the batch.
    """

    def __init__(self, config: RetrievalHead, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.user_tower = Tower(layout, Of.user, config.user_hidden, config.dropout)
        self.item_tower = Tower(layout, Of.item, config.item_hidden, config.dropout, ITEM_LAYERS)

    def forward(self, pooled: torch.Tensor, seeds: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the samples' losses.

        Parameters
        ----------
        pooled : Tensor, shape (slots, width), float
            The vectors of the features; at least as many slots as samples.
        seeds : Tensor, shape (samples,), int64
            By which entries of users are dropped.
        extras : dict of str to Tensor
            See ``losses.retrieval_losses``; and ``item_seeds``, int64 (slots,), by which entries of items are dropped.

        Returns
        -------
        Tensor, shape (samples, 1), float
        """
        users = ready(self.config, self.user_tower(pooled[: len(seeds)], seeds))
        items = ready(self.config, self.item_tower(pooled, extras["item_seeds"]))
        losses = retrieval_losses(self.config, users, items, extras)
        if self.config.l2:
            of_users, of_items = (beside(pooled, tower.features) for tower in (self.user_tower, self.item_tower))
            numbers = torch.arange(len(seeds), device=seeds.device)
            losses = losses + self.config.l2 * squares(of_users, of_items, numbers, extras)
        return losses.unsqueeze(1)

    def losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each sample's loss, shape (samples,)."""
        return scores[:, 0]

    def users(self, pooled: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors of the users of all slots, shape (slots, dim)."""
        return ready(self.config, self.user_tower(pooled, None))

    def items(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the items of all slots, shape (slots, dim)."""
        return ready(self.config, self.item_tower(pooled, None))


def beside(pooled: torch.Tensor, columns: list[slice]) -> torch.Tensor:
    """Return some columns of the pooled vectors side by side; no copy where they lie so."""
    if all(left.stop == right.start for left, right in pairwise(columns)):
        return pooled[:, columns[0].start : columns[-1].stop]
    return torch.cat([pooled[:, each] for each in columns], 1)


def ready(config: RetrievalHead, vectors: torch.Tensor) -> torch.Tensor:
    """Return the vectors, shape (n, dim), as their dot products are scores: of length 1 for the cosine, zeros staying zeros."""
    if config.similarity is Similarity.dot:
        return vectors
    lengths = vectors.square().sum(1, keepdim=True)
    return vectors * torch.where(lengths > 0, lengths, torch.inf).rsqrt()  # no gradient of a vector of zeros
