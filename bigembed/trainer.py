"""Training: what a job names is opened, then the loop, then the test part, once."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed import run
from bigembed.agreement import Agreement
from bigembed.arrays import Damaged
from bigembed.batch import Batch, collate
from bigembed.build import build, fill_rows
from bigembed.checkpoint import Group, Saver, load_checkpoint
from bigembed.checkpoint.grown import load_grown
from bigembed.config import saved
from bigembed.config.figures import monitor_of, sign_of
from bigembed.config.physical import physical
from bigembed.config.schema import Job
from bigembed.errors import UserError
from bigembed.evaluation import evaluate, share
from bigembed.examples import table_rows
from bigembed.hashing import hash_string
from bigembed.loader import Ahead, Waiting
from bigembed.optim import Optimizers
from bigembed.prepare import Part, Prepared
from bigembed.report import Report, brief, say
from bigembed.runtime import Runtime, start
from bigembed.sharding.place import has_caches
from bigembed.signals import Stop, Stopped
from bigembed.starting import keep_starts, pull_back, release, start_from_interactions, start_from_vectors, thaw
from bigembed.stepping import Stepper, choose


@dataclass(slots=True)
class Progress:
    """Where a run stands: all that a continued run must know besides the parameters.

    Attributes
    ----------
    step : int
        Steps made.
    evaluated : bool
        Whether the evaluation due after this step has been made.
    loss, samples : float, int
        Sum of the losses and number of samples since the epoch began.
    best_step, best_value : int or None, float or None
        The best evaluation so far.
    worse : int
        Evaluations since then.
    """

    step: int = 0
    evaluated: bool = True
    loss: float = 0.0
    samples: int = 0
    best_step: int | None = None
    best_value: float | None = None
    worse: int = 0


@dataclass(slots=True)
class Speed:
    """What this process has done since it began or continued."""

    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    waited_for_data: float = 0.0
    waited_for_step: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return rates per second of training, and the shares of it that were spent waiting."""
        seconds = max(self.seconds, 1e-9)
        return {
            "samples_per_s": self.samples / seconds,
            "words_per_s": self.tokens / seconds,
            "waited_for_data": self.waited_for_data / seconds,
            "waited_for_step": self.waited_for_step / seconds,
            "train_s": self.seconds,
        }


