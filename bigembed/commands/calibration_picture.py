"""How far probabilities hold, as a picture: one HTML file that needs nothing else."""

from collections.abc import Mapping
from html import escape
from math import floor, log10, sqrt

import numpy as np

SIZE, LEFT, RIGHT, TOP, BOTTOM = 380, 70, 20, 14, 46  # of a drawing, and of its margins for the scales
PIECES = 4  # of a scale
MEASURED, IDEAL = "#0072b2", "#d55e00"
SURE = 1.96  # deviations to each side within which 95 of 100 lie
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 .3em; }
.row { display: flex; flex-wrap: wrap; gap: 2em; } figure { margin: 0; width: 450px; } svg { width: 100%; height: auto; }
text { font: 12px system-ui, sans-serif; fill: #444; } figcaption { margin-bottom: .3em; }
"""

Bins = Mapping[str, np.ndarray]  # by label: rows, sums of predictions and of labels, shape (bins, 3)


def picture(title: str, parts: Mapping[str, Bins]) -> str:
    """Return the HTML of the calibration of every binary label on every part."""
    told = (
        "Rows in order of what was predicted for them, cut into parts of as many rows each: every dot is one, predicted against true share "
        "of ones. The bars hold the true share in 95 of 100 cases (Wilson’s interval); on the line the two are the same."
    )
    body = [f"<h1>{escape(title)}</h1><p>{told}</p>"]
    for label in next(iter(parts.values())):
        figures = "".join(_figure(part, labels[label]) for part, labels in parts.items())
        body.append(f'<h2>{escape(label)}</h2><div class="row">{figures}</div>')
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _figure(part: str, bins: np.ndarray) -> str:
    """Return the drawing of a label on a part, both axes from 0 to the highest share."""
    if not len(bins):
        return f"<figure><figcaption>{escape(part)}: not every prediction is a number</figcaption></figure>"
    rows, predicted, ones = bins.sum(0)
    told = f"{part}: predicted {predicted / rows:.4f}, true {ones / rows:.4f} ({rows:,.0f} rows)"
    bins = bins[bins[:, 0] > 0]  # there are fewer rows than bins
    dots = [(entry[1] / entry[0], entry[2] / entry[0], *_interval(entry[2] / entry[0], entry[0])) for entry in bins]
    unit = _unit(max(max(dot) for dot in dots))
    highest = unit * PIECES
    shapes = [f'<path stroke="{IDEAL}" stroke-dasharray="6 4" d="M{LEFT} {TOP + SIZE}L{LEFT + SIZE} {TOP}"/>']
    for (x, y, low, high), own in zip(dots, bins[:, 0], strict=True):
        at, bottom, top = LEFT + SIZE * x / highest, _height(low, highest), _height(high, highest)
        shapes.append(f'<path stroke="{MEASURED}" stroke-opacity=".45" d="M{at:.1f} {bottom:.1f}V{top:.1f}"/>')
        hover = f"<title>predicted {x:.4f}, true {y:.4f} ({own:,.0f} rows)</title>"
        shapes.append(f'<circle cx="{at:.1f}" cy="{_height(y, highest):.1f}" r="4" fill="{MEASURED}">{hover}</circle>')
    return f"<figure><figcaption>{escape(told)}</figcaption>{_drawing(shapes, unit)}</figure>"


def _unit(highest: float) -> float:
    """Return a round number that reaches ``highest`` when taken ``PIECES`` times."""
    ten = 10.0 ** floor(log10(highest / PIECES))
    return next(ten * digit for digit in (1, 2, 2.5, 5, 10) if ten * digit * PIECES >= highest)


def _drawing(shapes: list[str], unit: float) -> str:
    """Return the shapes with their scales."""
    shapes = [*shapes, f'<path stroke="#444" fill="none" d="M{LEFT} {TOP}V{TOP + SIZE}H{LEFT + SIZE}"/>']
    for number in range(PIECES + 1):
        share, at = f"{unit * number:.3g}", SIZE * number / PIECES
        shapes.append(f'<text x="{LEFT + at:.0f}" y="{TOP + SIZE + 18}" text-anchor="middle">{share}</text>')
        shapes.append(f'<text x="{LEFT - 6}" y="{TOP + SIZE - at + 4:.0f}" text-anchor="end">{share}</text>')
    middle = TOP + SIZE / 2
    shapes.append(f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 38}" text-anchor="middle">predicted</text>')
    shapes.append(f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">true</text>')
    return f'<svg viewBox="0 0 {LEFT + SIZE + RIGHT} {TOP + SIZE + BOTTOM}" role="img">{"".join(shapes)}</svg>'


def _height(share: float, highest: float) -> float:
    return TOP + SIZE * (1 - share / highest)


def _interval(share: float, rows: float) -> tuple[float, float]:
    """Return the interval of a share of ``rows`` (Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference)."""
    unit = SURE * SURE / rows
    middle, half = share + unit / 2, SURE * sqrt((share * (1 - share) + unit / 4) / rows)
    return (middle - half) / (1 + unit), min(1.0, (middle + half) / (1 + unit))
