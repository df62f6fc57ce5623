"""Both optimizers, fused and dense, under one schedule."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec.distributed.composable.table_batched_embedding_slice import TableBatchedEmbeddingSlice
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from bigembed.config.physical import physical
from bigembed.config.schema import (
    DenseOptimConfig,
    DenseOptimizer,
    Freeze,
    Job,
    OptimConfig,
    Schedule,
    TableOptimConfig,
    TableOptimizer,
)

TABLE_OPTIMIZERS = {
    TableOptimizer.rowwise_adagrad: RowWiseAdagrad,
    TableOptimizer.adagrad: torch.optim.Adagrad,
    TableOptimizer.sgd: torch.optim.SGD,
}
DENSE_OPTIMIZERS = {
    DenseOptimizer.adagrad: torch.optim.Adagrad,
    DenseOptimizer.adam: torch.optim.Adam,
    DenseOptimizer.sgd: torch.optim.SGD,
}


EPS = 1e-8  # FBGEMM's; torch has 1e-10 for Adagrad. One for both, or the same job differs between them (mlcommons/training#622).


OF_TABLES = (
    "tables.",
    "weighted.",
    "managed.",
    "managed_weighted.",
    "sequences.",
)  # what the names of the tables' parameters begin with
DENSE_STATES = {"momentum1": "sum"}  # FBGEMM's name of a state, and the dense optimizers'


def collections(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that hold a model's tables, by their names in it."""
    found = {name: getattr(model, name, None) for name in ("tables", "weighted", "managed", "managed_weighted")}
    found |= {f"sequences.{name}": module for name, module in model.sequences.items()}  # type: ignore[operator,union-attr]
    return {name: module for name, module in found.items() if module is not None}


def table_of(name: str) -> str:
    """Return the table that a parameter or a state belongs to, by its name in the model."""
    return name.removesuffix(".weight").rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Rate:
    """How a table learns: its learning rate at the height of the schedule, and the steps before which it is 0 (None: it stays 0)."""

    lr: float
    first_step: int | None = 0

    def at(self, step: int, scale: float) -> float:
        """Return the learning rate of ``step``, where the schedule's factor is ``scale``."""
        return 0.0 if self.first_step is None or step < self.first_step else self.lr * scale


def rates(job: Job) -> dict[str, Rate]:
    """Return how every table of ``config.physical.physical(job)`` learns."""
    found = {}
    for name, table in physical(job).tables.items():
        frozen = table.pretrained.freeze is Freeze.table
        lr = job.optim.tables.lr if table.lr is None else table.lr
        found[name] = Rate(lr, table.pretrained.freeze_steps if frozen else 0)
    return found


def _marks(job: Job) -> dict[Rate, float]:
    """Return a number for each different rate.

    Fused tables begin with it as their learning rate: TorchRec then puts only tables of one rate together, and each group can be
    told by it; ``Optimizers.schedule`` sets the learning rate before the first step.
    """
    return {rate: 1.0 + number for number, rate in enumerate(dict.fromkeys(rates(job).values()))}


def fuse(model: nn.Module, job: Job, dense: Collection[str]) -> None:
    """Attach the tables' optimizer to those of ``model`` (on meta, before sharding): FBGEMM then updates rows in the backward pass.

    The tables named in ``dense``, whose kernel is dense, are left to a dense optimizer.
    """
    config, of_table, marks = job.optim.tables, rates(job), _marks(job)
    for name, parameter in model.named_parameters():
        if name.startswith(OF_TABLES) and table_of(name) not in dense:
            options = _options(config, TableOptimizer.sgd) | {"lr": marks[of_table[table_of(name)]]}
            _apply_optimizer_in_backward(TABLE_OPTIMIZERS[config.kind], [parameter], options)


def _options(
    config: TableOptimConfig | DenseOptimConfig, without_eps: TableOptimizer | DenseOptimizer
) -> dict[str, float]:
    if config.kind is without_eps:
        return {"lr": config.lr}
    return {"lr": config.lr, "eps": EPS if config.eps is None else config.eps}


