"""What files of vectors would cover, told from their words alone: no vector is read, and nothing is filled."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from bigembed.config.schema import Fallback, Join, TableConfig
from bigembed.encoders import Encoder, HashedEncoder
from bigembed.encoders.values import NUMBERS, hash_numbers, numbers_of
from bigembed.pretrained.by_rows import Claims, Wanted, numbered, rows_of
from bigembed.pretrained.composing import composable
from bigembed.pretrained.coverage import TOP, Counted, Coverage, of_counted, of_words, paths_of
from bigembed.pretrained.matching import EXACT, MISSING, Matcher, hashes_of
from bigembed.pretrained.placing import copied_parts, place
from bigembed.pretrained.sources import BLOCK_WORDS, read_words
from bigembed.vectors import Source

EVERY_WORD = (Fallback.mean, Fallback.normal, Fallback.zeros)


def measure(
    name: str,
    table: TableConfig,
    encoder: Encoder,
    sources: Sequence[Source],
    counted: Counted | None = None,
    top: int = TOP,
) -> Coverage:
    """Return what files would cover of a table.

    Parameters
    ----------
    name, table, encoder : str, TableConfig, Encoder
        The table.
    sources : sequence of Source
        What it starts from.
    counted : (LargeStringArray, ndarray of int64), optional
        All words (or values) of the data and how often it has them; None: what the encoder counted.
    top : int
        How many missing words to name.

    Returns
    -------
    Coverage

    Raises
    ------
    UserError
        The files do not go together with the table, or cannot be read.
    """
    place(name, table, encoder, sources, seed=0)  # which refuses what training would refuse
    copied = copied_parts(table, encoder, sources)
    words = encoder.words()
    if words is not None:
        if copied is not None:
            return of_words(name, table, encoder, (EXACT,), np.zeros(len(words), np.uint8), counted, top)
        return of_words(name, table, encoder, *_ways_of_words(name, table, encoder, sources), counted, top)
    if copied is not None:
        rows = sum(len(part) for part in copied)
        return Coverage(name, paths_of(table), {}, {}, [], {"rows given": rows})
    known, counts = counted or (pa.array([], pa.large_string()), np.empty(0, np.int64))
    ways, told = _ways_of_values(name, table, encoder, sources, known)
    if not len(known):
        return Coverage(name, paths_of(table), {}, {}, [], told)
    return of_counted(name, table, (EXACT, Fallback.case.name, MISSING), ways, known, counts, top, told)


def _ways_of_words(
    name: str, table: TableConfig, encoder: Encoder, sources: Sequence[Source]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the ways, and for each word of the encoder the number of that in which the files know it (uint8)."""
    words, fallback = encoder.words(), table.pretrained.fallback
    assert words is not None
    matcher = Matcher(words, fallback, table.pretrained.lemmas)
    for source in sources:
        for block in read_words(name, source):
            matcher.look(block)
    if Fallback.subwords in fallback:
        having = [source for source in sources if source.ngrams is not None]
        for source in having if table.pretrained.join is Join.concatenated else having[:1]:
            wanted = matcher.worse_than(Fallback.subwords.name)
            can_be = composable(source, words.take(pa.array(wanted)).cast(pa.binary()))
            matcher.claim(wanted[can_be], Fallback.subwords.name)
    for each in [each for each in fallback if each in EVERY_WORD]:
        matcher.claim(matcher.worse_than(each.name), each.name)
    return matcher.names, matcher.ways


def _ways_of_values(
    name: str, table: TableConfig, encoder: Encoder, sources: Sequence[Source], known: pa.LargeStringArray
) -> tuple[np.ndarray, dict[str, int]]:
    """Return for values of the data whether files have them: 0 as they are, 1 in another case, 2 not (uint8); and what else to tell."""
    claims, ways = Claims(encoder.rows[0]), np.full(len(known), 2, np.uint8)
    keys = _keys_of(encoder, known)
    order = np.argsort(keys)
    keys = keys[order]
    for source in sources:
        for wanted, count in _wanted(name, table, encoder, source):
            claims.take(wanted, count)
            at = np.searchsorted(keys, wanted.keys)
            there = np.flatnonzero(at < len(keys))
            there = there[keys[at[there]] == wanted.keys[there]]
            np.minimum.at(ways, order[at[there]], np.where(wanted.exact[there], 0, 1).astype(np.uint8))
    return ways, claims.told(not any(source.has_words for source in sources))


def _wanted(name: str, table: TableConfig, encoder: Encoder, source: Source) -> Iterator[tuple[Wanted, int]]:
    """Yield the rows that the words of a file have, or its vectors without words, and how many there were, some at a time."""
    if source.has_words:
        wanted_of = rows_of(name, table, encoder)
        for words in read_words(name, source):
            yield wanted_of(source, words), len(words)
        return
    total = source.count if source.count is not None else sum(len(block.rows) for block in source.blocks())
    for first in range(0, total, BLOCK_WORDS):
        count = min(BLOCK_WORDS, total - first)
        yield numbered(name, table, source, first, count), count


def _keys_of(encoder: Encoder, known: pa.LargeStringArray) -> np.ndarray:
    """Return what the table knows values of the data by: their hashes (uint64), or where the data names rows their numbers (int64)."""
    if not isinstance(encoder, HashedEncoder):
        return numbers_of(known)
    if encoder.learned["values"] == NUMBERS:
        return hash_numbers(numbers_of(known), encoder.salt)
    return hashes_of(known, encoder.salt)
