"""From the rows that were looked up to one vector, or a sequence of them, for every feature."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from torchrec import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from bigembed.config.physical import Part, is_weighted, part_name, parts, per_element
from bigembed.config.schema import (
    Combine,
    CompositionalTable,
    FeatureConfig,
    HashedTable,
    Job,
    MixedTable,
    Pooling,
    SubwordTable,
    TableConfig,
)
from bigembed.layout import Layout


class Composition(nn.Module):
    """Every feature's vectors from the rows of the parts of its table.

    Pooled features come from TorchRec as sums, one a part, in the order of ``bags``; their means are taken here, since TorchRec's own are
    wrong in grid sharding, and clipped in another place in every kind. What is not a sum of rows is looked up row by row and
    put together here: first the rows of an element, then the elements of a sample.

    Parameters
    ----------
    job : Job
        The configuration.
    bags : sequence of tuple of str and int
        Names and widths of the features, as ``config.physical`` calls them, that come as sums.

    Attributes
    ----------
    layout : Layout
        Which columns of the pooled vectors and numbers, side by side, are whose.
    sequences : dict of str to int
        Widths of the features that stay sequences.
    """

    def __init__(self, job: Job, bags: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.job = job
        self.widths = dict(bags)
        self.projections = nn.ModuleDict(
            {name: module for name, table in job.tables.items() if (module := _projections(table)) is not None}
        )
        names = {feature: name for name in job.features for feature in _names(job, name)}
        own = list(dict.fromkeys(names[feature] for feature, _ in bags))
        self.plain = all(len(parts(job.tables[job.features[name].table])) == 1 for name in own)
        self.means = Means(job, [(feature, names[feature]) for feature, _ in bags], self.widths) if bags else None
        self.pooled = own + [
            name
            for name, feature in job.features.items()
            if per_element(job, feature) and feature.pooling is not Pooling.none
        ]
        dims = {name: job.tables[feature.table].dim for name, feature in job.features.items()}
        self.sequences = {name: dims[name] for name, each in job.features.items() if each.pooling is Pooling.none}
        self.layout = _layout(job, {name: dims[name] for name in self.pooled}, self.sequences)

    def forward(
        self, sums: Sequence[torch.Tensor], looked_up: Sequence[Mapping[str, JaggedTensor]], batch: Any
    ) -> tuple[torch.Tensor | None, dict[str, JaggedTensor]]:
        """Return the pooled vectors side by side, shape (samples, width), and the sequences by feature.

        Parameters
        ----------
        sums : sequence of Tensor, shape (samples, width)
            Sums of rows, the features side by side.
        looked_up : sequence of mappings of str to JaggedTensor
            Rows by feature, of the features that are looked up row by row.
        batch : Batch
            Lengths, weights, sizes and numbers.
        """
        rows = {name: value for mapping in looked_up for name, value in mapping.items()}
        vectors = [] if self.means is None else self._sums(self._in_order(sums), batch)
        elements = {name: self._elements(name, rows, batch) for name in self.job.features if self._is_looked_up(name)}
        for name in self.pooled:
            if name in elements:
                vectors.append(self._pool(name, elements[name], batch))
        if self.job.numbers:
            vectors.append(batch.numbers)
        pooled = None if not vectors else torch.cat(vectors, 1) if len(vectors) > 1 else vectors[0]
        return pooled, {name: elements[name] for name in self.sequences}

    def _is_looked_up(self, name: str) -> bool:
        return per_element(self.job, self.job.features[name])

    def _in_order(self, sums: Sequence[KeyedTensor]) -> torch.Tensor:
        """Return the sums in the order of ``bags``: TorchRec puts them side by side by the ranks that hold them."""
        tables = [(key, each) for each in sums for key in list(each.keys())]
        if [key for key, _ in tables] == list(self.widths):
            return torch.cat([each.values() for each in sums], 1) if len(sums) > 1 else sums[0].values()
        found = {key: each[key] for key, each in tables}
        return torch.cat([found[name] for name in self.widths], 1)

    def _sums(self, sums: torch.Tensor, batch: Any) -> list[torch.Tensor]:
        """Return the pooled vectors of the features that come as sums."""
        assert self.means is not None
        sums = self.means(sums.float(), batch)  # looked up in halves outside of training
        if self.plain:
            return [sums]
        found = dict(zip(self.widths, sums.split(list(self.widths.values()), 1), strict=True))
        names = [name for name in self.pooled if not self._is_looked_up(name)]
        return [self._combined(name, [found[each] for each in _names(self.job, name)]) for name in names]

    def _elements(self, name: str, rows: Mapping[str, JaggedTensor], batch: Any) -> JaggedTensor:
        """Return the vectors of a feature's elements."""
        feature = self.job.features[name]
        own, found, lengths = parts(self.job.tables[feature.table]), [], None
        for part in own:
            key = part_name(name, part)
            values = rows[key].values().float()
            if is_weighted(self.job, feature):
                values = values * batch.weighted[key].weights().unsqueeze(1)
            sizes = batch.sizes[key] if part.per_element == 0 else None
            found.append(_by_element(values, part, sizes))
            lengths = rows[key].lengths() // part.per_element if sizes is None else sizes.lengths()
            if isinstance(self.job.tables[feature.table], SubwordTable):
                assert sizes is not None
                found[-1] = found[-1] / sizes.values().clamp(min=1).unsqueeze(1)
        return JaggedTensor(values=self._combined(name, found), lengths=lengths)

    def _combined(self, name: str, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the vectors of a feature from those of its parts; all of shape (n, width of the part)."""
        table = self.job.tables[self.job.features[name].table]
        if isinstance(table, HashedTable) and table.importance is not None:
            rows, importance = vectors
            rows = rows.view(-1, table.functions, table.dim)
            return (rows * importance[:, : table.functions].unsqueeze(2)).sum(1)
        if isinstance(table, CompositionalTable) and table.combine is Combine.concat:
            return torch.cat(vectors, 1)
        if isinstance(table, MixedTable):
            own: Any = self.projections[self.job.features[name].table]
            vectors = [own[str(number)](each) if str(number) in own else each for number, each in enumerate(vectors)]
        combined = vectors[0]
        for each in vectors[1:]:
            multiplied = isinstance(table, CompositionalTable) and table.combine is Combine.mult
            combined = combined * each if multiplied else combined + each
        return combined

    def _pool(self, name: str, elements: JaggedTensor, batch: Any) -> torch.Tensor:
        """Return the sums or means of a feature's elements; where these are weighted, the weights have made means of sums already."""
        feature, lengths = self.job.features[name], elements.lengths()
        sums = torch.segment_reduce(elements.values(), "sum", lengths=lengths)
        mean = feature.pooling is Pooling.mean and not is_weighted(self.job, feature)
        return sums / lengths.clamp(min=1).unsqueeze(1) if mean else sums


class Means(nn.Module):
    """Sums of rows, those of features with mean pooling divided by their numbers of elements."""

    columns: torch.Tensor
    divided: torch.Tensor
    counted: torch.Tensor

    def __init__(self, job: Job, bags: Sequence[tuple[str, str]], widths: Mapping[str, int]) -> None:
        super().__init__()
        keys = feature_keys(job, weighted=False)
        weighted = [is_weighted(job, job.features[name]) for _, name in bags]
        mean = [job.features[name].pooling is Pooling.mean for _, name in bags]
        mean = [each and not own for each, own in zip(mean, weighted, strict=True)]  # weights have made means already
        self.any, self.all, self.single = any(mean), all(mean), len(bags) == 1
        self.keys = len(keys)
        # What the lengths of the features of TorchRec are multiplied with, to be numbers of elements.
        counted = torch.zeros(len(bags), len(keys), device="cpu")  # its values are looked at, also for a model on meta
        for row, (_, name) in enumerate(bags):
            for part in counting_parts(job, job.features[name]) if mean[row] else ():
                counted[row, keys.index(part_name(name, part))] = 1 / max(1, part.per_element)
        self.simple = bool(((counted == 0) | (counted == 1)).all() and (counted.sum(1) == 1).all())
        self.names = counted.argmax(1).tolist() if keys else []
        self.register_buffer("columns", torch.tensor([widths[feature] for feature, _ in bags]), persistent=False)
        self.register_buffer("divided", torch.tensor(mean), persistent=False)
        self.register_buffer("counted", counted, persistent=False)

    def forward(self, sums: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return the pooled vectors, shape (samples, width), of ``sums`` of that shape."""
        if not self.any or (self.simple and batch.single):
            return sums
        lengths = batch.features.lengths().view(self.keys, -1)
        if self.simple and self.single:
            return sums / lengths[self.names[0]].clamp(min=1).unsqueeze(1)
        counts = lengths[self.names] if self.simple else self.counted @ lengths.float()
        divisors = counts.clamp(min=1)
        divisors = divisors if self.all else torch.where(self.divided.unsqueeze(1), divisors, 1)
        return sums / divisors.t().repeat_interleave(self.columns, dim=1)


def feature_keys(job: Job, weighted: bool) -> list[str]:
    """Return the features of TorchRec whose ids have weights, or those whose ids have none, in the order of a batch."""
    features = [name for name, feature in job.features.items() if is_weighted(job, feature) == weighted]
    return [key for name in features for key in _names(job, name)]


def counting_parts(job: Job, feature: FeatureConfig) -> tuple[Part, ...]:
    """Return the parts whose rows, counted, are a feature's elements (of a table of subwords: the rows that a mean is over)."""
    table = job.tables[feature.table]
    return parts(table) if isinstance(table, MixedTable) else parts(table)[:1]


def _layout(job: Job, pooled: Mapping[str, int], sequences: dict[str, int]) -> Layout:
    """Return whose columns are which: the pooled features', then the numbers'."""
    ends = list(accumulate([*pooled.values(), *(1 for _ in job.numbers)], initial=0))
    columns = [slice(*pair) for pair in pairwise(ends)]
    of, number_of = ({name: each.of for name, each in group.items()} for group in (job.features, job.numbers))
    features, numbers = columns[: len(pooled)], columns[len(pooled) :]
    return Layout(
        dict(zip(pooled, features, strict=True)),
        dict(zip(job.numbers, numbers, strict=True)),
        of,
        number_of,
        sequences,
    )


def _names(job: Job, name: str) -> list[str]:
    """Return a feature's names in TorchRec."""
    return [part_name(name, part) for part in parts(job.tables[job.features[name].table])]


def _by_element(rows: torch.Tensor, part: Part, sizes: KeyedJaggedTensor | None) -> torch.Tensor:
    """Return the sums of the rows of each element; those of a part that is weighed stay apart."""
    if sizes is not None:
        lengths = sizes.values()
        return torch.segment_reduce(rows, "sum", lengths=lengths) if len(lengths) else rows
    if part.per_element == 1 or part.suffix:
        return rows
    return rows.view(-1, part.per_element, part.dim).sum(1)


def _projections(table: TableConfig) -> nn.ModuleDict | None:
    """Return the projections of the blocks of a table that are not as wide as its vectors."""
    if not isinstance(table, MixedTable):
        return None
    widths = {str(number): width for number, width in enumerate(table.widths) if width != table.dim}
    return nn.ModuleDict({number: nn.Linear(width, table.dim, bias=False) for number, width in widths.items()})
