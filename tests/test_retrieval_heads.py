"""Heads of users and items: every loss against one written out sample by sample, towers, cosine, dropout."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layout
from torch.nn import functional

from bigembed import heads
from bigembed.config.schema import Of, RetrievalHead, RetrievalLoss, Similarity, TwoTowerHead
from bigembed.heads import scores
from bigembed.layout import Layout

Extras = dict[str, torch.Tensor]
DIM = 3
LAYOUT = layout(features={"user": DIM, "item": DIM}, of={"user": Of.user, "item": Of.item})
SAMPLED = [RetrievalLoss.softmax, RetrievalLoss.binary, RetrievalLoss.bpr]


def randoms(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, samples: int, slots: int, shared: int, own: int, logq: bool, out: bool) -> Extras:
    """What a batch says of its negatives: any slots, the samples' own items among them."""
    random = randoms(seed)
    extras = {
        "item": torch.randint(slots, (samples,), generator=random),
        "item_seeds": torch.arange(slots),
        "items": torch.tensor(50),
    }
    if shared:
        extras["shared"] = torch.randperm(slots, generator=random)[:shared]
        if logq:
            extras["logq"] = torch.randn(len(extras["shared"]), generator=random)
        if out:
            extras["out"] = torch.rand(samples, len(extras["shared"]), generator=random) < 0.4
    if own:
        extras["own"] = torch.randint(slots, (samples, own), generator=random)
        extras["own_out"] = torch.rand(samples, own, generator=random) < (0.4 if out else 0)
    return extras


def vectors(seed: int, slots: int, width: int = 2 * DIM) -> torch.Tensor:
    return torch.randn(slots, width, generator=randoms(seed), dtype=torch.float64).requires_grad_()


# ---------------------------------------------------------------- the reference


def negatives_of(sample: int, extras: Extras) -> list[tuple[int, float]]:
    """Slots and corrections of the negatives that count for a sample."""
    found = []
    for number, slot in enumerate(extras.get("shared", torch.empty(0)).tolist()):
        if slot != extras["item"][sample] and not ("out" in extras and extras["out"][sample, number]):
            found.append((slot, extras["logq"][number].item() if "logq" in extras else 0.0))
    if "own" in extras:
        pairs = zip(extras["own"][sample].tolist(), extras["own_out"][sample].tolist(), strict=True)
        found += [(slot, 0.0) for slot, out in pairs if not out and slot != extras["item"][sample]]
    return found


