"""Two towers: a vector of the user, one of the item, whose dot product is the score (Covington et al. 2016; Yi et al. 2019)."""

from itertools import groupby, pairwise
from typing import Any

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
    columns : list of slice
        The columns that it reads: those of looked-up vectors, then those of numbers.
    looked_up : int
        How many columns those of looked-up vectors are.
    dim : int
        Width of the vector that is made; 0 without features.
    """

    def __init__(self, layout: Layout, of: Of, hidden: list[int], dropout: float, first: int = 0) -> None:
        super().__init__()
        features = [columns for name, columns in layout.features.items() if layout.of[name] is of]
        numbers = [columns for name, columns in layout.numbers.items() if layout.number_of[name] is of]
        self.columns = features + numbers
        self.looked_up = sum(columns.stop - columns.start for columns in features)
        widths = [columns.stop - columns.start for columns in self.columns]
        steps = pairwise([sum(widths), *hidden] if widths else [])
        self.layers = nn.ModuleList(nn.Linear(*step) for step in steps)
        self.dropout = nn.ModuleList(Dropout(dropout, first + layer) for layer in range(max(1, len(self.layers))))
        self.dim = hidden[-1] if widths and hidden else widths[0] if widths else 0

    def forward(self, vectors: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        """Return the vectors, shape (slots, dim), of the tower's columns side by side, shape (slots, width).

        Entries are dropped by ``seeds``, int64 (slots,); without them none are.
        """
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


class Retrieval(nn.Module):
    """What all heads that find items for users have in common: a tower for each, and losses that are made in ``forward``."""

    def __init__(self, config: RetrievalHead, layout: Layout) -> None:
        super().__init__()
        self.config: Any = config
        self.user_tower = Tower(layout, Of.user, config.user_hidden, config.dropout)
        self.item_tower = Tower(layout, Of.item, config.item_hidden, config.dropout, ITEM_LAYERS)

    def losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each sample's loss, shape (samples,)."""
        return scores[:, 0]

    def items(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the items of all slots, shape (slots, dim)."""
        return ready(self.config, self.item_tower(columns_of(pooled, self.user_tower, self.item_tower)[1], None))

    def looked_up(
        self, pooled: torch.Tensor, seeds: torch.Tensor, extras: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the columns of users, of the slots that are samples, and those of items, of the slots that hold one."""
        of_users, of_items = columns_of(pooled, self.user_tower, self.item_tower)
        return of_users[: len(seeds)], of_items[: len(extras["item_seeds"])]


class TwoTower(Retrieval):
    """Users and items by a tower each; a sample is a user and an item that belongs to him.

    A batch has slots: in slot i the user's features are those of sample i, the item's features those of the i-th distinct item of
    the batch.
    """

    def forward(self, pooled: torch.Tensor, seeds: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the samples' losses.

        Parameters
        ----------
        pooled : Tensor, shape (slots, width), float
            The vectors of the features; at least as many slots as samples.
        seeds : Tensor, shape (samples,), int64
            By which entries of users are dropped.
        extras : dict of str to Tensor
            See ``losses.retrieval_losses``; and ``item_seeds``, int64 (items,), by which entries are dropped: slots after the first so
            many hold no item.

        Returns
        -------
        Tensor, shape (samples, 1), float
        """
        of_users, of_items = self.looked_up(pooled, seeds, extras)
        users = ready(self.config, self.user_tower(of_users, seeds))
        items = ready(self.config, self.item_tower(of_items, extras["item_seeds"]))
        losses = retrieval_losses(self.config, users, items, extras)
        if self.config.l2:
            numbers = torch.arange(len(seeds), device=seeds.device)
            of_users, of_items = of_users[:, : self.user_tower.looked_up], of_items[:, : self.item_tower.looked_up]
            losses = losses + self.config.l2 * squares(of_users, of_items, numbers, extras)
        return losses.unsqueeze(1)

    def users(self, pooled: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors of the users of all slots, shape (slots, dim)."""
        return ready(self.config, self.user_tower(columns_of(pooled, self.user_tower, self.item_tower)[0], None))


def columns_of(pooled: torch.Tensor, *towers: Tower) -> list[torch.Tensor]:
    """Return the columns of the pooled vectors that each tower reads, side by side; no copy where they lie so.

    It is one split, whose way back is one pass; that of each slice would fill a tensor of zeros.
    """
    wanted = sorted((each.start, each.stop, number) for number, tower in enumerate(towers) for each in tower.columns)
    runs = [
        (number, sum(stop - start for start, stop, _ in run))
        for number, run in groupby(wanted, key=lambda each: each[2])
    ]
    widths = [width for _, width in runs]
    pieces = pooled[:, : sum(widths)].split(widths, 1)
    found = []
    for tower in range(len(towers)):
        own = [piece for piece, (number, _) in zip(pieces, runs, strict=True) if number == tower]
        found.append(own[0] if len(own) == 1 else torch.cat(own, 1) if own else pooled[:, :0])
    return found


def ready(config: RetrievalHead, vectors: torch.Tensor) -> torch.Tensor:
    """Return the vectors, shape (n, dim), as their dot products are scores: of length 1 for the cosine, zeros staying zeros."""
    if config.similarity is Similarity.dot:
        return vectors
    lengths = vectors.square().sum(1, keepdim=True)
    return vectors * torch.where(lengths > 0, lengths, torch.inf).rsqrt()  # no gradient of a vector of zeros
