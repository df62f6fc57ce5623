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
from bigembed.knowing.elements import OWN, Elements, Rows, pools_of, reader_of, rows_in
from bigembed.knowing.tally import Counts


@dataclass(slots=True)
class Value:
    """A raw value: its text, how often it came, and its hash."""

    text: str
    count: int
    hash: int


@dataclass(slots=True)
class _Place:
    """Where a value came first: the row of a column, and which element of it."""

    column: Column
    row: int
    element: int
    count: int = 0


def name_values(
    encoder: Encoder, counts: Counts, columns: Sequence[Column], index: np.ndarray | None = None
) -> list[Value]:
    """Return values as texts: by the words of the table where it has them, otherwise from the data, which is read until all are found."""
    texts = {int(h): _word_of(encoder, int(k)) for h, k in zip(counts.hashes, counts.keys, strict=True)}
    wanted = np.sort(np.array([value for value, text in texts.items() if text is None], np.uint64))
    if len(wanted):
        texts |= _find(encoder, wanted, columns, index)
    pairs = zip(counts.hashes.tolist(), counts.counts.tolist(), strict=True)
    return [Value(texts[value] or f"hash {value:016x}", count, value) for value, count in pairs]


def values_of_row(
    encoder: Encoder,
    part: int,
    row: int,
    columns: Sequence[Column],
    index: np.ndarray | None = None,
    limit: int = 20,
    residents: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Value], int, int]:
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
    different, occurrences : int
        Of all values that have the row, also those that are not named.
    """
    if isinstance(encoder, BucketizedEncoder):
        return _numbers_of_row(encoder, row, columns, index, limit)
    found: dict[int, _Place] = {}
    for column, first, spans in _blocks(columns, index):
        elements = reader_of(encoder, residents)(spans)
        having = _having(elements.parts[part], row)
        hashes, where, times = np.unique(elements.hashes.values[having], return_index=True, return_counts=True)
        for value, at, count in zip(hashes.tolist(), where.tolist(), times.tolist(), strict=True):
            if value not in found:
                found[value] = _place(elements, int(having[at]), column, first, index)
            found[value].count += count
        if progress is not None:
            progress(first + len(spans))
    shown = sorted(found.items(), key=lambda item: (-item[1].count, item[0]))[:limit]
    values = [Value(_text_at(encoder, place), place.count, value) for value, place in shown]
    return values, len(found), sum(place.count for place in found.values())


def texts_of(encoder: Encoder, spans: Spans) -> list[str]:
    """Return the elements of one sample as texts, in the order in which ``elements.reader_of`` gives their hashes."""
    if isinstance(encoder, BucketizedEncoder):
        return [repr(number) for number in read_numbers(spans).tolist()]
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


def _find(encoder: Encoder, wanted: np.ndarray, columns: Sequence[Column], index: np.ndarray | None) -> dict[int, str]:
    texts: dict[int, str] = {}
    read_block = reader_of(encoder)
    for column, first, spans in _blocks(columns, index):
        elements = read_block(spans)
        places = np.flatnonzero(np.isin(elements.hashes.values, wanted))
        hashes, where = np.unique(elements.hashes.values[places], return_index=True)
        for value, at in zip(hashes.tolist(), places[where].tolist(), strict=True):
            if value not in texts:
                texts[value] = _text_at(encoder, _place(elements, at, column, first, index))
        if len(texts) == len(wanted):
            break
    return texts


def _blocks(columns: Sequence[Column], index: np.ndarray | None) -> Iterator[tuple[Column, int, Spans]]:
    """Yield blocks of all columns, each with how many of the column's rows came before it."""
    for column in columns:
        first = 0
        for spans in column.blocks(index):
            yield column, first, spans
            first += len(spans)


def _place(elements: Elements, at: int, column: Column, first: int, index: np.ndarray | None) -> _Place:
    sample = int(np.searchsorted(elements.hashes.offsets, at, "right")) - 1
    row = first + sample if index is None else int(index[first + sample])
    return _Place(column, row, at - int(elements.hashes.offsets[sample]))


def _text_at(encoder: Encoder, place: _Place) -> str:
    return texts_of(encoder, place.column.spans(np.array([place.row])))[place.element]


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


def _numbers_of_row(
    encoder: BucketizedEncoder, row: int, columns: Sequence[Column], index: np.ndarray | None, limit: int
) -> tuple[list[Value], int, int]:
    found: dict[float, int] = {}
    for _, _, spans in _blocks(columns, index):
        numbers = read_numbers(spans)[encoder.encode_spans(spans).ids.values == row]
        for number, count in zip(*(each.tolist() for each in np.unique(numbers, return_counts=True)), strict=True):
            key = None if number != number else number
            found[key] = found.get(key, 0) + count  # type: ignore[index, arg-type]
    shown = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:limit]
    values = [Value("missing" if number is None else repr(number), count, 0) for number, count in shown]
    return values, len(found), sum(found.values())


def pieces_with(encoder: SubwordEncoder, word: str, row: int) -> list[str]:
    """Return which n-grams of a word, or the word itself, have a row; none for a run of words."""
    if " " in word:
        return []
    rows, pieces = encoder.rows_of(word), encoder.pieces_of(word)
    texts = [word, *pieces] if len(rows) > len(pieces) else pieces
    return [text for text, each in zip(texts, rows.tolist(), strict=True) if each == row]
