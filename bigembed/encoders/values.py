"""From columns of any kind to hashes: the first of an encoder's two stages.

A token of a text, a text taken whole, a whole number: each becomes 64 bits, never 0. Equal texts have equal hashes whatever
they lie in, and so have equal numbers of whatever width (those of 2**63 and more by their bits, as if they had a sign); a
number and the text of its digits have nothing in common.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import Tokens
from bigembed.encoders.columns import BYTES, Column, Spans
from bigembed.encoders.ids import IdsColumn, read
from bigembed.encoders.lists import is_list
from bigembed.encoders.text import Rules, TextColumn, Tokenizer, hash_words, is_text, next_token, whole_text
from bigembed.encoders.text_lists import TextListColumn
from bigembed.errors import UserError
from bigembed.hashing import combine, finish, hash_integers, mix
from bigembed.ragged import Ragged
from bigembed.wishes import VALUES

__all__ = [
    "NUMBERS",
    "TEXTS",
    "VALUES",
    "Crossed",
    "hash_numbers",
    "hash_values",
    "hashes_of",
    "kind_of",
    "open_values",
]

TEXTS, NUMBERS = "texts", "numbers"
CROSS = " × "  # between the columns, and the values, of what is crossed
_ONE = np.uint64(1)  # what a hash of 0 becomes


def open_values(array: pa.Array | pa.ChunkedArray, name: str) -> Column:
    """Return a column of texts, whole numbers, or lists of either.

    Parameters
    ----------
    array : Array or ChunkedArray
        The column.
    name : str
        What messages call it.

    Returns
    -------
    TextColumn, TextListColumn or IdsColumn

    Raises
    ------
    UserError
        The column is of another type; or rows are null, or have a null in their list.
    """
    kind = array.type
    if pa.types.is_dictionary(kind) and pa.types.is_integer(kind.value_type):
        array = array.cast(kind.value_type)
    item = array.type.value_type if is_list(array.type) else array.type
    if pa.types.is_integer(item) or (is_list(kind) and pa.types.is_null(item)):
        return IdsColumn(array, name)
    if is_text(item):
        return TextListColumn(array, name) if is_list(kind) else TextColumn(array, name)
    if pa.types.is_floating(item):
        raise UserError(
            f"column '{name}' holds {kind}, and numbers with a fraction have no rows of their own: look them up in a table of "
            "kind bucketized, or convert them to whole numbers"
        )
    raise UserError(f"column '{name}' holds {kind}, not texts, whole numbers, or lists of either: name another column")


class Crossed(Column):
    """Columns whose values are hashed together, row by row: every combination is one value.

    Texts are taken whole, whatever the table does with others. A row that has an empty text in one column has no value.

    Parameters
    ----------
    columns : sequence of Column
        At least two, each of one value a row.
    name : str
        What messages call it.

    Raises
    ------
    UserError
        One is of lists, or is crossed itself.
    ValueError
        They differ in their number of rows, or are fewer than two.
    """

    what = "combinations"

    def __init__(self, columns: Sequence[Column], name: str) -> None:
        if len(columns) < 2 or len({len(column) for column in columns}) > 1:
            raise ValueError("two or more columns of the same number of rows can be crossed")
        for column in columns:
            if isinstance(column, Crossed | TextListColumn) or (isinstance(column, IdsColumn) and column.of_lists):
                raise UserError(
                    f"column '{column.name}' holds lists, and what is crossed must have one value a row: name another column, "
                    "or take it as a feature of its own"
                )
        self.name = name
        self.columns = tuple(columns)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.columns[0])

    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index`` of all columns; see ``Column``."""
        first, *others = (column.spans(index) for column in self.columns)
        return replace(first, others=tuple(others))

    def contents(self) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
        """Yield the lengths and the contents of one column after the other."""
        for column in self.columns:
            yield from column.contents()


def kind_of(column: Column) -> str:
    """Return what a column holds, ``texts`` or ``numbers``; of a crossed one what each does, with × in between."""
    if isinstance(column, Crossed):
        return CROSS.join(kind_of(each) for each in column.columns)
    return NUMBERS if isinstance(column, IdsColumn) else TEXTS


def hash_values(spans: Spans, tokenizer: Tokenizer, salt: int = 0) -> Ragged:
    """Return the hashes of the tokens, or values, of rows.

    Parameters
    ----------
    spans : Spans
        The rows.
    tokenizer : Tokenizer
        How texts are cut; numbers are not.
    salt : int
        Another salt gives another hash.

    Returns
    -------
    Ragged of uint64
        None of them 0. A text's are those of ``hashing.hash_bytes``, a number's those of ``hashing.hash_integers``; those of
        crossed columns are combined by ``hashing.combine``, from the first column on.
    """
    if spans.others:
        return _hash_crossed(spans, tokenizer, salt)
    if spans.dtype != BYTES:
        numbers = read(spans)
        return Ragged(hash_numbers(numbers.values, salt), numbers.offsets)
    hashed = _whole(spans, tokenizer, salt) if tokenizer.whole else _tokens(tokenizer.prepare(spans), tokenizer, salt)
    return hashed if spans.rows is None else Ragged(hashed.values, hashed.offsets[spans.rows])


