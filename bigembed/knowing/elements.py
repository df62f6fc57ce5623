"""What a table sees of the data: elements (tokens, n-grams, values, pieces), each with its hash, its rows, and a key of these."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numba
import numpy as np

from bigembed.admission import GROUP, rows_of
from bigembed.config.schema import HashedTable, TextTable, Tokens
from bigembed.encoders import Encoded, Encoder, HashedEncoder, IdsEncoder, VocabEncoder
from bigembed.encoders.bucketized import BucketizedEncoder
from bigembed.encoders.columns import Spans
from bigembed.encoders.compositional import CompositionalEncoder
from bigembed.encoders.ids import read
from bigembed.encoders.managed import ManagedEncoder
from bigembed.encoders.mixed import MixedEncoder
from bigembed.encoders.subword import SubwordEncoder
from bigembed.encoders.text import Tokenizer
from bigembed.encoders.tokenizer import TokenizerEncoder
from bigembed.encoders.tokens import TokenEncoder, elements_of
from bigembed.encoders.values import hash_numbers, hash_values
from bigembed.hashing import combine
from bigembed.ragged import Ragged

OWN, DRAWN, NONE = range(3)
"""Where an element's rows come from: they are its own, or drawn by its hash, or it has none by which it is known."""

_SHIFT = np.uint64(62)
_KEY = np.uint64((1 << 62) - 1)


