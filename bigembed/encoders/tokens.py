"""What all tables of tokens share: tokens, known by their hashes, become elements, and elements become rows.

The elements of a sample are, for each of its tokens in turn, the token and then the n-grams that end at it, the short ones
first. An n-gram is hashed from its tokens in their order, whether these have rows of their own or not, and never reaches
over the edge of a sample.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import TextTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import Encoded, Encoder, Ids
from bigembed.encoders.text import Tokenizer
from bigembed.encoders.values import CROSS, TEXTS, Crossed, hash_values, kind_of, open_values
from bigembed.errors import UserError
from bigembed.hashing import combine, reduce
from bigembed.ragged import Ragged
from bigembed.wishes import VALUES


class TokenEncoder(Encoder):
    """Turns the tokens of texts, or values, into rows of a table.

    Parameters
    ----------
    config : TextTable
        The table.
    rows : tuple of int
        Rows of every part.
    learned : dict
        ``values``: whether the table was made for texts or for numbers.
    salt : int
        Another salt gives another hash of every token.
    """

    reads = VALUES
    config: TextTable

    def __init__(self, config: TextTable, rows: tuple[int, ...], learned: dict[str, Any], salt: int = 0) -> None:
        super().__init__(config, rows, learned)
        self.tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
        self.salt = salt

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> Column:
        """Return a column of texts, whole numbers, or lists of either."""
        return open_values(array, name)

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse texts where the table was made for numbers, and numbers where it was made for texts: their hashes differ.

        Raises
        ------
        UserError
            Naming both.
        """
        made_for, given = self.learned["values"], kind_of(column)
        if made_for != given and column.empty() < len(column):  # lists that are all empty hold neither
            remedy = "give what is crossed a table of its own" if CROSS in made_for + given else "convert the column"
            raise UserError(
                f"feature '{feature}': column '{column.name}' of the {part} holds {given}, but tables.{table} was "
                f"made for {made_for}, which have other rows; {remedy}"
            )

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the texts as they are; for a table of numbers, the numbers in each, with white space between them.

        Raises
        ------
        UserError
            A word of a text is no whole number of 64 bits, where the table is one of numbers.
        """
        if self.learned["values"] == TEXTS:
            return pa.array(texts, pa.large_string())
        numbers = []
        for number, text in enumerate(texts):
            try:
                numbers.append([_number(word) for word in text.split()])
            except UserError as error:
                raise UserError(f"{name(number)}: {error}") from None
        return pa.array(numbers, pa.list_(pa.int64()))

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return values in memory as rows of the table, of ``dtype`` int64 or int32."""
        return self.encode_hashes(hash_values(spans, self.tokenizer, self.salt), dtype, self.config.distinct)

    @abstractmethod
    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes (uint64) as rows of the table, of ``dtype`` int64 or int32; each once a sample if ``distinct``."""

    def encode_token(self, token: str) -> Encoded:
        """Return a word or value, or an n-gram given with spaces between its words, as the only element of a sample.

        Raises
        ------
        UserError
            It is empty, or is cut into more tokens than n-grams have.
        """
        column = self._typed(token)
        hashed = hash_values(column.spans(np.zeros(1, np.int64)), self.tokenizer, self.salt)
        count, longest = len(hashed.values), self.config.ngrams
        if not 1 <= count <= longest:
            raise UserError(f"'{token}' is {count} tokens as this table cuts texts, and it has rows for 1 to {longest}")
        encoded = self.encode_hashes(hashed, np.int64)
        elements = count * (count + 1) // 2  # the n-gram of all tokens is the last one
        return (
            encoded if count == 1 else Encoded(tuple(_last(part, elements) for part in encoded.parts), encoded.tokens)
        )

    def _typed(self, token: str) -> Column:
        """Return what somebody typed as a column of one row; combinations are written with × in between."""
        kinds = str(self.learned["values"]).split(CROSS)
        words = token.split(CROSS) if len(kinds) > 1 else [token]
        if len(words) != len(kinds):
            raise UserError(
                f"'{token}' is no combination of {len(kinds)} values; write it with '{CROSS}' between them, as inspect shows them"
            )
        columns = [
            open_values(pa.array([word]) if kind == TEXTS else pa.array([_number(word)], pa.int64()), "token")
            if len(kinds) > 1
            else self.open(self.from_texts([word], lambda _: f"'{token}'"), "token")
            for word, kind in zip(words, kinds, strict=True)
        ]
        return Crossed(columns, "token") if len(columns) > 1 else columns[0]

    def row_of(self, token: str) -> int:
        """Return the row of a word or value, or of an n-gram given with spaces between its words.

        Raises
        ------
        UserError
            ``token`` is empty, is cut into more tokens than n-grams have, or has several rows.
        """
        if len(self.rows) > 1:
            raise UserError(
                f"'{token}' has rows in {len(self.rows)} tables, of which this one is made; bigembed explain tells them"
            )
        encoded = self.encode_token(token)
        rows = [int(row) for part in encoded.parts for row in part.rows.values]
        if len(rows) != 1:
            raise UserError(f"'{token}' has {len(rows)} rows in this table, not one of its own")
        return rows[0]


def _last(part: Ids, elements: int) -> Ids:
    """Return the last of the elements of the only sample as a sample of its own."""
    rows = part.rows.values
    size = len(rows) // elements if part.sizes is None else int(part.sizes.values[-1])
    sizes = None if part.sizes is None else Ragged(part.sizes.values[-1:], np.array([0, 1]))
    return Ids(Ragged(rows[len(rows) - size :], np.array([0, size])), sizes)


def _number(word: str) -> int:
    """Return a whole number that was typed; one of 2**63 and more by its bits, by which it is hashed."""
    plain = word.removeprefix("-")
    value = int(word) if plain.isascii() and plain.isdecimal() and len(plain) < 21 else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise UserError(f"'{word}' is no whole number of 64 bits")
    return value - (1 << 64) if value >= 1 << 63 else value


def settings_of_tokens(config: TextTable) -> dict[str, Any]:
    """Return what decides the elements of a sample."""
    cutting = Tokenizer(config.tokens, config.pattern, config.lower).settings
    return {**cutting, "ngrams": config.ngrams, "distinct": config.distinct}


def elements_of(hashed: Ragged, ngrams: int) -> Ragged:
    """Return the hashes (uint64) of the elements of samples from those of their tokens."""
    if ngrams == 1:
        return hashed
    offsets = np.zeros_like(hashed.offsets)
    lengths = hashed.lengths
    np.cumsum(sum(np.maximum(lengths - shorter, 0) for shorter in range(ngrams)), out=offsets[1:])
    out = np.empty(offsets[-1], np.uint64)
    _elements(hashed.values, hashed.offsets, ngrams, out)
    return Ragged(out, offsets)


def reduced(hashes: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    """Return numbers in ``[0, size)`` from hashes (uint64), of ``dtype`` int64 or int32."""
    out = np.empty(len(hashes), dtype)
    _reduce(hashes, np.uint64(size), out)
    return out


@numba.njit(nogil=True, cache=True)
def _elements(hashes: np.ndarray, offsets: np.ndarray, ngrams: int, out: np.ndarray) -> None:
    grams = np.empty(ngrams, np.uint64)
    used = 0
    for row in range(len(offsets) - 1):
        for i in range(offsets[row], offsets[row + 1]):
            hashed = hashes[i]
            out[used] = hashed
            # grams[k] is the n-gram of k + 1 tokens that ended at the token before.
            longest = min(i - offsets[row], ngrams - 1)
            for k in range(longest, 0, -1):
                grams[k] = combine(grams[k - 1], hashed)
                out[used + k] = grams[k]
            grams[0] = hashed
            used += 1 + longest


@numba.njit(nogil=True, cache=True)
def _reduce(hashes: np.ndarray, size: np.uint64, out: np.ndarray) -> None:
    for i in range(len(hashes)):
        out[i] = reduce(hashes[i], size)
