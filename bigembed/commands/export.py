"""``bigembed export``: the vectors of a run with their words, streamed from its checkpoint. No torch."""

from pathlib import Path

import pyarrow as pa

from bigembed.commands.writing import WITH_NGRAMS, format_of, write_vectors
from bigembed.config.arguments import parse
from bigembed.config.schema import ExportOptions
from bigembed.errors import UserError
from bigembed.run_vectors import RunSource


def main(arguments: list[str]) -> int:
    """Write the file that ``arguments`` ask for; return the exit code."""
    options, others = parse(arguments, ExportOptions)
    if others:
        raise UserError(f"export takes no options of the job, but got {', '.join(others)}")
    form = format_of(options.format, options.out)
    source, out = RunSource(Path(options.run), options.table, options.checkpoint), Path(options.out)
    if form == WITH_NGRAMS and source.ngrams is not None:
        if options.words is not None:
            raise UserError("format=fasttext keeps all words of a table with n-grams; leave words out")
        write_vectors(out, form, source.own_rows(), source.ngrams, source.ngram_rows())
        return 0
    words = None if options.words is None else pa.array(_read_words(Path(options.words)), pa.string())
    write_vectors(out, form, source.vectors(words))
    return 0


def _read_words(path: Path) -> list[str]:
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"words={path} cannot be read: {error}") from None
    words = [word for word in words if word]
    if not words:
        raise UserError(f"words={path} holds no words; it wants one a line")
    return words