def hash_numbers(values: np.ndarray, salt: int = 0) -> np.ndarray:
    """Return the hash of each of ``values`` (int64) as that of a token: shape (values,), uint64, none of them 0."""
    hashes = hash_integers(values, salt)
    return np.maximum(hashes, _ONE, out=hashes)


def hashes_of(words: pa.StringArray, kind: str) -> np.ndarray:
    """Return the hash (without salt; shape (words,), uint64) of each word of a vocabulary of ``kind`` texts or numbers.

    Raises
    ------
    ValueError
        A word is no whole number of 64 bits where they should be numbers.
    """
    return hash_words(words) if kind == TEXTS else hash_numbers(numbers_of(words))


def numbers_of(words: pa.StringArray) -> np.ndarray:
    """Return the numbers that words are, as int64; those of 2**63 and more by their bits.

    Raises
    ------
    ValueError
        A word is no whole number of 64 bits.
    """
    negative = pc.starts_with(words, "-")
    signed = pc.if_else(negative, words, "0").cast(pa.int64()).to_numpy()
    unsigned = pc.if_else(negative, "0", words).cast(pa.uint64()).to_numpy()
    return signed + unsigned.view(np.int64)


def _whole(spans: Spans, tokenizer: Tokenizer, salt: int) -> Ragged:
    """Return the hash of each span, none of an empty one."""
    hashes, offsets = np.empty(len(spans.begin), np.uint64), np.zeros(len(spans.begin) + 1, np.int64)
    used = _hash_whole(spans.begin, spans.end, tokenizer.rules, _salted(salt), hashes, offsets[1:])
    return Ragged(hashes[:used], offsets)


def _tokens(spans: Spans, tokenizer: Tokenizer, salt: int) -> Ragged:
    """Return the hashes of the tokens of each span."""
    # Room for tokens of four bytes, which English has with its spaces; more is made when a text does not fit.
    hashes, offsets = np.empty(spans.size // 4 + 16, np.uint64), np.zeros(len(spans.begin) + 1, np.int64)
    row = used = 0
    while True:
        row, used = _hash_tokens(spans.begin, spans.end, tokenizer.rules, _salted(salt), hashes, offsets[1:], row, used)
        if row == len(spans.begin):
            return Ragged(hashes[:used], offsets)
        hashes = np.concatenate([hashes[:used], np.empty(2 * len(hashes) - used, np.uint64)])


def _salted(salt: int) -> np.uint64:
    return np.uint64(mix(np.uint64(salt)))


def _hash_crossed(spans: Spans, tokenizer: Tokenizer, salt: int) -> Ragged:
    whole = Tokenizer(Tokens.whole, lower=tokenizer.asked)
    first, *others = (hash_values(each, whole, salt) for each in (replace(spans, others=()), *spans.others))
    there = np.all([each.lengths == 1 for each in (first, *others)], axis=0)
    offsets = np.zeros(len(spans) + 1, np.int64)
    np.cumsum(there, out=offsets[1:])
    rows = np.flatnonzero(there)
    hashes = first.take(rows).values
    for other in others:
        _combine(hashes, other.take(rows).values)
    return Ragged(hashes, offsets)


@numba.njit(nogil=True, cache=True)
def _combine(left: np.ndarray, right: np.ndarray) -> None:
    for i in range(len(left)):
        left[i] = max(combine(left[i], right[i]), _ONE)


@numba.njit(nogil=True, cache=True)
def _hash_whole(
    begin: np.ndarray, end: np.ndarray, rules: Rules, salt: np.uint64, hashes: np.ndarray, ends: np.ndarray
) -> int:
    """Hash each text that is not empty; return how many these are."""
    used = 0
    for row in range(len(begin)):
        if begin[row] < end[row]:
            hashes[used] = finish(whole_text(begin[row], end[row], rules), salt)
            used += 1
        ends[row] = used
    return used


@numba.njit(nogil=True, cache=True)
def _hash_tokens(
    begin: np.ndarray,
    end: np.ndarray,
    rules: Rules,
    salt: np.uint64,
    hashes: np.ndarray,
    ends: np.ndarray,
    row: int,
    used: int,
) -> tuple[int, int]:
    """Hash texts from ``row`` on until ``hashes`` is full; return the text that did not fit and the hashes before it."""
    while row < len(begin):
        at, stop, before = begin[row], end[row], used
        while True:
            first, at, state = next_token(at, stop, rules)
            if first == stop:
                break
            if used == len(hashes):
                return row, before
            hashes[used] = finish(state, salt)
            used += 1
        ends[row] = used
        row += 1
    return row, used
