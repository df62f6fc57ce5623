"""Advice as tables for the terminal."""

import shutil
import sys
from collections.abc import Mapping
from shlex import quote
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 160  # of tables that go into a file or a pipe
MIB = 2**20


def print_advice(values: Mapping[str, Any]) -> None:
    """Print what ``bigembed advise`` found."""
    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=False)
    console.print(_shown(values["tables"]))
    console.print(_proposed(values["tables"]))
    total = sum(each["proposal"]["bytes"] for each in values["tables"].values())
    console.print(
        f"{_mib(total)} of {values['memory_mib']:,.4g} MiB, with the optimizer's state.\n"
        "in all: estimated from the sample, with the bounds of it. new: what comes after the training rows and was never seen in them.\n"
        "colliding: values that have all their rows in common with another one. mixed: the share of a row's occurrences that are other "
        "values',\non average over occurrences (quotient-remainder: in the first of its rows). unknown: occurrences without a row of "
        "their own.",
        soft_wrap=True,
    )
    for what in ("train", "sweep"):
        console.print(f"{what:<6}{' '.join(map(quote, values[what]))}", soft_wrap=True)


def _shown(tables: Mapping[str, Any]) -> Table:
    table = _table("table", "of", "sampled rows", "different", "in all", "new", "100 most frequent", "10,000")
    for name, of in tables.items():
        for group in ("tokens", "ngrams"):
            if group not in of:
                continue
            seen = of[group]
            whole, exact = seen["whole"], seen["whole"]["low"] == seen["whole"]["high"]
            bounds = "" if exact else f" ({whole['low']:,.0f} … {whole['high']:,.0f})"
            table.add_row(
                name,
                group,
                f"{of['sampled_rows']:,} of {of['rows']:,}",
                f"{seen['sample']['values']:,.0f}",
                f"{whole['values']:,.0f}{bounds}",
                f"{whole['new']:.2%}",
                f"{seen['head']['100']:.0%}",
                f"{seen['head']['10000']:.0%}",
            )
    return table


def _proposed(tables: Mapping[str, Any]) -> Table:
    table = _table("table", "kind", "rows × dim", "MiB", "colliding", "mixed", "unknown", "because")
    for name, of in tables.items():
        each = of["proposal"]
        table.add_row(
            name,
            each["kind"],
            f"{each['rows']:,} × {each['dim']}",
            _mib(each["bytes"]).removesuffix(" MiB"),
            *(f"{each[key]:.2%}" if each[key] else "" for key in ("collisions", "mixed", "unknown")),
            each["why"],
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        left = column in ("table", "of", "kind", "because")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


def _mib(size: float) -> str:
    return f"{size / MIB:,.4g} MiB"
