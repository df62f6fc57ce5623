"""``bigembed vectors``: what a file of vectors holds, the vectors of some words, or the same as another format. No torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bigembed.commands.converting import convert
from bigembed.commands.writing import format_of
from bigembed.config.arguments import parse
from bigembed.config.schema import VectorsOptions
from bigembed.errors import UserError
from bigembed.pretrained.looking_up import look_up
from bigembed.report import reading
from bigembed.run_vectors import open_vectors
from bigembed.vectors import Source

FIRST, LONGEST = 8, 40  # words to show, and characters of one
BY_HEADER = ("word2vec", "word2vec-binary")  # their first line alone says how many words there are
OF_NGRAMS = ("buckets", "min_n", "max_n", "ngrams_kept")  # told together


def main(arguments: list[str]) -> int:
    """Tell, print or write what ``arguments`` ask for; return the exit code."""
    options, others = parse(arguments, VectorsOptions)
    if others:
        raise UserError(f"vectors takes no options of a job, but got {', '.join(others)}")
    if options.words and options.out is not None:
        raise UserError("words= prints vectors and out= writes all of them; give one of the two")
    form = format_of(options.format, options.out)
    source = open_vectors(options.path, options.word_list, options.table)
    if options.out is not None:
        convert(source, Path(options.out), form)
    elif options.words:
        _print_vectors(source, options.words)
    else:
        facts = list(_facts(source))
        width = max(len(name) for name, _ in facts)
        print("\n".join(f"{name:{width}}  {value}" for name, value in facts))
    return 0


def _print_vectors(source: Source, words: list[str]) -> None:
    """Print a line a word, as files of text have them; then refuse those that have none."""
    found, vectors = look_up(source, words, reading(source.path, source.size))
    for word, there, vector in zip(words, found, vectors, strict=True):
        if there:
            print(_shown(word), *pc.cast(pa.array(vector), pa.string()).to_pylist())
    missing = [f"'{_shown(word)}'" for word, there in zip(words, found, strict=True) if not there]
    if missing:
        raise UserError(f"{source.path} has no vector for {', '.join(missing)}")


def _facts(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield names and values of what there is to tell; read no more of the file than that takes."""
    yield "path", source.path
    yield "format", source.format
    for name, value in source.details.items():
        if source.ngrams is None or name not in OF_NGRAMS:
            name = "word list" if name == "words" else name.replace("_", " ")
            yield name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
    yield "size", f"{source.size:,} bytes"
    yield "dim", source.dim
    count, first = _words(source)
    if count is not None:
        yield "words" if source.has_words else "rows", count
    if first:
        yield "first", " ".join(first)
    if source.ngrams is not None:
        ngrams = source.ngrams
        pruned = f", {ngrams.rows:,} of them have rows" if ngrams.rows < ngrams.buckets else ""
        yield "n-grams", f"{ngrams.min_n} to {ngrams.max_n} characters in {ngrams.buckets:,} buckets{pruned}"


def _words(source: Source) -> tuple[str | None, list[str]]:
    """Return how many words there are, counted where the file does not say, and the first of them."""
    if not source.has_words:
        return None if source.count is None else f"{source.count:,}", []
    known = source.count if source.dictionary is None else len(source.dictionary)
    first: list[str] = []
    counted, tell = 0, reading(source.path, source.size)
    for words in source.words():
        first += [_shown(word) for word in words.slice(0, FIRST - len(first)).to_pylist()]
        counted += len(words)
        tell(source.consumed, counted)
        if known is not None and len(first) == min(FIRST, known):
            break
    if known is None:
        return f"{counted:,}", first
    return f"{known:,}" + (" (as its first line says)" if source.format in BY_HEADER else ""), first


def _shown(word: str | bytes) -> str:
    """Return a word as a terminal can show it: no bytes that are no UTF-8, no control characters, not too long."""
    text = (word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word).decode(
        "utf-8", "backslashreplace"
    )
    text = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
