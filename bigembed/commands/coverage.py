"""``bigembed coverage``: which words of the data the files of vectors have, before anything is trained. No torch."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed import growth
from bigembed.commands.asked import write_asked
from bigembed.commands.one_job import look_at_job
from bigembed.config.arguments import parse
from bigembed.config.physical import LANE
from bigembed.config.schema import (
    CoverageOptions,
    IdsTable,
    Job,
    Mismatch,
    SubwordTable,
    TableConfig,
    TextTable,
    VocabTable,
)
from bigembed.encoders import Crossed
from bigembed.encoders.encoder import Encoder, in_order
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.vocab import count_words
from bigembed.errors import UserError
from bigembed.knowing.opening import Opened, open_job_data
from bigembed.pretrained.coverage import Counted, Coverage
from bigembed.pretrained.coverage_picture import picture
from bigembed.pretrained.measuring import measure
from bigembed.pretrained.sources import open_sources
from bigembed.report import say, telling
from bigembed.vectors import Source

OWN = tuple(f"{field.name}=" for field in fields(CoverageOptions))


def main(arguments: list[str]) -> int:
    """Tell what is covered in the job that ``arguments`` describe; return the exit code."""
    options, _ = parse([argument for argument in arguments if argument.startswith(OWN)], CoverageOptions)
    others = [argument for argument in arguments if not argument.startswith(OWN)]
    look_at_job("coverage", others, partial(_tell, options))
    return 0


def _tell(options: CoverageOptions, job: Job, folder: Path) -> None:
    """Open the data and the files of a job, and tell what these cover."""
    growth.check_growth(job, folder)
    tables = {name: table for name, table in job.tables.items() if table.pretrained.path is not None}
    if not tables:
        raise UserError(
            "no table starts from vectors; name a file with tables.NAME.pretrained.path=FILE, NAME being one of "
            f"{', '.join(job.tables)}"
        )
    sources = {name: open_sources(name, table) for name, table in tables.items()}  # first: a wrong path is told at once
    tables = {name: _as_wide(table, sources[name]) for name, table in tables.items()}
    features = {name: feature for name, feature in job.features.items() if feature.table in tables}
    opened = open_job_data(replace(job, tables=tables, features=features, numbers={}), "train")
    found = []
    for name, table in tables.items():
        encoder = opened.encoders[name]
        found.append(measure(name, table, encoder, sources[name], _counted(opened, name, encoder), options.top))
        print(found[-1].text())
    _write(options, opened.rows, found)


def _as_wide(table: TableConfig, sources: Sequence[Source]) -> TableConfig:
    """Return a table that vectors of any width fit into: what they cover does not depend on it."""
    width = sum(source.dim for source in sources)
    return replace(table, dim=-(-width // LANE) * LANE, pretrained=replace(table.pretrained, dimension=Mismatch.pad))


def _counted(opened: Opened, name: str, encoder: Encoder) -> Counted | None:
    """Return the words or values of the data and how often it has each; None where they are no words or numbers."""
    config, columns, rows = encoder.config, opened.columns[name], opened.index
    if any(isinstance(column, Crossed) for column in columns):
        return None
    tell = telling(f"table {name}: {columns[0].what} counted", len(columns) * opened.rows)
    if isinstance(encoder, TokenizerEncoder):
        return encoder.words().cast(pa.large_string()), _pieces(opened, name, encoder)
    if isinstance(config, VocabTable | SubwordTable):
        return count_words(config, columns, rows, opened.threads, tell)
    if isinstance(config, TextTable):
        like: Any = VocabTable(tokens=config.tokens, pattern=config.pattern, lower=config.lower)
        return count_words(like, columns, rows, opened.threads, tell)
    return count_words(VocabTable(), columns, rows, opened.threads, tell) if isinstance(config, IdsTable) else None


def _pieces(opened: Opened, name: str, encoder: TokenizerEncoder) -> np.ndarray:
    """Return how often each piece of a tokenizer comes: shape (pieces,), int64."""
    counts = np.zeros(encoder.rows[0], np.int64)
    for column in opened.columns[name]:
        with closing(in_order(encoder.encode_spans, column.blocks(opened.index), opened.threads)) as blocks:
            for encoded in blocks:
                counts += np.bincount(encoded.ids.values, minlength=len(counts))
    return counts


def _write(options: CoverageOptions, samples: int, found: list[Coverage]) -> None:
    tables = [coverage.as_dict() for coverage in found]
    if options.out is not None:
        values = {"samples": samples, "tables": {values["table"]: values for values in tables}}
        write_asked("out", options.out, json.dumps(values, indent=1))
        say(f"the report is in {options.out}")
    if options.picture is not None:
        write_asked("picture", options.picture, picture(tables))
        say(f"the picture is in {options.picture}")
