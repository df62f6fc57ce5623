"""``bigembed export``: the vectors of a run with their words, streamed from its checkpoint. No torch."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed import encoders, run
from bigembed.composed import composed, is_composed
from bigembed.config.arguments import parse
from bigembed.config.schema import ExportOptions
from bigembed.errors import UserError
from bigembed.files import replacing
from bigembed.vectors import WRITERS, write_words
from bigembed.vectors.blocks import Vectors, words_path

WITHOUT_WORDS = ("safetensors", "numpy")


def main(arguments: list[str]) -> int:
    """Write the file that ``arguments`` ask for; return the exit code."""
    options, others = parse(arguments, ExportOptions)
    if others:
        raise UserError(f"export takes no options of the job, but got {', '.join(others)}")
    if options.format not in WRITERS:
        raise UserError(f"there is no format '{options.format}'; known: {', '.join(WRITERS)}")
    vectors, out = _vectors(options), Path(options.out)
    words_apart = options.format in WITHOUT_WORDS and vectors.words is not None
    if words_apart:
        _write(words_path(out), write_words(vectors))
    _write(out, WRITERS[options.format](vectors))
    print(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {out}", file=sys.stderr)
    if words_apart:
        print(f"their words, one a line, in {words_path(out)}", file=sys.stderr)
    return 0


def _vectors(options: ExportOptions) -> Vectors:
    folder = Path(options.run)
    job, checkpoint = run.open_run(folder, options.checkpoint)
    name = options.table or next(iter(job.tables))
    if name not in job.tables or (options.table is None and len(job.tables) > 1):
        raise UserError(f"table= must name one of the tables of the run: {', '.join(job.tables)}")
    encoder = encoders.load(job.tables[name], folder / run.ENCODERS / name)
    words = encoder.words() if options.words is None else pa.array(_read_words(Path(options.words)), pa.string())
    if is_composed(job.tables[name]):
        if words is None:
            raise UserError(
                f"the vectors of table '{name}' are not plain rows of it; say of which words or values, one a line, with words=FILE"
            )
        return Vectors(composed(job, name, checkpoint, encoder, words), range(len(words)), words)
    table = run.read_array(checkpoint / "tables" / f"{name}.weight.npy")
    if options.words is None:
        return Vectors(table, range(*encoder.word_rows) if words is not None else range(len(table)), words)
    assert words is not None
    return Vectors(table, np.array([_row(encoder, word) for word in words.to_pylist()], np.int64), words)


def _row(encoder: encoders.Encoder, word: str) -> int:
    row = encoder.row_of(word)
    if encoder.words() is not None and not encoder.word_rows[0] <= row:
        raise UserError(f"'{word}' is not in the vocabulary of the table; take it out of the file of words=")
    return row


def _read_words(path: Path) -> list[str]:
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"words={path} cannot be read: {error}") from None
    words = [word for word in words if word]
    if not words:
        raise UserError(f"words={path} holds no words; it wants one a line")
    return words


def _write(path: Path, content: Iterable[bytes | memoryview | pa.Buffer]) -> None:
    try:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            for block in content:
                file.write(block)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