@dataclass(slots=True)
class Training:
    """Everything the loop works on."""

    job: Job
    folder: Path
    runtime: Runtime
    data: Prepared
    model: DistributedModelParallel
    optimizers: Optimizers
    stepper: Stepper
    agreement: Agreement
    steps: int
    progress: Progress
    identity: dict[str, Any]  # what its checkpoints belong to
    saver: Saver
    saved: Progress | None = None  # what the newest checkpoint on the disk says
    speed: Speed = field(default_factory=Speed)
    recent: Speed = field(default_factory=Speed)  # since the last report
    recent_loss: float = 0.0
    unsettled: list[tuple[int, Batch, torch.Tensor]] = field(default_factory=list)  # step, batch, loss

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the training rows."""
        return steps_per_epoch(self.job, self.data)


def train(job: Job, folder: Path, data: Prepared, stop: Stop, store: dist.Store | None = None) -> dict[str, Any]:
    """Train ``job`` on ``data`` in its run ``folder``, from its last checkpoint if there is one; several ranks meet at ``store``.

    Returns
    -------
    dict
        The figures of metrics.json, but for the time of the preparation.

    Raises
    ------
    UserError
        For whatever the user can mend.
    Stopped
        When a signal asked the run to end; it is saved.
    """
    with start(job.runtime, store) as runtime:
        training = open_training(job, folder, data, runtime, stop)
        progress, events = training.progress, job.runtime.tensorboard
        report = Report(folder, training.steps, progress.step, progress.evaluated, events, runtime.chief)
        with closing(training.saver), report:
            loop(training, report, stop)
            try:
                figures = finish(training, report)
            except Stopped as stopped:
                text = "stopped while the chosen checkpoint was judged; everything is saved"
                raise Stopped(stopped.number, text) from None
        del training  # what holds the process group goes before the group does
    return figures


def open_training(job: Job, folder: Path, data: Prepared, runtime: Runtime, stop: Stop) -> Training:
    """Build the model, and go to where the run stands."""
    model = build(job, table_rows(job, data.encoders), runtime)
    steps = job.trainer.steps or job.trainer.epochs * steps_per_epoch(job, data)
    optimizers, identity = Optimizers(model, job, steps), run.identity(folder, job)
    moved = any(table.pretrained.pull or table.pretrained.freeze_steps for table in job.tables.values())
    for name, table in job.tables.items():
        thawing = table.pretrained.freeze_steps
        if runtime.chief and thawing is not None and thawing >= steps:
            say(f"warning: tables.{name}.pretrained.freeze_steps is {thawing:,}, and the run has {steps:,} steps")
    pipeline = choose(job.trainer.pipeline, has_caches(model), moved, runtime)
    stepper, agreement = Stepper(model, optimizers, pipeline, runtime.device), Agreement(stop, runtime)
    saver = Saver(folder / run.CHECKPOINTS, runtime, job.trainer.save_memory_mib)
    training = Training(
        job, folder, runtime, data, model, optimizers, stepper, agreement, steps, Progress(), identity, saver
    )
    keep_starts(job, model, optimizers)
    resume(training)
    return training


def steps_per_epoch(job: Job, data: Prepared) -> int:
    """Return the steps of one pass over the training rows, the last of which may be smaller."""
    return -(-data.order.train_size // job.trainer.batch_size)


def resume(training: Training) -> None:
    """Go to the newest checkpoint that is whole; to the start where there is none."""
    folder, runtime = training.folder, training.runtime
    finished = Group(runtime.control).by_chief(lambda: run.checkpoints(folder))
    if not finished:
        begin(training)
    for path in reversed(finished):
        belongs = partial(run.check_belongs, folder, training.job, path)
        try:
            state = load_checkpoint(path, training.model, training.optimizers, runtime, belongs)
        except Damaged as error:
            if path == finished[0]:
                raise
            if runtime.chief:
                say(f"warning: {error}; going back to the checkpoint before")
            continue
        training.progress = Progress(**state["progress"])
        training.saved = replace(training.progress)
        if runtime.chief:
            say(f"continuing at step {training.progress.step} of {training.steps}")
        return


def begin(training: Training) -> None:
    """Draw the first values; what files of vectors, least squares and another run have goes over them, and is kept at once.

    Least squares are judged before the first step.
    """
    job, model, optimizers = training.job, training.model, training.optimizers
    fill_rows(model, job)
    told = None
    start_from_vectors(job, training.data.encoders, model, optimizers, training.runtime, training.folder)
    factorised = start_from_interactions(job, training.data.train, model, training.runtime)
    training.progress.evaluated = not factorised or training.data.validation is None
    keep_starts(job, model, optimizers)
    if job.grow is not None:
        told = load_grown(job, training.data.encoders, model, optimizers, training.runtime)
        release(job, model, optimizers)
        before = physical(saved.load(Path(job.grow))).tables
        keep_starts(job, model, optimizers, {name for name, table in before.items() if table.pretrained.pull})
    if told is None and not factorised and not any(table.pretrained.path for table in job.tables.values()):
        return
    save(training)
    training.saver.wait()
    if told is not None and training.runtime.chief:
        told.print()


def loop(training: Training, report: Report, stop: Stop) -> None:
    """Make the steps that are left, with evaluations and checkpoints where they are due."""
    progress, batches = training.progress, ahead(training)
    stop.patient = True
    stepping = iter(batches)
    try:
        while True:
            if due(training) and not progress.evaluated:
                judge(training, report)
            if save_due(training):
                save(training)
            training.agreement.check()
            training.saver.look()
            if progress.step == training.steps or out_of_patience(training):
                break
            began = time.perf_counter()
            make_step(training, stepping)
            training.recent.seconds += time.perf_counter() - began
            report.advance(progress.step)
            if progress.step % training.job.trainer.report_every == 0:
                tell(training, report, batches)
    except Stopped as stopped:
        save(training)
        training.saver.wait()
        raise Stopped(
            stopped.number, f"stopped at step {progress.step} of {training.steps}; everything is saved"
        ) from None
    finally:
        stop.patient = training.runtime.world > 1  # one rank that leaves leaves the others hanging
        stepping.close()
    if training.recent.seconds:
        tell(training, report, batches)
    save(training)
    training.saver.wait()


def ahead(training: Training) -> Ahead:
    """Return this rank's batches from the present step on, made in advance."""
    runtime = training.runtime

    def shares() -> Iterator[tuple[np.ndarray, np.ndarray, int, float, int, np.ndarray, int]]:
        for step in range(training.progress.step, training.steps):
            rows, salt = rows_of(training, step), hash_string(f"{training.job.seed}/{step // training.per_epoch}")
            yield *share(rows, runtime), runtime.world / len(rows), salt, rows, runtime.world

    return Ahead(partial(collate, training.data.train), shares())