class Rows(NamedTuple):
    """Rows of a part of a table, element by element: each has as many as ``sizes`` says, shape (elements,)."""

    rows: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of some samples.

    Attributes
    ----------
    hashes : Ragged of uint64
        Sample by sample; none of them 0.
    keys : ndarray, shape (elements,), uint64
        Elements that share all their rows have the same; the upper two bits are ``OWN``, ``DRAWN`` or ``NONE``.
    parts : tuple of Rows
        Their rows of each part of the table; none where only a checkpoint knows them.
    tokens : int
        How many of the elements are no n-grams; of a table of pieces, the words that they are pieces of.
    unknown : int
        How many of the tokens have no row that tells them from others, in a table that knows words.
    """

    hashes: Ragged
    keys: np.ndarray
    parts: tuple[Rows, ...]
    tokens: int
    unknown: int = 0


Reader = Callable[[Spans], Elements]


def pools_of(keys: np.ndarray) -> np.ndarray:
    """Return ``OWN``, ``DRAWN`` or ``NONE`` for each key: shape (keys,), int64."""
    return (keys >> _SHIFT).astype(np.int64)


def rows_in(keys: np.ndarray) -> np.ndarray:
    """Return what keys hold besides their pool (int64): the row, for elements that have one row."""
    return (keys & _KEY).astype(np.int64)


def keys_of(pools: Any, rows: np.ndarray) -> np.ndarray:
    """Return the keys of elements of pools from numbers (int64 or uint64), of which the lower 62 bits count."""
    return np.asarray(pools).astype(np.uint64) << _SHIFT | rows.view(np.uint64) & _KEY


def reader_of(encoder: Encoder, residents: np.ndarray | None = None) -> Reader:
    """Return what reads samples as elements of a table.

    Parameters
    ----------
    encoder : Encoder
        Of the table. Repeated elements of a sample count each time, whatever ``distinct`` says.
    residents : ndarray, shape (rows,), int64, optional
        The value of every row of a managed table, from a checkpoint.

    Returns
    -------
    callable
        From spans of samples to ``Elements``.
    """
    config = encoder.config
    if isinstance(config, TextTable) and config.distinct:
        encoder = copy.copy(encoder)
        encoder.config = replace(config, distinct=False)
    if isinstance(encoder, ManagedEncoder):
        return lambda spans: _managed(encoder, spans, residents)
    for kind, read_kind in READERS.items():
        if isinstance(encoder, kind):
            return lambda spans: read_kind(encoder, spans)
    raise TypeError(type(encoder).__name__)


def gram_lengths(tokens: Ragged, ngrams: int) -> np.ndarray:
    """Return of how many tokens each element is that the tokens of samples make, in their order: shape (elements,), int8."""
    lengths = tokens.lengths
    size = sum(int(np.maximum(lengths - shorter, 0).sum()) for shorter in range(ngrams))
    out = np.empty(size, np.int8)
    _gram_lengths(tokens.offsets, ngrams, out)
    return out


def _hashed(encoder: HashedEncoder, spans: Spans) -> Elements:
    tokens, elements, encoded = _encoded(encoder, spans)
    config: HashedTable = encoder.config
    parts = _parts(encoded, len(elements.values))
    rows = encoded.parts[0].rows.values.reshape(-1, config.functions)
    if config.importance is not None:
        keys = _combined([*rows.T, encoded.parts[1].rows.values])
    else:  # rows that are added have no order
        keys = rows[:, 0] if config.functions == 1 else _combined(np.sort(rows, axis=1).T)
    return Elements(elements, keys_of(DRAWN, keys), parts, len(tokens.values))


def _compositional(encoder: CompositionalEncoder, spans: Spans) -> Elements:
    if encoder.config.values is None:
        tokens, elements, encoded = _encoded(encoder, spans)
    else:
        numbers = read(spans)
        tokens = elements = Ragged(hash_numbers(numbers.values), numbers.offsets)
        encoded = encoder.encode_spans(spans)
    keys = np.zeros(len(elements.values), np.int64)
    for part, size in zip(encoded.parts, encoder.rows, strict=True):
        keys = keys * size + part.rows.values
    pool = DRAWN if encoder.config.values is None else OWN
    return Elements(elements, keys_of(pool, keys), _parts(encoded, len(keys)), len(tokens.values))


def _vocab(encoder: VocabEncoder, spans: Spans) -> Elements:
    tokens, elements, encoded = _encoded(encoder, spans)
    # As if a mixed table were one block: which word or bucket it is.
    (whole,) = VocabEncoder.encode_hashes(encoder, tokens, np.int64).parts
    rows, hashes = whole.rows.values, elements.values
    drawn, unknown = rows >= encoder.word_rows[1], rows == 0
    pools = np.where(drawn, DRAWN, np.where(unknown, NONE, OWN))
    keys = keys_of(pools, np.where(unknown, hashes.view(np.int64), rows))
    return Elements(elements, keys, _parts(encoded, len(rows)), len(tokens.values), int(unknown.sum()))


def _managed(encoder: ManagedEncoder, spans: Spans, residents: np.ndarray | None) -> Elements:
    tokens, elements, encoded = _encoded(encoder, spans)
    numbers = encoded.ids.values
    if residents is None:
        return Elements(elements, keys_of(NONE, elements.values), (), len(tokens.values))
    rows = rows_of(numbers, residents, 0, len(residents))
    shared = rows % GROUP == 0
    keys = keys_of(np.where(shared, DRAWN, OWN), rows)
    is_token = gram_lengths(tokens, encoder.config.ngrams) == 1
    part = Rows(rows, np.ones(len(rows), np.int64))
    return Elements(elements, keys, (part,), len(tokens.values), int((shared & is_token).sum()))


def _subword(encoder: SubwordEncoder, spans: Spans) -> Elements:
    tokens = hash_values(spans, encoder.tokenizer)
    elements, encoded = elements_of(tokens, encoder.config.ngrams), encoder.encode_spans(spans)
    (part,) = _parts(encoded, len(elements.values))
    first = np.append(part.rows, 0)[np.cumsum(part.sizes) - part.sizes]
    is_token = gram_lengths(tokens, encoder.config.ngrams) == 1
    known = is_token & (part.sizes > 0) & (first < encoder.word_rows[1])
    unknown = is_token & ~known
    pools = np.where(known, OWN, np.where(unknown, NONE, DRAWN))
    keys = keys_of(pools, np.where(unknown, elements.values.view(np.int64), first))
    return Elements(elements, keys, (part,), len(tokens.values), int(unknown.sum()))


def _rows(encoder: Encoder, spans: Spans) -> Elements:
    """Read what is a row already: ids, pieces, intervals."""
    rows = encoder.encode_spans(spans).ids
    part = Rows(rows.values, np.ones(len(rows.values), np.int64))
    hashes = Ragged(hash_numbers(rows.values), rows.offsets)
    return Elements(hashes, keys_of(OWN, rows.values), (part,), len(rows.values))


def _pieces(encoder: TokenizerEncoder, spans: Spans) -> Elements:
    """Read the pieces of texts; tokens are their words, by white space, so that pieces a word can be told."""
    words = hash_values(spans, Tokenizer(Tokens.whitespace))
    return replace(_rows(encoder, spans), tokens=len(words.values))


READERS: dict[type[Encoder], Callable[[Any, Spans], Elements]] = {
    HashedEncoder: _hashed,
    CompositionalEncoder: _compositional,
    MixedEncoder: _vocab,
    VocabEncoder: _vocab,
    SubwordEncoder: _subword,
    TokenizerEncoder: _pieces,
    IdsEncoder: _rows,
    BucketizedEncoder: _rows,
}
"""How the elements of each kind of table are read; those of managed ones need a checkpoint."""


def _encoded(encoder: TokenEncoder, spans: Spans) -> tuple[Ragged, Ragged, Encoded]:
    """Return the hashes of tokens and of all elements, and their rows."""
    tokens = hash_values(spans, encoder.tokenizer, encoder.salt)
    return tokens, elements_of(tokens, encoder.config.ngrams), encoder.encode_hashes(tokens, np.int64)


def _parts(encoded: Encoded, elements: int) -> tuple[Rows, ...]:
    found = []
    for part in encoded.parts:
        each = len(part.rows.values) // max(elements, 1)
        sizes = np.full(elements, each) if part.sizes is None else part.sizes.values.astype(np.int64)
        found.append(Rows(part.rows.values, sizes))
    return tuple(found)


def _combined(rows: Any) -> np.ndarray:
    """Return numbers of 62 bits (int64) for elements from their rows, given function by function."""
    out = np.zeros(len(rows[0]), np.uint64)
    for each in rows:
        _combine(out, each)
    return (out & _KEY).view(np.int64)


@numba.njit(nogil=True, cache=True)
def _combine(keys: np.ndarray, rows: np.ndarray) -> None:
    for i in range(len(keys)):
        keys[i] = combine(keys[i], np.uint64(rows[i]) + np.uint64(1))


@numba.njit(nogil=True, cache=True)
def _gram_lengths(offsets: np.ndarray, ngrams: int, out: np.ndarray) -> None:
    used = 0
    for row in range(len(offsets) - 1):
        for i in range(offsets[row], offsets[row + 1]):
            for length in range(1, min(i - offsets[row] + 1, ngrams) + 1):
                out[used] = length
                used += 1
