"""``bigembed explain``: which rows make up a word, and which values of the data share a row. No torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bigembed import encoders, run
from bigembed.admission import GROUP, rows_of
from bigembed.commands.asked import write_asked
from bigembed.commands.inspect import residents_of
from bigembed.commands.inspect_text import console, percent, table_of
from bigembed.commands.of_run import on_other_data
from bigembed.config.arguments import parse
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import ExplainOptions, Job
from bigembed.encoders import Encoder
from bigembed.encoders.bucketized import BucketizedEncoder
from bigembed.encoders.managed import ManagedEncoder
from bigembed.encoders.subword import SubwordEncoder
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.tokens import TokenEncoder
from bigembed.errors import UserError
from bigembed.knowing.names import pieces_with, values_of_row
from bigembed.knowing.opening import open_run_data
from bigembed.knowing.tally import Tally
from bigembed.report import say, telling


def main(arguments: list[str]) -> int:
    """Explain what ``arguments`` ask for; return the exit code."""
    options, overrides = parse(arguments, ExplainOptions)
    if (options.word is None) == (options.row is None):
        raise UserError("give word=WORD, for its rows, or row=ROW, for the values that share it")
    folder = Path(options.run)
    trained, checkpoint = run.open_run(folder, options.checkpoint)
    name = options.table or next(iter(trained.tables))
    if name not in trained.tables or (options.table is None and len(trained.tables) > 1):
        raise UserError(f"table= must name one of the tables of the run: {', '.join(trained.tables)}")
    job, elsewhere = on_other_data(trained, overrides, "explain")
    if options.word is not None:
        encoder = encoders.load(job.tables[name], folder / run.ENCODERS / name)
        values = _explain_word(options, job, name, encoder, residents_of(checkpoint, job, name))
    else:
        values = _explain_row(options, job, name, folder, elsewhere, residents_of(checkpoint, job, name))
    if options.out is not None:
        write_asked("out", options.out, json.dumps(values, indent=1))
        say(f"the same is in {options.out}")
    return 0


def _explain_word(
    options: ExplainOptions, job: Job, name: str, encoder: Encoder, residents: np.ndarray | None
) -> dict[str, Any]:
    word = str(options.word)
    rows = rows_of_word(encoder, word, residents)
    names = [part_name(name, part) for part in parts(job.tables[name])]
    for row in rows:
        row["table"] = names[row.pop("part")]
    values = {"table": name, "word": word, "rows": rows}
    table = table_of(f"'{word}'", "table", "row", "")
    for row in rows:
        table.add_row(row["by"], row["table"], f"{row['row']:,}", row["note"])
    console().print(table)
    return values


def rows_of_word(encoder: Encoder, word: str, residents: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Return the rows that make up a word or value.

    Parameters
    ----------
    encoder : Encoder
        Of the table.
    word : str
        As a user types it.
    residents : ndarray, shape (rows,), int64, optional
        The values of a managed table's rows.

    Returns
    -------
    list of dict
        For each row ``by`` (what finds it), ``part``, ``row`` and ``note``.

    Raises
    ------
    UserError
        The word has no rows in such a table.
    """
    if isinstance(encoder, SubwordEncoder) and len(word.split()) == 1:
        return _subword(encoder, word)
    if isinstance(encoder, TokenizerEncoder):
        rows = encoder.encode(encoder.open(encoder.from_texts([word], str), "word"), np.zeros(1, np.int64)).ids.values
        return [_row(piece, 0, row) for piece, row in zip(encoder.pieces_of(word), rows, strict=True)]
    if isinstance(encoder, BucketizedEncoder):
        row = encoder.row_of(word)
        return [_row("interval", 0, row, encoder.interval_of(row))]
    if isinstance(encoder, ManagedEncoder):
        assert residents is not None
        row = int(rows_of(encoder.encode_token(word).ids.values, residents, 0, len(residents))[0])
        return [_row("value", 0, row, "shared: it has no row of its own" if row % GROUP == 0 else "its own")]
    if isinstance(encoder, TokenEncoder):
        return _token(encoder, word)
    return [_row("value", 0, encoder.row_of(word))]


