"""Layouts for tests of heads."""

from bigembed.config.schema import Of
from bigembed.layout import Layout


def layout(
    width: int = 0,
    sequences: dict[str, int] | None = None,
    features: dict[str, int] | None = None,
    numbers: int = 0,
    of: dict[str, Of] | None = None,
) -> Layout:
    """Return a layout: one pooled feature "f" of ``width``, or ``features`` by name and width, then ``numbers`` columns n0, n1, …."""
    widths = features if features is not None else ({"f": width} if width else {})
    columns, start = {}, 0
    for name, each in widths.items():
        columns[name] = slice(start, start + each)
        start += each
    dense = {f"n{number}": slice(start + number, start + number + 1) for number in range(numbers)}
    whose = {name: Of.sample for name in (*widths, *(sequences or {}))} | (of or {})
    return Layout(columns, dense, whose, {name: whose.get(name, Of.sample) for name in dense}, sequences or {})
