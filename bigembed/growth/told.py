"""What growing kept, moved, added and lost, as tables for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bigembed.growth.rows import Segment

WIDTH = 160  # of tables that go into a file or a pipe


@dataclass(slots=True)
class Told:
    """What became of a run in the one that grew from it.

    Attributes
    ----------
    before : str
        The checkpoint that was grown from.
    tables : list of tuple of str
        Name; rows before and now; kept, moved, new and dropped ones.
    notes : list of str
        What else there is to say of tables.
    features : list of tuple of str
        Name, and what became of it.
    """

    before: str
    tables: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    features: list[tuple[str, str]] = field(default_factory=list)

    def table(self, name: str, old: int, segments: Sequence[Segment], notes: Sequence[str] = ()) -> None:
        """Tell of a table (or a part of one) with ``old`` rows before; of a new one that is 0, of a dropped one there are no segments."""
        rows, kept, moved, new = (
            sum(getattr(segment, entry) for segment in segments) for entry in ("rows", "kept", "moved", "fresh")
        )
        self.tables.append((name, *(f"{count:,}" for count in (old, rows, kept, moved, new, old - kept))))
        self.notes += [f"{name}: {note}" for note in [*(segment.note for segment in segments), *notes] if note]

    def print(self) -> None:
        """Print everything to the standard error."""
        console = Console(stderr=True)
        if not console.is_terminal:
            console.width = WIDTH
        heads = ("rows of", "before", "now", "kept", "moved", "new", "dropped")
        print_line = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        print_line(f"grown from {self.before}")
        print_line(_lines(heads, self.tables))
        for note in self.notes:
            print_line(note)
        print_line(_lines(("in the head", ""), self.features))


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return rows under their heads; the numbers behind the first column stand to the right."""
    table = Table(box=box.SIMPLE_HEAD)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number and head else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