def _row(by: str, part: int, row: Any, note: str = "") -> dict[str, Any]:
    return {"by": by, "part": part, "row": int(row), "note": note}


def _token(encoder: TokenEncoder, word: str) -> list[dict[str, Any]]:
    encoded, found = encoder.encode_token(word), []
    signs = None if encoded.signs is None else encoded.signs.values
    last = len(encoded.parts) - 1
    for part, ids in enumerate(encoded.parts):
        for number, row in enumerate(ids.rows.values.tolist()):
            by = {"hashed": f"hash function {number}", "compositional": f"digit {part}"}.get(encoder.kind, "row")
            if encoder.kind == "hashed" and part == 1:
                by = "weights of the functions"
            found.append(_row(by, part, row, _note(encoder, part == last, row)))
            if signs is not None:
                found[-1] |= {"sign": int(signs[number]), "note": f"counts {signs[number]:+d}"}
    return found


def _note(encoder: TokenEncoder, last: bool, row: int) -> str:
    """Say what a row of a table of words stands for."""
    words = encoder.words()
    if words is None:
        return ""
    if last and row == 0:
        return "unknown: shared by all words that are not in the vocabulary"
    blocks = getattr(encoder.config, "blocks", [])
    first_gram = 1 + len(words) - sum(blocks)
    return "hashed: shared with other n-grams" if last and row >= first_gram else "its own"


def _subword(encoder: SubwordEncoder, word: str) -> list[dict[str, Any]]:
    rows, grams = encoder.rows_of(word), encoder.pieces_of(word)
    known = len(rows) > len(grams)
    texts, notes = [word, *grams] if known else grams, ["its own"] * known + [""] * len(grams)
    return [_row(text, 0, row, note) for text, row, note in zip(texts, rows, notes, strict=True)]


def _explain_row(
    options: ExplainOptions, job: Job, name: str, folder: Path, elsewhere: bool, residents: np.ndarray | None
) -> dict[str, Any]:
    opened = open_run_data(job, folder / run.ENCODERS, "train", elsewhere)
    encoder, row, part = opened.encoders[name], int(str(options.row)), options.part
    sizes = encoder.rows if residents is None else (len(residents),)
    if not 0 <= part < len(sizes):
        raise UserError(
            f"part={part} is none of the parts of table {name}, which are numbered from 0 to {len(sizes) - 1}"
        )
    if not 0 <= row < sizes[part]:
        raise UserError(f"row={row} is no row of table {name}, whose rows are 0 to {sizes[part] - 1:,}")
    columns = opened.columns[name]
    tell = telling(f"table {name}: rows looked at", opened.rows * len(columns))
    shown, tally = values_of_row(encoder, part, row, columns, opened.index, options.limit, residents, tell)
    explained = isinstance(encoder, SubwordEncoder)
    head = f"row {row:,} of {part_name(name, parts(job.tables[name])[part])}"
    table = table_of(head, "times", "share", *(["by"] if explained else []))
    entries = []
    for value in shown:
        by = pieces_with(encoder, value.text, row) if isinstance(encoder, SubwordEncoder) else []
        entries.append({"value": value.text, "count": value.count} | ({"by": by} if explained else {}))
        shares = [f"{value.count:,}", percent(value.count / tally.total)]
        table.add_row(value.text, *shares, *([" ".join(by)] if explained else []))
    to = console()
    to.print(_meaning(encoder, row, tally), soft_wrap=True)
    if shown:
        to.print(table)
    found = {"different": round(tally.distinct()), "exact": tally.exact, "occurrences": tally.total}
    return {"table": name, "part": part, "row": row, **found, "values": entries}


def _meaning(encoder: Encoder, row: int, tally: Tally) -> str:
    of = f" (numbers in {encoder.interval_of(row)})" if isinstance(encoder, BucketizedEncoder) else ""
    different = round(tally.distinct())
    if not different:
        return f"no value of the training part has row {row:,}{of}"
    values = "value of the training part has" if different == 1 else "different values of the training part have"
    return f"{'' if tally.exact else 'about '}{different:,} {values} row {row:,}{of}, {tally.total:,} times"
