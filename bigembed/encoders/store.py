"""The file of an encoder: an Arrow IPC file of its words and their counts, with what decides the ids as metadata."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed import files
from bigembed.encoders.text import hash_words
from bigembed.errors import UserError
from bigembed.hashing import NAME

FORMAT = "bigembed encoder 2"

_COLUMNS = {"word": pa.string(), "count": pa.int64()}


def write(
    path: Path, settings: dict[str, Any], learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
) -> None:
    """Write an encoder's file, which is there as a whole or not at all.

    Parameters
    ----------
    path : Path
        Where to.
    settings : dict
        What decides the ids apart from what was learned; of values that JSON knows.
    learned : dict
        What was learned from the data besides the words; of values that JSON knows.
    words : StringArray, shape (words,)
    counts : ndarray, shape (words,), int64

    Raises
    ------
    UserError
        The file cannot be written.
    """
    about = {"format": FORMAT, "hash": NAME, "learned": learned, **settings}
    metadata = {"bigembed": json.dumps(about), "checksum": _checksum(about, words, counts)}
    table = pa.table({"word": words, "count": counts}, schema=pa.schema(_COLUMNS, metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    try:
        files.replace(path, sink.getvalue().to_pybytes())
    except OSError as error:
        raise UserError(f"the vocabulary {path} cannot be written: {error.strerror}") from error


def read(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], pa.StringArray, np.ndarray]:
    """Read an encoder's file.

    Parameters
    ----------
    path : Path
        Where from.
    settings : dict
        What the file must have been written with.

    Returns
    -------
    learned : dict
    words : StringArray, shape (words,)
    counts : ndarray, shape (words,), int64

    Raises
    ------
    UserError
        The file cannot be read, is damaged, or was written with other settings; the message names those.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the vocabulary {path} cannot be read: {error.strerror}") from error
    try:
        about, words, counts = _parse(content)
    # Whatever Arrow, JSON and Python find wrong with them, the bytes are not the ones that were written.
    except Exception as error:
        raise UserError(f"the vocabulary {path} is damaged, or is no such file ({error}): take a copy of it") from error
    learned = about.pop("learned", {})
    _compare(path, about, {"format": FORMAT, "hash": NAME, **settings})
    return learned, words, counts


def _parse(content: bytes) -> tuple[dict[str, Any], pa.StringArray, np.ndarray]:
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    table.validate(full=True)
    if table.schema != pa.schema(_COLUMNS):
        raise ValueError(f"columns {', '.join(table.column_names)}")
    words, counts = table["word"].combine_chunks(), table["count"].combine_chunks().to_numpy()
    about = json.loads(table.schema.metadata[b"bigembed"])
    if table.schema.metadata[b"checksum"].decode() != _checksum(about, words, counts):
        raise ValueError("the checksum does not match")
    return about, words, counts


def _compare(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = [key for key in {**wanted, **saved} if saved.get(key) != wanted.get(key)]
    if different:
        what = ", ".join(f"{key}={saved.get(key)!r} (here {wanted.get(key)!r})" for key in different)
        raise UserError(f"the vocabulary {path} was made with {what}: use it with the options it was made with")


def _checksum(about: dict[str, Any], words: pa.StringArray, counts: np.ndarray) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    digest.update(hash_words(words).tobytes())
    digest.update(np.ascontiguousarray(counts, np.int64).tobytes())
    return digest.hexdigest()
