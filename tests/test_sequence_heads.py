"""Heads of sequences: against histories read one by one without any filling, what later items may change, dropout, splits."""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layout
from torch import nn
from torch.nn import functional

from bigembed import heads
from bigembed.config.schema import (
    GRU4RecHead,
    HistoryHead,
    Of,
    RetrievalLoss,
    SASRecHead,
    SequenceHead,
    Similarity,
    TwoTowerHead,
)
from bigembed.heads.dropout import kept, mixed

Extras = dict[str, torch.Tensor]
DIM, LONGEST, BUCKETS = 4, 6, 3
HEADS: list[Callable[..., SequenceHead]] = [SASRecHead, GRU4RecHead, HistoryHead]
WITH_USERS = layout(features={"item": DIM, "user": DIM}, of={"item": Of.item, "user": Of.user})
ITEMS_ALONE = layout(features={"item": DIM}, of={"item": Of.item})


def build(kind: Callable[..., SequenceHead], with_users: bool = True, **options: Any) -> Any:
    torch.manual_seed(3)
    options = {"max_length": LONGEST, "time_buckets": BUCKETS} | options
    if kind is SASRecHead:
        options = {"heads": 2} | options
    head = heads.build(kind(**options), WITH_USERS if with_users else ITEMS_ALONE).double()
    for parameter in head.parameters():  # so that the first values of norms hide nothing
        nn.init.uniform_(parameter, -1, 1)
    return head


