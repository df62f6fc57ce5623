"""What is known of tables as texts for the terminal."""

import shutil
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 140  # of what goes into a file or a pipe
KIB, MIB, GIB = 2**10, 2**20, 2**30


def console() -> Console:
    """Return where texts are printed: as wide as the terminal."""
    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=False)


def table_of(first: str, *columns: str) -> Table:
    """Return an empty table whose first column is of words and whose others are of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def print_tables(values: dict[str, Any]) -> None:
    """Print what ``bigembed inspect`` found."""
    to = console()
    of = f", {values['checkpoint']}" if values["checkpoint"] else ""
    to.print(f"{values['samples']:,} samples of the {values['part']} part{of}")
    for name, table in values["tables"].items():
        to.print(f"\ntable {name}: {table['kind']}, column {' and '.join(table['columns'])}", style="bold")
        for line in _sentences(table):
            to.print(f"  {line}", soft_wrap=True)
        _print_parts(table["parts"], to)
        for what, found in table["collisions"].items():
            _print_shared(what, found, to)
        _print_top(table, to)
        _print_norms(table["parts"], to)


def percent(share: float | None) -> str:
    """Return a share as per cent; a small one with three digits."""
    if share is None:
        return "–"
    return f"{share:.1%}" if share >= 0.01 or share == 0 else f"{100 * share:.3g}%"


def size(count: int) -> str:
    """Return bytes in KiB, MiB or GiB."""
    unit, name = (GIB, "GiB") if count >= GIB / 10 else (MIB, "MiB") if count >= MIB / 10 else (KIB, "KiB")
    return f"{count / unit:,.1f} {name}"


def _sentences(table: dict[str, Any]) -> list[str]:
    what = table["what"]
    how = "counted" if table["exact"] else f"estimated, standard error {table['standard_error']:.1%}"
    lines = [f"{table['occurrences']:,} {what}, {table['distinct']:,} different ones ({how})"]
    least = ", ".join(f"{percent(share)} {number} times" for number, share in table["at_least"].items())
    lines.append(f"of the different ones came at least: {least}")
    if not table["exact"]:
        lines.append(f"shares below are of a sample of {percent(table['sampled'])} of the rows")
    if table["rows_per_token"] not in (None, 1.0):
        tokens = "words" if table["kind"] == "tokenizer" else "tokens"
        lines.append(f"{table['tokens']:,} {tokens}, {table['rows_per_token']:,.4g} rows looked up for each")
    if table["unknown"] is not None:
        lines.append(f"{percent(table['unknown'])} of the tokens have no row of their own")
    if "occupied" in table:
        lines.append(f"{table['occupied']:,} rows belong to a value")
    return lines


def _print_parts(parts: list[dict[str, Any]], to: Console) -> None:
    table = table_of(
        "part", "rows × dim", "touched", "never touched", "weights", "as fp32", "as fp16", "optimizer state"
    )
    for part in parts:
        touched = part["touched"]
        never = (
            []
            if touched is None
            else [f"{touched:,}", f"{part['rows'] - touched:,} ({percent(1 - touched / part['rows'])})"]
        )
        weights = [size(part["bytes"]), *(size(part["bytes_by_dtype"][dtype]) for dtype in ("fp32", "fp16"))]
        table.add_row(
            part["name"],
            f"{part['rows']:,} × {part['dim']}",
            *(never or ["–", "–"]),
            *weights,
            size(part["state_bytes"]),
        )
    to.print(table)


def _print_shared(what: str, found: dict[str, Any], to: Console) -> None:
    if not found["values"]:
        to.print(f"no {what} are hashed into rows")
        return
    table = table_of(f"{what} that share their rows", "values", "occurrences", "measured", "expected")
    expected = percent(found["expected"])
    for entry in found["classes"]:
        low, high = entry["from"], entry["to"]
        came = "once" if high == 1 else f"{low:,} – {high:,} times"
        table.add_row(
            came, percent(entry["values"]), percent(entry["occurrences"]), percent(entry["measured"]), expected
        )
    table.add_row("all", f"{found['values']:,}", "", percent(found["measured"]), expected)
    table.add_row("all, by occurrences", "", "", percent(found["measured_of_occurrences"]), expected)
    to.print(table)
    wanted = found["wanted"]
    rows = " + ".join(f"{rows:,}" for rows in wanted["rows"])
    places = f"{found['places']:,.0f}" if found["places"] < 1e12 else f"{found['places']:.4g}"
    load = f"{found['values'] / found['places']:,.3g} values for each of {places} choices of rows"
    to.print(f"{load}; {percent(wanted['rate'])} would share theirs with {rows} rows", soft_wrap=True)


def _print_top(values: dict[str, Any], to: Console) -> None:
    table = table_of("most frequent", "times", "share")
    for entry in values["top"]:
        table.add_row(entry["value"], f"{entry['count']:,}", percent(entry["count"] / values["occurrences"]))
    to.print(table)


def _print_norms(parts: list[dict[str, Any]], to: Console) -> None:
    table = table_of("norms of rows", "rows", "least", "quartile", "median", "quartile", "greatest", "as they began")
    for part in parts:
        for group, norms in (part.get("norms") or {}).items():
            figures = [norms["min"], *norms["quartiles"], norms["max"]]
            began = f"{norms['as_begun']:,} ({percent(norms['as_begun'] / norms['rows'])})"
            table.add_row(
                f"{part['name']}, {group}", f"{norms['rows']:,}", *(f"{figure:.4g}" for figure in figures), began
            )
    if table.rows:
        to.print(table)
