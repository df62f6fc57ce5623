"""What is known of tables as a picture: one HTML file that needs nothing else."""

import math
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 240, 64, 44  # of a drawing, and of its margins for the scales
MEASURED, EXPECTED, TOUCHED, UNTOUCHED = "#0072b2", "#d55e00", "#009e73", "#b8b8b8"
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.2em; margin: 1.6em 0 .3em; } h3 { font-size: 1em; margin: .8em 0 .2em; }
.row { display: flex; flex-wrap: wrap; gap: 2em; } figure { margin: 0; width: 560px; } svg { width: 100%; height: auto; }
text { font: 12px system-ui, sans-serif; fill: #444; }
.key span { margin-right: 1.2em; } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
"""


def picture(values: dict[str, Any]) -> str:
    """Return the HTML of what ``bigembed inspect`` found."""
    at = f", {values['checkpoint']}" if values["checkpoint"] else ""
    title = f"Tables on {values['samples']:,} samples of the {values['part']} part{at}"
    body = [f"<h1>{escape(title)}</h1>"]
    for name, table in values["tables"].items():
        told = f"{table['kind']}: {table['occurrences']:,} {table['what']}, {table['distinct']:,} different ones"
        body += [f"<h2>{escape(name)}</h2><p>{escape(told)}</p>", '<div class="row">', _frequencies(table)]
        body += [_shared(what, found) for what, found in table["collisions"].items() if found["classes"]]
        body += [_norms(part) for part in table["parts"] if part.get("norms")]
        body.append("</div>")
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _frequencies(table: dict[str, Any]) -> str:
    """Return the curve of frequencies by rank, both axes in powers of ten."""
    points = table["curve"]
    if not points:
        return _figure("How often values came, by rank", "", "")
    right, top = max(1, math.ceil(math.log10(points[-1][0]))), max(1, math.ceil(math.log10(points[0][1] + 1)))
    places = [
        (LEFT + (WIDTH - LEFT) * math.log10(rank) / right, HEIGHT - HEIGHT * math.log10(count) / top)
        for rank, count in points
    ]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{MEASURED}"/>' for x, y in places)
    shapes = [f'<path fill="none" stroke="{MEASURED}" d="M{line}"/>', dots]
    shapes += [_below(LEFT + (WIDTH - LEFT) * power / right, f"{10**power:,}") for power in range(right + 1)]
    shapes += [_beside(HEIGHT - HEIGHT * power / top, f"{10**power:,}") for power in range(top + 1)]
    return _figure("How often values came, by rank", "", "".join(shapes))


def _shared(what: str, found: dict[str, Any]) -> str:
    """Return the share of values that share their rows, by how often these came, as bars, and the expected one as a line."""
    classes = found["classes"]
    step, shapes = (WIDTH - LEFT) / len(classes), []
    for number, entry in enumerate(classes):
        x, tall = LEFT + number * step, HEIGHT * entry["measured"]
        box = f'x="{x + step * 0.1:.1f}" y="{HEIGHT - tall:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}"'
        shapes.append(f'<rect fill="{MEASURED}" {box}><title>{entry["measured"]:.2%}</title></rect>')
        shapes.append(_below(x + step / 2, f"{entry['from']:,}" + ("" if entry["to"] == 1 else " …")))
    y = HEIGHT - HEIGHT * found["expected"]
    shapes.append(f'<path stroke="{EXPECTED}" stroke-dasharray="6 4" d="M{LEFT} {y:.1f}H{WIDTH}"/>')
    shapes += [_beside(HEIGHT - HEIGHT * share / 4, f"{share / 4:.0%}") for share in range(5)]
    key = _key({"measured": MEASURED, f"expected: {found['expected']:.2%}": EXPECTED})
    return _figure(f"Share of the {what} that share their rows, by how often they came", key, "".join(shapes))


def _norms(part: dict[str, Any]) -> str:
    """Return the norms of rows, those that the data has beside the others."""
    groups = {"touched": TOUCHED, "untouched": UNTOUCHED}
    there = {group: norms for group, norms in part["norms"].items()}
    right = max(norms["edges"][-1] for norms in there.values())
    most, shapes = max(max(norms["histogram"]) for norms in there.values()) or 1, []
    for group, norms in there.items():
        edges, path = norms["edges"], []
        for low, high, rows in zip(edges, edges[1:], norms["histogram"], strict=False):
            if rows:
                x, wide = (LEFT + (WIDTH - LEFT) * edge / right for edge in (low, high - low))
                tall = HEIGHT * rows / most
                path.append(f"M{x:.1f} {HEIGHT}v-{tall:.1f}h{wide - LEFT:.1f}v{tall:.1f}z")
        shapes.append(f'<path fill="{groups[group]}" fill-opacity=".65" d="{"".join(path)}"/>')
    shapes += [_below(LEFT + (WIDTH - LEFT) * share / 4, f"{right * share / 4:.3g}") for share in range(5)]
    shapes += [_beside(HEIGHT - HEIGHT * share / 2, f"{most * share / 2:,.0f}") for share in range(3)]
    key = _key({f"{group}: {norms['rows']:,}": groups[group] for group, norms in there.items()})
    return _figure(f"Norms of the rows of {part['name']}", key, "".join(shapes))


def _figure(title: str, key: str, shapes: str) -> str:
    axes = f'<path stroke="#444" fill="none" d="M{LEFT} 0V{HEIGHT}H{WIDTH}"/>'
    drawing = f'<svg viewBox="0 -12 {WIDTH + 40} {HEIGHT + BOTTOM}" role="img">{shapes}{axes}</svg>'
    return f"<figure><h3>{escape(title)}</h3>{key}{drawing}</figure>"


def _key(colours: dict[str, str]) -> str:
    entries = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<div class="key">{"".join(entries)}</div>'


def _below(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT + 16}" text-anchor="middle">{text}</text>'


def _beside(y: float, text: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
