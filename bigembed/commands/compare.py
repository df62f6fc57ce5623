"""``bigembed compare``: what texts mean to several runs and files of vectors. No torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from bigembed.commands.asked import write_asked
from bigembed.commands.compare_picture import picture
from bigembed.commands.inspect_text import console, table_of
from bigembed.commands.text_vectors import OfTexts, of_texts
from bigembed.config.arguments import parse
from bigembed.config.schema import CompareOptions
from bigembed.errors import UserError

MOST = 100  # texts: more cannot be looked at


def main(arguments: list[str]) -> int:
    """Print the similarities of the texts that ``arguments`` name, in every source; return the exit code."""
    options, others = parse(arguments, CompareOptions)
    if others:
        raise UserError(f"compare takes no options of a job, but got {', '.join(others)}")
    if not options.of:
        raise UserError("of= is missing: name run folders or files of vectors, of=[RUN,FILE]")
    texts = _texts(options)
    values: dict[str, Any] = {"texts": texts, "of": []}
    for path in options.of:
        values["of"].append(_compared(path, texts, of_texts(path, texts, options.table, options.checkpoint)))
    _print(values)
    if options.out is not None:
        write_asked("out", options.out, json.dumps(values, indent=1, ensure_ascii=False))
    if options.picture is not None:
        write_asked("picture", options.picture, picture(values))
    return 0


def similarities(vectors: np.ndarray) -> np.ndarray:
    """Return the cosines between all vectors, shape (n, n), of ``vectors``, shape (n, dim), none of which is zeros."""
    units = _units(vectors)
    return np.clip(units @ units.T, -1, 1)


def places(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where vectors lie in the plane that shows most of how their directions differ, and which share of it that is.

    Principal components of the vectors scaled to length 1, whose squared distances are 2 - 2 cosine. Of each axis the direction
    is chosen so that the first of the vectors that are far out is at its positive end.

    Parameters
    ----------
    vectors : ndarray, shape (n, dim)
        None of them zeros.

    Returns
    -------
    ndarray, shape (n, 2), float64
        Zeros where all directions are the same.
    float
        Share of the variance, 1 where there is none.
    """
    units = _units(vectors)
    left, sizes, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    found = np.zeros((len(units), 2))
    shown = left[:, :2] * sizes[:2]
    far_out = abs(shown) >= abs(shown).max(0) / 2
    found[:, : shown.shape[1]] = shown * np.where(shown[far_out.argmax(0), range(shown.shape[1])] < 0, -1, 1)
    whole = float((sizes**2).sum())
    return found, float((sizes[:2] ** 2).sum()) / whole if whole > 0 else 1.0


def _units(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    vectors = vectors / abs(vectors).max(1, keepdims=True)  # their squares then neither overflow nor vanish
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _texts(options: CompareOptions) -> list[str]:
    """Return the texts that are given, or those of the file."""
    if options.texts and options.input is not None:
        raise UserError("texts= and input= both name texts; give one of the two")
    texts = list(options.texts)
    if options.input is not None:
        texts = _lines(options.input)
    if not 2 <= len(texts) <= MOST:
        what = "there is none" if not texts else f"there {'is' if len(texts) == 1 else 'are'} {len(texts):,}"
        raise UserError(
            f"compare takes 2 to {MOST} texts, but {what}; give texts=['a text','another one'] or input=FILE"
        )
    return texts


def _lines(path: str) -> list[str]:
    """Return the lines of a file that are not empty, as many as are wanted and one more."""
    found: list[str] = []
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            while len(found) <= MOST and (line := file.readline(1 << 20)):
                found += [line.strip()] * bool(line.strip())
    except OSError as error:
        raise UserError(f"input={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"input={path} is not UTF-8 after line {len(found)}; convert it first") from None
    return found


def _compared(path: str, texts: list[str], found: OfTexts) -> dict[str, Any]:
    """Return what there is to tell of one source, as JSON takes it."""
    for number in np.flatnonzero(~found.vectors.any(1)).tolist():
        raise UserError(
            f"no word of text {number + 1}, '{_short(texts[number])}', has a vector in {path}; leave the text out, or take other vectors"
        )
    where, share = places(found.vectors)
    return {
        "path": path,
        "told": found.told,
        "missing": found.missing,
        "cosines": similarities(found.vectors).tolist(),
        "places": where.tolist(),
        "shown": share,
    }


def _print(values: dict[str, Any]) -> None:
    to = console()
    for number, text in enumerate(values["texts"], 1):
        to.print(f"{number:>3}  {text}", soft_wrap=True)
    for source in values["of"]:
        to.print(f"\n{source['path']}: {source['told']}", style="bold", soft_wrap=True)
        if source["missing"]:
            to.print(f"without a vector: {', '.join(source['missing'])}", soft_wrap=True)
        table = table_of("cosine", *(str(number + 1) for number in range(len(values["texts"]))))
        for number, row in enumerate(source["cosines"], 1):
            table.add_row(str(number), *(f"{value:.3f}" for value in row))
        to.print(table)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
