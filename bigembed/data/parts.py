"""Which files are a part of the data, and how they are to be read."""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bigembed.config.schema import FilesData, Format
from bigembed.errors import UserError

ENDINGS = {
    ".parquet": Format.parquet,
    ".csv": Format.csv,
    ".jsonl": Format.jsonl,
    ".json": Format.jsonl,
    ".ndjson": Format.jsonl,
}
FORM_ENDINGS = {
    Format.criteo: (".tsv", ".txt", ".csv"),
    Format.movielens: (".dat", ".csv"),
    Format.ncf: (".rating", ".negative"),
    Format.user_items: (".txt",),
}
"""Endings that files of the published forms have, which data.format names."""

COMPRESSIONS = (".gz", ".bz2", ".zst")
"""Endings of the compressions that Arrow undoes while it reads texts."""

SIDES = ("users", "items", "negatives")
"""Parts that stand beside the samples."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one part.

    Attributes
    ----------
    part : str
        ``train``, ``validation``, ``test``, or one of ``SIDES``.
    files : tuple of Path
        The files in the order of their rows; for a saved `datasets` folder that folder alone.
    format : Format
        How to read them; never ``auto``.
    """

    part: str
    files: tuple[Path, ...]
    format: Format


def find_part(config: FilesData, part: str) -> Source:
    """Find the files of a part.

    Parameters
    ----------
    config : FilesData
        Where ``path`` is one file (or one saved data set), that is the part, whatever its name, be it null; but not one of
        ``SIDES``, which then are paths themselves.
    part : str
        ``train``, ``validation``, ``test``, or one of ``SIDES``.

    Returns
    -------
    Source
        At least one file.

    Raises
    ------
    UserError
        Nothing is there, or several things are and it is not clear which is meant.
    """
    name = getattr(config, part)
    path = Path(config.path).expanduser() if config.path is not None else None
    if path is not None and not path.exists():
        raise UserError(f"data.path={config.path} does not exist.")
    if path is not None and is_single(path) and part in SIDES:
        path = None
    if path is not None and is_single(path):
        return _source(part, [path], config.format, f"data.path={config.path}")
    if name is None:
        raise UserError(f"There is no {part} part, as data.{part} is null; name one, e.g. data.{part}=FILE.")
    if path is not None:
        return _source(part, _named(path, name, config.format, part), config.format, f"data.{part}={name}")
    where = Path(name).expanduser()
    if not where.exists() and not _is_pattern(name):
        raise UserError(
            f"data.{part}={name} does not exist; give a file, a folder or a pattern, or the folder of all parts as "
            "data.path=FOLDER, or a data set of the Hub as data.hub=NAME."
        )
    paths = [where] if where.exists() else _expand(Path(), str(where))
    return _source(part, paths, config.format, f"data.{part}={name}")


def is_single(path: Path) -> bool:
    """Tell whether ``path`` is one part by itself: a file, or a data set saved without parts."""
    return path.is_file() or (path / "state.json").is_file()


def _named(folder: Path, name: str, format: Format, part: str) -> list[Path]:
    """Return the one thing in ``folder`` that a part's name stands for: a file, its shards, or a folder."""
    if _is_pattern(name) and not (folder / name).exists():
        return _expand(folder, name)
    found: dict[str, list[Path]] = {}
    if (folder / name).exists():
        found[name + "/" * (folder / name).is_dir()] = [folder / name]
    for ending in _endings(format):
        if (folder / (name + ending)).is_file():
            found[name + ending] = [folder / (name + ending)]
        shards = _expand(folder, f"{glob.escape(name)}-*{ending}")
        if shards:
            found[f"{name}-*{ending}"] = shards
    if len(found) > 1:
        kinds = ", ".join(sorted(found))
        raise UserError(
            f"It is not clear which is the {part} part in {folder}: {kinds}; choose one, e.g. data.{part}={min(found)}."
        )
    if not found:
        raise UserError(
            f"{folder} has no {part} part called {name!r} ({_there(folder)}); "
            f"name it with data.{part}=NAME{'' if part == 'train' else f', or go without one: data.{part}=null'}."
        )
    return next(iter(found.values()))


