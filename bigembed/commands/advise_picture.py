"""Accuracy against bytes as a drawing: one HTML file with an SVG in it, and the figures as a table."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bigembed.commands.plan_picture import COLOURS, STYLE

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT = 900, 420, 70, 60, 20
MIB = 2**20


def picture(values: Mapping[str, Any]) -> str:
    """Return the HTML of a sweep, ``values`` being its curves.json."""
    lines = _lines(values["points"])
    colours = dict(zip(lines, COLOURS * (1 + len(lines) // len(COLOURS)), strict=False))
    key = "".join(f'<span><i style="background:{colours[kind]}"></i>{escape(kind)}</span>' for kind in lines)
    seeds = "; a line goes through the means, a bar from the worst to the best" if values["seeds"] > 1 else ""
    samples = values["points"][0]["samples"]
    title = "Accuracy against bytes of the tables"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>On a validation part of {samples:,} samples; the bytes are those of the weights and of the optimizer’s state; "
        f"{_count(values['seeds'], 'seed')}{seeds}.<br>Measured on {escape(_told(values['measured_on']))}.</p>",
        f'<div class="key">{key}</div>',
        _drawing(lines, colours, _noise(samples, values["points"])),
        _table(values["points"]),
    ]
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _lines(points: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, list[float]]]]:
    """Return for every kind its sizes (mean bytes), each with the accuracies of all seeds, by size."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for each in points:
        name = each["folder"].rpartition("-seed")[0]
        found.setdefault(each["kind"], {}).setdefault(name, []).append(each)
    return {
        kind: sorted(
            (_mean([run["bytes"] for run in runs]), [run["accuracy"] for run in runs]) for runs in sizes.values()
        )
        for kind, sizes in found.items()
    }


def _drawing(lines: Mapping[str, Any], colours: Mapping[str, str], noise: float) -> str:
    sizes = [math.log2(size) for line in lines.values() for size, _ in line]
    heights = [each for line in lines.values() for _, accuracies in line for each in accuracies]
    left, right = math.floor(min(sizes)), max(math.ceil(max(sizes)), math.floor(min(sizes)) + 1)
    low, high = min(heights) - noise, max(heights) + noise

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(size) - left) / (right - left)

    def y(accuracy: float) -> float:
        return HEIGHT * (high - accuracy) / (high - low)

    shapes = [f'<path stroke="#444" fill="none" d="M{LEFT} 0V{HEIGHT}H{WIDTH}"/>']
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    every = power * max(times for times in (1, 2, 5) if power * times <= (high - low) / 4)
    for number in range(math.ceil(low / every), math.floor(high / every) + 1):
        at = y(number * every)
        shapes.append(f'<path stroke="#ddd" d="M{LEFT} {at:.2f}H{WIDTH}"/>')
        shapes.append(f'<text x="{LEFT - 6}" y="{at + 4:.2f}" text-anchor="end">{number * every:.4g}</text>')
    for power in range(left, right + 1):
        shapes.append(
            f'<text x="{x(2.0**power):.2f}" y="{HEIGHT + 18}" text-anchor="middle">{2.0**power / MIB:,.4g}</text>'
        )
    shapes.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT + 40}" text-anchor="middle">MiB</text>')
    for kind, line in lines.items():
        through = "L".join(f"{x(size):.2f} {y(_mean(accuracies)):.2f}" for size, accuracies in line)
        bars = "".join(f"M{x(size):.2f} {y(min(each)):.2f}V{y(max(each)):.2f}" for size, each in line)
        shapes.append(f'<path stroke="{colours[kind]}" stroke-width="2" fill="none" d="M{through}{bars}"/>')
        for size, accuracies in line:
            told = f"{kind}: {size / MIB:,.4g} MiB, {_mean(accuracies):.4f}"
            dot = f'<circle cx="{x(size):.2f}" cy="{y(_mean(accuracies)):.2f}" r="4" fill="{colours[kind]}">'
            shapes.append(f"{dot}<title>{escape(told)}</title></circle>")
    return f'<svg viewBox="0 -12 {WIDTH} {HEIGHT + BOTTOM}" role="img">{"".join(shapes)}</svg>'


def _noise(samples: int, points: Sequence[Mapping[str, Any]]) -> float:
    """Return one standard error of an accuracy: what is nearer than that is not told apart."""
    accuracy = _mean([each["accuracy"] for each in points])
    return max(1e-3, math.sqrt(accuracy * (1 - accuracy) / samples))


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = ["<tr><th>kind</th><th>MiB</th><th>accuracy</th><th>loss</th><th>seed</th></tr>"]
    for each in sorted(points, key=lambda each: (each["kind"], -each["bytes"], each["seed"])):
        rows.append(
            f"<tr><td>{escape(each['kind'])}</td><td class=n>{each['bytes'] / MIB:,.4g}</td><td class=n>{each['accuracy']:.4f}</td>"
            f"<td class=n>{each['loss']:.4f}</td><td class=n>{each['seed']}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _told(job: Mapping[str, Any]) -> str:
    """Return on what was measured."""
    data = job["data"]
    source = data.get("path") or data.get("hub") or data["kind"] + " reviews"
    return f"{source}, {_count(job['trainer']['epochs'], 'epoch')}, batches of {job['trainer']['batch_size']:,}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
