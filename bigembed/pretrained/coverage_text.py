"""What files of vectors cover, as text for the terminal."""

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 140
MEANS = {
    "exact": "as it is",
    "case": "in another case",
    "unicode": "in another Unicode form",
    "digits": "with other digits",
    "lemma": "by its lemma",
    "piece": "without the mark of a piece",
    "subwords": "put together of n-grams",
    "mean": "not there: mean of the file",
    "normal": "not there: drawn like the file",
    "zeros": "not there: zeros",
    "missing": "not there: as the seed says",
    "no row": "no row of its own",
}


def text(values: dict[str, Any]) -> str:
    """Return the coverage of a table, as ``Coverage.as_dict`` has it, in lines without a last line break."""
    out = io.StringIO()
    to = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False)
    to.print(f"table {values['table']} starts from {', '.join(values['files'])}", soft_wrap=True)
    for what, count in values["told"].items():
        to.print(f"  {what}: {count:,}", soft_wrap=True)
    if values["words"]:
        to.print(_ways(values))
    if values["missing"]:
        to.print(_missing(values))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))


def _ways(values: dict[str, Any]) -> Table:
    """Return the ways with words and, where something was counted, the running text."""
    kinds = {"words": values["words_covered"], "occurrences": values["text_covered"]}
    kinds = {kind: share for kind, share in kinds.items() if sum(values[kind].values())}
    table = _table_of("vector of the word", *(["words", "share", "running text", "share"][: 2 * len(kinds)]))
    for way in [way for way in MEANS if any(way in values[kind] for kind in kinds)]:
        cells = [(values[kind].get(way), sum(values[kind].values())) for kind in kinds]
        table.add_row(MEANS[way], *(cell for count, total in cells for cell in _share(count, total)))
    table.add_section()
    covered = ((f"{sum(values[kind].values()):,}", _percent(share)) for kind, share in kinds.items())
    table.add_row("all, and how much a file has", *(cell for pair in covered for cell in pair))
    return table


def _missing(values: dict[str, Any]) -> Table:
    table, total = (
        _table_of("most frequent words that no file has", "times", "share"),
        sum(values["occurrences"].values()),
    )
    for entry in values["missing"]:
        table.add_row(Text(entry["word"]), *_share(entry["count"], total))
    return table


def _table_of(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _share(count: int | None, total: int) -> tuple[str, str]:
    return ("", "") if count is None else (f"{count:,}", _percent(count / total if total else 0.0))


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.01 or share == 0 else f"{100 * share:.3g}%"
