"""Figures of an evaluation, the same for any split of the samples over ranks."""

from collections.abc import Sequence
from functools import cache
from itertools import cycle
from math import isnan, log, log1p, nan

import numba
import numpy as np
import torch
import torch.distributed as dist

from bigembed.config.figures import MEANS
from bigembed.config.schema import RankingHead, RankingLoss
from bigembed.report import say

BINS = 20  # of the calibration error
BLOCK = 1 << 20  # rows that ranks send at once
NEAREST = 2.0**-23  # probabilities are taken as no nearer to 0 and 1 where their logarithm is: float32's epsilon


class Classification:
    """Mean cross entropy and accuracy."""

    def __init__(self) -> None:
        self.samples, self.correct, self.loss = 0, 0, 0.0

    def update(self, losses: torch.Tensor, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: its losses (samples,), probabilities (samples, classes) and labels (samples,)."""
        self.samples += len(labels)
        self.correct += int((probabilities.argmax(1) == labels).sum())
        self.loss += float(losses.sum(dtype=torch.float64))

    def result(self) -> dict[str, float]:
        """Return the figures over all ranks; empty where there was no sample."""
        sums = _over_ranks(torch.tensor([self.samples, self.correct, self.loss], dtype=torch.float64))
        samples, correct, loss = sums.tolist()
        return {"loss": loss / samples, "accuracy": correct / samples, "samples": int(samples)} if samples else {}


class Ranking:
    """Figures of binary labels and of ratings, each label's own.

    Of every binary label, with predictions p, labels y and r the share of ones:

    - ``auc``: the share of the pairs of a one and a zero in which the one is predicted higher; ties count half;
    - ``gauc``: the mean of the groups' AUC, weighted by their rows (Zhou et al. 2018, Deep Interest Network for Click-Through Rate
      Prediction, equation 9), where there are groups; those of one class have none, and are ``groups_left_out``;
    - ``log_loss``: mean of - y log p - (1 - y) log(1 - p), p kept in [2⁻²³, 1 - 2⁻²³];
    - ``normalised_entropy``: the same divided by that of the constant prediction r (He et al. 2014, Practical Lessons from Predicting
      Clicks on Ads at Facebook, equation 1);
    - ``calibration``: mean of p over r;
    - ``calibration_error``: Σ_b |Σ_{i in b} p_i - y_i| / rows over 20 bins of as many rows each, in order of p; rows of the same p count
      the mean of their labels, so that their order does not matter.

    Of every rating ``squared_error``, its root ``rmse``, and ``mae``. Where labels are several, figures are called ``auc/LABEL``,
    and ``auc``, ``gauc``, ``log_loss`` and ``squared_error`` are means over the labels that have them.

    What a figure needs of single rows is kept until the result: 4 bytes a row and binary label, and 8 where there are groups. Rank
    0 gets those of all ranks.

    Parameters
    ----------
    config : RankingHead
        Names the labels and their losses.

    Attributes
    ----------
    bins : dict of str to ndarray, shape (20, 3), float64
        What the calibration error is made of, of every binary label, on rank 0 after ``result``: of each bin the rows, the sum of their
        predictions and that of their labels.
    """

    def __init__(self, config: RankingHead) -> None:
        self.labels = config.labels
        self.binary = [loss is RankingLoss.binary for _, loss in zip(self.labels, cycle(config.losses), strict=False)]
        self.sums = torch.zeros(2 + 3 * len(self.labels), dtype=torch.float64)
        self.keys: list[np.ndarray] = []
        self.groups: list[np.ndarray] = []
        self.bins: dict[str, np.ndarray] = {}

    def update(
        self, losses: torch.Tensor, predictions: torch.Tensor, labels: torch.Tensor, groups: np.ndarray | None = None
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        losses : Tensor, shape (samples,)
            Each sample's loss.
        predictions : Tensor, shape (samples, labels), float32
            Probabilities of binary labels, ratings.
        labels : Tensor, shape (samples, labels)
            The labels, on the same device; binary ones are 0 or 1.
        groups : ndarray, shape (samples,), int64, optional
            The group of each row: in every batch of all ranks, or in none.
        """
        predicted, true = predictions.double(), labels.double()
        near = predicted.clamp(NEAREST, 1 - NEAREST)
        entropy = -(true * near.log() + (1 - true) * (-near).log1p())
        apart = predicted - true
        binary = torch.tensor(self.binary, device=predicted.device)
        of_labels = torch.stack(
            [
                torch.where(binary, entropy, apart.square()).sum(0),
                torch.where(binary, predicted, apart.abs()).sum(0),
                true.sum(0),
            ]
        )
        own = torch.stack([true.new_tensor(len(losses)), losses.sum(dtype=torch.float64)])
        self.sums += torch.cat([own, of_labels.flatten()]).cpu()
        if any(self.binary):
            bits = (predictions[:, binary].float() + 0.0).view(torch.int32)  # in order as numbers are; -0 is 0
            self.keys.append((bits << 1 | labels[:, binary].to(torch.int32)).cpu().numpy())
        if groups is not None:
            self.groups.append(groups)

    def result(self) -> dict[str, float]:
        """Return the figures over all ranks, the same on each; empty where there was no sample."""
        sums = _over_ranks(self.sums.clone())
        keys = _on_rank_0(self.keys, np.empty((0, sum(self.binary)), np.int32))
        groups = _on_rank_0(self.groups, np.empty(0, np.int64))
        figures = [self._figures(sums.numpy(), keys, groups)]  # those of rank 0 count
        if _world() > 1:
            dist.broadcast_object_list(figures, src=0, device=_device())
        return figures[0]

    def _figures(self, sums: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> dict[str, float]:
        """Return all figures from the sums over all rows, and from what is kept of each row."""
        rows = int(sums[0])
        if not rows or (dist.is_initialized() and dist.get_rank()):
            return {}
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64) if len(groups) else groups
        columns = iter(keys.T)
        by_label: dict[str, dict[str, float]] = {}
        for label, binary, own in zip(self.labels, self.binary, sums[2:].reshape(3, -1).T / rows, strict=True):
            if binary:
                by_label[label], self.bins[label] = _of_binary(label, own, next(columns), groups)
            else:
                by_label[label] = _of_ratings(own)
        figures = {"loss": float(sums[1]) / rows}
        if len(self.labels) == 1:
            return figures | by_label[label] | {"samples": rows}
        for name in MEANS:
            found = [own[name] for own in by_label.values() if name in own]
            figures |= {name: sum(found) / len(found)} if found else {}
        figures |= {f"{name}/{label}": value for label, own in by_label.items() for name, value in own.items()}
        return figures | {"samples": rows}


