"""The ranking heads against the same models written anew in plain torch, a feature, an expert and a label at a time."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import layout
from torch.nn import functional

from bigembed import heads
from bigembed.config.schema import (
    CrossNet,
    DCNv2Head,
    DeepFMHead,
    DLRMHead,
    RankingHead,
    RankingLoss,
    WideDeepHead,
)
from bigembed.heads.dlrm import pair_products
from bigembed.heads.dropout import kept

Parameters = dict[str, torch.Tensor]
Features = dict[str, torch.Tensor]

# ---------------------------------------------------------------- the models written anew


class Reference:
    """What the heads make, of the same parameters; ``seeds`` are those of dropout, None in evaluation."""

    def __init__(self, config: Any, parameters: Parameters, seeds: torch.Tensor | None) -> None:
        self.config, self.parameters, self.seeds = config, parameters, seeds

    def linear(self, name: str, inputs: torch.Tensor, copy: int | None = None) -> torch.Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        if copy is not None:
            weight, bias = weight[copy], bias[copy] if bias is not None else None
        made = inputs @ weight.T
        return made if bias is None else made + bias

    def dropped(self, vectors: torch.Tensor, layer: int, copy: int = 0) -> torch.Tensor:
        share, width = self.config.dropout, vectors.shape[1]
        if self.seeds is None or not share:
            return vectors
        places = (layer << 32) + copy * width + torch.arange(width)
        return torch.where(kept(self.seeds[:, None], places, share), vectors / (1 - share), 0.0)

    def hidden(self, name: str, inputs: torch.Tensor, layers: int, first: int, copy: int | None) -> torch.Tensor:
        for layer in range(layers):
            inputs = torch.relu(self.linear(f"{name}.layers.{layer}", inputs, copy))
            inputs = self.dropped(inputs, first + layer, copy or 0)
        return inputs

    def deep(self, inputs: torch.Tensor) -> torch.Tensor:
        config, scores = self.config, []
        layers = len(config.hidden)
        for label in range(len(config.labels)):
            if config.experts:
                numbers = range(config.experts)
                own = self.parameters["deep.gates.weight"].view(-1, config.experts, inputs.shape[1])[label]
                gates = torch.softmax(inputs @ own.T, 1)
                made = [self.hidden("deep.hidden", inputs, layers, 0, expert) for expert in numbers]
                vectors = sum(gates[:, [expert]] * made[expert] for expert in numbers)
            else:
                vectors = self.hidden("deep.hidden", inputs, layers, 0, None)
            vectors = self.hidden("deep.towers", vectors, len(config.towers), layers, label)
            scores.append(self.linear("deep.output", vectors, label)[:, 0])
        return torch.stack(scores, 1)


def dlrm(reference: Reference, features: Features, numbers: torch.Tensor | None) -> torch.Tensor:
    config, vectors, beside = reference.config, list(features.values()), []
    if numbers is not None:
        first = len(config.hidden) + len(config.towers)
        dense = reference.hidden("bottom.hidden", numbers, len(config.bottom), first, None)
        dense = torch.relu(reference.linear("bottom.last", dense))
        vectors, beside = [dense, *vectors], [dense]
    pairs = [(vectors[i] * vectors[j]).sum(1, keepdim=True) for i in range(len(vectors)) for j in range(i)]
    return reference.deep(torch.cat([*beside, *pairs], 1))


def dcnv2(reference: Reference, features: Features, numbers: torch.Tensor | None) -> torch.Tensor:
    first = torch.cat([*features.values(), *([] if numbers is None else [numbers])], 1)
    crossed = first
    for layer in range(reference.config.cross_layers):
        weight = reference.parameters[f"crosses.{layer}.up.weight"]
        if reference.config.rank is not None:
            weight = weight @ reference.parameters[f"crosses.{layer}.down.weight"]
        crossed = first * (crossed @ weight.T + reference.parameters[f"crosses.{layer}.up.bias"]) + crossed
    if reference.config.structure is CrossNet.stacked:
        return reference.deep(crossed)
    return reference.deep(first) + reference.linear("crossed", crossed)


def deepfm(reference: Reference, features: Features, numbers: torch.Tensor | None) -> torch.Tensor:
    everything = torch.cat([*features.values(), *([] if numbers is None else [numbers])], 1)
    first_order = sum(vectors[:, 0] for vectors in features.values())
    pairs = sum((((a[:, 1:] * b[:, 1:]).sum(1)) for a, b in combinations(features.values(), 2)), torch.zeros(()))
    scores = reference.deep(everything) + (first_order + pairs)[:, None]
    return scores if numbers is None else scores + reference.linear("linear", numbers)


def wide_deep(reference: Reference, features: Features, numbers: torch.Tensor | None) -> torch.Tensor:
    wide = reference.config.wide
    deep = [vectors for name, vectors in features.items() if name not in wide] + ([] if numbers is None else [numbers])
    return reference.deep(torch.cat(deep, 1)) + sum(features[name][:, [0]] for name in wide)


REFERENCES: dict[type[RankingHead], Callable[..., torch.Tensor]] = {
    DLRMHead: dlrm,
    DCNv2Head: dcnv2,
    DeepFMHead: deepfm,
    WideDeepHead: wide_deep,
}


def reference_losses(config: RankingHead, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(scores), dtype=scores.dtype)
    for column in range(len(config.labels)):
        loss = config.losses[column if len(config.losses) > 1 else 0]
        weight = config.label_weights[column] if config.label_weights else 1.0
        score, label = scores[:, column], labels[:, column]
        if loss is RankingLoss.squared:
            total = total + weight * (score - label) ** 2
        else:
            total = total - weight * (
                label * functional.logsigmoid(score) + (1 - label) * functional.logsigmoid(-score)
            )
    return total


# ---------------------------------------------------------------- what is compared


def compare(
    config: Any, widths: dict[str, int], numbers: int, samples: int, seed: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Hold scores, losses and all gradients of a head to those of its reference in float64, relative to the largest entry of each."""
    torch.manual_seed(seed)
    head = heads.build(config, layout(features=widths, numbers=numbers)).to(dtype).train()
    seeds = torch.randint(-(2**62), 2**62, (samples,))
    features = {name: torch.randn(samples, width) for name, width in widths.items()}
    dense = torch.randn(samples, numbers)
    binary = torch.randint(0, 2, (samples, len(config.labels))).float()
    ratings = torch.rand(samples, len(config.labels)) * 5
    squared = torch.tensor([loss is RankingLoss.squared for loss in config.losses])
    labels = torch.where(squared, ratings, binary)
    into = torch.rand(samples)  # what the losses' gradients are

    own = [each.to(dtype).requires_grad_() for each in (*features.values(), dense)]
    scores = head(torch.cat(own, 1), {}, seeds)
    losses = head.losses(scores, labels)
    assert scores.shape == labels.shape and losses.shape == (samples,)
    names = [name for name, _ in head.named_parameters()]
    found = torch.autograd.grad(losses, [*own, *head.parameters()], into.to(dtype), allow_unused=numbers == 0)

    plain = {name: each.detach().double().requires_grad_() for name, each in head.named_parameters()}
    leaves = {name: each.double().requires_grad_() for name, each in (features | {"numbers": dense}).items()}
    vectors = {name: leaves[name] for name in features}
    expected = REFERENCES[type(config)](
        Reference(config, plain, seeds), vectors, leaves["numbers"] if numbers else None
    )
    expected_losses = reference_losses(config, expected, labels.double())
    gradients = torch.autograd.grad(
        expected_losses, [*leaves.values(), *plain.values()], into.double(), allow_unused=True
    )

    close("scores", scores, expected, tolerance)
    close("losses", losses, expected_losses, tolerance)
    assert len(found) == len(gradients) == len(widths) + 1 + len(names)
    for name, one, another in zip([*widths, "numbers", *names], found, gradients, strict=True):
        if name == "numbers" and not numbers:
            continue
        assert one is not None, name
        close(name, one, torch.zeros_like(one) if another is None else another, tolerance)


