"""Figures of an evaluation as sums over samples, so that any split of the samples over ranks gives the same."""

import torch
import torch.distributed as dist


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
        sums = torch.tensor([self.samples, self.correct, self.loss], dtype=torch.float64)
        if dist.is_initialized() and dist.get_world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            sums = sums.to(device)
            dist.all_reduce(sums)
        samples, correct, loss = sums.tolist()
        return {"loss": loss / samples, "accuracy": correct / samples, "samples": int(samples)} if samples else {}
