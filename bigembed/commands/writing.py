"""Files of vectors that somebody asked a command for: one of ``vectors.WRITERS``, and the words beside those that hold none."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from bigembed.errors import UserError
from bigembed.files import replacing
from bigembed.report import writing
from bigembed.vectors import WRITERS, Ngrams, write_words
from bigembed.vectors.blocks import Vectors, words_path

BY_ENDING = {".npy": "numpy", ".safetensors": "safetensors", ".parquet": "parquet"}
WITHOUT_WORDS = ("safetensors", "numpy")
WITH_NGRAMS = "fasttext"  # the one format that keeps n-grams


def format_of(form: str | None, out: str | None) -> str:
    """Return the format that is asked for; where none is, by the ending of the file, else word2vec.

    Raises
    ------
    UserError
        With those that there are.
    """
    if form is None:
        return BY_ENDING.get(Path(out or "").suffix, "word2vec")
    if form not in WRITERS:
        raise UserError(f"there is no format '{form}'; known: {', '.join(WRITERS)}")
    return form


def check_out(out: Path) -> None:
    """Refuse, before there is work, a file that cannot be one.

    Raises
    ------
    UserError
        Its folder is not there.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out} cannot be written: there is no folder {out.parent}")


def write_vectors(
    out: Path,
    form: str,
    vectors: Vectors,
    ngrams: Ngrams | None = None,
    ngram_rows: Iterable[np.ndarray] = (),
    tell: Callable[[], None] | None = None,
) -> None:
    """Write vectors, whole or not at all, and say on standard error what was written.

    Parameters
    ----------
    out : Path
        The file.
    form : str
        One of ``vectors.WRITERS``.
    vectors : Vectors
        Words and rows; where ``ngrams`` are given, the words' own rows.
    ngrams : Ngrams, optional
        For fastText's format: the n-grams that there are rows for.
    ngram_rows : iterable of ndarray, shape (rows, dim), float32
        Their rows, block by block.
    tell : callable, optional
        Called after every block; by default the bytes that are written are told, now and then.

    Raises
    ------
    UserError
        The file cannot be written, or the format cannot hold a word.
    """
    check_out(out)
    words_apart = form in WITHOUT_WORDS and vectors.words is not None
    if words_apart:
        _write(words_path(out), write_words(vectors), None)
    extra = () if ngrams is None else (ngrams, ngram_rows)
    _write(out, WRITERS[form](vectors, *extra), tell)
    print(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {out} ({form})", file=sys.stderr)
    if ngrams is not None:
        print(f"and the rows of {ngrams.rows:,} buckets of n-grams", file=sys.stderr)
    if words_apart:
        print(f"their words, one a line, in {words_path(out)}", file=sys.stderr)


def _write(path: Path, content: Iterable[bytes | memoryview | pa.Buffer], tell: Callable[[], None] | None) -> None:
    written = writing(str(path))
    try:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            for block in content:
                file.write(block)
                if tell is None:
                    written(file.tell())
                else:
                    tell()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
