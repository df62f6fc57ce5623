"""What heads are made of: attention over sequences against a plain softmax, and dropout that only the sample decides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layout
from torchrec import JaggedTensor

from bigembed import heads
from bigembed.config import kinds
from bigembed.config.schema import AttentionHead, AutoencoderHead, BagHead, Of, WideDeepHead
from bigembed.heads.attention import Attention, attend
from bigembed.heads.bag import Bag
from bigembed.heads.dropout import Dropout

# ---------------------------------------------------------------- attention


def softmax_means(values: np.ndarray, lengths: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Each sequence's mean weighted by the softmax of its scores, one sequence after another, in float64."""
    means = np.zeros((len(lengths), values.shape[1]))
    ends = np.cumsum(lengths)
    for sample, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        if length:
            weights = np.exp(scores[end - length : end] - scores[end - length : end].max())
            means[sample] = weights / weights.sum() @ values[end - length : end]
    return means


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 6), max_size=8),
    dim=st.integers(1, 5),
    scale=st.sampled_from([0.0, 1.0, 300.0]),
    index=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 2**16),
)
def test_attention_is_the_softmax_mean_of_every_sequence(
    lengths: list[int], dim: int, scale: float, index: torch.dtype, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values, scores = random.normal(size=(sum(lengths), dim)), scale * random.normal(size=sum(lengths))
    got = attend(torch.tensor(values), torch.tensor(lengths, dtype=index), torch.tensor(scores))
    assert got.shape == (len(lengths), dim) and got.dtype == torch.float64
    np.testing.assert_allclose(
        got.numpy(), softmax_means(values, np.array(lengths, int), scores), rtol=1e-12, atol=1e-12
    )


def test_scores_of_any_size_neither_overflow_nor_vanish() -> None:
    values = torch.tensor([[1.0], [3.0], [5.0], [7.0], [9.0]])
    scores = torch.tensor([-1e30, -1e30, 1e30, -200.0, -200.0])
    assert attend(values, torch.tensor([2, 1, 0, 2]), scores).tolist() == [[2.0], [5.0], [0.0], [8.0]]


@pytest.mark.parametrize("lengths", [[3, 0, 1, 2, 0], [0, 0], [4], []])
def test_gradients_of_attention_are_those_of_its_differences(lengths: list[int]) -> None:
    torch.manual_seed(0)
    values = torch.randn(sum(lengths), 3, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(sum(lengths), dtype=torch.float64, requires_grad=True)
    of_lengths = torch.tensor(lengths, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda *inputs: attend(inputs[0], of_lengths, inputs[1]), (values, scores))


def test_an_empty_sequence_gets_no_gradient_that_is_no_number() -> None:
    values, scores = torch.ones(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    attend(values, torch.tensor([0, 2, 0]), scores).sum().backward()
    assert values.grad is not None and scores.grad is not None
    assert values.grad.tolist() == [[0.5] * 3] * 2 and scores.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("with_pooled", [True, False])
def test_the_attention_head_puts_sequences_beside_what_is_pooled(with_pooled: bool) -> None:
    torch.manual_seed(1)
    lengths = {"a": [2, 0, 3], "b": [1, 1, 0]}
    widths = {"a": 4, "b": 8}
    sequences = {
        name: JaggedTensor(values=torch.randn(sum(lengths[name]), widths[name]), lengths=torch.tensor(lengths[name]))
        for name in lengths
    }
    pooled = torch.randn(3, 5) if with_pooled else None
    head = heads.build(AttentionHead(classes=3, attention=6), layout(5 if with_pooled else 0, widths))
    assert isinstance(head, Attention) and isinstance(head, Bag)
    scores = head(pooled, sequences, torch.arange(3)).detach().numpy()

    beside = [] if pooled is None else [pooled.numpy()]
    for name, jagged in sequences.items():
        first, _, last = head.scorers[name]
        values = jagged.values().numpy()
        hidden = np.tanh(values @ first.weight.detach().numpy().T + first.bias.detach().numpy())
        assert hidden.shape == (len(values), 6)
        beside.append(softmax_means(values, np.array(lengths[name]), (hidden @ last.weight.detach().numpy().T)[:, 0]))
    (layer,) = head.layers
    expected = np.concatenate(beside, 1) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_the_order_of_other_sequences_does_not_change_ones_own_vector() -> None:
    torch.manual_seed(2)
    parts = [torch.randn(length, 4) for length in (3, 1, 5)]
    scored = [part[:, 0] for part in parts]
    together = attend(torch.cat(parts), torch.tensor([3, 1, 5]), torch.cat(scored))
    alone = [attend(part, torch.tensor([len(part)]), own) for part, own in zip(parts, scored, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_every_kind_of_head_can_be_built() -> None:
    assert set(heads.HEADS) == set(kinds.HEADS.values()) and len(heads.HEADS) == 11
    for options_class in (BagHead, AttentionHead):
        head = heads.build(options_class(hidden=[3]), layout(4, {"f": 4}))
        assert [layer.out_features for layer in head.layers] == [3, 1]
    two, whose = {"u": 4, "i": 4}, {"u": Of.user, "i": Of.item}
    for options_class in heads.HEADS.keys() - {BagHead, AttentionHead, AutoencoderHead}:
        wide = {"wide": ["u"]} if options_class is WideDeepHead else {}
        assert heads.build(options_class(**wide), layout(features=two, of=whose)).eval()


# ---------------------------------------------------------------- dropout

SEEDS = torch.randint(-(2**63), 2**63 - 1, (400,), generator=torch.Generator().manual_seed(3))


def dropped(share: float, layer: int, width: int, seeds: torch.Tensor = SEEDS) -> torch.Tensor:
    """Which entries are dropped, shape (samples, width)."""
    return Dropout(share, layer)(torch.ones(len(seeds), width), seeds) == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_share_asked_for_is_dropped_and_the_rest_scaled_up(share: float, layer: int) -> None:
    vectors = torch.rand(400, 250) + 0.5
    after = Dropout(share, layer)(vectors, SEEDS)
    zero = after == 0
    deviation = (share * (1 - share)) ** 0.5
    assert abs(zero.float().mean().item() - share) < 5 * deviation / (400 * 250) ** 0.5
    assert (zero.float().mean(0) - share).abs().max().item() < 5 * deviation / 400**0.5  # in every column
    assert (zero.float().mean(1) - share).abs().max().item() < 5 * deviation / 250**0.5  # in every sample
    torch.testing.assert_close(after[~zero], vectors[~zero] / (1 - share))


@pytest.mark.parametrize("seeds", [torch.arange(400), torch.arange(400) << 40])
def test_seeds_that_follow_each_other_are_as_good_as_any(seeds: torch.Tensor) -> None:
    drops = dropped(0.5, 0, 250, seeds).float()
    assert abs(drops.mean().item() - 0.5) < 5 * 0.5 / drops.numel() ** 0.5
    together = (drops[1:] * drops[:-1]).mean().item()  # of two samples one after the other
    assert abs(together - 0.25) < 0.01
    assert abs((drops[:, 1:] * drops[:, :-1]).mean().item() - 0.25) < 0.01  # of two columns beside each other


def test_what_is_dropped_depends_on_seed_layer_and_column_alone() -> None:
    width, share = 40, 0.5
    before = dropped(share, 1, width)
    assert torch.equal(dropped(share, 1, width), before)
    torch.manual_seed(9)  # torch's own random numbers play no part
    state = torch.get_rng_state()
    layer = Dropout(share, 1)
    other = layer(torch.full((400, width), 3.0), SEEDS) == 0
    assert torch.equal(other, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(dropped(share, 1, width, SEEDS[:1]).expand(2, width), dropped(share, 1, width, SEEDS[[0, 0]]))
    for changed in (dropped(share, 2, width), dropped(share, 1, width, SEEDS + 1), before.roll(1, 1)):
        assert 0.45 < (changed == before).float().mean().item() < 0.55
    wider = dropped(0.6, 1, width)
    assert bool((wider | ~before).all())  # a larger share drops the same and more


@pytest.mark.parametrize("widths", [(128, 64), (128, 32), (48, 96), (100, 100)])
def test_layers_of_any_widths_drop_independently(widths: tuple[int, int]) -> None:
    first, second = (dropped(0.5, layer, width).float() - 0.5 for layer, width in enumerate(widths))
    correlations = 4 * first.T @ second / len(SEEDS)
    assert correlations.shape == widths
    assert correlations.abs().max().item() < 6 / len(SEEDS) ** 0.5


@pytest.mark.parametrize("cuts", [(1,), (200,), (7, 133, 399), tuple(range(1, 400))])
def test_dropout_is_the_same_for_any_split_of_the_samples(cuts: tuple[int, ...]) -> None:
    layer, vectors = Dropout(0.3, 1), torch.rand(400, 24)
    whole = layer(vectors, SEEDS)
    parts = [layer(*part) for part in zip(vectors.tensor_split(cuts), SEEDS.tensor_split(cuts), strict=True)]
    assert len(parts) == len(cuts) + 1 and torch.equal(torch.cat(parts), whole)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5))
    assert torch.equal(layer(vectors[order], SEEDS[order]), whole[order])


def test_dropout_is_off_in_evaluation_and_at_share_zero() -> None:
    vectors = torch.rand(400, 8)
    assert Dropout(0.5, 0).eval()(vectors, SEEDS) is vectors
    assert Dropout(0.0, 0)(vectors, SEEDS) is vectors
    assert not torch.equal(Dropout(0.5, 0)(vectors, SEEDS), vectors)


def test_gradients_of_dropped_entries_are_zero_and_others_scaled() -> None:
    vectors = torch.rand(400, 8, requires_grad=True)
    after = Dropout(0.5, 0)(vectors, SEEDS)
    after.sum().backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.where(after == 0, 0.0, 2.0))


def test_the_head_drops_before_every_layer_and_only_in_training() -> None:
    torch.manual_seed(4)
    head = heads.build(BagHead(classes=3, hidden=[32], dropout=0.5), layout(16, {}))
    assert [(each.share, each.layer) for each in head.dropout] == [(0.5, 0), (0.5, 1)]
    pooled = torch.rand(400, 16)
    first, second = head.layers
    hidden = torch.relu(first(pooled * ~dropped(0.5, 0, 16) * 2))
    expected = second(hidden * ~dropped(0.5, 1, 32) * 2)
    torch.testing.assert_close(head(pooled, None, SEEDS), expected)
    head.eval()
    torch.testing.assert_close(head(pooled, None, SEEDS), second(torch.relu(first(pooled))))