def rows_of(training: Training, step: int) -> np.ndarray:
    """Return the training rows (int64) of the global batch of ``step`` (from 0)."""
    order, size = training.data.order, training.job.trainer.batch_size
    epoch, batch = divmod(step, training.per_epoch)
    return order.train_rows(epoch, batch * size, min((batch + 1) * size, order.train_size))


def make_step(training: Training, batches: Iterator[Batch]) -> None:
    """Move the parameters by the next batch."""
    progress, job, model, optimizers = training.progress, training.job, training.model, training.optimizers
    thaw(job, model, optimizers, progress.step)
    optimizers.schedule(progress.step)
    batch, losses = training.stepper.step(batches, steps_to_pause(training))
    pull_back(job, model, optimizers, progress.step + 1)
    if progress.step % training.per_epoch == 0:
        progress.loss, progress.samples = 0.0, 0
    progress.step += 1
    progress.evaluated = False
    training.unsettled.append((progress.step, batch, losses.sum(dtype=torch.float64)))
    alone_on_host = training.runtime.device.type == "cpu" and training.runtime.world == 1
    if alone_on_host or progress.step % training.per_epoch == 0:
        settle(
            training
        )  # elsewhere reading a loss would stall the device or the ranks: reports, saves and epochs do it


def settle(training: Training) -> None:
    """Add up the losses of the last steps, and end the run if one of them is no number."""
    if not training.unsettled:
        return
    tokens = torch.tensor([float(batch.tokens) for _, batch, _ in training.unsettled], dtype=torch.float64)
    losses = torch.stack([total for _, _, total in training.unsettled])
    sums = torch.stack([losses, tokens.to(losses.device)])
    if training.runtime.world > 1:
        dist.all_reduce(sums)
    for (step, batch, _), total, words in zip(training.unsettled, *sums.tolist(), strict=True):
        samples = round(training.runtime.world / batch.weight)  # of the global batch
        loss = total / samples
        if not np.isfinite(loss):
            rows = rows_of(training, step - 1)
            named = ", ".join(map(str, rows[:20].tolist())) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
            raise UserError(
                f"the loss is {loss} at step {step}, whose batch holds the training rows {named}; lower optim.tables.lr and "
                f"optim.dense.lr or set optim.clip_value, and look at those rows; the last checkpoint is untouched"
            )
        training.progress.loss += total
        training.progress.samples += samples
        training.recent_loss += total
        training.recent.samples += samples
        training.recent.tokens += round(words)
    training.unsettled.clear()


def tell(training: Training, report: Report, batches: Ahead) -> None:
    """Report the steps since the last report."""
    settle(training)
    recent, total = training.recent, training.speed
    waiting, batches.waiting = batches.waiting, Waiting()
    recent.waited_for_data = min(recent.seconds, waiting.step)
    recent.waited_for_step = min(recent.seconds, waiting.data)  # an evaluation lets the data wait longer
    loss = training.recent_loss / max(1, recent.samples)
    report.step(training.progress.step, {"loss": loss, **recent.figures()})
    for name, value in asdict(recent).items():
        setattr(total, name, getattr(total, name) + value)
    training.recent, training.recent_loss = Speed(), 0.0


