"""The figures of rankings against their definitions, written out pair by pair in numpy, on one rank and on several."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_ranks

from bigembed import metrics
from bigembed.config.schema import DLRMHead, RankingHead, RankingLoss, RuntimeConfig
from bigembed.metrics import Ranking
from bigembed.runtime import start

BINARY, SQUARED = RankingLoss.binary, RankingLoss.squared


@pytest.fixture(autouse=True)
def _warnings_anew() -> Iterator[None]:
    metrics._warn.cache_clear()
    yield


# ---------------------------------------------------------------- the definitions


def area(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a one and a zero that are in order, ties half."""
    apart = predictions[labels == 1][:, None] - predictions[labels == 0][None]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def grouped(predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[float, int]:
    total, rows, left_out = 0.0, 0, 0
    for group in set(groups.tolist()):
        own = groups == group
        if labels[own].min() == labels[own].max():
            left_out += 1
        else:
            total, rows = total + own.sum() * area(predictions[own], labels[own]), rows + int(own.sum())
    return total / rows if rows else float("nan"), left_out


def calibration_error(predictions: np.ndarray, labels: np.ndarray) -> float:
    shared = [labels[predictions == prediction].mean() for prediction in predictions]
    order, rows, bins = np.argsort(predictions, kind="stable"), len(labels), np.zeros(20)
    for place, row in enumerate(order):
        bins[place * 20 // rows] += predictions[row] - shared[row]
    return float(np.abs(bins).sum() / rows)


def binary_figures(predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    """All figures of a label that has both classes."""
    predictions, rate = predictions.astype(np.float64), labels.mean()
    near = np.clip(predictions, 2.0**-23, 1 - 2.0**-23)
    entropy = -np.where(labels == 1, np.log(near), np.log(1 - near)).mean()
    figures = {
        "auc": area(predictions, labels),
        "log_loss": entropy,
        "normalised_entropy": entropy / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)),
        "calibration": predictions.mean() / rate,
        "calibration_error": calibration_error(predictions, labels),
    }
    if groups is not None:
        gauc, left_out = grouped(predictions, labels, groups)
        figures |= {"groups_left_out": left_out} | ({} if np.isnan(gauc) else {"gauc": gauc})
    return figures


def judged(
    config: RankingHead, predictions: Any, labels: Any, groups: np.ndarray | None = None, cuts: Any = ()
) -> dict[str, float]:
    """The figures of rows that come in several batches; a row's loss is its number."""
    predictions, labels = np.asarray(predictions, np.float32), np.asarray(labels, np.float32)
    figures = Ranking(config)
    for part in np.split(np.arange(len(labels)), sorted(cuts)):
        figures.update(
            torch.from_numpy(part.astype(np.float32)),
            torch.from_numpy(predictions[part]),
            torch.from_numpy(labels[part]),
            None if groups is None else groups[part],
        )
    return figures.result()


# ---------------------------------------------------------------- one rank


@settings(max_examples=60)
@given(
    rows=st.integers(2, 70),
    values=st.integers(1, 60),
    groups=st.sampled_from([0, 1, 4, 40]),
    batches=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_figures_of_a_binary_label_are_as_defined(rows: int, values: int, groups: int, batches: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    labels[:2] = [0, 1]
    predictions = random.choice(np.r_[0.0, 1.0, random.random(values)], rows).astype(np.float32)
    of = random.integers(-(2**63), 2**63 - 1, 40)[random.integers(0, groups, rows)] if groups else None
    found = judged(
        DLRMHead(), predictions[:, None], labels[:, None], of, random.integers(0, rows + 1, batches - 1).tolist()
    )
    expected = {"loss": (rows - 1) / 2, **binary_figures(predictions, labels, of), "samples": rows}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert type(found["samples"]) is int and found["auc"] == pytest.approx(expected["auc"], abs=1e-15)


def test_larger_numbers_of_rows_and_groups_are_exact() -> None:
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 2, 3000), random.integers(0, 400, 3000) / np.float32(400)
    groups = random.integers(0, 300, 3000)
    found = judged(DLRMHead(), predictions[:, None], labels[:, None], groups, [1000, 1001])
    assert found["auc"] == pytest.approx(area(predictions, labels), abs=1e-15)
    assert found["gauc"] == pytest.approx(grouped(predictions, labels, groups)[0], abs=1e-14)


def test_a_constant_prediction_that_is_right_on_average_has_no_calibration_error() -> None:
    found = judged(DLRMHead(), np.full((80, 1), 0.25), np.arange(80)[:, None] % 4 == 0)
    assert found["auc"] == 0.5 and found["calibration_error"] == 0 and found["calibration"] == 1
    assert found["normalised_entropy"] == pytest.approx(1)


def test_neighbouring_predictions_are_told_apart() -> None:
    one = np.float32(0.5)
    above, below = np.nextafter(one, np.float32(1)), np.nextafter(one, np.float32(0))
    assert judged(DLRMHead(), [[below], [above]], [[0], [1]])["auc"] == 1
    assert judged(DLRMHead(), [[above], [one]], [[0], [1]])["auc"] == 0
    assert judged(DLRMHead(), [[-0.0], [0.0]], [[0], [1]])["auc"] == 0.5


def test_figures_of_ratings_are_as_defined() -> None:
    random = np.random.default_rng(1)
    predictions, labels = random.normal(3, 1, 50).astype(np.float32), random.integers(1, 6, 50)
    apart = predictions.astype(np.float64) - labels
    found = judged(DLRMHead(losses=[SQUARED]), predictions[:, None], labels[:, None], None, [20])
    assert found == pytest.approx(
        {
            "loss": 24.5,
            "squared_error": (apart**2).mean(),
            "rmse": (apart**2).mean() ** 0.5,
            "mae": np.abs(apart).mean(),
            "samples": 50,
        }
    )


def test_several_labels_have_figures_of_their_own_and_means() -> None:
    random = np.random.default_rng(2)
    config = DLRMHead(labels=["stars", "click", "buy"], losses=[SQUARED, BINARY, BINARY])
    predictions = random.random((60, 3)).astype(np.float32)
    labels = np.c_[random.integers(1, 6, 60), random.integers(0, 2, (60, 2))]
    groups = random.integers(0, 5, 60)
    found = judged(config, predictions, labels, groups, [7, 33])
    click, buy = (binary_figures(predictions[:, column], labels[:, column], groups) for column in (1, 2))
    squared = ((predictions[:, 0].astype(np.float64) - labels[:, 0]) ** 2).mean()
    assert found == pytest.approx(
        {
            "loss": 29.5,
            **{name: (click[name] + buy[name]) / 2 for name in ("auc", "gauc", "log_loss")},
            "squared_error": squared,
            "squared_error/stars": squared,
            "rmse/stars": squared**0.5,
            "mae/stars": np.abs(predictions[:, 0].astype(np.float64) - labels[:, 0]).mean(),
            **{f"{name}/click": value for name, value in click.items()},
            **{f"{name}/buy": value for name, value in buy.items()},
            "samples": 60,
        }
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_figures_out_and_says_so_once(label: int, capsys: pytest.CaptureFixture[str]) -> None:
    config = DLRMHead(labels=["click", "buy"])
    predictions, labels = [[0.25, 0.5], [0.75, 0.25], [0.5, 0.75]], [[label, 1], [label, 0], [label, 1]]
    groups = np.array([1, 1, 2])
    found = [judged(config, predictions, labels, groups) for _ in range(2)]
    assert found[0] == found[1] and found[0]["auc"] == found[0]["auc/buy"] == 1
    own = {name for name in found[0] if name.endswith("/click")}
    assert own == {"log_loss/click", "calibration_error/click"} | ({"calibration/click"} if label else set())
    said = capsys.readouterr().err
    assert said == (
        f"warning: every 'click' of the rows that are judged is {label}, so that there is no auc and no normalised_entropy\n"
    )


def test_groups_of_one_class_only_leave_gauc_out_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = judged(DLRMHead(group="user"), [[0.25], [0.75]], [[0], [1]], np.array([5, 6]))
    assert found["auc"] == 1 and found["groups_left_out"] == 2 and "gauc" not in found
    assert capsys.readouterr().err == "warning: no group has both a 0 and a 1 of 'label', so that there is no gauc\n"


def test_a_prediction_that_is_no_number_makes_no_figure_that_is_one() -> None:
    found = judged(DLRMHead(), [[0.25], [float("nan")]], [[0], [1]], np.array([1, 1]))
    assert (
        np.isnan(found["auc"])
        and np.isnan(found["log_loss"])
        and found.keys() == {"loss", "auc", "log_loss", "samples"}
    )


def test_without_rows_there_is_no_figure() -> None:
    assert Ranking(DLRMHead()).result() == {}
    assert judged(DLRMHead(), np.empty((0, 1)), np.empty((0, 1))) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_batches_may_lie_on_a_gpu() -> None:
    predictions, labels, groups, losses = some_rows()
    figures = Ranking(SEVERAL)
    figures.update(losses.cuda(), predictions.cuda(), labels.cuda(), groups)
    assert figures.result() == pytest.approx(of_all_rows())


# ---------------------------------------------------------------- several ranks

SEVERAL = DLRMHead(labels=["stars", "click", "buy"], losses=[SQUARED, BINARY, BINARY], group="user")


def some_rows() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, torch.Tensor]:
    random = np.random.default_rng(3)
    predictions = torch.from_numpy(random.integers(0, 30, (100, 3)).astype(np.float32) / 30)
    labels = torch.from_numpy(random.integers(0, 2, (100, 3)).astype(np.float32))
    return predictions, labels, random.integers(0, 9, 100), torch.from_numpy(random.random(100).astype(np.float32))


def of_all_rows() -> dict[str, float]:
    predictions, labels, groups, losses = some_rows()
    figures = Ranking(SEVERAL)
    figures.update(losses, predictions, labels, groups)
    return figures.result()


def of_ranks(shares: list[list[int]], block: int) -> dict[str, float]:
    """On each rank: the figures where the ranks have these rows each, sent in blocks."""
    metrics.BLOCK = block
    predictions, labels, groups, losses = some_rows()
    with start(RuntimeConfig(threads=1)) as runtime:
        rows, figures = np.array(shares[runtime.rank], np.int64), Ranking(SEVERAL)
        for part in np.array_split(rows, 3) if len(rows) else []:
            figures.update(losses[part], predictions[part], labels[part], groups[part])
        assert figures.result() == figures.result()
        return figures.result()


def test_ranks_with_unequal_shares_agree_with_one() -> None:
    order = np.random.default_rng(4).permutation(100).tolist()
    found = run_ranks(of_ranks, 3, [order[:60], order[60:], []], 7)
    expected = of_all_rows()
    assert len(found) == 3 and len(expected) > 15
    for figures in found:
        assert figures == found[0]
        assert list(figures) == list(expected) and figures == pytest.approx(expected, rel=1e-12)
        assert [figures[f"{name}/buy"] for name in ("auc", "gauc")] == [expected["auc/buy"], expected["gauc/buy"]]
