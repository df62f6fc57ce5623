"""The vectors of texts under a run, or under a file of vectors: the mean of those of their words."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed import composed, encoders, run
from bigembed.config.schema import Which
from bigembed.errors import UserError
from bigembed.pretrained.looking_up import look_up
from bigembed.report import reading
from bigembed.run_vectors import open_vectors
from bigembed.vectors import Source


@dataclass(frozen=True, slots=True)
class OfTexts:
    """Texts under one source.

    Attributes
    ----------
    vectors : ndarray, shape (texts, dim), float32
        Zeros for a text of which nothing has a vector.
    told : str
        What the source is, for the user.
    missing : list of str
        Words without a vector, each once; under a run there are none, since unknown words have the row that training gave them.
    """

    vectors: np.ndarray
    told: str
    missing: list[str]


def of_texts(path: str, texts: list[str], table: str | None, checkpoint: Which | None) -> OfTexts:
    """Return the vectors of texts under the run or the file of vectors at ``path``.

    A run cuts a text as in training, n-grams and unknown words included. For a file, texts are cut into words and punctuation; a word
    is looked up as it stands, then in lower case, and is then put together of n-grams, where the file has them.

    Raises
    ------
    UserError
        The source cannot be read, a text is no value of the run's table, or the run has several tables and none is named.
    """
    if Path(path).is_dir():
        return _of_run(Path(path), texts, table, checkpoint)
    return _of_file(open_vectors(path), texts)


def _of_run(folder: Path, texts: list[str], table: str | None, checkpoint: Which | None) -> OfTexts:
    job, chosen = run.open_run(folder, checkpoint)
    names = list(job.tables)
    name = names[0] if len(names) == 1 else table
    if name not in names:
        raise UserError(f"table= must name one of the tables of {folder}: {', '.join(names)}")
    encoder = encoders.load(job.tables[name], folder / run.ENCODERS / name)
    vectors, _ = composed.of_texts(job, name, chosen, encoder, texts)
    return OfTexts(vectors, f"table {name} of {chosen.name}, {encoder.kind}, {job.tables[name].dim} numbers", [])


def _of_file(source: Source, texts: list[str]) -> OfTexts:
    """Look up all words of all texts in one pass."""
    words = [encoders.tokenize(text, lower=False) for text in texts]
    lower = [encoders.tokenize(text) for text in texts]  # cut alike: case changes no border
    asked = list(dict.fromkeys(word for each in (*words, *lower) for word in each))
    found, vectors = look_up(source, asked, reading(source.path, source.size))
    known = _in_dictionary(source, asked, found)
    place = {word: number for number, word in enumerate(asked)}
    means, missing = np.zeros((len(texts), source.dim), np.float32), dict[str, None]()
    for text, (own, lowered) in enumerate(zip(words, lower, strict=True)):
        chosen = []
        for word, other in zip(own, lowered, strict=True):
            as_it_is, in_lower_case = place[word], place[other]
            which = as_it_is if known[as_it_is] or not known[in_lower_case] else in_lower_case
            if found[which]:
                chosen.append(which)
            else:
                missing[word] = None
        if chosen:
            means[text] = vectors[chosen].mean(0)
    return OfTexts(means, f"{source.format}, {source.dim} numbers", list(missing))


def _in_dictionary(source: Source, words: list[str], found: np.ndarray) -> np.ndarray:
    """Return which words the source has as they stand: those that were found, where nothing is put together."""
    if source.ngrams is None or source.dictionary is None:
        return found
    return pc.is_in(pa.array([word.encode() for word in words], pa.binary()), value_set=source.dictionary).to_numpy(
        zero_copy_only=False
    )
