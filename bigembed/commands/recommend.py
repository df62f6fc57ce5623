"""``bigembed recommend``: the best items of users, or the neighbours of items."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bigembed import run
from bigembed.commands.asked import check_text
from bigembed.commands.of_run import on_other_data
from bigembed.commands.recommend_output import write_parquet, write_text
from bigembed.commands.writing import check_out
from bigembed.config.arguments import parse
from bigembed.config.schema import Of, RecommendOptions, RetrievalHead
from bigembed.cores import available_cores
from bigembed.errors import UserError
from bigembed.files import replacing
from bigembed.report import say, telling

if TYPE_CHECKING:
    from bigembed.recommending.finding import Recommender, Search


def main(arguments: list[str]) -> int:
    """Recommend what ``arguments`` ask for; return the exit code."""
    options, overrides = parse(arguments, RecommendOptions)
    _check(options, overrides)
    folder = Path(options.run)
    job, checkpoint = run.open_run(folder, options.checkpoint)
    if not isinstance(job.head, RetrievalHead):
        raise UserError(
            f"the model of {folder} finds no items for users; ask it with bigembed predict, or train one with head=two_tower, sasrec, "
            "gru4rec or history"
        )
    job, _ = on_other_data(job, overrides, "recommend", ("trainer.eval_batch_size",))
    from bigembed.recommending.asking import open_scene

    of, who = (Of.user, options.users) if options.items is None else (Of.item, options.items)
    scene, asking = open_scene(job, folder, of, who, options.seen, options.history, options.new_items)
    import torch  # here and not before: what is wrong with the data is told at once

    from bigembed.inference import Loaded
    from bigembed.prepare import load_encoders, load_scales
    from bigembed.recommending.tables import as_table, ids_of, schema_of

    torch.set_num_threads(job.runtime.threads or available_cores())
    kept = folder / run.ENCODERS
    recommender = Loaded(job, checkpoint, load_encoders(job, kept), load_scales(job, kept)).recommender(scene, of)
    k = _no_more(options.k, len(scene.items) - (of is Of.item))
    search = _search(options.search, recommender, asking, k, options.seen)
    ids, tell, done = ids_of(scene, of), telling(f"{of.name}s", len(asking)), 0

    def tables() -> Iterator[pa.Table]:
        nonlocal done
        for codes, found in recommender.lists(asking, k, options.seen, search):
            yield as_table(ids, codes, found)
            done += len(codes)
            tell(done)

    _write(options.output, schema_of(ids), tables())
    return 0


def _check(options: RecommendOptions, overrides: list[str]) -> None:
    """Refuse options that contradict each other, and a file that cannot be one."""
    if options.items is not None and (options.users is not None or options.history is not None):
        raise UserError(
            "items asks for neighbours of items, users and history for items of users; leave one of them out"
        )
    if options.search not in ("exact", "approximate"):
        raise UserError(f"search={options.search} is not known; use exact or approximate")
    for text in overrides:
        if text.startswith("features."):
            raise UserError(
                f"{text} cannot be changed for bigembed recommend: the run keeps users and items with the columns that they had"
            )
    check_text(options.output)
    if options.output is not None:
        check_out(Path(options.output))


def _no_more(k: int, items: int) -> int:
    """Return the length of the lists, which is not above the number of items."""
    if k > items:
        say(f"warning: k is {k:,}, but only {items:,} items can be found, so that no list is longer")
    return max(1, min(k, items))


def _search(search: str, recommender: "Recommender", asking: np.ndarray, k: int, seen: bool) -> "Search":
    """Return the search that is asked for, and tell how well an approximate one does."""
    if search == "exact":
        return recommender.exact
    from bigembed.recommending.approximate import Index, measure

    index, who = Index(recommender), f"{recommender.of.name}s"
    figures = measure(recommender, index, asking, k, seen)
    say(
        f"approximate search: recall@{k} {figures.recall:.4f} of the exact lists of {figures.asked:,} {who}; "
        f"{figures.approximate:,.0f} {who}/s, exact {figures.exact:,.0f} {who}/s"
    )
    return index.search


def _write(output: str | None, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write the lists to a file, whole or not at all, or to standard output."""
    if output is None:
        write_text(sys.stdout, tables)
        return
    path = Path(output)
    try:
        with replacing(path) as unfinished:
            if path.suffix == ".parquet":
                count = write_parquet(unfinished, schema, tables)
            else:
                with unfinished.open("w", encoding="utf-8") as file:
                    count = write_text(file, tables)
    except OSError as error:
        raise UserError(f"output={path} cannot be written: {error.strerror}") from None
    say(f"{count:,} lists in {path}")
