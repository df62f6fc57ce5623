"""The rows of one table that this rank holds, filled step by step.

Nothing is written as -0.0 (what is too small for halves becomes it), which an update of a frozen row by 0 would turn into 0.0.
"""

from collections.abc import Sequence

import numba
import numpy as np
import torch
import torch.distributed as dist

from bigembed.arrays import in_threads
from bigembed.checkpoint import Group
from bigembed.pretrained.steps import Add, Normalise, Put, Step
from bigembed.sharding.rows import Shard

# An Adagrad's sum of squares, by whose root a row's update is divided: that is 0 then, and the row keeps its bits.
FROZEN = float("inf")
AT_ONCE = 1 << 16  # rows that are added at once outside of the host's memory


class Held:
    """What a rank holds of a table, or of one part of it.

    Parameters
    ----------
    shards : sequence of Shard
        Of the weight.
    squares : sequence of sequences of Shard
        Of the optimizer's sums of squares, in the order of ``shards``, where the rows that a file gives are to stay frozen.
    group : Group
        All ranks.
    """

    def __init__(self, shards: Sequence[Shard], squares: Sequence[Sequence[Shard]], group: Group) -> None:
        self.shards, self.squares, self.group = shards, squares, group
        self.targets = [shard.local.detach() for shard in shards]

    def take(self, step: Step) -> None:
        """Do what a step says to the rows that are here."""
        if isinstance(step, Put):
            self._put(step)
        elif isinstance(step, Add):
            self._add(step)
        else:
            self._normalise(step)

    def settle(self) -> None:
        """Write back what was added up in full precision for tables of halves."""
        for shard, target in zip(self.shards, self.targets, strict=True):
            if target.data_ptr() != shard.local.data_ptr():
                shard.local.detach().copy_(target).add_(0.0)

    def _put(self, step: Put) -> None:
        for number, shard in enumerate(self.shards):
            here, given = _window(shard, step.column, step.vectors.shape[1])
            places = step.rows - shard.start[0]
            _put_into(self.targets[number][:, here], places, step.vectors[:, given])
            if step.given:
                for shards in self.squares:
                    local = shards[number].local.detach()
                    inside = places[(places >= 0) & (places < len(local))]
                    local[torch.from_numpy(inside).to(local.device)] = FROZEN

    def _add(self, step: Add) -> None:
        for number, shard in enumerate(self.shards):
            if self.targets[number].dtype != torch.float32:  # halves would lose what comes in many small pieces
                self.targets[number] = self.targets[number].float()
            here, given = _window(shard, step.column, step.vectors.shape[1])
            places = step.rows - shard.start[0]
            _add_to(self.targets[number][:, here], places, step.sources, step.weights, step.vectors[:, given])

    def _normalise(self, step: Normalise) -> None:
        squares = torch.zeros(len(step.rows), dtype=torch.float64)
        windows = []
        for number, shard in enumerate(self.shards):
            target = self.targets[number][:, _window(shard, step.column, step.width)[0]]
            places = torch.from_numpy(step.rows - shard.start[0])
            inside = torch.nonzero((places >= 0) & (places < len(target))).squeeze(1)
            windows.append((target, places[inside].to(target.device), inside))
            if shard.owner:
                squares[inside] += target[windows[-1][1]].double().square().sum(1).cpu()
        if self.group.group is not None:
            dist.all_reduce(squares, group=self.group.group)
        factors = torch.where(squares > 0, squares.rsqrt(), 1.0).float()
        for target, places, inside in windows:
            scaled = target[places].float() * factors[inside].to(target.device).unsqueeze(1)
            target[places] = scaled.to(target.dtype) + 0.0


def _window(shard: Shard, column: int, width: int) -> tuple[slice, slice]:
    """Return which of a shard's columns are among ``width`` of the table from ``column`` on, and which of those these are."""
    first = shard.start[1]
    begin, end = max(first, column), min(first + shard.local.shape[1], column + width)
    end = max(begin, end)
    return slice(begin - first, end - first), slice(begin - column, end - column)


def _put_into(target: torch.Tensor, places: np.ndarray, vectors: np.ndarray) -> None:
    """Overwrite the rows ``places`` of ``target`` that it has; of equal ones the last counts."""
    if target.device.type == "cpu" and target.dtype == torch.float32:
        if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
            _put_run(target.numpy(), int(places[0]), len(places), vectors)
        else:
            _in_threads(_put_rows, target.numpy(), places, vectors)
        return
    _, last = np.unique(places[::-1], return_index=True)  # a device writes equal ones in any order
    chosen = len(places) - 1 - last
    chosen = chosen[(places[chosen] >= 0) & (places[chosen] < len(target))]
    found = torch.from_numpy(vectors[chosen] if len(vectors) > 1 else np.ascontiguousarray(vectors))
    target[torch.from_numpy(places[chosen]).to(target.device)] = found.to(target.device, target.dtype) + 0.0


def _put_run(target: np.ndarray, first: int, count: int, vectors: np.ndarray) -> None:
    """Overwrite ``count`` rows from ``first`` on, of which ``target`` has some."""
    begin, end = max(first, 0), min(first + count, len(target))
    if begin < end:
        given = vectors if len(vectors) == 1 else vectors[begin - first : end - first]
        np.add(given, np.float32(0), out=target[begin:end])


def _add_to(
    target: torch.Tensor, places: np.ndarray, sources: np.ndarray, weights: np.ndarray, vectors: np.ndarray
) -> None:
    """Add weighted ``vectors`` to the rows ``places`` of ``target`` (float32) that it has."""
    if target.device.type == "cpu":
        _in_threads(_add_rows, target.numpy(), places, sources, weights, vectors)
        return
    device, all_vectors = target.device, torch.from_numpy(np.ascontiguousarray(vectors)).to(target.device)
    inside = np.flatnonzero((places >= 0) & (places < len(target)))
    for start in range(0, len(inside), AT_ONCE):
        some = inside[start : start + AT_ONCE]
        weighted = all_vectors[torch.from_numpy(sources[some]).to(device)]
        weighted *= torch.from_numpy(weights[some]).to(device).unsqueeze(1)
        target.index_add_(0, torch.from_numpy(places[some]).to(device), weighted)


def _in_threads(kernel: numba.core.dispatcher.Dispatcher, target: np.ndarray, *others: np.ndarray) -> None:
    """Call a kernel for parts of the target's rows, one a thread: each row is one thread's, so that sums have one order."""
    threads = torch.get_num_threads()
    ends = [len(target) * part // threads for part in range(threads + 1)]
    in_threads(lambda part: kernel(target, ends[part], ends[part + 1], *others), range(threads), threads)


@numba.njit(nogil=True, cache=True)
def _put_rows(target: np.ndarray, begin: int, end: int, places: np.ndarray, vectors: np.ndarray) -> None:
    single = len(vectors) == 1
    for i in range(len(places)):
        row, vector = places[i], 0 if single else i
        if begin <= row < end:
            for k in range(target.shape[1]):
                target[row, k] = vectors[vector, k] + np.float32(0)


@numba.njit(nogil=True, cache=True)
def _add_rows(
    target: np.ndarray,
    begin: int,
    end: int,
    places: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    vectors: np.ndarray,
) -> None:
    for i in range(len(places)):
        row, vector, weight = places[i], sources[i], weights[i]
        if begin <= row < end:
            for k in range(target.shape[1]):
                target[row, k] += weight * vectors[vector, k]
