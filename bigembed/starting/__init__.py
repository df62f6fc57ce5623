"""What tables start from instead of random rows: vectors, or (``factorised``) least squares.

Rank 0 reads the files of vectors, once; every rank keeps the rows that it holds, a few megabytes at a time.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.checkpoint import Group
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import Freeze, Job, Vocabulary
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.optim import Optimizers
from bigembed.pretrained import coverage
from bigembed.pretrained.placing import Placing, place
from bigembed.pretrained.sources import open_sources
from bigembed.pretrained.steps import Put, Step
from bigembed.report import reading, say
from bigembed.runtime import Runtime
from bigembed.sharding.rows import START, forget_caches, states, weights
from bigembed.starting.factorised import start_from_interactions
from bigembed.starting.held import Held
from bigembed.starting.keeping import keep_starts, pull_back, release, thaw
from bigembed.starting.sharing import shared

__all__ = ["keep_starts", "pull_back", "release", "start_from_interactions", "start_from_vectors", "thaw"]


def start_from_vectors(
    job: Job,
    known: Mapping[str, Encoder],
    model: DistributedModelParallel,
    optimizers: Optimizers,
    runtime: Runtime,
    folder: Path,
) -> None:
    """Fill the rows of ``job``'s tables that start from vectors; all ranks call it together.

    Rank 0 reads the files, says how much of the vocabulary they cover, and keeps this in the run's ``folder``.

    Raises
    ------
    UserError
        For whatever is wrong with a file, on all ranks.
    """
    for name, table in job.tables.items():
        if table.pretrained.path is None:
            continue
        placings: list[Placing] = []
        group = Group(runtime.control)
        steps = _steps(job, name, known[name], placings) if group.chief else iter(())
        own, kept = weights(model), states(model, optimizers)
        freeze = table.pretrained.freeze is Freeze.rows
        held = [
            Held(own[each], [kept[each][state] for state in kept.get(each, ()) if freeze and state != START], group)
            for each in (part_name(name, part) for part in parts(table))
        ]
        for step in shared(_ahead(steps), group):
            held[step.part if isinstance(step, Put) else 0].take(step)
        for each in held:
            each.settle()
        for placing in placings:
            told = coverage.of_placing(name, table, known[name], placing)
            say(told.text())
            coverage.write(told, folder)
    forget_caches(model)


def _ahead(steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps, the next one being made while one is done."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, steps, None)
        while (step := waiting.result()) is not None:
            waiting = thread.submit(next, steps, None)
            yield step


def _steps(job: Job, name: str, encoder: Encoder, placings: list[Placing]) -> Iterator[Step]:
    """Yield the steps that fill a table, and tell how far its files are read; ``placings`` gets what knows of the outcome."""
    sources = open_sources(name, job.tables[name])
    for source in sources:
        if "left out" in source.details:
            say(f"warning: {source.path}: {source.details['left out']}, is left out")
    tells = {id(source): reading(f"table {name}: {source.path}", source.size) for source in sources}
    placing = place(
        name,
        job.tables[name],
        encoder,
        sources,
        job.seed,
        lambda source, words: tells[id(source)](source.consumed, words),
    )
    placings.append(placing)
    yield from placing.steps()
    of_file = job.tables[name].pretrained.vocabulary is Vocabulary.file and job.grow is None
    lost = int(np.count_nonzero(placing.ways)) if of_file and placing.ways is not None else 0
    if lost:
        raise UserError(
            f"{sources[0].path} has changed since the words of table {name} were read: {lost:,} of them are not in it any more; put it "
            "back, or begin a new run"
        )