def close(name: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape, name
    largest = max(1.0, expected.abs().max().item())
    error = (found.detach().double() - expected.detach()).abs().max().item() / largest
    assert error <= tolerance, (name, error)


def common(draw: st.DrawFn) -> dict[str, Any]:
    """Options of the deep part."""
    labels = draw(st.integers(1, 3))
    experts = draw(st.sampled_from([0, 0, 1, 3]))
    return {
        "labels": [f"label{number}" for number in range(labels)],
        "losses": draw(st.lists(st.sampled_from(RankingLoss), min_size=labels, max_size=labels)),
        "label_weights": draw(st.sampled_from([[], [0.5, 2.0, 0.0][:labels]])),
        "hidden": draw(st.lists(st.integers(1, 6), min_size=experts > 0, max_size=3)),
        "towers": draw(st.lists(st.integers(1, 5), max_size=2)),
        "experts": experts,
        "dropout": draw(st.sampled_from([0.0, 0.3])),
    }


@st.composite
def cases(draw: st.DrawFn, kind: type[RankingHead]) -> tuple[Any, dict[str, int], int]:
    """A configuration, the widths of the features and the number of numbers."""
    count, numbers = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    options = common(draw)
    if kind in (DLRMHead, DeepFMHead):
        if kind is DLRMHead:
            options["bottom"] = draw(st.lists(st.integers(1, 6), max_size=2))
            count = max(count, 2 - min(numbers, 1))
        widths = [draw(st.sampled_from([4, 8]))] * count
    else:
        widths = draw(st.lists(st.sampled_from([4, 8, 12]), min_size=count + 1, max_size=count + 1))
    names = [f"f{number}" for number in range(len(widths))]
    if kind is DCNv2Head:
        options |= {
            "cross_layers": draw(st.integers(1, 3)),
            "rank": draw(st.sampled_from([None, 1, 5])),
            "structure": draw(st.sampled_from(CrossNet)),
        }
    elif kind is WideDeepHead:
        options["wide"] = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names) - 1, unique=True))
    return kind(**options), dict(zip(names, widths, strict=True)), numbers