def steps_to_pause(training: Training) -> int:
    """Return how many steps are made before the next evaluation, or the end."""
    left, every = training.steps - training.progress.step, training.job.trainer.eval_every or training.per_epoch
    return min(left, every - training.progress.step % every) if training.data.validation is not None else left


def due(training: Training) -> bool:
    """Whether an evaluation belongs after the present step."""
    every = training.job.trainer.eval_every or training.per_epoch
    return training.data.validation is not None and (
        training.progress.step % every == 0 or training.progress.step == training.steps
    )


def save_due(training: Training) -> bool:
    """Whether a checkpoint belongs after the present step: in its rhythm, or with the evaluation, or because it is the best."""
    every, progress = training.job.trainer.save_every, training.progress
    if every is not None and progress.step % every == 0 and progress.step:
        return True
    return due(training) and progress.step > 0 and (every is None or progress.best_step == progress.step)


def out_of_patience(training: Training) -> bool:
    """Whether too many evaluations passed without a better one."""
    limit = training.job.trainer.early_stop
    return limit is not None and training.progress.worse >= limit


def judge(training: Training, report: Report) -> None:
    """Evaluate on the validation part: the best checkpoint is the one with the best figure."""
    progress, part = training.progress, training.data.validation
    assert part is not None
    figures = look_at(training, part)
    progress.evaluated = True
    report.record("validation", progress.step, figures)
    report.say(f"step {progress.step}: validation {brief(figures)}")
    monitor = monitor_of(training.job)
    if monitor not in figures:
        raise UserError(
            f"trainer.monitor={monitor} cannot choose: the validation part gives no such figure (it has one class only, or no rows "
            f"that count); it gives {', '.join(figures)}"
        )
    value = sign_of(monitor) * figures[monitor]
    if progress.best_value is None or value > progress.best_value:
        progress.best_step, progress.best_value, progress.worse = progress.step, value, 0
    else:
        progress.worse += 1


def look_at(training: Training, part: Part) -> dict[str, float]:
    """Return the figures on a part; a signal ends it."""
    training.stepper.pause()
    size, check = training.job.trainer.eval_batch_size, training.agreement.check
    return evaluate(training.model, part, size, training.runtime, check)


def save(training: Training) -> None:
    """Write a checkpoint of the present step, or begin to; those that are neither the best nor among the latest are then dropped."""
    settle(training)
    progress, folder = training.progress, training.folder
    if training.saved == progress:
        return
    state = {
        "cursor": {
            "epoch": progress.step // training.per_epoch,
            "samples_in_epoch": progress.samples,
        },
        "progress": asdict(progress),
        "identity": training.identity,
    }
    drop = partial(run.drop_old, folder, training.job.trainer.keep, progress.best_step)
    training.saver.save(progress.step, state, training.model, training.optimizers, drop)
    training.saved = replace(progress)


def finish(training: Training, report: Report) -> dict[str, Any]:
    """Judge the chosen checkpoint on the validation part and, once, on the test part; return all figures."""
    progress = training.progress
    loss = {"loss": progress.loss / max(1, progress.samples)} if progress.step else {}
    last = {**loss, "steps": progress.step}
    which = training.job.trainer.test_with
    path = Group(training.runtime.control).by_chief(lambda: run.choose(training.folder, which))  # as its disk has it
    if path.name != run.name_of(progress.step):
        load_checkpoint(path, training.model, None, training.runtime)
    figures: dict[str, Any] = {"train": last, "speed": training.speed.figures(), "checkpoint": path.name}
    for name, part in (("validation", training.data.validation), ("test", training.data.test)):
        if part is not None:
            figures[name] = look_at(training, part)
    if "test" in figures:
        report.record("test", progress.step, figures["test"])
    return figures
