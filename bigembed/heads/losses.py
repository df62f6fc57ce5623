"""What moves the items of a user away from negatives: the losses of retrieval, over vectors whose dot product is the score.

s⁺ is the score of a sample's own item, s⁻ that of a negative, each divided by the temperature:

- softmax: log(1 + Σ exp(s⁻ - logq - s⁺)), the cross entropy of the own item among the negatives, with the correction of sampling
  (Bengio & Senécal 2008; Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling);
- binary: log(1 + exp(-s⁺)) + Σ log(1 + exp(s⁻)), as He et al. 2017 (Neural Collaborative Filtering);
- bpr: the mean of log(1 + exp(s⁻ - s⁺)) (Rendle et al. 2009);
- warp: log(1 + ⌊(items - 1) / N⌋) · (1 - s⁺ + s⁻) of the first negative, the N-th, whose s⁻ > s⁺ - 1 (Weston et al. 2011, WSABIE).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from bigembed.config.schema import RetrievalHead, RetrievalLoss
from bigembed.heads.scores import MASKED, highest, log_sum_exp, picked, reduced, softplus_sum


@dataclass(slots=True)
class Negatives:
    """The negatives of n samples, as slots of the items.

    Attributes
    ----------
    shared : Tensor or None, shape (m,), int64
        Those of all samples, distinct.
    logq : Tensor or None, shape (m,), float
        What is subtracted from their scores in a softmax.
    column : Tensor, shape (n,), int64
        Where the sample's own item is among the shared ones; -1: it is not.
    out : Tensor or None, shape (n, m), bool
        Those of the shared ones that do not count for a sample; its own item is ``column``.
    own : Tensor or None, shape (n, k), int64
        Those of each sample alone.
    own_out : Tensor or None, shape (n, k), bool
        Those of them that do not count.
    own_logq : Tensor or None, shape (n, k), float
        What is subtracted from their scores in a softmax.
    """

    shared: torch.Tensor | None
    logq: torch.Tensor | None
    column: torch.Tensor
    out: torch.Tensor | None
    own: torch.Tensor | None
    own_out: torch.Tensor | None
    own_logq: torch.Tensor | None = None


def retrieval_losses(
    config: RetrievalHead, users: torch.Tensor, items: torch.Tensor, extras: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the loss of every sample, or of every position of a sequence.

    Parameters
    ----------
    config : RetrievalHead
        Which loss, and the temperature.
    users : Tensor, shape (n, dim), float
    items : Tensor, shape (slots, dim), float
    extras : dict of str to Tensor
        ``item``, int64 (n,): the slot of the own item. Of shared negatives ``shared``, int64 (m,), distinct slots; ``logq``, float (m,);
        and ``out``, bool (n, m), where some of them do not count. Of each one's own ``own``, int64 (n, k), and ``own_out``, bool (n, k).
        There is one at least, but wherever the own item is among them it is none. For warp ``items``, int64: how many there are.

    Returns
    -------
    Tensor, shape (n,)
        At least 0; where no negative counts, what is left of the formula.
    """
    if config.temperature != 1:
        users = users / config.temperature  # so that no matrix of scores has to be divided
    negatives = _negatives(extras, len(items))
    if config.loss is RetrievalLoss.warp:
        return _warp(users, items, extras["item"], negatives, extras["items"])
    if config.hard:
        negatives = _hardest(users, items, negatives, config.hard)
    positive, own = _scores(users, items, extras["item"], negatives)
    if config.loss is RetrievalLoss.softmax:
        return _softmax(users, items, positive, own, negatives)
    if config.loss is RetrievalLoss.binary:
        return functional.softplus(-positive) + _softplus_sums(users, items, None, own, negatives)
    return _softplus_sums(users, items, positive, own, negatives) / _counts(negatives).clamp(min=1)