def pooled_of(slots: int, seed: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(slots, 2 * DIM, generator=random, dtype=torch.float64).requires_grad_()


def batch(lengths: list[int], slots: int, seed: int = 2) -> Extras:
    """Histories of those lengths, next items and negatives."""
    random = torch.Generator().manual_seed(seed)
    positions = sum(lengths)
    places = [place for length in lengths for place in reversed(range(length))]
    return {
        "lengths": torch.tensor(lengths, dtype=torch.int64),
        "history": torch.randint(slots, (positions,), generator=random),
        "gaps": torch.randint(BUCKETS, (positions,), generator=random),
        "item": torch.randint(slots, (positions,), generator=random),
        "places": torch.tensor(places, dtype=torch.int64),
        "item_seeds": torch.arange(slots) + 1000,
        "shared": torch.randperm(slots, generator=random)[: slots // 2],
        "logq": torch.randn(slots // 2, generator=random),
        "position_weight": torch.tensor(0.25, dtype=torch.float64),
    }


# ---------------------------------------------------------------- histories read one by one


def read_sasrec(head: Any, inputs: torch.Tensor) -> torch.Tensor:
    """The authors' code, with a matrix of attention that is written out."""
    length = len(inputs)
    x = inputs + head.places.weight[:length].flip(0)
    for block in head.blocks:
        q = block.norms[0](x)
        queries, keys, values = block.query(q), block.key(x), block.value(x)
        attended = torch.zeros_like(x)
        width = DIM // block.heads
        for each in range(block.heads):
            columns = slice(each * width, (each + 1) * width)
            for t in range(length):
                weights = torch.softmax(keys[: t + 1, columns] @ queries[t, columns] / width**0.5, 0)
                attended[t, columns] = weights @ values[: t + 1, columns]
        y = block.norms[1](q + attended)
        x = y + block.outer(torch.relu(block.inner(y)))
    return head.norm(x)


def read_gru4rec(head: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Gate by gate."""
    for layer in head.layers:
        state, states = torch.zeros(layer.hidden_size, dtype=inputs.dtype), []
        for row in inputs:
            of_input = (layer.weight_ih_l0 @ row + layer.bias_ih_l0).chunk(3)
            of_state = (layer.weight_hh_l0 @ state + layer.bias_hh_l0).chunk(3)
            reset, update = (torch.sigmoid(a + b) for a, b in zip(of_input[:2], of_state[:2], strict=True))
            fresh = torch.tanh(of_input[2] + reset * of_state[2])
            state = (1 - update) * fresh + update * state
            states.append(state)
        inputs = torch.stack(states)
    return head.linear(inputs)


def read_history(head: Any, inputs: torch.Tensor) -> torch.Tensor:
    x = torch.stack([inputs[: t + 1].mean(0) for t in range(len(inputs))])
    for number, layer in enumerate(head.layers):
        x = layer(torch.relu(x) if number else x)
    return x


READ = {SASRecHead: read_sasrec, GRU4RecHead: read_gru4rec, HistoryHead: read_history}


def read(head: Any, pooled: torch.Tensor, extras: Extras) -> list[torch.Tensor]:
    """What the encoder makes of every sample's positions, sample by sample; the vectors of users are not yet added."""
    ends = [0, *accumulate(extras["lengths"].tolist())]
    found = []
    for first, last in pairwise(ends):
        inputs = pooled[extras["history"][first:last], :DIM] * DIM**0.5
        if head.gaps is not None:
            inputs = inputs + head.gaps.weight[extras["gaps"][first:last]]
        found.append(READ[type(head.config)](head, inputs) if last > first else inputs)
    return found


def assert_as_read(head: Any, pooled: torch.Tensor, extras: Extras, with_users: bool) -> None:
    """Losses, the users' vectors, and the gradients of all parameters are those of histories read one by one."""
    samples = len(extras["lengths"])
    encoded = read(head, pooled, extras)
    of_user = pooled[:samples, DIM:] if with_users else torch.zeros(samples, DIM, dtype=pooled.dtype)
    options: Any = {name: getattr(head.config, name) for name in ("loss", "similarity", "temperature", "hard", "l2")}
    # A position is a sample of two towers: its user's vector is what was read.
    pairs = heads.build(
        TwoTowerHead(**options), layout(features={"user": DIM, "item": DIM}, of={"user": Of.user, "item": Of.item})
    )
    queries = torch.cat([one + user for one, user in zip(encoded, of_user, strict=True)])
    spread = torch.cat([queries, queries.new_zeros(max(0, len(pooled) - len(queries)), DIM)])
    items = torch.cat([pooled[:, :DIM], pooled.new_zeros(max(0, len(queries) - len(pooled)), DIM)])
    losses = pairs(torch.cat([spread, items], 1), torch.zeros(len(queries)), extras)[:, 0]
    expected = torch.stack([0.25 * each.sum() for each in losses.split(extras["lengths"].tolist())])
    got = head.losses(head(pooled, torch.arange(samples), extras), torch.empty(0))
    torch.testing.assert_close(got, expected)
    last = [user + (one[-1] if len(one) else 0) for one, user in zip(encoded, of_user, strict=True)]
    if head.config.similarity is Similarity.cosine:
        last = [functional.normalize(each, dim=0) for each in last]
    histories = {name: extras[name] for name in ("lengths", "history", "gaps", "places")}
    torch.testing.assert_close(head.users(pooled, histories), torch.stack(last))
    leaves = [pooled, *head.parameters()]
    weights = torch.linspace(0.5, 2, samples, dtype=torch.float64)
    grads = (torch.autograd.grad((each * weights).sum(), leaves) for each in (got, expected))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("with_users", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_filled_up_histories_are_as_good_as_those_read_one_by_one(
    kind: Callable[..., SequenceHead], with_users: bool, layers: int
) -> None:
    head = build(kind, with_users, layers=layers, time_buckets=BUCKETS if layers == 2 else 0)
    assert_as_read(head, pooled_of(9), batch([3, 0, 6, 1, 2, 5, 4], 9), with_users)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(HEADS),
    lengths=st.lists(st.integers(0, LONGEST), min_size=1, max_size=10).filter(any),
    loss=st.sampled_from([RetrievalLoss.softmax, RetrievalLoss.binary, RetrievalLoss.bpr]),
    similarity=st.sampled_from(Similarity),
    temperature=st.sampled_from([0.5, 1.0]),
    hard=st.sampled_from([0, 2]),
    seed=st.integers(0, 2**16),
)
def test_every_loss_is_told_at_every_position(
    kind: Callable[..., SequenceHead],
    lengths: list[int],
    loss: RetrievalLoss,
    similarity: Similarity,
    temperature: float,
    hard: int,
    seed: int,
) -> None:
    head = build(kind, loss=loss, similarity=similarity, temperature=temperature, hard=hard)
    assert_as_read(head, pooled_of(10, seed), batch(lengths, 10, seed), True)


def test_negatives_of_each_position_are_taken_by_position() -> None:
    head, pooled, extras = build(SASRecHead, loss=RetrievalLoss.warp), pooled_of(9), batch([3, 0, 4], 9)
    del extras["shared"], extras["logq"]
    extras["own"], extras["own_out"] = torch.randint(9, (7, 3)), torch.rand(7, 3) < 0.2
    extras["items"] = torch.tensor(100)
    assert_as_read(head, pooled, extras, True)


@pytest.mark.parametrize("kind", HEADS)
def test_squares_are_those_of_the_vectors_that_a_position_looks_up(kind: Callable[..., SequenceHead]) -> None:
    pooled, extras = pooled_of(9), batch([2, 0, 3], 9)
    with_l2, without = (build(kind, l2=l2)(pooled, torch.arange(3), extras)[:, 0] for l2 in (0.5, 0.0))
    items, users = pooled[:, :DIM].square().sum(1), pooled[:, DIM:].square().sum(1)
    of_user = users[torch.tensor([0, 0, 2, 2, 2])]
    each = 0.5 * 0.25 * (of_user + items[extras["item"]] + items[extras["shared"]].mean())
    torch.testing.assert_close(with_l2 - without, torch.stack([each[:2].sum(), each[:0].sum(), each[2:].sum()]))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("with_users", [True, False])
def test_a_user_without_a_history_has_what_is_known_of_him_else_zeros(
    kind: Callable[..., SequenceHead], with_users: bool
) -> None:
    head, pooled = build(kind, with_users).eval(), pooled_of(5)
    for lengths in ([0, 0], [0, 2]):
        got = head.users(pooled, batch(lengths, 5))
        assert torch.equal(got[0], pooled[0, DIM:] if with_users else torch.zeros(DIM, dtype=torch.float64))


def test_a_batch_without_a_position_still_has_gradients_of_every_parameter() -> None:
    for kind in HEADS:
        head, pooled = build(kind), pooled_of(5)
        got = head(pooled, torch.arange(2), batch([0, 0], 5))
        assert got.tolist() == [[0.0], [0.0]]
        grads = torch.autograd.grad(got.sum(), [pooled, *head.parameters()])
        assert all(bool((grad == 0).all()) for grad in grads)


# ---------------------------------------------------------------- what a later item may change


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_of_a_position_pulls_at_all_items_up_to_it_and_at_no_later_one(
    kind: Callable[..., SequenceHead],
) -> None:
    head, length, slots = build(kind, with_users=False, layers=2), 5, 12
    extras = batch([length], slots)
    extras["history"], extras["item"] = torch.arange(length), torch.full((length,), 6)
    extras["shared"], extras["logq"] = torch.tensor([7, 8]), torch.zeros(2)
    for position in range(length):
        extras["out"] = torch.ones(length, 2, dtype=torch.bool)
        extras["out"][position] = False  # the other positions have no negatives, and no loss
        pooled = pooled_of(slots)
        (grad,) = torch.autograd.grad(head(pooled, torch.zeros(1, dtype=torch.int64), extras).sum(), pooled)
        pulled = grad.abs().sum(1) > 0
        assert pulled.tolist() == [slot <= position or slot in (6, 7, 8) for slot in range(slots)]


# ---------------------------------------------------------------- dropout, and splits of the samples


def part(extras: Extras, samples: slice) -> Extras:
    """The batch of some of the samples alone."""
    ends = [0, *accumulate(extras["lengths"].tolist())]
    positions = slice(ends[samples.start], ends[samples.stop])
    by_position = {name: extras[name][positions] for name in ("history", "gaps", "item", "places")}
    return extras | by_position | {"lengths": extras["lengths"][samples]}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("options", [{}, {"dropout": 0.4, "layers": 2, "item_hidden": [5, 4], "user_hidden": [4]}])
def test_losses_are_the_same_for_any_split_of_the_samples(
    kind: Callable[..., SequenceHead], options: dict[str, Any]
) -> None:
    head, pooled, seeds = build(kind, **options), pooled_of(9), torch.arange(9) + 50
    extras = batch([2, 5, 0, 3, 6, 1, 1, 0, 4], 9)
    whole = head(pooled, seeds, extras)
    for samples in (slice(0, 1), slice(1, 3), slice(3, 9)):
        shifted = torch.cat([pooled[:, :DIM], pooled[:, DIM:].roll(-samples.start, 0)], 1)
        torch.testing.assert_close(head(shifted, seeds[samples], part(extras, samples)), whole[samples])


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_goes_by_the_seeds_alone_and_only_in_training(kind: Callable[..., SequenceHead]) -> None:
    head, plain = build(kind, dropout=0.5, layers=2), build(kind, layers=2)
    pooled, extras, seeds = pooled_of(9), batch([4, 5], 9), torch.tensor([5, 8])
    before = head(pooled, seeds, extras)
    torch.manual_seed(11)
    assert torch.equal(head(pooled, seeds, extras), before)
    other = head(pooled, torch.tensor([5, 9]), extras)
    assert torch.equal(other[0], before[0]) and not torch.equal(other[1], before[1])
    assert not torch.equal(plain(pooled, seeds, extras), before)
    torch.testing.assert_close(head.users(pooled, extras), plain.users(pooled, extras))
    torch.testing.assert_close(head.items(pooled), plain.items(pooled))
    torch.testing.assert_close(head.eval()(pooled, seeds, extras), plain(pooled, seeds, extras))


def test_every_position_drops_other_entries_of_what_is_read() -> None:
    head, share = build(HistoryHead, dropout=0.5, layers=1, time_buckets=0, with_users=False), 0.5
    pooled, extras, seeds = pooled_of(9), batch([3], 9), torch.tensor([77])
    inputs = pooled[extras["history"], :DIM] * DIM**0.5
    masks = []
    for place in (2, 1, 0):
        masks.append(kept(mixed(seeds, torch.tensor([place])), torch.arange(DIM), share))
    assert len({tuple(mask.tolist()) for mask in masks}) > 1
    dropped = inputs * torch.stack(masks) / (1 - share)
    encoded = head.layers[0](torch.stack([dropped[: t + 1].mean(0) for t in range(3)]))
    pairs = heads.build(TwoTowerHead(), WITH_USERS)
    together = torch.cat([pooled[:, :DIM], torch.cat([encoded, encoded.new_zeros(6, DIM)])], 1)
    expected = 0.25 * pairs(together, torch.zeros(3), extras).sum()
    torch.testing.assert_close(head(pooled, seeds, extras)[0, 0], expected)


def test_items_are_dropped_by_their_seeds_where_their_tower_has_layers() -> None:
    pooled, extras, seeds = pooled_of(9), batch([4, 5], 9), torch.arange(2)
    others = extras | {"item_seeds": extras["item_seeds"] + 1}
    for hidden in ([], [5, DIM]):
        head = build(HistoryHead, dropout=0.5, item_hidden=hidden)
        assert torch.equal(head(pooled, seeds, extras), head(pooled, seeds, others)) is not bool(hidden)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", HEADS)
def test_a_simple_order_is_learned(kind: Callable[..., SequenceHead]) -> None:
    """After item i comes item i + 1: a few steps of Adam find it."""
    torch.manual_seed(0)
    slots, dim = 12, 16
    head = heads.build(kind(max_length=LONGEST, layers=1), layout(features={"item": dim}, of={"item": Of.item}))
    rows = nn.Parameter(torch.rand(slots, dim) * 2 / dim - 1 / dim)
    optimizer = torch.optim.Adam([rows, *head.parameters()], lr=0.05)
    starts = torch.arange(slots).repeat_interleave(LONGEST) + torch.arange(LONGEST).repeat(slots)
    extras = {
        "lengths": torch.full((slots,), LONGEST),
        "history": starts % slots,
        "item": (starts + 1) % slots,
        "places": torch.arange(LONGEST).flip(0).repeat(slots),
        "item_seeds": torch.arange(slots),
        "shared": torch.arange(slots),
        "logq": torch.zeros(slots),
        "position_weight": torch.tensor(1 / LONGEST),
    }
    for _ in range(60):
        optimizer.zero_grad()
        loss = head(rows, torch.arange(slots), extras).mean()
        loss.backward()
        optimizer.step()
    found = (head.users(rows, extras) @ head.items(rows).T).argmax(1)
    assert found.tolist() == [(start + LONGEST) % slots for start in range(slots)]