def factor(config: OptimConfig, step: int, steps: int) -> float:
    """Return what the learning rates are multiplied with in ``step`` (from 0) of ``steps``."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    if config.schedule is Schedule.linear:
        return 1 - done
    return 0.5 * (1 + math.cos(math.pi * done)) if config.schedule is Schedule.cosine else 1.0


class Optimizers:
    """The fused optimizer of the tables, the tables' optimizer where it is not fused, and that of everything else, stepped together.

    Attributes
    ----------
    unfused : list of (str, Parameter)
        This rank's parts of the tables with a dense kernel.
    tables : Optimizer or None
        What moves them.
    starts : dict of str to list of Tensor
        What the rows of this rank's shards started as, of the tables that are pulled back there.
    """

    def __init__(self, model: DistributedModelParallel, job: Job, steps: int) -> None:
        self.config, self.steps = job.optim, steps
        self.starts: dict[str, list[torch.Tensor]] = {}
        config, of_table, marks = job.optim, rates(job), _marks(job)
        self.fused = model.fused_optimizer
        others = list(in_backward_optimizer_filter(model.named_parameters()))
        of_tables = [
            (name, parameter) for name, parameter in others if isinstance(parameter, TableBatchedEmbeddingSlice)
        ]
        self.unfused = of_tables
        dense = {name: parameter for name, parameter in others if not name.startswith(OF_TABLES)}
        self.names, self.parameters = list(dense), list(dense.values())
        options = _options(config.dense, DenseOptimizer.sgd)
        # Matrix factorisation has nothing but tables.
        self.dense = DENSE_OPTIMIZERS[config.dense.kind](self.parameters, **options) if self.parameters else None
        self.tables = None
        if self.unfused:
            groups: dict[float, list[nn.Parameter]] = {}
            for name, parameter in self.unfused:
                groups.setdefault(marks[of_table[table_of(name)]], []).append(parameter)
            options = _options(config.tables, TableOptimizer.sgd)
            given = [{"params": parameters, "lr": mark} for mark, parameters in groups.items()]
            self.tables = TABLE_OPTIMIZERS[config.tables.kind](given, **options)
        by_mark = {mark: rate for rate, mark in marks.items()}
        groups_of_tables = [*self.fused.param_groups, *(self.tables.param_groups if self.tables else ())]
        self.rated = [(group, by_mark[float(group["lr"])]) for group in groups_of_tables]

    def unfused_states(self) -> list[str]:
        """Return the names of the states that the tables' optimizer keeps, as FBGEMM calls them."""
        return [] if self.config.tables.kind is TableOptimizer.sgd else list(DENSE_STATES)

    def dense_state(self) -> dict[str, torch.Tensor]:
        """Return the dense optimizer's state as "parameter|entry" to tensor; empty where it keeps none."""
        state = {} if self.dense is None else self.dense.state_dict()["state"]
        return {
            f"{self.names[index]}|{entry}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
            for index, entries in state.items()
            for entry, value in entries.items()
            if value is not None  # SGD without momentum keeps a None
        }

    def load_dense_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what ``dense_state`` returned."""
        entries: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            name, _, entry = key.rpartition("|")
            entries.setdefault(self.names.index(name), {})[entry] = value
        if self.dense is not None:
            self.dense.load_state_dict({**self.dense.state_dict(), "state": entries})

    def schedule(self, step: int) -> float:
        """Set the learning rates of ``step`` and return their factor; the fused kernel reads its own in the backward pass."""
        scale = factor(self.config, step, self.steps)
        for group, rate in self.rated:
            group["lr"] = rate.at(step, scale)
        for group in self.dense.param_groups if self.dense else ():
            group["lr"] = self.config.dense.lr * scale
        self.fused.step()  # no update: it hands the learning rate to the kernel
        return scale

    def zero_grad(self) -> None:
        """Drop the dense gradients; the fused ones never exist as a whole."""
        if self.dense:
            self.dense.zero_grad(set_to_none=True)
        if self.tables:
            self.tables.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the dense parameters; the fused tables moved in the backward pass."""
        if self.config.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.config.clip_value)
        if self.dense:
            self.dense.step()
        if self.tables:
            self.tables.step()
