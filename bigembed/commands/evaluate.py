"""``bigembed evaluate``: the figures of a run on its own data, or on other data."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigembed import run
from bigembed.commands.asked import write_asked
from bigembed.commands.calibration_picture import picture
from bigembed.commands.of_run import on_other_data
from bigembed.config.arguments import parse
from bigembed.config.schema import EvaluateOptions, Job, RankingHead, RankingLoss
from bigembed.cores import by_torchrun
from bigembed.errors import UserError
from bigembed.report import told

if TYPE_CHECKING:
    from bigembed.ranks import Ranks


def main(arguments: list[str]) -> int:
    """Print the figures that ``arguments`` ask for; return the exit code."""
    if not by_torchrun():
        _answer(arguments, None)
        return 0
    from bigembed.ranks import together

    return together(arguments, partial(_answer, arguments))


def _answer(arguments: list[str], ranks: "Ranks | None") -> None:
    options, overrides = parse(arguments, EvaluateOptions)
    folder = Path(options.run)
    trained, checkpoint = run.open_run(folder, options.checkpoint)
    job, elsewhere = on_other_data(
        trained, overrides, "evaluate", ("trainer.eval_batch_size", "head.label", "protocol.")
    )
    if options.picture and not (isinstance(job.head, RankingHead) and RankingLoss.binary in job.head.losses):
        raise UserError("picture draws the calibration of binary labels, which this run does not predict; leave it out")
    figures, bins = _evaluate(job, trained if elsewhere else None, folder, checkpoint, ranks)
    if ranks and not ranks.chief:
        return
    for name, values in figures.items():
        print(told(name, values))
    if options.picture:
        title = f"Calibration of {folder.resolve().name}, {checkpoint.name}"
        write_asked("picture", options.picture, picture(title, bins))
    if options.output:
        write_asked("output", options.output, json.dumps({"checkpoint": checkpoint.name, **figures}, indent=1))


def _evaluate(
    job: Job, trained: Job | None, folder: Path, checkpoint: Path, ranks: "Ranks | None"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of ``job`` by part, and of a ranking head the bins of its calibration.

    Where the data is other than that of the run, ``trained`` is the run's job.
    """
    from bigembed.build import build
    from bigembed.checkpoint import load_checkpoint
    from bigembed.evaluation import evaluate
    from bigembed.examples import table_rows
    from bigembed.metrics import Ranking
    from bigembed.prepare import prepare_judged, prepare_other
    from bigembed.runtime import start

    encoders, parts = prepare_judged(job, folder) if trained is None else prepare_other(job, trained, folder)
    if not parts:
        raise UserError(
            "there is neither a validation nor a test part to evaluate on; name one with data.path= or data.test="
        )
    with start(job.runtime, ranks.meeting() if ranks else None) as runtime:
        model = build(job, table_rows(job, encoders), runtime)
        load_checkpoint(checkpoint, model, None, runtime)
        size = job.trainer.eval_batch_size
        figures, bins = {}, {}
        for name, part in parts.items():
            ranking = Ranking(job.head) if isinstance(job.head, RankingHead) else None
            figures[name] = evaluate(model, part, size, runtime, ranking=ranking)
            bins[name] = ranking.bins if ranking else {}
        del model  # it holds the process group, which ends here
    return figures, bins