def _of_ratings(means: np.ndarray) -> dict[str, float]:
    """Return the figures of a rating from the means of squared errors, absolute errors and labels."""
    squared, absolute, _ = means.tolist()
    return {"squared_error": squared, "rmse": squared**0.5, "mae": absolute}


def _of_binary(
    label: str, means: np.ndarray, keys: np.ndarray, groups: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Return the figures of a binary label, and its bins as ``Ranking`` has them, of which there are none where a prediction is NaN.

    Parameters
    ----------
    label : str
        Its name.
    means : ndarray, shape (3,), float64
        Of entropies, predictions and labels.
    keys : ndarray, shape (rows,), int32
        The bits of a row's prediction, and the label as the last bit.
    groups : ndarray, shape (rows,) or (0,), int64
        The rows' groups, numbered from 0, where there are any.
    """
    entropy, predicted, ones = means.tolist()
    figures = {"log_loss": entropy}
    if isnan(predicted):  # then order means nothing
        return {"auc": nan} | figures, np.empty((0, 3))
    in_order = np.sort(keys)
    if 0 < ones < 1:
        figures["auc"] = _areas(in_order)[0]
        figures["normalised_entropy"] = entropy / -(ones * log(ones) + (1 - ones) * log1p(-ones))
    else:
        _warn(
            f"every '{label}' of the rows that are judged is {ones:.0f}, so that there is no auc and no normalised_entropy"
        )
    if len(groups) and 0 < ones < 1:
        area, judged, left_out = _areas(np.sort(groups << 32 | keys))
        figures |= {"gauc": area} if judged else {}
        figures["groups_left_out"] = left_out
        if not judged:
            _warn(f"no group has both a 0 and a 1 of '{label}', so that there is no gauc")
    if ones:
        figures["calibration"] = predicted / ones
    bins = _bins(in_order & 1, (in_order >> 1).view(np.float32), BINS)
    return figures | {"calibration_error": float(np.abs(bins[:, 1] - bins[:, 2]).sum() / len(keys))}, bins


@numba.njit(nogil=True, cache=True)
def _areas(keys: np.ndarray) -> tuple[float, int, int]:
    """Return the mean of the groups' areas under the ROC curve, weighted by rows; those rows; and the groups that have none.

    ``keys``, in ascending order, hold a row's group in the upper 32 of 64 bits (numbers of 32 bits: all are of one group), then the
    prediction, and the label in the last.
    """
    weighted, judged, left_out, row = 0.0, 0, 0, 0
    while row < len(keys):
        group, begin, ones, zeros, twice = keys[row] >> 32, row, 0, 0, 0
        while row < len(keys) and keys[row] >> 32 == group:
            prediction, tied_ones, tied_zeros = keys[row] >> 1, 0, 0
            while row < len(keys) and keys[row] >> 1 == prediction:
                tied_ones += keys[row] & 1
                tied_zeros += 1 - (keys[row] & 1)
                row += 1
            twice += tied_ones * (2 * zeros + tied_zeros)
            ones += tied_ones
            zeros += tied_zeros
        if ones and zeros:
            weighted += (row - begin) * (twice / (2.0 * ones * zeros))
            judged += row - begin
        else:
            left_out += 1
    return weighted / max(judged, 1), judged, left_out


@numba.njit(nogil=True, cache=True)
def _bins(labels: np.ndarray, predictions: np.ndarray, count: int) -> np.ndarray:
    """Return every bin's rows and sums of predictions and labels, shape (count, 3), float64, of rows in ascending order of prediction."""
    bins, rows, begin = np.zeros((count, 3)), len(labels), 0
    while begin < rows:
        end, ones = begin, 0
        while end < rows and predictions[end] == predictions[begin]:
            ones += labels[end]
            end += 1
        for row in range(begin, end):
            own = bins[row * count // rows]
            own[0] += 1
            own[1] += predictions[begin]
            own[2] += ones / (end - begin)  # of equal predictions, so that their order does not matter
        begin = end
    return bins


@cache
def _warn(text: str) -> None:
    """Tell the user, once and not at every evaluation."""
    say(f"warning: {text}")


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _device() -> torch.device:
    """Return where the tensors of collectives lie."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _over_ranks(sums: torch.Tensor) -> torch.Tensor:
    """Return ``sums``, float64 on the host, added up over all ranks."""
    if _world() == 1:
        return sums
    sums = sums.to(_device())
    dist.all_reduce(sums)
    return sums.cpu()


def _on_rank_0(parts: Sequence[np.ndarray], none: np.ndarray) -> np.ndarray:
    """Return the rows of ``parts`` of all ranks one after another, on rank 0; elsewhere this rank's; ``none`` is the same without rows."""
    own = np.concatenate([none, *parts])
    if _world() == 1:
        return own
    counts = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(_world())]
    dist.all_gather(counts, torch.tensor([len(own)], device=_device()))
    lengths = np.array([int(count) for count in counts])
    chief = dist.get_rank() == 0
    found = []
    for begin in range(0, lengths.max(), BLOCK):
        sizes = np.clip(lengths - begin, 0, BLOCK)
        block = torch.from_numpy(np.zeros((sizes.max(), *own.shape[1:]), own.dtype))  # gather wants the same of all
        block[: sizes[dist.get_rank()]] = torch.from_numpy(own[begin : begin + BLOCK])
        block = block.to(_device())
        blocks = [torch.empty_like(block) for _ in sizes] if chief else None
        dist.gather(block, blocks, dst=0)
        found += [block[:size].cpu().numpy() for block, size in zip(blocks or (), sizes, strict=False)]
    return np.concatenate([none, *found]) if chief else own
