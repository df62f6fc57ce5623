"""What is learned from the data: of a run that grows, what is not known from the other run; new words come to a vocabulary."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed import encoders
from bigembed.config import saved
from bigembed.config.schema import Job, MixedTable, SubwordTable, VocabTable, Vocabulary
from bigembed.encoders import Column, Encoder, Scale, learn_scale
from bigembed.encoders.values import kind_of
from bigembed.encoders.vocab import count_words
from bigembed.errors import UserError
from bigembed.pretrained.vocabulary import choose, counts_of
from bigembed.run import ENCODERS, SCALES

MOST_BYTES = 1 << 31  # of words: their places in Arrow's text arrays have 32 bits


def learn(
    job: Job,
    name: str,
    columns: Sequence[Column],
    index: np.ndarray | None,
    threads: int,
    progress: Callable[[int], None] | None,
) -> Encoder:
    """Make the encoder of a table of a new run; where that grows from another one with this table, from the encoder there.

    A vocabulary keeps its words, or with ``job.grow_drop`` those that it would learn again, and gets the frequent new ones of
    the columns, as far as ``max_size`` allows; it is then in the order of their counts in the columns. Everything else that
    was learned is taken over as it is.

    Parameters
    ----------
    job : Job
        The new run.
    name : str
        The table.
    columns, index, threads, progress
        As for ``bigembed.encoders.build``.

    Raises
    ------
    UserError
        As ``bigembed.encoders.build``; or the vocabulary would lose words unasked, or the other run's encoder is damaged.
    """
    config: Any = job.tables[name]
    tables = {} if job.grow is None else saved.load(Path(job.grow)).tables
    if name not in tables:
        return _new(name, config, columns, index, threads, progress)
    before = encoders.load(tables[name], Path(str(job.grow)) / ENCODERS / name)
    for column in columns:
        before.check(column, _feature(job, name, column), name, "train part")
    words, counts = pa.array([], pa.string()), np.empty(0, np.int64)
    if isinstance(config, VocabTable | SubwordTable):
        counted = count_words(config, columns, index, threads, progress)
        chosen, _ = choose(name, config, kind_of(columns[0]), *counted)
        words, counts = _merged(name, config, before, chosen, *counted, job.grow_drop)
    return type(before).restore(config, before.learned, words, counts)


def _new(
    name: str,
    config: Any,
    columns: Sequence[Column],
    index: np.ndarray | None,
    threads: int,
    progress: Callable[[int], None] | None,
) -> Encoder:
    """Make the encoder of a new table; its words are the data's, unless it starts from vectors and takes theirs."""
    if config.pretrained.vocabulary is Vocabulary.data:
        return encoders.build(name, config, columns, index, threads, progress)
    values = kind_of(columns[0])
    words, counts = choose(name, config, values, *count_words(config, columns, index, threads, progress))
    return encoders.KINDS[type(config)].restore(config, {"values": values}, words, counts)


def _feature(job: Job, name: str, column: Column) -> str:
    """Return the first feature of a table that looks up a column."""
    features = [feature for feature, each in job.features.items() if each.table == name]
    return next((each for each in features if job.features[each].column == column.name), features[0])


def learn_scale_of(job: Job, name: str, table: pa.Table, index: np.ndarray | None) -> Scale:
    """Learn how a dense feature is scaled; where the run that ``job`` grows from has it, it is scaled as there.

    Raises
    ------
    UserError
        As ``bigembed.encoders.learn_scale``, or the other run's file is damaged.
    """
    number = job.numbers[name]
    before = None if job.grow is None else saved.load(Path(job.grow)).numbers.get(name)
    if before is None or replace(before, column=number.column) != number:
        return learn_scale(table[number.column], number, index)
    path = Path(str(job.grow)) / ENCODERS / SCALES
    try:
        return Scale(**json.loads(path.read_text())[name])
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path} is missing or damaged; take a copy of it, or grow from another run") from None


def _merged(
    name: str,
    config: Any,
    before: Encoder,
    chosen: pa.StringArray,
    words: pa.LargeStringArray,
    counts: np.ndarray,
    drop: bool,
) -> tuple[pa.StringArray, np.ndarray]:
    """Return the words of a grown table, from those of before and those chosen now, and their counts in the data."""
    old = before.words()
    assert old is not None
    pinned = (
        sum(config.blocks) if isinstance(config, MixedTable) else 0
    )  # words whose place says how wide their rows are
    fixed, free = old.slice(0, pinned), old.slice(pinned)
    free = free.filter(pc.is_in(free, value_set=chosen)) if drop else free
    kept = len(fixed) + len(free)
    if config.max_size is not None and kept > config.max_size:
        raise UserError(
            f"tables.{name}.max_size is {config.max_size:,}, but there are {kept:,} words with learned rows to be kept; set it to that or "
            f"more{'' if drop else ', or let rows be lost with grow_drop=true'}"
        )
    new = chosen.filter(pc.invert(pc.is_in(chosen, value_set=old)))
    new = new if config.max_size is None else new.slice(0, config.max_size - kept)
    rest = pa.concat_arrays([free.cast(pa.large_string()), new.cast(pa.large_string())])
    table = pa.table({"word": rest, "count": counts_of(rest, words, counts)})
    table = table.sort_by([("count", "descending"), ("word", "ascending")])
    merged = pa.concat_arrays([fixed.cast(pa.large_string()), *table["word"].chunks])
    size = pc.sum(pc.binary_length(merged)).as_py()
    if size >= MOST_BYTES:
        raise UserError(f"the words of table '{name}' take {size} bytes, more than 2 GiB: raise min_count")
    return merged.cast(pa.string()), np.concatenate([counts_of(fixed, words, counts), table["count"].to_numpy()])
