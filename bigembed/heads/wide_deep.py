"""Wide & deep (Cheng et al. 2016, Wide & Deep Learning for Recommender Systems)."""

from typing import Any

import torch

from bigembed.config.schema import WideDeepHead
from bigembed.heads.ranking import Ranking
from bigembed.layout import Layout


class WideDeep(Ranking):
    """A linear model of the features named in ``wide`` beside the deep part, which takes the others and the numbers.

    The first entry of a wide feature's vector is its weight, which counts for every label.
    """

    first_entries: torch.Tensor

    def __init__(self, config: WideDeepHead, layout: Layout) -> None:
        deep = [each for name, each in layout.features.items() if name not in config.wide] + [*layout.numbers.values()]
        super().__init__(config, sum(each.stop - each.start for each in deep))
        self.runs = _runs(deep)
        first_entries = torch.zeros(layout.width)
        first_entries[[layout.features[name].start for name in config.wide]] = 1
        self.register_buffer("first_entries", first_entries, persistent=False)

    def forward(self, pooled: torch.Tensor, sequences: Any, seeds: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (samples, labels), of ``pooled``, shape (samples, width)."""
        # A product with zeros and ones: columns picked one by one would each get a gradient as large as all columns.
        wide = pooled @ self.first_entries
        return self.deep(torch.cat([pooled[:, run] for run in self.runs], 1), seeds) + wide.unsqueeze(1)


def _runs(columns: list[slice]) -> list[slice]:
    """Return ``columns``, in ascending order, those that follow each other as one."""
    joined = columns[:1]
    for each in columns[1:]:
        if each.start == joined[-1].stop:
            joined[-1] = slice(joined[-1].start, each.stop)
        else:
            joined.append(each)
    return joined