@pytest.mark.parametrize("kind", REFERENCES)
@settings(max_examples=20)
@given(data=st.data(), samples=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_scores_losses_and_gradients_are_those_of_the_model_written_anew(
    kind: type[RankingHead], data: st.DataObject, samples: int, seed: int
) -> None:
    compare(*data.draw(cases(kind)), samples, seed, torch.float64, 1e-12)


LARGER = [
    DLRMHead(hidden=[32, 16], bottom=[16]),
    DCNv2Head(hidden=[32, 16]),
    DCNv2Head(hidden=[32, 16], rank=8, structure=CrossNet.stacked),
    DeepFMHead(hidden=[32, 16]),
    WideDeepHead(hidden=[32, 16], wide=["f0", "f3"]),
    DLRMHead(labels=["a", "b"], hidden=[32, 16], towers=[8], experts=3, dropout=0.2),
]


@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_float32_is_within_a_millionth(config: RankingHead) -> None:
    compare(config, {f"f{number}": 16 for number in range(10)}, 4, 64, 0, torch.float32, 1e-6)


# ---------------------------------------------------------------- its parts


@pytest.mark.parametrize("count", [1, 2, 5])
def test_gradients_of_pair_products_are_those_of_its_differences(count: int) -> None:
    vectors = torch.randn(3, count, 4, dtype=torch.float64, requires_grad=True)
    assert pair_products(vectors).shape == (3, count * (count - 1) // 2)
    assert count == 1 or torch.autograd.gradcheck(pair_products, vectors)


def test_probabilities_are_those_of_binary_labels_and_ratings_stay() -> None:
    config = DCNv2Head(labels=["click", "rating"], losses=[RankingLoss.binary, RankingLoss.squared])
    scores = torch.tensor([[0.0, 3.5], [50.0, -1.0]])
    head = heads.build(config, layout(4))
    assert head.probabilities(scores).tolist() == [[0.5, 3.5], [1.0, -1.0]]
    config.losses = [RankingLoss.binary]
    assert heads.build(config, layout(4)).probabilities(scores)[:, 1].tolist() == torch.sigmoid(scores[:, 1]).tolist()
    config.losses = [RankingLoss.squared]
    assert heads.build(config, layout(4)).probabilities(scores) is scores


def test_scores_of_any_size_have_a_finite_loss_and_gradient() -> None:
    head = heads.build(DCNv2Head(label_weights=[2.0]), layout(4))
    scores = torch.tensor([[1e30], [-1e30], [1e30], [-1e30]], requires_grad=True)
    losses = head.losses(scores, torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 0.0, 2e30, 2e30]) and scores.grad is not None
    assert scores.grad.flatten().tolist() == [0.0, 0.0, 2.0, -2.0]


@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_first_weights_are_drawn_as_torch_draws_a_linear_layer(config: RankingHead) -> None:
    head = heads.build(config, layout(features={f"f{number}": 64 for number in range(10)}, numbers=4))
    seen = 0
    for module in head.modules():
        weight = getattr(module, "weight", None)
        if weight is not None:
            seen += 1
            bound = weight.shape[-1] ** -0.5
            assert weight.abs().max() <= bound
            if weight.numel() >= 100:
                assert weight.abs().max() > 0.9 * bound and abs(weight.mean()) < 0.3 * bound
                assert abs(weight.std() * 3**0.5 / bound - 1) < 0.2
            if getattr(module, "bias", None) is not None:
                assert module.bias.abs().max() <= bound
    assert seen >= 3


@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_a_sample_does_not_depend_on_the_others_of_its_batch(config: RankingHead) -> None:
    head = heads.build(
        replace(config, dropout=0.4), layout(features={f"f{number}": 8 for number in range(4)}, numbers=2)
    ).double()
    pooled, seeds = torch.randn(7, 34, dtype=torch.float64), torch.arange(7) * 977
    whole = head(pooled, {}, seeds)
    parts = [head(pooled[part], {}, seeds[part]) for part in (slice(0, 2), slice(2, 3), slice(3, 7))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(head.eval()(pooled, {}, seeds), whole)


@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_every_layer_of_a_head_drops_by_a_number_of_its_own(config: RankingHead) -> None:
    head = heads.build(
        replace(config, towers=[6, 5]), layout(features={f"f{number}": 8 for number in range(4)}, numbers=2)
    )
    layers = [module.layer for module in head.modules() if type(module).__name__ == "Dropout"]
    bottom = len(config.bottom) if isinstance(config, DLRMHead) else 0
    assert len(layers) == len(set(layers)) == len(config.hidden) + 2 + bottom


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("config", LARGER, ids=lambda config: type(config).__name__)
def test_gpu_and_cpu_agree(config: RankingHead) -> None:
    head = heads.build(config, layout(features={f"f{number}": 16 for number in range(6)}, numbers=3)).double()
    pooled, seeds = torch.randn(50, 99, dtype=torch.float64), torch.arange(50)
    labels = torch.randint(0, 2, (50, len(config.labels))).float()
    losses = head.losses(head(pooled, {}, seeds), labels)
    head = head.cuda()
    on_gpu = head.losses(head(pooled.cuda(), {}, seeds.cuda()), labels.cuda())
    torch.testing.assert_close(on_gpu.cpu(), losses)
