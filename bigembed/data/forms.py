"""The forms in which well-known data sets are published: Criteo's, MovieLens', NCF's, and lists of items of each user."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import Format
from bigembed.data.delimited import Layout, read_delimited
from bigembed.data.integer_lines import read_negatives, read_user_items
from bigembed.data.lines import read_csv
from bigembed.data.plain import as_arrow, as_numpy, texts
from bigembed.errors import UserError

_WHOLE, _REAL, _TEXT = pa.int64(), pa.float64(), pa.string()
# The flags of u.item, in their order (README of MovieLens 100K).
_GENRES = ["unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"]
_GENRES += ["Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"]


@dataclass(frozen=True, slots=True)
class Form:
    """How files of one sort are read.

    Attributes
    ----------
    schema : Schema
        The columns that there are.
    read : callable
        Given the file and the names of some columns, yields batches of (at least) these columns.
    """

    schema: pa.Schema
    read: Callable[[Path, Sequence[str]], Iterator[pa.RecordBatch]]


def form_of(path: Path, format: Format) -> Form:
    """Return how a file of one of these formats is read: of several sorts, its name tells.

    Raises
    ------
    UserError
        The name is none that is known.
    """
    sorts = FORMS[format]
    name = re.sub(r"\.(gz|bz2|zst)$", "", path.name)
    for pattern, form, _ in sorts:
        if re.fullmatch(pattern, name):
            return form
    known = ", ".join(dict.fromkeys(example for _, _, example in sorts))
    raise UserError(
        f"{path}: what it holds is told by the name, and data.format={format.value} knows {known}; rename it, or set data.format."
    )


def _delimited(layout: Layout) -> Form:
    return Form(pa.schema(list(layout.fields.items())), lambda path, names: read_delimited(path, layout, names))


def _csv(columns: Mapping[str, tuple[str, pa.DataType]]) -> Form:
    """Return how a CSV file is read whose header has other names: ours, by which come the file's and the type."""

    def read(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in read_csv(path, dict(columns[name] for name in names)):
            yield batch.rename_columns(list(names))

    return Form(pa.schema([(name, kind) for name, (_, kind) in columns.items()]), read)


def _with_genres(form: Form) -> Form:
    """Return a form whose genres, separated by bars, become lists."""
    at = form.schema.get_field_index("genres")
    schema = form.schema.set(at, pa.field("genres", pa.list_(_TEXT)))

    def read(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in form.read(path, names):
            if "genres" in names:
                batch = batch.set_column(
                    batch.schema.get_field_index("genres"), "genres", _split(batch.column("genres"))
                )
            yield batch

    return Form(schema, read)


def _split(bars: pa.Array) -> pa.Array:
    """Return what is between bars; of nothing, or "(no genres listed)" as newer files have it, an empty list."""
    lists = pc.split_pattern(pc.replace_substring(bars, "(no genres listed)", ""), "|")
    there = pc.binary_length(lists.values).cast(pa.bool_())
    kept = np.zeros(len(there) + 1, np.int32)
    np.cumsum(as_numpy(there.cast(pa.int32())), out=kept[1:])
    return pa.ListArray.from_arrays(as_arrow(kept[as_numpy(lists.offsets)]), lists.values.filter(there))


def _read_flagged(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield films of u.item, whose genres are flags."""
    fields = [field for name in names for field in (_GENRES if name == "genres" else [name])]
    for batch in read_delimited(path, _FLAGGED, fields):
        if "genres" in names:
            flags = np.stack([as_numpy(batch.column(genre)) for genre in _GENRES], 1) != 0
            offsets = np.zeros(len(flags) + 1, np.int32)
            np.cumsum(flags.sum(1), out=offsets[1:])
            genres = texts(_GENRES).take(as_arrow(np.nonzero(flags)[1]))
            batch = batch.append_column("genres", pa.ListArray.from_arrays(as_arrow(offsets), genres))
        yield batch.select(list(names))


_CRITEO = _delimited(
    Layout(
        "\t",
        {"label": _WHOLE, **{f"I{i}": _WHOLE for i in range(1, 14)}, **{f"C{i}": _TEXT for i in range(1, 27)}},
        may_be_empty=True,
    )
)
_RATING = {"user": _WHOLE, "item": _WHOLE, "rating": _REAL, "timestamp": _WHOLE}
_RATING_CSV = {
    "user": ("userId", _WHOLE),
    "item": ("movieId", _WHOLE),
    "rating": ("rating", _REAL),
    "timestamp": ("timestamp", _WHOLE),
}
_USER = {"user": _WHOLE, "gender": _TEXT, "age": _WHOLE, "occupation": _WHOLE, "zip": _TEXT}
_USER_100K = {"user": _WHOLE, "age": _WHOLE, "gender": _TEXT, "occupation": _TEXT, "zip": _TEXT}
_FILM = {"item": _WHOLE, "title": _TEXT, "genres": _TEXT}
_FILM_CSV = {"item": ("movieId", _WHOLE), "title": ("title", _TEXT), "genres": ("genres", _TEXT)}
_FLAGGED = Layout(
    "|",
    {"item": _WHOLE, "title": _TEXT, "released": _TEXT, "video": _TEXT, "url": _TEXT, **dict.fromkeys(_GENRES, _WHOLE)},
    latin=True,
)
_TAB_RATINGS = _delimited(Layout("\t", _RATING))
_FLAGGED_FILM = Form(pa.schema([("item", _WHOLE), ("title", _TEXT), ("genres", pa.list_(_TEXT))]), _read_flagged)
_NEGATIVES = Form(
    pa.schema([("user", _WHOLE), ("item", _WHOLE), ("negatives", pa.list_(_WHOLE))]),
    lambda path, names: read_negatives(path),
)
_USER_ITEMS = Form(pa.schema([("user", _WHOLE), ("item", _WHOLE)]), lambda path, names: read_user_items(path))

FORMS: dict[Format, list[tuple[str, Form, str]]] = {
    Format.criteo: [(r".*", _CRITEO, "")],
    Format.movielens: [
        (r"ratings\.dat", _delimited(Layout("::", _RATING)), "ratings.dat"),
        (r"ratings\.csv", _csv(_RATING_CSV), "ratings.csv"),
        (r"u\.data|u[1-5ab]\.(base|test)", _TAB_RATINGS, "u.data"),
        (r"users\.dat", _delimited(Layout("::", _USER, latin=True)), "users.dat"),
        (r"u\.user", _delimited(Layout("|", _USER_100K, latin=True)), "u.user"),
        (r"movies\.dat", _with_genres(_delimited(Layout("::", _FILM, latin=True))), "movies.dat"),
        (r"movies\.csv", _with_genres(_csv(_FILM_CSV)), "movies.csv"),
        (r"u\.item", _FLAGGED_FILM, "u.item"),
    ],
    Format.ncf: [
        (r".*\.rating", _TAB_RATINGS, "NAME.train.rating, NAME.test.rating"),
        (r".*\.negative", _NEGATIVES, "NAME.test.negative"),
    ],
    Format.user_items: [(r".*", _USER_ITEMS, "")],
}
