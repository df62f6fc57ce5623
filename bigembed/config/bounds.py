"""The bounds of options, which the schema declares."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from bigembed.errors import UserError


def check_options(options: Any) -> None:
    """Refuse options that are out of the bounds of their declaration.

    Raises
    ------
    UserError
        Naming the path of the option, its value and the bound.
    """
    for path, value, metadata in _options("", options):
        _check_bounds(path, value, metadata)


def _options(path: str, node: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, value and metadata of every option below ``node``."""
    for field in dataclasses.fields(node):
        value, here = getattr(node, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _options(f"{here}.", value)
        elif isinstance(value, dict):
            for name, entry in value.items():
                yield from _options(f"{here}.{name}.", entry)
        else:
            for entry in value if isinstance(value, list) else [value]:
                yield here, entry, field.metadata


def _check_bounds(path: str, value: Any, metadata: Any) -> None:
    if isinstance(value, list | dict):  # OmegaConf takes these as entries of any list
        raise UserError(f"{path} has an entry {value}; its entries are plain values")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return
    rules = {
        "minimum": (lambda bound: value >= bound, "at least"),
        "above": (lambda bound: value > bound, "above"),
        "maximum": (lambda bound: value <= bound, "at most"),
        "below": (lambda bound: value < bound, "below"),
        "multiple": (lambda bound: value % bound == 0, "a multiple of"),
    }
    if value != value or value in (float("inf"), float("-inf")):
        raise UserError(f"{path} is {value}; it must be a finite number")
    for name, (holds, words) in rules.items():
        if name in metadata and not holds(metadata[name]):
            raise UserError(f"{path} is {value}; it must be {words} {metadata[name]}")
