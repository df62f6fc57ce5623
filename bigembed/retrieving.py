"""The items that a model finds for users: exact, streamed by blocks, the items shared among the ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from bigembed.batch import collate_items, collate_users
from bigembed.errors import UserError
from bigembed.examples import Examples
from bigembed.interactions import Cases, ListFigures, by_decade
from bigembed.prepare import Part
from bigembed.ragged import Ragged
from bigembed.runtime import Runtime
from bigembed.top import Best

BLOCK = 1 << 24  # scores in memory at a time


def evaluate_lists(
    model: nn.Module, part: Part, size: int, runtime: Runtime, check: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the figures of the lists of items that ``model`` finds for the cases of a part, the same on every rank.

    ``size`` users, over all ranks together, are asked for at a time, and as many items.
    """
    examples, cases = part.examples, part.cases
    assert cases is not None and examples.pairs is not None
    plain: Any = model.module if hasattr(model, "module") else model
    protocol = examples.job.protocol
    k = max(protocol.at)
    slices, counts = slices_of(part), examples.pairs.known.counts
    of_items = {"popularity": by_decade(counts)} if "popularity" in protocol.slices else {}
    figures = ListFigures(protocol.at, counts, {name: labels for name, (labels, _) in slices.items()}, of_items)
    model.eval()
    try:
        with torch.no_grad():
            items = None if cases.candidates is not None else ItemVectors(plain, examples, size, runtime, check)
            for start in range(0, len(cases.users), size):
                check()
                rows = np.arange(start, min(start + size, len(cases.users)))
                if items is None:
                    found, lists = _among_candidates(plain, part, rows, k, runtime)
                else:
                    found, lists = _among_all(plain, part, items, rows, k, runtime)
                own_slices = {name: places[found] for name, (_, places) in slices.items()}
                figures.update(lists, cases.targets.take(found), cases.missing[found], own_slices)
    finally:
        model.train()
    if runtime.world > 1:
        _add_up(figures, runtime)
    return figures.result()


