"""The next item of a user by those before: self-attention (SASRec), a recurrent network (GRU4Rec), or their mean (History).

The positions of all samples lie one after another, so layers that know no neighbours cost what there is and not what the longest
sample is; only what looks across positions works on matrices with a row for each sample, filled up behind its last position, for a
few groups of samples of about the same length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from bigembed.config.schema import GRU4RecHead, HistoryHead, SASRecHead, SequenceHead
from bigembed.heads.dropout import Dropout, mixed
from bigembed.heads.losses import retrieval_losses, squares
from bigembed.heads.retrieval import Retrieval, columns_of, ready
from bigembed.layout import Layout

EPS = 1e-8  # of the layer norms, as in SASRec's code
# Where lengths are uneven (geometric, of mean 10 and at most 50), attention over 4 groups costs a quarter of that over one.
GROUPS = 4


@dataclass(slots=True)
class Group:
    """Samples of about the same length.

    Attributes
    ----------
    rows : slice
        Their positions.
    cells : Tensor, shape (positions of them,), int64
        Where each position is in a matrix of ``samples`` times ``longest``.
    samples, longest : int
        How many samples there are, and positions of the longest.
    """

    rows: slice
    cells: torch.Tensor
    samples: int
    longest: int


@dataclass(slots=True)
class Positions:
    """The positions of a batch's histories, the longest histories first.

    Attributes
    ----------
    order : Tensor, shape (positions,), int64
        Where each is in the batch.
    number, places : Tensor, shape (positions,), int64
        Counted from the sample's first position, and from its last, which are 0.
    groups : list of Group
        At least one, also where there is no position.
    seeds : Tensor or None, shape (positions,), int64
        By which entries are dropped; None: none are.
    """

    order: torch.Tensor
    number: torch.Tensor
    places: torch.Tensor
    groups: list[Group]
    seeds: torch.Tensor | None

    def across(self, change: Callable[..., torch.Tensor], *vectors: torch.Tensor) -> torch.Tensor:
        """Return what ``change`` makes of ``vectors``, shape (positions, dim) each, one row for a position.

        It gets them as (samples, longest, dim), filled up with zeros behind each sample's last position, group by group.
        """
        found = []
        for group in self.groups:
            size = group.samples * group.longest
            filled = (
                each.new_zeros(size, each.shape[1])
                .index_copy(0, group.cells, each[group.rows])
                .view(group.samples, group.longest, -1)
                for each in vectors
            )
            found.append(change(*filled).reshape(size, -1).index_select(0, group.cells))
        return torch.cat(found)

    def dropped(self, dropout: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
        """Return ``vectors``, shape (positions, dim), with entries dropped."""
        return vectors if self.seeds is None else dropout(vectors, self.seeds)


class Sequence(Retrieval):
    """What the heads of sequences have in common; a sample is a user, a position of his history tells the next item.

    Items have a tower, from whose vectors histories are read as well; users have one where there are features of users, and its vector
    is added to what the encoder makes of the history. Inputs of the encoder are multiplied by the root of their width, as in SASRec's
    code, so that small first rows are heard beside positions and times.
    """

    def __init__(self, config: SequenceHead, layout: Layout) -> None:
        super().__init__(config, layout)
        self.dim = self.item_tower.dim
        self.gaps = _learned(config.time_buckets, self.dim) if config.time_buckets else None

    def encode(self, vectors: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Return what the history up to each position says of the next item, shape (positions, dim), from inputs of that shape."""
        raise NotImplementedError

    def forward(self, pooled: torch.Tensor, seeds: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the samples' losses: the sums of those of their positions, times ``position_weight``.

        Parameters
        ----------
        pooled : Tensor, shape (slots, width), float
            The vectors of the features; at least as many slots as samples.
        seeds : Tensor, shape (samples,), int64
            By which entries are dropped.
        extras : dict of str to Tensor
            See ``losses.retrieval_losses``, its samples being positions here. ``lengths``, int64 (samples,): positions of each. By
            position, int64: ``history``, the slot of its item; ``places``, counted from the sample's last, which is 0; ``gaps``, the
            bucket of the time since the item before, where there are buckets. ``position_weight``, float scalar. ``item_seeds``, int64
            (items,), by which entries in the tower of items are dropped, where that has layers: slots after the first so many hold none.

        Returns
        -------
        Tensor, shape (samples, 1), float
        """
        sample = _samples(extras)
        # Without layers an item's vector is whole where it is scored: only what the encoder reads is dropped, as in SASRec.
        of_users, of_items = self.looked_up(pooled, seeds, extras)
        vectors = self.item_tower(of_items, extras["item_seeds"] if self.config.item_hidden else None)
        users = self._encoded(vectors, extras, mixed(seeds[sample], extras["places"]))
        if self.user_tower.dim:
            users = users + self.user_tower(of_users, seeds).index_select(0, sample)
        losses = retrieval_losses(self.config, ready(self.config, users), ready(self.config, vectors), extras)
        if self.config.l2:
            looked_up = self.user_tower.looked_up
            squared = squares(
                of_users[:, :looked_up] if looked_up else None, of_items[:, : self.item_tower.looked_up], sample, extras
            )
            losses = losses + self.config.l2 * squared
        sums = losses.new_zeros(len(seeds)).index_add(0, sample, losses)
        return (sums * extras["position_weight"]).unsqueeze(1)

    def users(self, pooled: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors of the users after their last position, shape (samples, dim).

        Of the extras of ``forward`` these are read: lengths, history, places, gaps. A user without a history has the vector of the tower
        of users; without one zeros.
        """
        lengths = extras["lengths"]
        of_users, of_items = columns_of(pooled, self.user_tower, self.item_tower)
        encoded = self._encoded(self.item_tower(of_items, None), extras, None)
        last = extras["places"] == 0
        users = encoded.new_zeros(len(lengths), self.dim).index_copy(0, _samples(extras)[last], encoded[last])
        if self.user_tower.dim:
            users = users + self.user_tower(of_users[: len(lengths)], None)
        return ready(self.config, users)

    def _encoded(
        self, vectors: torch.Tensor, extras: dict[str, torch.Tensor], seeds: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what ``encode`` makes of the histories, by position of the batch; ``seeds``, if any, are by position too."""
        positions = _positions(extras, seeds)
        read = vectors.index_select(0, extras["history"][positions.order]) * self.dim**0.5
        if self.gaps is not None:
            read = read + self.gaps(extras["gaps"][positions.order])
        return self.encode(read, positions).index_select(0, torch.argsort(positions.order))


class SASRec(Sequence):
    """SASRec (Kang & McAuley 2018), layer by layer as its authors' code has it.

    A block: q = norm(x); y = norm(q + attention(q, x, x)); x = y + W₂ relu(W₁ y + b₁) + b₂. After the last comes a norm. Places, counted
    from the end, have learned vectors. Dropped are entries of the inputs, of what attention gives (the code: of its weights), and
    of both layers of a block.
    """

    def __init__(self, config: SASRecHead, layout: Layout) -> None:
        super().__init__(config, layout)
        self.places = _learned(config.max_length, self.dim)
        self.dropout = Dropout(config.dropout, 0)
        self.blocks = nn.ModuleList(
            _Block(self.dim, config.heads, config.dropout, 3 * n + 1) for n in range(config.layers)
        )
        self.norm = nn.LayerNorm(self.dim, EPS)

    def encode(self, vectors: torch.Tensor, positions: Positions) -> torch.Tensor:
        """See ``Sequence.encode``."""
        vectors = positions.dropped(self.dropout, vectors + self.places(positions.places))
        for block in self.blocks:
            vectors = block(vectors, positions)
        return self.norm(vectors)


class _Block(nn.Module):
    """A block of SASRec; ``first`` is the number of its first dropout."""

    def __init__(self, dim: int, heads: int, dropout: float, first: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(dim, EPS) for _ in range(2))
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.ModuleList(Dropout(dropout, first + n) for n in range(3))

    def forward(self, vectors: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Return the block's outputs of its inputs, both of shape (positions, dim)."""
        attended, hidden, outer = self.dropout
        normed = self.norms[0](vectors)
        read = self.query(normed), self.key(vectors), self.value(vectors)
        vectors = self.norms[1](normed + positions.dropped(attended, positions.across(self._attend, *read)))
        inner = positions.dropped(hidden, functional.relu(self.inner(vectors)))
        return vectors + positions.dropped(outer, self.outer(inner))

    def _attend(self, *read: torch.Tensor) -> torch.Tensor:
        """Return what queries, keys and values, shape (samples, longest, dim), give at every position, of that and those before."""
        query, key, value = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in read)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return attended.transpose(1, 2).flatten(2)


class GRU4Rec(Sequence):
    """GRU4Rec (Hidasi et al. 2016): gated recurrent layers over the items before, then a linear one to the width of an item's vector."""

    def __init__(self, config: GRU4RecHead, layout: Layout) -> None:
        super().__init__(config, layout)
        widths = [self.dim, *([config.width] * config.layers)]
        self.layers = nn.ModuleList(nn.GRU(*pair, batch_first=True) for pair in pairwise(widths))
        self.dropouts = nn.ModuleList(Dropout(config.dropout, layer) for layer in range(config.layers))
        self.linear = nn.Linear(config.width, self.dim)

    def encode(self, vectors: torch.Tensor, positions: Positions) -> torch.Tensor:
        """See ``Sequence.encode``."""
        for dropout, layer in zip(self.dropouts, self.layers, strict=True):
            vectors = positions.across(
                lambda filled, layer=layer: layer(filled)[0], positions.dropped(dropout, vectors)
            )
        return self.linear(vectors)


class History(Sequence):
    """The mean of the vectors of the items up to each position, through linear layers of the same width (ReLU between them)."""

    def __init__(self, config: HistoryHead, layout: Layout) -> None:
        super().__init__(config, layout)
        self.layers = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in range(config.layers))
        self.dropouts = nn.ModuleList(Dropout(config.dropout, layer) for layer in range(config.layers))

    def encode(self, vectors: torch.Tensor, positions: Positions) -> torch.Tensor:
        """See ``Sequence.encode``."""
        vectors = positions.dropped(self.dropouts[0], vectors)
        vectors = positions.across(lambda filled: filled.cumsum(1), vectors) / (positions.number + 1).unsqueeze(1)
        for number, layer in enumerate(self.layers):
            if number:
                vectors = positions.dropped(self.dropouts[number], functional.relu(vectors))
            vectors = layer(vectors)
        return vectors