def _source(part: str, paths: list[Path], format: Format, wish: str) -> Source:
    """Look into folders and settle the one format of the files."""
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        if (folder / "state.json").is_file():
            return Source(part, (folder,), Format.datasets)
        if (folder / "dataset_dict.json").is_file():
            raise UserError(
                f"{wish} is a saved data set with parts of its own; give it as data.path, and its part as data.{part}."
            )
        there = sorted(folder.iterdir(), key=_natural)
        paths = [path for path in there if path.is_file() and not path.name.startswith((".", "_"))]
        paths = [path for path in paths if path.name.endswith(tuple(_endings(format)))]
        if not paths:
            raise UserError(f"{folder} holds no file that can be read as {_readable(format)} ({_there(folder)}).")
    if not paths:
        raise UserError(f"No file matches {wish}.")
    if format is Format.datasets:
        raise UserError(
            f"{paths[0]} is no saved `datasets` folder, as data.format=datasets asks for; leave data.format=auto."
        )
    formats = {path: _format_of(path, part, format) for path in paths}
    if len(set(formats.values())) > 1:
        examples = {kind: path.name for path, kind in formats.items()}
        raise UserError(
            f"{wish} matches files of different kinds: {', '.join(examples.values())}; "
            "choose with data.format or a narrower pattern."
        )
    _check_shards(paths)
    if len(paths) > 1 and Format.ncf in formats.values():
        raise UserError(
            f"{wish} matches {paths[0].name} and {paths[1].name}, but a part of NCF's form is one file; "
            f"choose one, e.g. data.{part}={paths[0].name}."
        )
    return Source(part, tuple(paths), formats[paths[0]])


def _check_shards(paths: list[Path]) -> None:
    """Refuse a download of which some ``…-00001-of-00002…`` are missing."""
    numbers = [re.search(r"-(\d+)-of-(\d+)\.", path.name) for path in paths]
    if all(numbers):
        there = {int(match[1]) for match in numbers if match}
        wanted = max(int(match[2]) for match in numbers if match)
        missing = sorted(set(range(wanted)) - there)
        if missing:
            raise UserError(
                f"{paths[0].parent} holds {len(there)} of the {wanted} files that {paths[0].name} is one of: "
                f"number {missing[0]} is missing."
            )


def _format_of(path: Path, part: str, format: Format) -> Format:
    """Return how a file is to be read; beside data of a published form there may be sides as Parquet, CSV or JSON lines."""
    beside = part in SIDES and format in FORM_ENDINGS and not path.name.endswith(tuple(_endings(format)))
    if format is not Format.auto and not beside:
        return format
    for ending in _endings(Format.auto):
        if path.name.endswith(ending):
            return ENDINGS["." + ending.split(".")[1]]
    if beside:
        return format
    raise UserError(
        f"The ending of {path} does not tell how to read it; say it with data.format=parquet, csv or jsonl, or "
        f"{', '.join(kind.value for kind in FORM_ENDINGS)} for data in the form of that name."
    )


def _endings(format: Format) -> list[str]:
    """Return the endings that files of a format may have."""
    plain = FORM_ENDINGS.get(format) or [ending for ending, kind in ENDINGS.items() if format in (Format.auto, kind)]
    texts = [ending for ending in plain if ending != ".parquet"]
    return [*plain, *(ending + compression for ending in texts for compression in COMPRESSIONS)]


def _readable(format: Format) -> str:
    return "Parquet, CSV or JSON lines" if format is Format.auto else format.value


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _expand(folder: Path, pattern: str) -> list[Path]:
    """Return the files in ``folder`` that match a pattern, in natural order."""
    found = map(Path, glob.glob(os.path.join(glob.escape(str(folder)), pattern), recursive=True))
    return sorted((path for path in found if path.is_file()), key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return by what files are in order: numbers in their names count as such, so that day_2 comes before day_10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], str(path)


def _there(folder: Path) -> str:
    """Say what a folder holds, briefly."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return "there are: " + ", ".join(names[:8]) + more if names else "it is empty"
