"""How much of a table, and of the running text, the files of vectors cover that it starts from: as figures, JSON and text."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed import files
from bigembed.config.schema import TableConfig
from bigembed.encoders import Encoder
from bigembed.pretrained.coverage_picture import picture
from bigembed.pretrained.coverage_text import text
from bigembed.pretrained.matching import MISSING
from bigembed.pretrained.placing import Placing
from bigembed.pretrained.vocabulary import counts_of
from bigembed.run import PRETRAINED

TOP = 20  # missing words that are named
NO_ROW = "no row"  # words of the data that the table has no row for
NOT_OF_A_FILE = ("mean", "normal", "zeros", MISSING, NO_ROW)

Counted = tuple[pa.LargeStringArray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the files of a table cover.

    Attributes
    ----------
    table : str
        The table.
    files : list of str
        What it starts from.
    words : dict of str to int
        How many different words were found in which way (``coverage_text.MEANS`` names them all); empty where no words are known.
    occurrences : dict of str to int
        How often the data has them, with those that have no row, where they are known; empty where nothing was counted.
    missing : list of (str, int)
        The most frequent words that have no vector of a file, and how often the data has them.
    told : dict of str to int
        What else there is to tell, of tables whose rows stand for no words.
    """

    table: str
    files: list[str]
    words: dict[str, int]
    occurrences: dict[str, int]
    missing: list[tuple[str, int]]
    told: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON knows."""
        missing = [{"word": word, "count": count} for word, count in self.missing]
        return {
            **asdict(self),
            "missing": missing,
            "words_covered": _covered(self.words),
            "text_covered": _covered(self.occurrences),
        }

    def text(self) -> str:
        """Return what to tell on a terminal."""
        return text(self.as_dict())


def of_placing(
    name: str,
    table: TableConfig,
    encoder: Encoder,
    placing: Placing,
    tokens: int | None = None,
    top: int = TOP,
) -> Coverage:
    """Return what covers a table that has been filled.

    Parameters
    ----------
    name, table, encoder : str, TableConfig, Encoder
        The table.
    placing : Placing
        What filled it; its steps are exhausted.
    tokens : int, optional
        How many tokens the training rows have in all.
    top : int
        How many missing words to name.

    Returns
    -------
    Coverage
    """
    if placing.ways is None:
        return Coverage(name, paths_of(table), {}, {}, [], placing.told)
    counts = encoder.counts()
    found = of_words(name, table, encoder, placing.names, placing.ways, None, top)
    if counts is not None and tokens is not None:
        found.occurrences[NO_ROW] = tokens - int(counts.sum())
    return found


def of_words(
    name: str,
    table: TableConfig,
    encoder: Encoder,
    names: Sequence[str],
    ways: np.ndarray,
    counted: Counted | None,
    top: int = TOP,
) -> Coverage:
    """Return what covers a table whose rows stand for words.

    Parameters
    ----------
    name, table, encoder : str, TableConfig, Encoder
        The table.
    names : sequence of str
        The ways.
    ways : ndarray, shape (words,), uint8
        The way in which each of the encoder's words was found, an index into ``names``.
    counted : (LargeStringArray, ndarray of int64), optional
        All words of the data and how often it has them; None: what the encoder counted.
    top : int
        How many missing words to name.

    Returns
    -------
    Coverage
    """
    words = encoder.words()
    assert words is not None
    words = words.cast(pa.large_string())
    counts = encoder.counts() if counted is None else counts_of(words, *counted)
    if counted is not None:
        others = pa.array(pc.indices_nonzero(pc.invert(pc.is_in(counted[0], value_set=words))))
        rest, times = counted[0].take(others), counted[1][others.to_numpy()]
        if len(rest):
            names = [*names, NO_ROW]
            ways = np.concatenate([ways, np.full(len(rest), len(names) - 1, np.uint8)])
            words, counts = pa.concat_arrays([words, rest]), np.concatenate([counts, times])
    return of_counted(name, table, names, ways, words, counts, top)


def of_counted(
    name: str,
    table: TableConfig,
    names: Sequence[str],
    ways: np.ndarray,
    words: pa.LargeStringArray,
    counts: np.ndarray | None,
    top: int = TOP,
    told: dict[str, int] | None = None,
) -> Coverage:
    """Return what covers words of which each was found in the way ``names[ways[i]]``, and came ``counts[i]`` times.

    Parameters and what is returned are as for ``of_words``; ``told`` is told besides.
    """
    found = np.bincount(ways, minlength=len(names)).tolist()
    times = [] if counts is None else np.bincount(ways, counts, len(names)).astype(np.int64).tolist()
    bare = [number for number, way in enumerate(names) if way in NOT_OF_A_FILE]
    missing = [] if counts is None else _most_frequent(words, counts, np.isin(ways, bare) & (counts > 0), top)
    return Coverage(
        name,
        paths_of(table),
        dict(zip(names, found, strict=True)),
        dict(zip(names, times, strict=False)),
        missing,
        told or {},
    )


def paths_of(table: TableConfig) -> list[str]:
    """Return the files that a table starts from."""
    return [str(table.pretrained.path), *table.pretrained.others]


def write(coverage: Coverage, folder: Path) -> None:
    """Write TABLE.json and TABLE.html into the folder ``pretrained`` of a run, which is made.

    Raises
    ------
    OSError
        They cannot be written.
    """
    values, own = coverage.as_dict(), folder / PRETRAINED
    own.mkdir(parents=True, exist_ok=True)
    files.replace(own / f"{coverage.table}.json", json.dumps(values, indent=1).encode())
    files.replace(own / f"{coverage.table}.html", picture([values]).encode())


def _covered(of: dict[str, int]) -> float | None:
    """Return the share of what has a vector of a file; None where nothing is known."""
    total = sum(of.values())
    return sum(count for way, count in of.items() if way not in NOT_OF_A_FILE) / total if total else None


def _most_frequent(
    words: pa.LargeStringArray, counts: np.ndarray, among: np.ndarray, top: int
) -> list[tuple[str, int]]:
    """Return the words that came most often, of those that count; of equal ones the first by their UTF-8 bytes."""
    places = np.flatnonzero(among)
    table = pa.table({"word": words.take(pa.array(places)), "count": counts[places]})
    order = pc.select_k_unstable(table, top, sort_keys=[("count", "descending"), ("word", "ascending")])
    best = table.take(order)
    return list(zip(best["word"].to_pylist(), best["count"].to_pylist(), strict=True))