def squares(
    users: torch.Tensor | None, items: torch.Tensor, of_user: torch.Tensor, extras: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the squares of the vectors that every sample looked up: its user's, its item's, and the mean of its negatives'.

    Parameters
    ----------
    users : Tensor or None, shape (samples or more, width), float
        The looked-up vectors of the users, side by side; None: users have no vectors.
    items : Tensor, shape (slots, width), float
        Those of the items.
    of_user : Tensor, shape (n,), int64
        The row of each sample's user.
    extras : dict of str to Tensor
        See ``retrieval_losses``; all negatives are looked up, so all are in the mean.

    Returns
    -------
    Tensor, shape (n,)
    """
    of_items = items.square().sum(1)
    result = of_items.index_select(0, extras["item"])  # whose way back is faster than that of [...]
    if users is not None:
        result = result + users.square().sum(1).index_select(0, of_user)
    drawn, total = 0, torch.zeros_like(result)
    if "shared" in extras:
        drawn, total = len(extras["shared"]), total + of_items.index_select(0, extras["shared"]).sum()
    if "own" in extras:
        each = of_items.index_select(0, extras["own"].reshape(-1)).view(extras["own"].shape)
        drawn, total = drawn + extras["own"].shape[1], total + each.sum(1)
    return result + total / max(1, drawn)


def _negatives(extras: dict[str, torch.Tensor], slots: int) -> Negatives:
    item, shared, own = extras["item"], extras.get("shared"), extras.get("own")
    column = torch.full_like(item, -1)
    if shared is not None:
        places = shared.new_full((slots,), -1)
        places[shared] = torch.arange(len(shared), device=shared.device)
        column = places[item]
    return Negatives(
        shared,
        extras.get("logq"),
        column,
        extras.get("out"),
        own,
        None if own is None else extras["own_out"] | (own == item.unsqueeze(1)),
    )


def _scores(
    users: torch.Tensor, items: torch.Tensor, item: torch.Tensor, negatives: Negatives
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the scores of each sample's item, (n,), and of its own negatives, (n, k), if any: of those that do not count, ``MASKED``.

    They are picked together: the way back goes through all items once.
    """
    if negatives.own is None or negatives.own_out is None:
        return picked(users, items, item.unsqueeze(1)).squeeze(1), None
    slots = torch.cat([item.unsqueeze(1), negatives.own], 1)
    positive, own = picked(users, items, slots).split([1, negatives.own.shape[1]], 1)
    return positive.squeeze(1), own.masked_fill(negatives.own_out, MASKED)


def _softmax(
    users: torch.Tensor, items: torch.Tensor, positive: torch.Tensor, own: torch.Tensor | None, negatives: Negatives
) -> torch.Tensor:
    total = torch.full_like(positive, MASKED)
    if negatives.shared is not None:
        some, left = items.index_select(0, negatives.shared), users
        if negatives.logq is not None:  # one more entry of each vector: the correction is part of the product
            left, some = _longer(left, torch.ones_like(positive)), _longer(some, -negatives.logq)
        total = reduced(left, some, negatives.column, negatives.out, log_sum_exp)
    if own is not None:
        scores = own if negatives.own_logq is None else own - negatives.own_logq
        total = torch.logaddexp(total, torch.logsumexp(scores, 1))
    return functional.softplus(total - positive)


def _softplus_sums(
    users: torch.Tensor,
    items: torch.Tensor,
    taken: torch.Tensor | None,
    own: torch.Tensor | None,
    negatives: Negatives,
) -> torch.Tensor:
    """Return Σ log(1 + exp(s⁻ - taken)), shape (n,), over the negatives; ``taken``, shape (n,), is a number of each sample."""
    total = users.new_zeros(len(users))
    if negatives.shared is not None:
        some, left = items.index_select(0, negatives.shared), users
        if taken is not None:
            left, some = _longer(left, -taken), _longer(some, some.new_ones(len(some)))
        total = reduced(left, some, negatives.column, negatives.out, softplus_sum)
    if own is not None:
        scores = own if taken is None else own - taken.unsqueeze(1)
        total = total + functional.softplus(scores).sum(1)
    return total


def _warp(
    users: torch.Tensor, items: torch.Tensor, item: torch.Tensor, negatives: Negatives, count: torch.Tensor
) -> torch.Tensor:
    """Return the WARP losses; the draws that do not count are no trials."""
    assert negatives.own is not None and negatives.own_out is not None
    with torch.no_grad():
        positive, own = _scores(users, items, item, negatives)
        assert own is not None
        violates = own > positive.unsqueeze(1) - 1
        before = (violates.cumsum(1) == 0).sum(1, keepdim=True)
        place = before.clamp(max=violates.shape[1] - 1)
        trial = (~negatives.own_out).cumsum(1).gather(1, place).squeeze(1)
        rank = torch.div(count - 1, trial.clamp(min=1), rounding_mode="floor")
        weight = torch.log1p(rank.to(positive.dtype)) * violates.any(1)
    slots = torch.cat([item.unsqueeze(1), negatives.own.gather(1, place)], 1)
    positive, negative = picked(users, items, slots).unbind(1)
    return weight * (1 - positive + negative)


def _hardest(users: torch.Tensor, items: torch.Tensor, negatives: Negatives, count: int) -> Negatives:
    """Return the ``count`` negatives of every sample that score highest, as its own ones."""
    scores, slots, corrections = [], [], []
    with torch.no_grad():
        if negatives.shared is not None:
            some = items.index_select(0, negatives.shared)
            found, columns = highest(users, some, negatives.column, negatives.out, count)
            scores.append(found)
            slots.append(negatives.shared[columns])
            corrections.append(torch.zeros_like(found) if negatives.logq is None else negatives.logq[columns])
        if negatives.own is not None and negatives.own_out is not None:
            scores.append(picked(users, items, negatives.own).masked_fill(negatives.own_out, MASKED))
            slots.append(negatives.own)
            corrections.append(torch.zeros_like(scores[-1]))
        together = torch.cat(scores, 1)
        top = together.topk(min(count, together.shape[1]), 1)
    own, logq = (torch.cat(parts, 1).gather(1, top.indices) for parts in (slots, corrections))
    return Negatives(None, None, negatives.column, None, own, top.values <= MASKED / 2, logq)


def _counts(negatives: Negatives) -> torch.Tensor:
    """Return how many negatives count for every sample, shape (n,), int64."""
    counts = torch.zeros_like(negatives.column)
    if negatives.shared is not None:
        own_item = negatives.column >= 0
        if negatives.out is not None:
            place = negatives.column.clamp(min=0).unsqueeze(1)
            counts = counts - negatives.out.sum(1)
            own_item = own_item & ~negatives.out.gather(1, place).squeeze(1)
        counts = counts + len(negatives.shared) - own_item.long()
    if negatives.own_out is not None:
        counts = counts + (~negatives.own_out).sum(1)
    return counts


def _longer(vectors: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
    """Return the vectors, (n, dim), with one more entry each, (n,)."""
    return torch.cat([vectors, entry.to(vectors.dtype).unsqueeze(1)], 1)
