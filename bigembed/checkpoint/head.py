"""What the head of one run keeps of the head of another: parameters of the same shape, and of the first layer the inputs that stay."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from bigembed.config.schema import FeatureConfig, Job, NumberConfig
from bigembed.model import Model

FIRST = "head.layers.0.weight"  # its columns are the inputs
OF_FEATURES, OF_TABLES = "head.scorers.", "composition.projections."  # followed by the name of one

Inputs = dict[str, slice]


class Heads:
    """The heads of an old run and of the one that grows from it.

    Parameters
    ----------
    before, after : Job
        Their configurations.
    old_rows, new_rows : dict of str to int
        The rows of every table of ``config.physical``.
    """

    def __init__(self, before: Job, old_rows: dict[str, int], after: Job, new_rows: dict[str, int]) -> None:
        self.before, self.after = before, after
        self.old, self.new = _inputs(before, old_rows), _inputs(after, new_rows)
        self.same_optimizer = before.optim.dense.kind is after.optim.dense.kind
        self.columns = False  # whether those of the first layer were kept
        self.anew: list[str] = []  # parameters that begin anew as a whole

    def carry(self, old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> None:
        """Overwrite in ``new``, both as ``contents.dense`` makes them, what stays, and add what its optimizer does not have yet."""
        for key in [key for key in new if key.startswith("model.")]:
            name = key.removeprefix("model.")
            before = old.get(key)
            if before is None or not self._belongs(name) or not self._fits(name, before, new[key]):
                self.anew.append(name)
                continue
            self._put(name, before, new[key])
            for entry, state in _states(name, old) if self.same_optimizer else ():
                if state.shape != before.shape:  # a count of steps
                    new[entry] = state
                else:
                    target = new.setdefault(entry, torch.zeros_like(new[key], dtype=state.dtype))
                    self._put(name, state, target)

    def told(self) -> list[tuple[str, str]]:
        """Return every feature and number of either run with what became of it, and the parameters that begin anew."""
        kept = "kept" if self.columns else "begins anew with its layer"
        lines = [
            (name, kept if self._stays(name) else "new" if name in self.new else "dropped")
            for name in {**self.old, **self.new}
        ]
        return lines + [(name, "begins anew") for name in self.anew]

    def _belongs(self, name: str) -> bool:
        """Whether a parameter belongs to no feature and no table, or to one that stays."""
        if name.startswith(OF_FEATURES):
            return self._stays(f"features.{name.removeprefix(OF_FEATURES).partition('.')[0]}")
        table = name.removeprefix(OF_TABLES).partition(".")[0]
        return not name.startswith(OF_TABLES) or table in self.before.tables

    def _fits(self, name: str, old: torch.Tensor, new: torch.Tensor) -> bool:
        return len(old) == len(new) if name == FIRST else old.shape == new.shape

    def _put(self, name: str, old: torch.Tensor, new: torch.Tensor) -> None:
        if name != FIRST:
            new.copy_(old)
            return
        self.columns = True
        for each, place in self.new.items():
            if self._stays(each):
                new[:, place] = old[:, self.old[each]]

    def _stays(self, name: str) -> bool:
        """Whether an input is the same in both runs, though perhaps of a column of another name."""
        return name in self.old and name in self.new and _named(self.before, name) == _named(self.after, name)


def _named(job: Job, name: str) -> FeatureConfig | NumberConfig:
    """Return an input's options without its column, which may be called something else in other data."""
    group, _, name = name.partition(".")
    return replace(getattr(job, group)[name], column="")


def _states(name: str, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what the optimizer keeps of a parameter."""
    for key, value in tensors.items():
        if key.startswith(f"optim.{name}|"):
            yield key, value


def _inputs(job: Job, rows: dict[str, int]) -> Inputs:
    """Return which columns of the first layer belong to which feature or number."""
    with torch.random.fork_rng(devices=[]):  # the model draws its first weights
        composition = Model(job, rows, torch.device("meta")).composition
    widths = [(f"features.{name}", job.tables[job.features[name].table].dim) for name in composition.pooled]
    widths += [(f"numbers.{name}", 1) for name in job.numbers]
    widths += [(f"features.{name}", width) for name, width in composition.sequences.items()]
    found, begin = {}, 0
    for name, width in widths:
        found[name] = slice(begin, begin + width)
        begin += width
    return found
