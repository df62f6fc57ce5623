"""The raw values behind hashes and rows, found again in the data: only for what is shown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigembed.config.schema import TextTable, Tokens
from bigembed.encoders import Column, Encoder
from bigembed.encoders.bucketized import BucketizedEncoder
from bigembed.encoders.columns import BYTES, Spans
from bigembed.encoders.ids import read
from bigembed.encoders.numbers import read as read_numbers
from bigembed.encoders.subword import SubwordEncoder
from bigembed.encoders.text import tokenize
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.values import hash_numbers
from bigembed.knowing.elements import NONE, OWN, Elements, Reader, Rows, keys_of, pools_of, reader_of, rows_in
from bigembed.knowing.tally import Counts, Tally
from bigembed.ragged import Ragged


@dataclass(slots=True)
class Value:
    """A raw value: its text, and how often it came."""

    text: str
    count: int


def name_values(
    encoder: Encoder, counts: Counts, columns: Sequence[Column], index: np.ndarray | None = None
) -> list[Value]:
    """Return values as texts: by the words of the table where it has them, otherwise from the data, which is read until all are found."""
    return _named(encoder, counts, reader_of(encoder), columns, index)


def values_of_row(
    encoder: Encoder,
    part: int,
    row: int,
    columns: Sequence[Column],
    index: np.ndarray | None = None,
    limit: int = 20,
    residents: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Value], Tally]:
    """Return the raw values that have a row among theirs, the most frequent first.

    Parameters
    ----------
    encoder : Encoder
        Of the table.
    part, row : int
        The row, and of which part of the table.
    columns : sequence of Column
        All columns that are looked up in it.
    index : ndarray, shape (rows,), int64, optional
        The rows of each column to look at; by default all.
    limit : int
        How many values to name.
    residents : ndarray, shape (rows,), int64, optional
        The values of a managed table's rows.
    progress : callable, optional
        Called with the number of rows done, after every few megabytes.

    Returns
    -------
    values : list of Value
    tally : Tally
        Of all values that have the row, also those that are not named.
    """
    read_block, tally, done = _raw_reader_of(encoder, residents), Tally(), 0
    for _, _, spans in _blocks(columns, index):
        elements = read_block(spans)
        having = _having(elements.parts[part], row)
        tally.add(elements.hashes.values[having], elements.keys[having])
        done += len(spans)
        if progress is not None:
            progress(done)
    return _named(encoder, tally.kept().top(limit), read_block, columns, index), tally


def texts_of(encoder: Encoder, spans: Spans) -> list[str]:
    """Return the elements of one sample as texts, in the order in which ``elements.reader_of`` gives their hashes."""
    if isinstance(encoder, BucketizedEncoder):
        return ["missing" if number != number else repr(number) for number in read_numbers(spans).tolist()]
    if isinstance(encoder, TokenizerEncoder):
        return encoder.pieces_of(next(spans.texts()))
    tokens, config = _tokens_of(encoder.config, spans), encoder.config
    ngrams = config.ngrams if isinstance(config, TextTable) else 1
    return [
        " ".join(tokens[i - length + 1 : i + 1])
        for i in range(len(tokens))
        for length in range(1, min(i + 1, ngrams) + 1)
    ]


def _word_of(encoder: Encoder, key: int) -> str | None:
    """Return the text of an element that has a row of its own; None for others."""
    keys = np.array([key], np.uint64)
    if int(pools_of(keys)[0]) != OWN or encoder.kind in ("managed", "compositional"):
        return None
    row, words = int(rows_in(keys)[0]), encoder.words()
    if isinstance(encoder, BucketizedEncoder):
        return encoder.interval_of(row)
    return str(row) if words is None else words[row - encoder.word_rows[0]].as_py()


def _named(
    encoder: Encoder, counts: Counts, read_block: Reader, columns: Sequence[Column], index: np.ndarray | None
) -> list[Value]:
    texts = {int(h): _word_of(encoder, int(k)) for h, k in zip(counts.hashes, counts.keys, strict=True)}
    wanted = np.array([value for value, text in texts.items() if text is None], np.uint64)
    if len(wanted):
        texts |= _find(encoder, wanted, read_block, columns, index)
    pairs = zip(counts.hashes.tolist(), counts.counts.tolist(), strict=True)
    return [Value(texts[value] or "", count) for value, count in pairs]


def _find(
    encoder: Encoder, wanted: np.ndarray, read_block: Reader, columns: Sequence[Column], index: np.ndarray | None
) -> dict[int, str]:
    """Return the texts of values by their hashes, reading the data until all are found."""
    texts: dict[int, str] = {}
    for column, first, spans in _blocks(columns, index):
        hashes = read_block(spans).hashes
        places = np.flatnonzero(np.isin(hashes.values, wanted))
        values, where = np.unique(hashes.values[places], return_index=True)
        for value, at in zip(values.tolist(), places[where].tolist(), strict=True):
            if value not in texts:
                sample = int(np.searchsorted(hashes.offsets, at, "right")) - 1
                row = first + sample if index is None else int(index[first + sample])
                texts[value] = texts_of(encoder, column.spans(np.array([row])))[at - int(hashes.offsets[sample])]
        if len(texts) == len(wanted):
            break
    return texts


def _raw_reader_of(encoder: Encoder, residents: np.ndarray | None) -> Reader:
    """Return what reads samples as elements with hashes of the raw values: of numbers themselves, and not of their intervals."""
    read_block = reader_of(encoder, residents)
    if not isinstance(encoder, BucketizedEncoder):
        return read_block

    def read_raw(spans: Spans) -> Elements:
        elements, numbers = read_block(spans), read_numbers(spans)
        bits = np.where(np.isnan(numbers), np.nan, numbers + 0.0).view(np.int64)  # one zero, one missing number
        hashes = hash_numbers(bits)
        return replace(elements, hashes=Ragged(hashes, elements.hashes.offsets), keys=keys_of(NONE, hashes))

    return read_raw


def _blocks(columns: Sequence[Column], index: np.ndarray | None) -> Iterator[tuple[Column, int, Spans]]:
    """Yield blocks of all columns, each with how many of the column's rows came before it."""
    for column in columns:
        first = 0
        for spans in column.blocks(index):
            yield column, first, spans
            first += len(spans)


def _having(part: Rows, row: int) -> np.ndarray:
    """Return the elements that have a row, each once (int64)."""
    ends = np.cumsum(part.sizes)
    return np.unique(np.searchsorted(ends, np.flatnonzero(part.rows == row), "right"))


def _tokens_of(config: Any, spans: Spans) -> list[str]:
    """Return the tokens, or values, of one sample."""
    if spans.others:
        config = replace(config, tokens=Tokens.whole, pattern=None)
        each = [_tokens_of(config, column) for column in (replace(spans, others=()), *spans.others)]
        return [" × ".join(values[0] for values in each)] if all(each) else []
    if spans.dtype != BYTES:
        numbers = read(spans).values
        return [str(number) for number in (numbers.view(np.uint64) if spans.dtype == np.uint64 else numbers).tolist()]
    return [
        token for text in spans.texts() for token in tokenize(text, config.tokens.name, config.pattern, config.lower)
    ]


def pieces_with(encoder: SubwordEncoder, word: str, row: int) -> list[str]:
    """Return which n-grams of a word, or the word itself, have a row; none for a run of words."""
    if " " in word:
        return []
    rows, pieces = encoder.rows_of(word), encoder.pieces_of(word)
    texts = [word, *pieces] if len(rows) > len(pieces) else pieces
    return [text for text, each in zip(texts, rows.tolist(), strict=True) if each == row]
