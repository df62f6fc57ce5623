"""A plan as a picture: one HTML file that needs nothing else, with the ranks as bars of memory and of time."""

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigembed.sharding.planner import Planned

GIB = 2**30
WIDTH, HEIGHT, LEFT, BOTTOM = 1200, 260, 70, 58  # of a drawing, and of its margins for the scales
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#7f3c8d",
    "#80ba5a",
    "#a5612a",
    "#3969ac",
)
GREYS = (
    "#b8b8b8",
    "#9c9c9c",
    "#cfcfcf",
    "#858585",
)  # of the smaller tables by turns, so that their shards can be told apart
PHASES = {  # of a step, in their order
    "forward": "look up",
    "forward_comms": "send vectors",
    "backward_comms": "send gradients",
    "backward": "update",
    "prefetch": "fill caches",
}
MOST_ROWS = 100  # of the list of tables
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 .3em; }
svg { width: 100%; height: auto; } text { font: 12px system-ui, sans-serif; fill: #444; }
table { border-collapse: collapse; } td, th { padding: .15em .8em .15em 0; text-align: left; } .n { text-align: right; }
.key span { display: inline-block; margin-right: 1.2em; } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
"""

Bars = dict[str, list[float]]  # of every colour's name, its height on every rank


def picture(planned: "Planned", values: dict[str, Any]) -> str:
    """Return the HTML of a plan, ``values`` being its summary."""
    cluster, ranks = values["cluster"], values["ranks"]
    on_gpu = cluster["device"] == "cuda"
    names = _drawn(values["tables"])
    colours = dict(zip([*names, *_smaller(values["tables"], names)], [*COLOURS[: len(names)], *GREYS], strict=False))
    parts = [
        f"<h1>{_title(values)}</h1>",
        f"<p>A step of {values['batch_size']:,} samples takes {values['step_ms']:,.4g} ms in the tables alone. "
        f"The limit is {escape(values['limit']['text'])}.<br>Bytes and times are estimates of TorchRec’s planner.</p>",
    ]
    memories = [("hbm", "Memory of the GPUs"), ("ddr", "The ranks’ shares of the hosts’ memory")]
    for memory, title in memories:
        if (memory == "hbm") == on_gpu or any(rank[memory] for rank in ranks):
            bars = _bytes_by_table(planned, values, names, memory)
            room = cluster[f"room_{memory}"] / GIB
            parts += [f"<h2>{title}, GiB</h2>", _key(bars, colours), _chart(bars, colours, room)]
    times = {
        words: [rank["ms"][phase] for rank in ranks]
        for phase, words in PHASES.items()
        if any(rank["ms"][phase] for rank in ranks)
    }
    colours = dict(zip(PHASES.values(), COLOURS, strict=False))
    parts += ["<h2>Time of a step, ms</h2>", _key(times, colours), _chart(times, colours, None)]
    parts += ["<h2>Tables</h2>", _tables(values["tables"])]
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_title(values)}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _title(values: dict[str, Any]) -> str:
    cluster = values["cluster"]
    hosts = cluster["world_size"] // cluster["local_world_size"]
    of = f" of {hosts:,} hosts" if hosts > 1 else ""
    return f"Tables ({len(values['tables']):,}) on {cluster['world_size']:,} ranks{of}"


def _drawn(tables: dict[str, Any]) -> list[str]:
    """Return the tables that get a colour of their own: the largest."""
    return sorted(tables, key=lambda name: -tables[name]["hbm"] - tables[name]["ddr"])[: len(COLOURS)]


def _smaller(tables: dict[str, Any], names: list[str]) -> list[str]:
    """Return what the tables without a colour of their own are drawn as, by turns."""
    count = len(tables) - len(names)
    return [f"{count:,} smaller tables{' ' * number}" for number in range(len(GREYS))] if count else []


def _bytes_by_table(planned: "Planned", values: dict[str, Any], names: list[str], memory: str) -> Bars:
    """Return the GiB that each drawn table, and the others together, have on every rank."""
    ranks = planned.cluster.world_size
    smaller = _smaller(values["tables"], names)
    bars: Bars = {name: [0.0] * ranks for name in [*names, *smaller]}
    for number, (name, table) in enumerate(planned.plan.tables.items()):
        heights = bars[name if name in names else smaller[number % len(smaller)]]
        for piece, load in zip(table.pieces, planned.loads[name], strict=True):
            heights[piece.rank] += getattr(load, memory) / GIB
    return {name: heights for name, heights in bars.items() if any(heights)}


def _key(bars: Bars, colours: dict[str, str]) -> str:
    first = {name.rstrip(): colours[name] for name in reversed(bars)}
    entries = (f'<span><i style="background:{first[name]}"></i>{escape(name)}</span>' for name in reversed(first))
    return f'<div class="key">{"".join(entries)}</div>'


def _chart(bars: Bars, colours: dict[str, str], room: float | None) -> str:
    """Return bars stacked by colour, one path a colour: a thousand ranks make a thousand times as many shapes otherwise."""
    ranks = len(next(iter(bars.values())))
    highest = max([*map(sum, zip(*bars.values(), strict=True)), room or 0.0]) or 1.0
    step = (WIDTH - LEFT) / ranks
    gap = step * 0.15 if step > 4 else 0.0
    floors = [0.0] * ranks
    shapes = []
    for name, heights in bars.items():
        pieces = []
        for rank, height in enumerate(heights):
            if height:
                top, tall = HEIGHT - HEIGHT * (floors[rank] + height) / highest, HEIGHT * height / highest
                pieces.append(f"M{LEFT + rank * step:.2f} {top:.2f}h{step - gap:.2f}v{tall:.2f}h-{step - gap:.2f}z")
                floors[rank] += height
        shapes.append(
            f'<path fill="{colours[name]}" d="{"".join(pieces)}"><title>{escape(name.rstrip())}</title></path>'
        )
    if room:
        y = HEIGHT - HEIGHT * room / highest
        shapes.append(f'<path stroke="#c00" stroke-dasharray="6 4" d="M{LEFT} {y:.2f}H{WIDTH}"/>')
        shapes.append(f'<text x="{WIDTH}" y="{y - 4:.2f}" text-anchor="end">room for tables: {room:,.1f}</text>')
    shapes += _scales(ranks, highest, step)
    return f'<svg viewBox="0 -18 {WIDTH} {HEIGHT + BOTTOM}" role="img">{"".join(shapes)}</svg>'


def _scales(ranks: int, highest: float, step: float) -> list[str]:
    """Return the numbers at the left and below, round ones."""
    shapes = [f'<path stroke="#444" fill="none" d="M{LEFT} 0V{HEIGHT}H{WIDTH}"/>']
    unit = _round(highest / 4)
    for number in range(int(highest / unit) + 1):
        y = HEIGHT - HEIGHT * number * unit / highest
        shapes.append(f'<text x="{LEFT - 6}" y="{y + 4:.2f}" text-anchor="end">{number * unit:,.4g}</text>')
    every = max(1, int(_round(ranks / 16)))
    for rank in range(0, ranks, every):
        x = LEFT + (rank + 0.5) * step
        shapes.append(f'<text x="{x:.2f}" y="{HEIGHT + 16}" text-anchor="middle">{rank}</text>')
    shapes.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT + 34}" text-anchor="middle">rank</text>')
    return shapes


def _round(number: float) -> float:
    """Return 1, 2 or 5 times a power of ten, about ``number``."""
    power = 10.0 ** (len(f"{number:.0f}") - 1) if number >= 1 else 10.0 ** int(f"{number:e}".partition("e")[2])
    return power * min((1, 2, 5, 10), key=lambda times: abs(times - number / power))


def _tables(tables: dict[str, Any]) -> str:
    largest = sorted(tables, key=lambda name: -tables[name]["hbm"] - tables[name]["ddr"])
    rows = [
        "<tr><th>table</th><th>rows × dim</th><th>numbers</th><th>kind</th><th>kernel</th><th>pieces</th><th>GiB</th><th>ms</th></tr>"
    ]
    for name in largest[:MOST_ROWS]:
        of = tables[name]
        rows.append(
            f"<tr><td>{escape(name)}</td><td class=n>{of['rows']:,} × {of['dim']}</td><td>{of['dtype']}</td><td>{of['kind']}</td>"
            f"<td>{of['kernel']}</td><td class=n>{of['pieces']:,}</td><td class=n>{(of['hbm'] + of['ddr']) / GIB:,.2f}</td>"
            f"<td class=n>{of['ms']['total']:,.4g}</td></tr>"
        )
    more = f"<p>… and {len(largest) - MOST_ROWS:,} smaller ones.</p>" if len(largest) > MOST_ROWS else ""
    return f"<table>{''.join(rows)}</table>{more}"
