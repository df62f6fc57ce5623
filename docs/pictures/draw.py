"""Draw the pictures of the documents: python docs/pictures/draw.py writes them beside this file."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

RANKS, LOCAL = 4, 2  # ranks, and those of one host
COLORS = {"A": "#2f6fb5", "B": "#e08a2b"}
INK, FAINT, PAPER, HOST = "#24292f", "#d0d7de", "#ffffff", "#f3f5f8"
SIZE, STEP, GAP = 46, 60, 14  # of a table, from rank to rank, between hosts (pixels)
PANEL, HEIGHT = 4 * STEP + GAP + 36, 196

# A rank; then first row, first column, rows and columns, as parts of the table.
Piece = tuple[int, Fraction, Fraction, Fraction, Fraction]


def pieces(kind: str, table: str) -> Iterator[Piece]:
    """Yield the pieces of a table as the planner lays them."""
    number = "AB".index(table)
    one, of_ranks, of_host = Fraction(1), Fraction(1, RANKS), Fraction(1, LOCAL)
    hosts = RANKS // LOCAL
    if kind == "table_wise":
        yield 3 * number, one * 0, one * 0, one, one
    elif kind == "data_parallel":
        for rank in range(RANKS):
            yield rank, one * 0, one * 0, one, one
    elif kind == "row_wise":
        for rank in range(RANKS):
            yield rank, rank * of_ranks, one * 0, of_ranks, one
    elif kind == "column_wise":
        for rank in range(RANKS):
            yield rank, one * 0, rank * of_ranks, one, of_ranks
    elif kind == "table_row_wise":
        for place in range(LOCAL):
            yield LOCAL * number + place, place * of_host, one * 0, of_host, one
    elif kind == "table_column_wise":
        for place in range(LOCAL):
            yield LOCAL * number + place, one * 0, place * of_host, one, of_host
    elif kind == "grid":
        for rank in range(RANKS):
            host, place = divmod(rank, LOCAL)
            yield rank, place * of_host, host * Fraction(1, hosts), of_host, Fraction(1, hosts)


def rectangle(
    x: float, y: float, width: float, height: float, fill: str, line: str = "none", dashed: bool = False
) -> str:
    """Return a rectangle."""
    dashes = ' stroke-dasharray="2 3"' if dashed else ""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} fill="{fill}" stroke="{line}"{dashes}/>'


def text(
    x: float, y: float, words: str, size: int = 11, anchor: str = "middle", bold: bool = False, fill: str = INK
) -> str:
    """Return a line of text."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"{weight}>{words}</text>'


def x_of(rank: int) -> float:
    """Return where the column of a rank begins."""
    return 18 + rank * STEP + rank // LOCAL * GAP


