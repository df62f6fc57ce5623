"""What files of vectors cover, as a picture: one HTML file that needs nothing else."""

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 900, 130, 110  # of a drawing, and of its margins for words and numbers
BAR, GAP = 30, 14  # of a bar, and below it
THIN = 18  # a bar of a single word
WAYS = {  # colours that can be told apart without seeing all colours; what no file has is red, and grey
    "exact": ("#0072b2", "as it is"),
    "case": ("#56b4e9", "another case"),
    "unicode": ("#009e73", "another Unicode form"),
    "digits": ("#a6d96a", "other digits"),
    "lemma": ("#cc79a7", "lemma"),
    "piece": ("#8c6bb1", "piece"),
    "subwords": ("#e69f00", "put together of n-grams"),
    "mean": ("#8c8c8c", "not there: mean"),
    "normal": ("#a5a5a5", "not there: drawn"),
    "zeros": ("#bdbdbd", "not there: zeros"),
    "missing": ("#d55e00", "not there"),
    "no row": ("#5c5c5c", "no row of its own"),
}
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 940px; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.2em; margin: 1.6em 0 .3em; } h3 { font-size: 1em; margin: 1.2em 0 .4em; }
svg { width: 100%; height: auto; } text { font: 13px system-ui, sans-serif; fill: #444; }
.key span { display: inline-block; margin-right: 1.4em; } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
ul { padding-left: 1.2em; } li { overflow-wrap: anywhere; }
"""


def picture(tables: Sequence[dict[str, Any]]) -> str:
    """Return the HTML of the coverage of tables, each as ``Coverage.as_dict`` has it."""
    title = "What the vectors cover"
    body = [f"<h1>{title}</h1>"]
    for values in tables:
        body += [f"<h2>{escape(values['table'])}</h2>", _list(values["files"])]
        body.append(_list([f"{what}: {count:,}" for what, count in values["told"].items()]))
        if values["words"]:
            body += ["<h3>Words and running text, by how they were found</h3>", _key(values), _shares(values)]
        if values["missing"]:
            body += ["<h3>The most frequent words that no file has</h3>", _missing(values)]
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
    return f"{head}<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _list(entries: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(entry)}</li>' for entry in entries)}</ul>" if entries else ""


def _key(values: dict[str, Any]) -> str:
    there = [way for way in WAYS if values["words"].get(way) or values["occurrences"].get(way)]
    entries = (f'<span><i style="background:{WAYS[way][0]}"></i>{WAYS[way][1]}</span>' for way in there)
    return f'<div class="key">{"".join(entries)}</div>'


def _shares(values: dict[str, Any]) -> str:
    """Return a bar of all words and one of the running text, each cut by the ways."""
    bars = {"words": values["words"], "running text": values["occurrences"]}
    bars = {name: of for name, of in bars.items() if sum(of.values())}
    shapes, y, scale = [], 0, WIDTH - LEFT - RIGHT
    for name, of in bars.items():
        total, x = sum(of.values()), float(LEFT)
        shapes.append(_text(LEFT - 8, y + BAR / 2, name, "end"))
        for way in [way for way in WAYS if of.get(way)]:
            wide = scale * of[way] / total
            told = f"{WAYS[way][1]}: {of[way]:,} of {total:,} ({of[way] / total:.2%})"
            shapes.append(_bar(x, y, wide, BAR, WAYS[way][0], told))
            if wide > 48:
                shapes.append(
                    _text(x + wide / 2, y + BAR / 2, f"{of[way] / total:.1%}", "middle", _readable(WAYS[way][0]))
                )
            x += wide
        shapes.append(_text(WIDTH - RIGHT + 8, y + BAR / 2, f"{total:,}", "start"))
        y += BAR + GAP
    return _drawing(y, shapes)


def _missing(values: dict[str, Any]) -> str:
    """Return a bar for each word, as long as it is frequent."""
    words = values["missing"]
    most, shapes, y = max(entry["count"] for entry in words), [], 0
    for entry in words:
        word = entry["word"] if len(entry["word"]) <= 16 else f"{entry['word'][:15]}…"
        wide = (WIDTH - LEFT - RIGHT) * entry["count"] / most
        shapes.append(_text(LEFT - 8, y + THIN / 2, word, "end"))
        shapes.append(_bar(LEFT, y, wide, THIN, WAYS["missing"][0], f"{entry['word']}: {entry['count']:,}"))
        shapes.append(_text(LEFT + wide + 8, y + THIN / 2, f"{entry['count']:,}", "start"))
        y += THIN + 5
    return _drawing(y, shapes)


def _drawing(height: float, shapes: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(shapes)}</svg>'


def _bar(x: float, y: float, width: float, height: float, colour: str, told: str) -> str:
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    return f'<rect fill="{colour}" {box}><title>{escape(told)}</title></rect>'


def _readable(colour: str) -> str:
    """Return black or white, whichever can be read on a colour."""
    red, green, blue = bytes.fromhex(colour[1:])
    return "#222" if 0.3 * red + 0.59 * green + 0.11 * blue > 150 else "#fff"


def _text(x: float, y: float, text: str, anchor: str, colour: str | None = None) -> str:
    style = "" if colour is None else f' style="fill:{colour}"'
    return f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
