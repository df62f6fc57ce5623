"""Tables whose rows stand for no words, filled from files: the file's words say which rows they have, and the first gets them.

A hashed table hashes words; a word that the table's cutting changes (lower-cases) is another form of it, taken where the
fall-back ``case`` is asked for, and gives its rows up to one that is there as it is. A table of ids takes words that are
numbers, or counts vectors without words.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import Fallback, HashedTable, IdsTable, Join, TableConfig
from bigembed.encoders import Encoder, HashedEncoder
from bigembed.encoders.values import NUMBERS, TEXTS, hash_numbers, hash_values, numbers_of
from bigembed.errors import UserError
from bigembed.pretrained.composing import sums
from bigembed.pretrained.fitting import Fitted, Tell, fit, places, slices, zeros
from bigembed.pretrained.forms import valid_utf8
from bigembed.pretrained.matching import hashes_of
from bigembed.pretrained.steps import Normalise, Step
from bigembed.ragged import Ragged
from bigembed.vectors.source import Source

_AT_ONCE = 1 << 16  # words of a dictionary
_NUMBER = "^(0|[1-9][0-9]{0,19}|-[1-9][0-9]{0,18})$"


class Wanted(NamedTuple):
    """The rows that words of a block have in the table.

    Attributes
    ----------
    at : ndarray, shape (n,), int64
        Words, by their place in the block.
    rows : ndarray, shape (n, functions), int64
        Their rows.
    shares : ndarray, shape (n, functions), float32
        What of the vector each row gets.
    exact : ndarray, shape (n,), bool
        Whether the table has the word as it is.
    keys : ndarray, shape (n,), uint64 or int64
        What the table knows them by: hashes, or numbers.
    """

    at: np.ndarray
    rows: np.ndarray
    shares: np.ndarray
    exact: np.ndarray
    keys: np.ndarray


class Claims:
    """Who comes first: two bits for each row of a table, whether it is taken at all, and whether by a word as it is.

    Parameters
    ----------
    rows : int
        Rows of the table; a byte holds them for four.

    Attributes
    ----------
    words, placed, shared, left_out, rows : int
        What was seen so far: words (or vectors), those that got a row, those whose rows were all taken, those that are no
        value of the table, and the rows given.
    """

    def __init__(self, rows: int) -> None:
        self._taken = np.zeros(-(-rows // 4), np.uint8)
        self.words = self.placed = self.shared = self.left_out = self.rows = 0

    def take(self, wanted: Wanted, words: int) -> np.ndarray:
        """Return which rows words of a block get, a mask of the shape of ``wanted.rows``; there were ``words`` in it."""
        won = np.empty(wanted.rows.shape, bool)
        self.rows += _take(wanted.rows, wanted.exact, self._taken, won)
        placed = int(won.any(1).sum())
        self.words += words
        self.placed += placed
        self.shared += len(won) - placed
        self.left_out += words - len(won)
        return won

    def told(self, numbers: bool) -> dict[str, int]:
        """Return what there is to tell, by sentences."""
        what = "vectors" if numbers else "words"
        return {
            f"{what} of the files": self.words,
            f"{what} placed": self.placed,
            f"{what} whose rows an earlier one had taken": self.shared,
            f"{what} that are no single value of the table": self.left_out,
            "rows given": self.rows,
        }


def steps_of_rows(
    name: str, table: TableConfig, encoder: Encoder, sources: Sequence[Source], tell: Tell
) -> Generator[Step, None, dict[str, int]]:
    """Yield what fills the rows that the words of files have; return what there is to tell. See ``placing.place``."""
    wanted_of, claims = rows_of(name, table, encoder), Claims(encoder.rows[0])
    for place in places(name, table, sources):
        fitted, source = fit(table, place, tell), place.source
        if source.ngrams is not None:
            yield from _compose(table, fitted, wanted_of, claims, tell)
            continue
        for block in source.blocks():
            wanted = (
                numbered(name, table, source, block.first, len(block.rows))
                if block.words is None
                else wanted_of(source, block.words)
            )
            won = claims.take(wanted, len(block.rows))
            at, function = np.nonzero(won)
            shares = wanted.shares[at, function]
            rows = wanted.rows[at, function]
            yield from fitted.puts(rows, block.rows[wanted.at[at]], None if (shares == 1).all() else shares)
            tell(source, block.first + len(block.rows))
    return claims.told(not any(source.has_words for source in sources))


def refuse_rows(name: str, table: TableConfig, encoder: Encoder, sources: Sequence[Source]) -> None:
    """Refuse what a table without words cannot take from files.

    Raises
    ------
    UserError
        The files are to lie side by side; fall-backs for words that there are none of; vectors without words for hashes; or
        values of the table that no file writes as words.
    """
    config, own = table.pretrained, f"tables.{name}.pretrained"
    if config.join is Join.concatenated and len(sources) > 1:
        raise UserError(
            f"{own}.join=concatenated needs words to go by, and the rows of table '{name}' stand for none: leave it out"
        )
    allowed = {Fallback.subwords, Fallback.case} if isinstance(table, HashedTable) else {Fallback.subwords}
    for fallback in config.fallback:
        if fallback not in allowed:
            raise UserError(
                f"{own}.fallback={fallback.value} is for words that a file does not have, and table '{name}' does not know its words: "
                "leave it out"
            )
    if isinstance(table, IdsTable):
        return
    for source in sources:
        if not source.has_words:
            raise UserError(
                f"{source.path} holds vectors without words, and table '{name}' finds its rows by them: name their file with "
                f"{own}.word_list, one word a line"
            )
        if source.ngrams is not None and config.normalise and table.functions > 1:  # type: ignore[attr-defined]
            raise UserError(
                f"table '{name}' adds several rows up, of which vectors composed of the n-grams of {source.path} cannot be scaled: leave "
                f"out {own}.normalise, or set tables.{name}.functions=1"
            )
    if encoder.learned["values"] not in (TEXTS, NUMBERS):
        raise UserError(
            f"table '{name}' is made for combinations of values, which no file of vectors has words for: leave out {own}.path"
        )


def rows_of(name: str, table: TableConfig, encoder: Encoder) -> Callable[[Source, pa.Array], Wanted]:
    """Return what says which rows words of a source have."""
    if isinstance(table, IdsTable):
        return lambda source, words: _ids(name, table, source, words)
    assert isinstance(encoder, HashedEncoder)
    inexact = Fallback.case in table.pretrained.fallback
    return lambda source, words: _hashed(encoder, words, inexact)


def _ids(name: str, table: IdsTable, source: Source, words: pa.Array) -> Wanted:
    """Return the rows that words are the numbers of.

    Raises
    ------
    UserError
        A word is no number of a row.
    """
    at, numbers = numbers_in(words)
    inside = (numbers >= 0) & (numbers < table.rows)
    if len(at) < len(words) or not inside.all():
        wrong = np.ones(len(words), bool)
        wrong[at[inside]] = False
        word = words[int(wrong.argmax())].as_py()[:60]
        raise UserError(
            f"{source.path} has a vector for {word.decode('utf-8', 'replace')!r}, which is no row of table '{name}', whose rows are the "
            f"numbers 0 to {table.rows - 1}: give a file whose words are such numbers, or a larger tables.{name}.rows"
        )
    return _plain(at, numbers)


def numbered(name: str, table: TableConfig, source: Source, first: int, count: int) -> Wanted:
    """Return rows for vectors without words: as they are counted.

    Raises
    ------
    UserError
        There are more than rows.
    """
    assert isinstance(table, IdsTable)
    if first + count > table.rows:
        raise UserError(
            f"{source.path} has {'more than ' if source.count is None else ''}{source.count or first + count - 1:,} vectors, and table "
            f"'{name}' {table.rows:,} rows: set tables.{name}.rows to at least as many"
        )
    return _plain(np.arange(count), np.arange(first, first + count))


def _plain(at: np.ndarray, rows: np.ndarray) -> Wanted:
    return Wanted(at, rows[:, None], np.ones((len(at), 1), np.float32), np.ones(len(at), bool), rows)


def _hashed(encoder: HashedEncoder, words: pa.Array, inexact: bool) -> Wanted:
    """Return the rows that words are hashed to; of those that are one token, and unless ``inexact`` stay as they are."""
    if encoder.learned["values"] == NUMBERS:
        at, numbers = numbers_in(words)
        hashes, exact = hash_numbers(numbers, encoder.salt), np.ones(len(at), bool)
    else:
        at = np.flatnonzero(valid_utf8(words))
        valid = words.take(pa.array(at)).cast(pa.string())
        spans = encoder.open(valid, "word").spans(np.arange(len(valid)))
        tokens = hash_values(spans, encoder.tokenizer, encoder.salt)
        single = np.flatnonzero(tokens.lengths == 1)
        hashes = tokens.take(single).values
        exact = hashes == hashes_of(valid, encoder.salt)[single]
        at = at[single]
        if not inexact:
            at, hashes, exact = at[exact], hashes[exact], exact[exact]
    encoded = encoder.encode_hashes(Ragged(hashes, np.arange(len(hashes) + 1)), np.int64)
    functions = encoder.config.functions
    rows = encoded.parts[0].rows.values.reshape(-1, functions)
    shares = np.full(rows.shape, 1 / functions, np.float32)
    if encoded.signs is not None:
        shares *= encoded.signs.values.reshape(rows.shape)
    return Wanted(at, rows, shares, exact, hashes)


def _compose(
    table: TableConfig, fitted: Fitted, wanted_of: Callable[[Source, pa.Array], Wanted], claims: Claims, tell: Tell
) -> Iterator[Step]:
    """Yield what composes the words of a file with n-grams in the rows that they get."""
    source = fitted.place.source
    words = source.dictionary
    assert words is not None and source.count is not None
    found: list[list[Any]] = [[], [], []]
    for start in range(0, len(words), _AT_ONCE):
        block = words.slice(start, _AT_ONCE)
        wanted = wanted_of(source, block)
        at, function = np.nonzero(claims.take(wanted, len(block)))
        for each, new in zip(
            found, (start + wanted.at[at], wanted.rows[at, function], wanted.shares[at, function]), strict=True
        ):
            each.append(new)
    if not found[0]:
        return
    at, rows, shares = (np.concatenate(each) for each in found)
    # A row that changed hands is the last one's alone.
    last = len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]
    at, rows, shares = at[last], rows[last], shares[last]
    for some in slices(len(rows), 2):
        yield zeros(rows[some], 0, table.dim)
    for add in sums(source, words.take(pa.array(at)), rows, shares):
        yield replace(add, vectors=fitted.mapped(add.vectors))
        tell(source, source.count)
    if fitted.normalise:
        for some in slices(len(rows), 2):
            yield Normalise(rows[some], 0, table.dim)


def numbers_in(words: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return which words are whole numbers of 64 bits in decimal, and these, int64; those of 2**63 and more by their bits."""
    at = np.flatnonzero(valid_utf8(words))
    texts = words.take(pa.array(at)).cast(pa.string())
    most = pc.if_else(pc.starts_with(texts, "-"), "-9223372036854775808", "18446744073709551615")
    fits = pc.or_(pc.less(pc.binary_length(texts), 20), pc.less_equal(texts, most))
    right = pc.indices_nonzero(pc.and_(pc.match_substring_regex(texts, _NUMBER), fits))
    return at[right.to_numpy()], numbers_of(texts.take(right))


@numba.njit(nogil=True, cache=True)
def _take(rows: np.ndarray, exact: np.ndarray, taken: np.ndarray, won: np.ndarray) -> int:
    """Write who gets which row, and mark it as taken (bit 1), by a word as it is (bit 2); return how many were not before."""
    given = 0
    for i in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            place, shift = rows[i, k] >> 2, np.uint8(2 * (rows[i, k] & 3))
            state = (taken[place] >> shift) & 3
            won[i, k] = state == 0 or (exact[i] and state == 1)
            if won[i, k]:
                given += state == 0
                taken[place] |= np.uint8((3 if exact[i] else 1) << shift)
    return given
