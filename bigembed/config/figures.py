"""Which figures a head is judged by, and which way they are better. No torch."""

from bigembed.config.schema import Job, RankingHead, RankingLoss, RetrievalHead

LOWER = ("loss", "log_loss", "normalised_entropy", "calibration_error", "squared_error", "rmse", "mae")  # are better
LISTS = ("ndcg", "hr", "recall", "precision", "mrr", "map")


def figures_of(job: Job) -> list[str]:
    """Return the names of the figures that can choose a checkpoint, the head's own choice first."""
    head = job.head
    if isinstance(head, RetrievalHead):
        return [f"{name}@{k}" for k in job.protocol.at for name in LISTS]
    if isinstance(head, RankingHead):
        by_label = dict(zip(head.labels, losses_of(head), strict=True))
        own = list(dict.fromkeys(name for loss in by_label.values() for name in FIGURES[loss]))
        grouped = ["gauc"] if head.group is not None and RankingLoss.binary in head.losses else []
        if len(by_label) == 1:
            return [*own, "loss", *grouped]
        several = [f"{name}/{label}" for label, loss in by_label.items() for name in FIGURES[loss]]
        several += [f"gauc/{label}" for label, loss in by_label.items() if grouped and loss is RankingLoss.binary]
        return [*(name for name in own if name in MEANS), "loss", *grouped, *several]
    return ["accuracy", "loss"]


FIGURES = {
    RankingLoss.binary: ("auc", "log_loss", "normalised_entropy", "calibration_error"),
    RankingLoss.squared: ("squared_error", "rmse", "mae"),
}

MEANS = ("auc", "gauc", "log_loss", "squared_error")  # figures whose mean over several labels is told as well


def losses_of(head: RankingHead) -> list[RankingLoss]:
    """Return the loss of every label."""
    return head.losses * len(head.labels) if len(head.losses) == 1 else head.losses


def monitor_of(job: Job) -> str:
    """Return the validation figure that chooses the best checkpoint."""
    return job.trainer.monitor or figures_of(job)[0]


def sign_of(figure: str) -> int:
    """Return 1 where more is better, else -1."""
    return -1 if figure.partition("@")[0].partition("/")[0] in LOWER else 1