def panel(kind: str, left: float, top: float) -> Iterator[str]:
    """Yield the picture of a kind: a column for each rank, in it the outlines of both tables and what it holds of them."""
    yield f'<g transform="translate({left:g} {top:g})">'
    yield text(18, 20, kind, 14, "start", bold=True)
    for host in range(RANKS // LOCAL):
        first = x_of(host * LOCAL)
        yield rectangle(first - 6, 30, LOCAL * STEP - 2, 2 * SIZE + 50, HOST)
        yield text(first + LOCAL * STEP / 2 - 7, 2 * SIZE + 74, f"host {host}", 10, fill="#57606a")
    for rank in range(RANKS):
        yield text(x_of(rank) + SIZE / 2, 46, f"rank {rank}", 10)
    for number, table in enumerate(COLORS):
        y = 54 + number * (SIZE + 10)
        for rank in range(RANKS):
            yield rectangle(x_of(rank), y, SIZE, SIZE, PAPER, FAINT, dashed=True)
        for rank, row, column, rows, columns in pieces(kind, table):
            corner = x_of(rank) + float(column * SIZE), y + float(row * SIZE)
            yield rectangle(*corner, float(columns * SIZE), float(rows * SIZE), COLORS[table])
    yield "</g>"


def legend(left: float, top: float) -> Iterator[str]:
    """Yield what the colours mean."""
    yield f'<g transform="translate({left:g} {top:g})">'
    for number, table in enumerate(COLORS):
        y = 62 + 26 * number
        yield rectangle(18, y, 16, 16, COLORS[table])
        yield text(42, y + 12, f"what a rank holds of table {table}", 12, "start")
    yield rectangle(18.5, 114.5, 16, 16, PAPER, FAINT, dashed=True)
    yield text(42, 126, "the whole table (rows down)", 12, "start")
    yield "</g>"


def sharding() -> str:
    """Return the picture of all kinds."""
    kinds = ["table_wise", "row_wise", "column_wise", "data_parallel", "table_row_wise", "table_column_wise", "grid"]
    across = 2
    width, height = across * PANEL, -(-(len(kinds) + 1) // across) * HEIGHT + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        '     font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The kinds of sharding: what each of four ranks on two hosts holds of two tables</title>",
        rectangle(0, 0, width, height, PAPER),
    ]
    places = [(place % across * PANEL, place // across * HEIGHT) for place in range(len(kinds) + 1)]
    for kind, place in zip(kinds, places, strict=False):
        lines += panel(kind, *place)
    lines += [*legend(*places[-1]), "</svg>"]
    return "\n".join(lines) + "\n"


USERS_OF = ["Ann", "Bob", "Cleo"]  # of three samples
OWN = [0, 1, 0]  # slots of their items
ITEMS_OF = ["tea", "pen", "hat", "ink"]  # each once: the samples' own, then those that were drawn alone
DRAWN = [2, 1, 3]  # slots of the shared negatives; the pen is Bob's own item as well
CELL, LINE, LEFT = 66, 34, 190


def x_of_slot(slot: int) -> float:
    """Return where the middle of a slot is."""
    return LEFT + (slot + 0.5) * CELL


def cells(y: float, words: list[str], label: str, color: str) -> Iterator[str]:
    """Yield a row of slots, filled as far as there are words, with its label."""
    yield text(LEFT - 14, y + LINE / 2 + 4, label, 12, "end")
    for slot in range(len(ITEMS_OF)):
        x = LEFT + slot * CELL
        there = slot < len(words)
        yield rectangle(x + 2, y, CELL - 4, LINE, color if there else PAPER, "none" if there else FAINT, not there)
        if there:
            yield text(x + CELL / 2, y + LINE / 2 + 4, words[slot], 13, fill=PAPER, bold=True)


def arrow(x: float, y: float, to_x: float, to_y: float, color: str) -> str:
    """Return a line with a head."""
    return f'<path d="M{x:g} {y:g} L{to_x:g} {to_y:g}" stroke="{color}" stroke-width="1.6" marker-end="url(#{color[1:]})"/>'


def slots() -> str:
    """Return the picture of a batch of retrieval: its slots, and what the head is told of them."""
    width, height = LEFT + len(ITEMS_OF) * CELL + 190, 322
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        '     font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>A batch of three samples in four slots: users by sample, every item once, the head told the places</title>",
        "<defs>",
    ]
    for color in COLORS.values():
        head = f'<path d="M0 0 L6 3 L0 6 z" fill="{color}"/>'
        lines.append(
            f'<marker id="{color[1:]}" markerWidth="6" markerHeight="6" refX="5" refY="3" orient="auto">{head}</marker>'
        )
    lines += ["</defs>", rectangle(0, 0, width, height, PAPER)]
    lines += [text(x_of_slot(slot), 24, f"slot {slot}", 10, fill="#57606a") for slot in range(len(ITEMS_OF))]
    lines += cells(34, USERS_OF, "features of users", COLORS["A"])
    lines += cells(138, ITEMS_OF, "features of items", COLORS["B"])
    lines.append(text(LEFT - 14, 96, "own item of each sample", 12, "end"))
    for sample, slot in enumerate(OWN):
        lines.append(arrow(x_of_slot(sample), 34 + LINE + 3, x_of_slot(slot), 136, COLORS["A"]))
    lines.append(text(LEFT - 14, 250, "negatives of all samples", 12, "end"))
    for place, slot in enumerate(DRAWN):
        x = x_of_slot(place + 1)
        lines += [arrow(x, 232, x_of_slot(slot), 138 + LINE + 4, COLORS["B"]), text(x, 250, f"draw {place}", 11)]
    shared = "Tea is looked up once, and goes through the tower of items once, for Ann and for Cleo."
    lines.append(text(22, 288, shared, 12, "start"))
    lines.append(text(22, 308, "The pen was drawn as well: it is a negative of Ann and Cleo, not of Bob.", 12, "start"))
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, picture in {"sharding": sharding, "slots": slots}.items():
        (Path(__file__).parent / f"{name}.svg").write_text(picture())
