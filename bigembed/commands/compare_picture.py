"""Texts under several vectors as a picture: one HTML file that needs nothing else."""

from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

SIZE, MARGIN = 420, 56  # of a drawing
MOST_EDGES = 4  # texts, up to which every pair has its line
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.05em; margin: 0 0 .4em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
p { margin: .6em 0; color: #555; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 2em; } section { flex: 0 1 420px; } svg { width: 100%; height: auto; }
text { font: 13px system-ui, sans-serif; } ol { padding: 0; list-style: none; } li { margin: .2em 0; }
b { display: inline-block; min-width: 1.5em; margin-right: .5em; border-radius: 1em; color: #fff; text-align: center; font-weight: 600; }
table { border-collapse: collapse; margin-top: .6em; }
td, th { padding: .25em .6em; text-align: right; font-variant-numeric: tabular-nums; }
"""


def picture(values: dict[str, Any]) -> str:
    """Return the HTML of what ``bigembed compare`` found."""
    title = "What texts mean, side by side"
    body = [f"<h1>{title}</h1>", "<ol>"]
    body += [f"<li>{_badge(number)}{escape(text)}</li>" for number, text in enumerate(values["texts"])]
    body += ["</ol>", '<div class="row">', *(_panel(source) for source in values["of"]), "</div>"]
    body.append(
        "<p>Near is alike: each drawing shows the directions of the texts’ vectors (the means of those of their words), in the plane in "
        "which they differ most, as large as it fits. The numbers are cosines; the strong line joins the two that are most alike.</p>"
    )
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _panel(source: dict[str, Any]) -> str:
    path = source["path"]
    told = [f"{path}: {source['told']}"]
    if source["missing"]:
        told.append(f"without a vector: {', '.join(source['missing'])}")
    if source["shown"] < 0.995:
        told.append(f"{source['shown']:.0%} of the differences are in the plane")
    below = f"<p>{escape('; '.join(told))}</p>"  # the drawings then begin at one height
    return f"<section><h2>{escape(Path(path).name or path)}</h2>{_drawing(source)}{_matrix(source['cosines'])}{below}</section>"


def _drawing(source: dict[str, Any]) -> str:
    """Return the texts as points, those that are most alike joined."""
    cosines, points = np.array(source["cosines"]), _on_the_page(np.array(source["places"]))
    pairs = list(combinations(range(len(points)), 2))
    best = max(pairs, key=lambda pair: cosines[pair])
    shapes = []
    for pair in pairs if len(points) <= MOST_EDGES else [best]:
        (x1, y1), (x2, y2) = points[list(pair)]
        stroke = 'stroke="#222" stroke-width="3"' if pair == best else 'stroke="#bbb" stroke-dasharray="5 4"'
        shapes.append(f'<path {stroke} d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        shapes.append(f'<rect x="{x - 21:.1f}" y="{y - 10:.1f}" width="42" height="20" rx="4" fill="#fff"/>')
        shapes.append(
            f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="#222">{cosines[pair]:.2f}</text>'
        )
    for number, (x, y) in enumerate(points):
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="14" fill="{_colour(number)}"/>')
        label = f'x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="#fff" font-weight="600"'
        shapes.append(f"<text {label}>{number + 1}</text>")
    frame = f'<rect x=".5" y=".5" width="{SIZE - 1}" height="{SIZE - 1}" rx="6" fill="none" stroke="#ddd"/>'
    return f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img">{frame}{"".join(shapes)}</svg>'


def _on_the_page(places: np.ndarray) -> np.ndarray:
    """Return places of the plane, shape (n, 2), in the drawing's units: as large as fits, both axes alike."""
    low, high = places.min(0), places.max(0)
    scale = (SIZE - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    return SIZE / 2 + (places - (low + high) / 2) * scale * [1, -1]


def _matrix(cosines: list[list[float]]) -> str:
    """Return the cosines as a table whose cells are the darker, the more alike the texts are."""
    head = "".join(f"<th>{_badge(number)}</th>" for number in range(len(cosines)))
    rows = []
    for number, row in enumerate(cosines):
        cells = "".join(f'<td style="{_shade(value)}">{value:.2f}</td>' for value in row)
        rows.append(f"<tr><th>{_badge(number)}</th>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _shade(cosine: float) -> str:
    """Return the style of a cell: blue for alike, orange for opposite, white between."""
    red, green, blue = (0, 114, 178) if cosine > 0 else (213, 94, 0)
    strength = 0.75 * min(1.0, abs(cosine))
    return f"background:rgba({red},{green},{blue},{strength:.2f});color:{'#fff' if strength > 0.55 else '#222'}"


def _badge(number: int) -> str:
    return f'<b style="background:{_colour(number)}">{number + 1}</b>'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