def slices_of(part: Part) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return for each slicing of the users its labels, and of every case the place of its label among them (int64; -1: unknown user)."""
    examples, cases = part.examples, part.cases
    assert cases is not None and examples.pairs is not None
    found = {}
    for name in examples.job.protocol.slices:
        if name == "activity":
            found[name] = by_decade(np.where(cases.users < 0, 0, cases.before.histories.lengths[cases.users]))
        elif name != "popularity":
            table = examples.pairs.users.table
            if name not in table.column_names:
                raise UserError(
                    f"protocol.slices names '{name}', but the run was trained without data.users, whose column that would be; "
                    "train with data.users=FILE"
                )
            values = table[name].combine_chunks().cast(pa.string()).dictionary_encode()
            labels = [str(label) for label in values.dictionary.to_pylist()]
            places = np.asarray(values.indices.fill_null(-1)).astype(np.int64)
            found[name] = labels, np.where(cases.users < 0, -1, places[cases.users])
    return found


class ItemVectors:
    """The vectors of a rank's share of the items: codes ``first`` to ``first + len(vectors)``."""

    def __init__(
        self, model: Any, examples: Examples, size: int, runtime: Runtime, check: Callable[[], None] = lambda: None
    ) -> None:
        assert examples.pairs is not None
        count, world = len(examples.pairs.items), runtime.world
        own = runtime.share(count)
        self.first, stop = own.start, own.stop
        block, most = -(-size // world), -(-count // world)
        found = []
        for start in range(0, most, block):  # every rank makes as many steps
            check()
            codes = np.arange(min(self.first + start, stop), min(self.first + start + block, stop))
            batch = collate_items(examples, codes, block).to(runtime.device)
            found.append(model.items(batch)[: len(codes)].clone())
        self.vectors = torch.cat(found)


def _share(rows: np.ndarray, runtime: Runtime) -> tuple[np.ndarray, int]:
    """Return this rank's rows, and the most that any rank has."""
    return rows[runtime.share(len(rows))], -(-len(rows) // runtime.world)


def users_of(
    model: Any, examples: Examples, cases: Cases, rows: np.ndarray, size: int, runtime: Runtime
) -> torch.Tensor:
    """Return the vectors of the users of cases, shape (rows, dim); unknown users have those of user 0."""
    users = np.maximum(cases.users[rows], 0)
    batch = collate_users(examples, users, cases.before, size).to(runtime.device)
    return model.users(batch)[: len(rows)]


def _among_candidates(
    model: Any, part: Part, rows: np.ndarray, k: int, runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Return this rank's cases and the best ``k`` of the candidates of each, shape (cases, k), int64."""
    cases, examples = part.cases, part.examples
    assert cases is not None and cases.candidates is not None and examples.pairs is not None
    own, most = _share(rows, runtime)
    asked = cases.candidates.take(own)
    codes, places = np.unique(asked.values, return_inverse=True)
    bound = (
        len(codes) if runtime.world == 1 else _bound(cases.candidates.lengths[rows], most, len(examples.pairs.items))
    )
    users = users_of(model, examples, cases, own, most, runtime)
    items = model.items(collate_items(examples, codes, max(1, bound)).to(runtime.device))[: len(codes)]
    of_case = torch.from_numpy(np.repeat(np.arange(len(own)), asked.lengths)).to(users.device)
    best = Best(len(own), k)
    scores = (users[of_case] * items[torch.from_numpy(places).to(users.device)]).sum(1).cpu().numpy()
    width = int(asked.lengths.max(initial=0))
    inside = np.arange(width) < asked.lengths[:, None]
    codes_of, scores_of = np.full(inside.shape, -1, np.int64), np.zeros(inside.shape, np.float32)
    codes_of[inside], scores_of[inside] = asked.values, scores
    best.add(codes_of, scores_of)
    return own, _known_only(best.ordered()[0], cases.users[own])


def _bound(lengths: np.ndarray, most: int, items: int) -> int:
    """Return how many different candidates any rank has at most."""
    return min(items, most * int(lengths.max(initial=1)))


def _among_all(
    model: Any, part: Part, items: ItemVectors, rows: np.ndarray, k: int, runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Return this rank's cases and the best ``k`` of all items for each, shape (cases, k), int64."""
    cases, examples = part.cases, part.examples
    assert cases is not None
    own, most = _share(rows, runtime)
    users = users_of(model, examples, cases, own, most, runtime)
    removed = None
    if examples.job.protocol.remove_seen:
        removed = cases.before.items.take(np.maximum(cases.users[rows], 0))
    codes, _ = best_items(users, items, removed, len(rows), k, runtime)
    return own, _known_only(codes, cases.users[own])


def _known_only(lists: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Return the lists, those of unknown users empty."""
    return np.where(users[:, None] < 0, -1, lists)


def best_items(
    users: torch.Tensor, items: ItemVectors, removed: Ragged | None, count: int, k: int, runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (int64) and scores (float32), shape (own users, k), of the best items for this rank's share of ``count`` users.

    ``removed`` are the codes, ascending, that are left out for each of the ``count`` users.
    """
    every = _gathered(users, count, runtime)
    best = Best(count, k)
    width = max(1, BLOCK // max(1, count))
    threads = torch.get_num_threads()
    for start in range(0, len(items.vectors), width):
        scores = every @ items.vectors[start : start + width].T
        if scores.device.type == "cpu":
            best.add_block(scores.numpy(), items.first + start, removed, threads)
        else:
            best.add(*_best_of_block(scores, items.first + start, removed, k))
    if runtime.world == 1:
        return best.ordered()
    own = runtime.share(count)
    merged = Best(own.stop - own.start, k)
    for codes, found in _all_gathered(best, runtime):
        merged.add(codes[own], found[own])
    return merged.ordered()


def _best_of_block(scores: torch.Tensor, first: int, removed: Ragged | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and scores of the best of a block, found on the device."""
    if removed is not None:
        rows = np.repeat(np.arange(len(removed)), removed.lengths)
        inside = (removed.values >= first) & (removed.values < first + scores.shape[1])
        pairs = (torch.from_numpy(each[inside]).to(scores.device) for each in (rows, removed.values - first))
        scores[tuple(pairs)] = -torch.inf
    best = scores.topk(min(k, scores.shape[1]), 1)
    codes = torch.where(best.values == -torch.inf, -1, best.indices + first)
    return codes.cpu().numpy(), best.values.cpu().numpy()


def _gathered(users: torch.Tensor, count: int, runtime: Runtime) -> torch.Tensor:
    """Return the vectors of all ranks' users, shape (count, dim)."""
    if runtime.world == 1:
        return users
    world, most = runtime.world, -(-count // runtime.world)
    padded = users.new_zeros(most, users.shape[1])
    padded[: len(users)] = users
    found = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(found, padded)
    shares = [runtime.share(count, rank) for rank in range(world)]
    return torch.cat([each[: share.stop - share.start] for each, share in zip(found, shares, strict=True)])


def _all_gathered(best: Best, runtime: Runtime) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what every rank found best among its items."""
    found = []
    for mine in (best.codes, best.scores):
        tensor = torch.from_numpy(mine).to(runtime.device)
        every = [torch.empty_like(tensor) for _ in range(runtime.world)]
        dist.all_gather(every, tensor)
        found.append([each.cpu().numpy() for each in every])
    return list(zip(*found, strict=True))


def _add_up(figures: ListFigures, runtime: Runtime) -> None:
    """Make the figures of this rank those of all."""
    sums = torch.from_numpy(figures.sums()).to(runtime.device)
    dist.all_reduce(sums)
    figures.set_sums(sums.cpu().numpy())
    covered = torch.from_numpy(figures.covered.astype(np.uint8)).to(runtime.device)
    dist.all_reduce(covered, dist.ReduceOp.MAX)
    figures.covered[...] = covered.cpu().numpy().astype(bool)
