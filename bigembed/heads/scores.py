"""Scores of users and items, reduced or picked in blocks: no matrix of users × items is kept that is larger than a bound."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

MASKED = -1e30  # the score of what must not count; finite, so that no gradient is inf - inf
BLOCK = 1 << 19  # numbers worked on at a time on a CPU: about its cache
BLOCK_CUDA = 1 << 26
LEAST = (
    32  # users of a block, however many numbers that makes: the gradients of all items are gone through once a block
)
KEPT = 1 << 24  # up to so many numbers wait for the backward pass; more are made a second time

Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def log_sum_exp(scores: torch.Tensor, derivative: torch.Tensor) -> torch.Tensor:
    """Return log Σ exp of each row of ``scores``, (n, m), and write its derivative, their softmax, to ``derivative``."""
    largest = scores.amax(1)
    torch.softmax(scores, 1, out=derivative)
    return largest - derivative.amax(1).log()  # the largest one's softmax is 1 / Σ exp(score - largest)


def softplus_sum(scores: torch.Tensor, derivative: torch.Tensor) -> torch.Tensor:
    """Return Σ log(1 + exp) of each row of ``scores``, (n, m), and write its derivative, their sigmoids, to ``derivative``."""
    torch.sigmoid(scores, out=derivative)
    return functional.softplus(scores).sum(1)


def reduced(
    users: torch.Tensor, items: torch.Tensor, column: torch.Tensor, out: torch.Tensor | None, reduce: Reduce
) -> torch.Tensor:
    """Return what ``reduce`` makes of every user's scores of all the items.

    Parameters
    ----------
    users : Tensor, shape (n, dim), float
    items : Tensor, shape (m, dim), float
        At least one.
    column : Tensor, shape (n,), int64
        An item that does not count for the user; -1: none.
    out : Tensor or None, shape (n, m), bool
        Further items that do not.
    reduce : callable
        ``log_sum_exp`` or ``softplus_sum``.

    Returns
    -------
    Tensor, shape (n,)
        Where no item counts, 0 of ``softplus_sum`` and about ``MASKED`` of ``log_sum_exp``.
    """
    return _Reduced.apply(users, items, column, out, reduce)


def picked(users: torch.Tensor, items: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Return the scores, (n, k), of each user, (n, dim), and of those of the items, (m, dim), that ``slots``, int64 (n, k), names."""
    return _Picked.apply(users, items, slots)


def highest(
    users: torch.Tensor, items: torch.Tensor, column: torch.Tensor, out: torch.Tensor | None, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and columns, both (n, min(count, m)), of the items that score highest; see ``reduced``. Without gradients."""
    count = min(count, len(items))
    scores, columns = users.new_empty(len(users), count), column.new_empty(len(users), count)
    with torch.no_grad():
        for rows in _blocks(users, len(items)):
            top = _scores(users, items, column, out, rows).topk(count, 1)
            scores[rows], columns[rows] = top.values, top.indices
    return scores, columns


class _Reduced(torch.autograd.Function):
    """``reduced``, block by block; its backward pass needs the derivative by every score, kept or made anew."""

    @staticmethod
    def forward(
        ctx: Any, users: torch.Tensor, items: torch.Tensor, column: torch.Tensor, out: torch.Tensor | None, reduce: Any
    ) -> torch.Tensor:
        size = len(users) * len(items)
        kept = users.new_empty(len(users), len(items)) if size <= KEPT and any(ctx.needs_input_grad) else None
        result = users.new_empty(len(users))
        for rows in _blocks(users, len(items)):
            scores = _scores(users, items, column, out, rows)
            result[rows] = reduce(scores, torch.empty_like(scores) if kept is None else kept[rows])
        ctx.save_for_backward(users, items, column, out, kept)
        ctx.reduce = reduce
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        users, items, column, out, kept = ctx.saved_tensors
        weighted = users * grad.unsqueeze(1)
        of_users, of_items = torch.empty_like(users), torch.zeros_like(items)
        for rows in _blocks(users, len(items)):
            if kept is None:
                scores = _scores(users, items, column, out, rows)
                derivative = torch.empty_like(scores)
                ctx.reduce(scores, derivative)
            else:
                derivative = kept[rows]
            torch.mm(derivative, items, out=of_users[rows])
            of_items.addmm_(derivative.t(), weighted[rows])
        return of_users.mul_(grad.unsqueeze(1)), of_items, None, None, None


class _Picked(torch.autograd.Function):
    """``picked``, without a copy of the items' vectors for every user; the way back adds in one order, the same every time."""

    @staticmethod
    def forward(ctx: Any, users: torch.Tensor, items: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(users, items, slots)
        scores = users.new_empty(slots.shape)
        for rows in _blocks(users, slots.shape[1] * users.shape[1]):
            vectors = items.index_select(0, slots[rows].reshape(-1)).view(*slots[rows].shape, users.shape[1])
            torch.sum(vectors.mul_(users[rows].unsqueeze(1)), 2, out=scores[rows])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        users, items, slots = ctx.saved_tensors
        each, flat, weights = slots.shape[1], slots.reshape(-1), grad.reshape(-1)
        starts = torch.arange(len(users), device=slots.device) * each
        of_users = functional.embedding_bag(flat, items, starts, mode="sum", per_sample_weights=weights)
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=len(items))
        user = torch.div(order, max(1, each), rounding_mode="floor")
        of_items = functional.embedding_bag(
            user, users, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights[order]
        )
        return of_users, of_items, None


def _blocks(users: torch.Tensor, numbers: int) -> Iterator[slice]:
    """Yield slices of the users, of each of whom so many ``numbers`` are made."""
    rows = max(LEAST, (BLOCK_CUDA if users.is_cuda else BLOCK) // max(1, numbers))
    return (slice(start, min(start + rows, len(users))) for start in range(0, len(users), rows))


def _scores(
    users: torch.Tensor, items: torch.Tensor, column: torch.Tensor, out: torch.Tensor | None, rows: slice
) -> torch.Tensor:
    """Return the scores, (rows, m), of some users and all items; of those that must not count, ``MASKED``."""
    scores = users[rows] @ items.t()
    if out is not None:
        scores.masked_fill_(out[rows], MASKED)
    one = column[rows].unsqueeze(1)
    place = one.clamp(min=0)
    return scores.scatter_(1, place, scores.gather(1, place).masked_fill_(one >= 0, MASKED))