def _samples(extras: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the sample of every position, shape (positions,), int64."""
    lengths = extras["lengths"]
    samples = torch.arange(len(lengths), device=lengths.device)
    return torch.repeat_interleave(samples, lengths, output_size=len(extras["places"]))


def _positions(extras: dict[str, torch.Tensor], seeds: torch.Tensor | None) -> Positions:
    lengths, by_length = torch.sort(extras["lengths"], descending=True, stable=True)
    sample = _samples({"lengths": lengths, "places": extras["places"]})
    starts = lengths.cumsum(0) - lengths
    number = torch.arange(len(sample), device=sample.device) - starts[sample]
    first = (extras["lengths"].cumsum(0) - extras["lengths"])[by_length]
    order = first[sample] + number
    groups, samples, known = [], -(-len(lengths) // GROUPS), lengths.tolist()
    for start in range(0, len(known), samples):
        longest, rows = known[start], sum(known[:start])
        if longest or not start:
            own = slice(rows, rows + sum(known[start : start + samples]))
            cells = (sample[own] - start) * max(1, longest) + number[own]
            groups.append(Group(own, cells, len(known[start : start + samples]), max(1, longest)))
    return Positions(order, number, extras["places"][order], groups, None if seeds is None else seeds[order])


def _learned(count: int, dim: int) -> nn.Embedding:
    """Return learned vectors that start about as long as the inputs' rows, which are uniform in ±1/dim, are once multiplied."""
    table = nn.Embedding(count, dim)
    nn.init.normal_(table.weight, std=dim**-0.5)
    return table