def loss_of(config: RetrievalHead, sample: int, user: torch.Tensor, items: torch.Tensor, extras: Extras) -> Any:
    """One sample's loss, as the page of the losses writes it."""

    def score(slot: int) -> torch.Tensor:
        other = items[slot]
        if config.similarity is Similarity.cosine:
            return functional.cosine_similarity(user, other, dim=0, eps=1e-300) / config.temperature
        return user @ other / config.temperature

    own = score(int(extras["item"][sample]))
    negatives = negatives_of(sample, extras)
    if config.loss is RetrievalLoss.warp:
        for trial, (slot, _) in enumerate(negatives, 1):
            if score(slot) > own - 1:
                return torch.log1p((extras["items"].double() - 1) // trial) * (1 - own + score(slot))
        return 0 * own
    if config.hard:
        negatives = sorted(negatives, key=lambda pair: -score(pair[0]).item())[: config.hard]
    told = [(score(slot), logq) for slot, logq in negatives]
    if config.loss is RetrievalLoss.softmax:
        others = [other - logq for other, logq in told]
        return -own + torch.stack([own, *others]).logsumexp(0)
    if config.loss is RetrievalLoss.binary:
        return torch.log1p(torch.exp(-own)) + sum(torch.log1p(torch.exp(other)) for other, _ in told)
    pairs = [torch.log1p(torch.exp(other - own)) for other, _ in told]
    return sum(pairs) / max(1, len(pairs)) + 0 * own


def l2_of(sample: int, user: torch.Tensor, items: torch.Tensor, extras: Extras) -> Any:
    """Squares of what one sample looked up."""
    slots = [*extras.get("shared", torch.empty(0)).long().tolist()]
    slots += extras["own"][sample].tolist() if "own" in extras else []
    total = user @ user + items[extras["item"][sample]] @ items[extras["item"][sample]]
    return total + (sum(items[slot] @ items[slot] for slot in slots) / len(slots) if slots else 0)


def assert_as_written(config: TwoTowerHead, pooled: torch.Tensor, extras: Extras) -> None:
    """Losses of the head, and their gradients under unequal weights, are those of the reference."""
    samples = len(extras["item"])
    head = heads.build(config, LAYOUT)
    got = head.losses(head(pooled, torch.arange(samples), extras), torch.empty(0))
    users, items = pooled[:, :DIM], pooled[:, DIM:]
    written = [loss_of(config, sample, users[sample], items, extras) for sample in range(samples)]
    if config.l2:
        written = [
            loss + config.l2 * l2_of(sample, users[sample], items, extras) for sample, loss in enumerate(written)
        ]
    expected = torch.stack(written)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
    weights = torch.linspace(0.5, 2.0, samples, dtype=torch.float64)
    of_got, of_expected = (torch.autograd.grad((each * weights).sum(), pooled)[0] for each in (got, expected))
    torch.testing.assert_close(of_got, of_expected, rtol=1e-7, atol=1e-6)  # softplus is x from 20 on


# ---------------------------------------------------------------- losses


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_losses_and_gradients_are_those_written_out_sample_by_sample(data: st.DataObject) -> None:
    draw = data.draw
    loss, seed, slots = draw(st.sampled_from(SAMPLED)), draw(st.integers(0, 2**16)), draw(st.integers(1, 9))
    samples, shared = draw(st.integers(1, slots)), draw(st.integers(0, slots))
    own = draw(st.integers(0 if shared else 1, 4))
    logq = draw(st.booleans()) and loss is RetrievalLoss.softmax
    config = TwoTowerHead(
        loss=loss,
        similarity=draw(st.sampled_from(Similarity)),
        temperature=draw(st.sampled_from([1.0, 0.1, 3.0])),
        hard=draw(st.sampled_from([0, 0, 1, 2, 20])),
        l2=draw(st.sampled_from([0.0, 0.3])),
    )
    if config.hard and own:  # else which of two equal scores is taken, of which one is corrected, would not be told
        logq = False
    extras = drawn(seed, samples, slots, shared, own, logq, draw(st.booleans()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", draw(st.sampled_from([1, 5, 1 << 18])))
        patch.setattr(scores, "LEAST", 1)
        patch.setattr(scores, "KEPT", draw(st.sampled_from([0, 1 << 24])))
        assert_as_written(config, vectors(seed + 1, slots), extras)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    slots=st.integers(1, 9),
    own=st.integers(1, 8),
    temperature=st.sampled_from([0.3, 1.0]),
    out=st.booleans(),
    similarity=st.sampled_from(Similarity),
)
def test_warp_weighs_the_first_negative_that_comes_too_near(
    seed: int, slots: int, own: int, temperature: float, out: bool, similarity: Similarity
) -> None:
    config = TwoTowerHead(loss=RetrievalLoss.warp, temperature=temperature, similarity=similarity, l2=0.1)
    assert_as_written(config, vectors(seed + 1, slots), drawn(seed, slots, slots, 0, own, False, out))


def test_warp_tells_the_trial_by_the_draws_that_count() -> None:
    pooled = torch.zeros(5, 2 * DIM, dtype=torch.float64)
    pooled[0, 0] = 1.0
    pooled[:, DIM] = torch.tensor([5.0, 1.0, 9.0, 4.5, 8.0])
    extras = {
        "item": torch.tensor([0]),
        "own": torch.tensor([[1, 2, 3, 4]]),
        "own_out": torch.tensor([[False, True, False, False]]),
        "items": torch.tensor(10),
        "item_seeds": torch.arange(5),
    }
    head = heads.build(TwoTowerHead(loss=RetrievalLoss.warp), LAYOUT)
    # Slot 1 is far below, slot 2 does not count: slot 3 is the second trial, and the rank 9 // 2.
    assert head(pooled, torch.zeros(1, dtype=torch.int64), extras).item() == pytest.approx(
        torch.log1p(torch.tensor(4.0)).item() * 0.5
    )
    extras["own_out"][:] = True
    assert head(pooled, torch.zeros(1, dtype=torch.int64), extras).item() == 0


@pytest.mark.parametrize("loss", SAMPLED)
@pytest.mark.parametrize("hard", [0, 2])
def test_a_sample_without_a_negative_that_counts_pulls_at_nothing_but_its_item(loss: RetrievalLoss, hard: int) -> None:
    pooled = vectors(3, 4)
    extras = drawn(1, 2, 4, 4, 2, loss is RetrievalLoss.softmax, True)
    extras["out"][:], extras["own_out"][:] = True, True
    got = heads.build(TwoTowerHead(loss=loss, hard=hard), LAYOUT)(pooled, torch.arange(2), extras)[:, 0]
    (grad,) = torch.autograd.grad(got.sum(), pooled)
    if loss is RetrievalLoss.binary:
        own = (pooled[:2, :DIM] * pooled[extras["item"], DIM:]).sum(1)
        torch.testing.assert_close(got, functional.softplus(-own))
    else:
        assert got.tolist() == [0.0, 0.0] and bool((grad == 0).all())
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize("loss", SAMPLED)
@pytest.mark.parametrize("own", [0, 3])
def test_scores_of_any_size_neither_overflow_nor_vanish(loss: RetrievalLoss, own: int) -> None:
    pooled = (1e4 * torch.randn(6, 2 * DIM, generator=randoms(5))).requires_grad_()
    extras = drawn(2, 5, 6, 0 if own else 4, own, False, False)
    got = heads.build(TwoTowerHead(loss=loss), LAYOUT)(pooled, torch.arange(5), extras)[:, 0]
    (grad,) = torch.autograd.grad(got.sum(), pooled)
    assert bool(got.isfinite().all()) and bool(grad.isfinite().all())
    wide = pooled.detach().double()
    expected = [loss_of(TwoTowerHead(loss=loss), i, wide[i, :DIM], wide[:, DIM:], extras) for i in range(5)]
    assert got.max() > 1e6
    finite = torch.stack(expected).isfinite()  # the plain reference overflows where softplus must not
    torch.testing.assert_close(got.double()[finite], torch.stack(expected)[finite], rtol=1e-5, atol=1.0)


def test_all_items_as_negatives_make_the_cross_entropy_of_all() -> None:
    pooled, slots = vectors(4, 7), 7
    extras = drawn(4, 5, slots, slots, 0, False, False) | {"shared": torch.arange(slots)}
    extras["logq"] = torch.zeros(slots)
    got = heads.build(TwoTowerHead(), LAYOUT)(pooled, torch.arange(5), extras)[:, 0]
    logits = pooled[:5, :DIM] @ pooled[:, DIM:].T
    torch.testing.assert_close(got, functional.cross_entropy(logits, extras["item"], reduction="none"))


def test_corrected_samples_of_negatives_estimate_the_loss_of_all() -> None:
    """With logq = log of the chance to be among the negatives, Σ exp(s⁻ - logq) is unbiased: here exactly, over all subsets."""
    pooled, slots = vectors(6, 5).detach(), 5
    chances = torch.tensor([0.9, 0.2, 0.5, 0.7, 0.4], dtype=torch.float64)
    head, item = heads.build(TwoTowerHead(), LAYOUT), torch.tensor([2])
    base = {"item": item, "item_seeds": torch.arange(slots)}
    everything = base | {"shared": torch.arange(slots), "logq": torch.zeros(slots, dtype=torch.float64)}
    expected = head(pooled, torch.zeros(1), everything).exp().item()
    total = (1 - chances).prod().item()  # where there are none the loss is 0
    for subset in range(1, 2**slots):
        chosen = torch.tensor([subset >> i & 1 for i in range(slots)], dtype=torch.bool)
        chance = torch.where(chosen, chances, 1 - chances).prod().item()
        extras = base | {"shared": torch.nonzero(chosen)[:, 0], "logq": chances[chosen].log()}
        total += chance * head(pooled, torch.zeros(1), extras).exp().item()
    assert total == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("reduce", [scores.log_sum_exp, scores.softplus_sum])
@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_gradients_of_reduced_scores_are_those_of_differences(
    reduce: scores.Reduce, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "KEPT", kept)
    monkeypatch.setattr(scores, "BLOCK", 8)
    monkeypatch.setattr(scores, "LEAST", 1)
    users, items = vectors(1, 5, 2), vectors(2, 4, 2)
    column, out = torch.tensor([-1, 0, 3, 2, -1]), torch.rand(5, 4, generator=randoms(3)) < 0.3
    out[:, 1] = False  # one counts for every user
    assert torch.autograd.gradcheck(lambda *both: scores.reduced(*both, column, out, reduce), (users, items))
    assert torch.autograd.gradcheck(lambda *both: scores.reduced(*both, column, None, reduce), (users, items))


@pytest.mark.parametrize("each", [0, 1, 3])
def test_gradients_of_picked_scores_are_those_of_differences(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BLOCK", 8)
    monkeypatch.setattr(scores, "LEAST", 1)
    wide, slots = vectors(2, 6, 5), torch.randint(6, (5, each), generator=randoms(4))
    users = vectors(1, 5, 2)
    assert torch.autograd.gradcheck(lambda left, right: scores.picked(left, right[:, 1:3], slots), (users, wide))


def test_no_more_scores_wait_for_the_backward_pass_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    column = torch.full((64,), -1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for bound, largest in ((64 * 32, 64 * 32), (64 * 32 - 1, 64 * 2)):
            monkeypatch.setattr(scores, "KEPT", bound)
            saved.clear()
            scores.reduced(vectors(1, 64, 2), vectors(2, 32, 2), column, None, scores.log_sum_exp)
            assert max(saved) == largest


# ---------------------------------------------------------------- towers


def test_vectors_of_several_features_are_added_up_without_layers() -> None:
    whose = {"a": Of.user, "b": Of.item, "c": Of.user, "d": Of.item}
    head = heads.build(TwoTowerHead(), layout(features=dict.fromkeys("abcd", 4), of=whose))
    assert not list(head.parameters())
    pooled = vectors(1, 5, 16)
    torch.testing.assert_close(head.users(pooled, {}), pooled[:, 0:4] + pooled[:, 8:12])
    torch.testing.assert_close(head.items(pooled), pooled[:, 4:8] + pooled[:, 12:16])


def test_layers_take_features_and_numbers_of_their_side_side_by_side() -> None:
    torch.manual_seed(0)
    there = layout(
        features={"a": 4, "b": 2, "c": 3},
        numbers=2,
        of={"a": Of.user, "b": Of.item, "c": Of.user, "n0": Of.item, "n1": Of.user},
    )
    head = heads.build(TwoTowerHead(user_hidden=[5, 4], item_hidden=[4]), there).double()
    pooled = vectors(1, 6, 11)
    first, second = head.user_tower.layers
    side = torch.cat([pooled[:, 0:4], pooled[:, 6:9], pooled[:, 10:11]], 1)
    torch.testing.assert_close(head.users(pooled, {}), second(torch.relu(first(side))))
    (layer,) = head.item_tower.layers
    torch.testing.assert_close(head.items(pooled), layer(torch.cat([pooled[:, 4:6], pooled[:, 9:10]], 1)))


@pytest.mark.parametrize("similarity", Similarity)
def test_the_loss_is_that_of_the_vectors_that_are_recommended_by(similarity: Similarity) -> None:
    torch.manual_seed(0)
    config = TwoTowerHead(similarity=similarity, temperature=0.5, user_hidden=[4], item_hidden=[6, 4], dropout=0.3)
    head = heads.build(config, LAYOUT).double().eval()
    pooled, extras = vectors(2, 8), drawn(3, 6, 8, 5, 2, True, True)
    users, items = head.users(pooled, {})[:6], head.items(pooled)
    if similarity is Similarity.cosine:
        torch.testing.assert_close(items.norm(dim=1), torch.ones(8, dtype=torch.float64))
    got = head(pooled, torch.arange(6), extras)[:, 0]
    plain = TwoTowerHead(temperature=0.5)
    torch.testing.assert_close(got, torch.stack([loss_of(plain, i, users[i], items, extras) for i in range(6)]))


def test_a_vector_of_zeros_has_no_cosine_and_no_gradient() -> None:
    pooled = torch.zeros(3, 2 * DIM, requires_grad=True)
    head = heads.build(TwoTowerHead(similarity=Similarity.cosine), LAYOUT)
    got = head(pooled, torch.arange(3), drawn(1, 3, 3, 3, 0, False, False))
    got.sum().backward()
    assert pooled.grad is not None and bool((pooled.grad == 0).all())
    torch.testing.assert_close(got, torch.full((3, 1), 3.0).log())


def test_numbers_have_no_squares() -> None:
    there = layout(features={"a": 2, "b": 2}, numbers=2, of={"a": Of.user, "b": Of.item, "n0": Of.user, "n1": Of.item})
    torch.manual_seed(0)
    options: dict[str, Any] = {"user_hidden": [2], "item_hidden": [2]}
    without, with_l2 = (heads.build(TwoTowerHead(l2=l2, **options), there).double() for l2 in (0.0, 0.5))
    with_l2.load_state_dict(without.state_dict())
    pooled, extras = vectors(1, 4, 6), drawn(2, 3, 4, 2, 0, False, False)
    difference = (with_l2(pooled, torch.arange(3), extras) - without(pooled, torch.arange(3), extras))[:, 0]
    expected = [0.5 * l2_of(i, pooled[i, 0:2], pooled[:, 2:4], extras) for i in range(3)]
    torch.testing.assert_close(difference, torch.stack(expected))


# ---------------------------------------------------------------- dropout, and splits of the samples


def dropping(share: float = 0.4) -> torch.nn.Module:
    torch.manual_seed(1)
    there = Layout({"user": slice(0, 8), "item": slice(8, 16)}, {}, {"user": Of.user, "item": Of.item}, {}, {})
    return heads.build(TwoTowerHead(user_hidden=[6, 8], dropout=share, similarity=Similarity.cosine), there).double()


def test_dropout_goes_by_the_seeds_of_samples_and_items_alone() -> None:
    head, pooled, extras = dropping(), vectors(1, 12, 16), drawn(2, 10, 12, 6, 0, True, False)
    seeds = torch.arange(100, 110)
    before = head(pooled, seeds, extras)
    torch.manual_seed(7)
    assert torch.equal(head(pooled, seeds, extras), before)
    assert not torch.equal(head(pooled, seeds + 1, extras), before)
    assert not torch.equal(head(pooled, seeds, extras | {"item_seeds": extras["item_seeds"] + 1}), before)
    order = torch.randperm(12, generator=randoms(3))  # items in other slots, with the same seeds
    back = torch.argsort(order)
    moved = torch.cat([pooled[:, :8], pooled[order, 8:]], 1)
    renumbered = extras | {name: back[extras[name]] for name in ("item", "shared")}
    torch.testing.assert_close(head(moved, seeds, renumbered | {"item_seeds": extras["item_seeds"][order]}), before)


@pytest.mark.parametrize("own", [0, 3])
def test_losses_are_the_same_for_any_split_of_the_samples(own: int) -> None:
    head, pooled, seeds = dropping(), vectors(1, 12, 16), torch.arange(10)
    extras = drawn(2, 10, 12, 6, own, True, True)
    whole = head(pooled, seeds, extras)
    by_sample = ("item", "out", "own", "own_out")
    for first, last in ((0, 4), (4, 10)):
        mine = {name: each[first:last] if name in by_sample else each for name, each in extras.items()}
        shifted = torch.cat([pooled[:, :8].roll(-first, 0), pooled[:, 8:]], 1)
        torch.testing.assert_close(head(shifted, seeds[first:last], mine), whole[first:last])
