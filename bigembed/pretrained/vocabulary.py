"""Which words have rows of their own: the data's, those of files of vectors, those in both, or in either."""

from dataclasses import replace

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import Fallback, SubwordTable, VocabTable, Vocabulary
from bigembed.encoders.slots import empty_slots, move, slot_of
from bigembed.encoders.text import TextColumn, Tokenizer
from bigembed.encoders.values import TEXTS, hash_values, hashes_of
from bigembed.encoders.vocab import choose_words
from bigembed.errors import UserError
from bigembed.pretrained import matching
from bigembed.pretrained.by_rows import numbers_in
from bigembed.pretrained.sources import open_sources, read_words
from bigembed.report import say

FORMS = (Fallback.case, Fallback.unicode, Fallback.digits, Fallback.lemma)  # by which a file may know a word as well
MOST_BYTES = 1 << 31  # of words: their places in Arrow's text arrays have 32 bits


def choose(
    name: str, config: VocabTable | SubwordTable, values: str, words: pa.LargeStringArray, counts: np.ndarray
) -> tuple[pa.StringArray, np.ndarray]:
    """Return the words that have rows, and how often the data has them, as ``pretrained.vocabulary`` says.

    Those of the data are in the order of ``choose_words``. Those of the files are in the order of the files, each once, and
    only those that the table leaves as they are, as one token: no others can ever be looked up. ``max_size`` bounds them
    all; ``min_count`` counts for those of the data alone.

    Parameters
    ----------
    name : str
        The table.
    config : VocabTable or SubwordTable
        Its options.
    values : str
        What the table is looked up by: ``encoders.values.TEXTS`` or ``NUMBERS``.
    words : pa.LargeStringArray, shape (different words,)
        Those of the data.
    counts : ndarray, shape (different words,), int64
        How often it has them.

    Returns
    -------
    words : pa.StringArray, shape (rows,)
    counts : ndarray, shape (rows,), int64
        0 for those that the data does not have.

    Raises
    ------
    UserError
        None is left, they are too many to be kept, or a file cannot be read.
    """
    which = config.pretrained.vocabulary
    if config.pretrained.path is None or which is Vocabulary.data:
        return choose_words(name, config, words, counts)
    if which is Vocabulary.intersection:
        return _in_both(name, config, words, counts)
    own = pa.array([], pa.large_string())
    if which is Vocabulary.union and len(counts) and counts.max() >= config.min_count:
        own = choose_words(name, config, words, counts)[0].cast(pa.large_string())
    found = _of_files(name, config, values)
    others = found.filter(pc.invert(pc.is_in(found, value_set=own)))
    chosen = pa.concat_arrays([own, others]).slice(0, config.max_size)
    size = pc.sum(pc.binary_length(chosen)).as_py()
    if size >= MOST_BYTES:
        raise UserError(
            f"the words of table '{name}' take {size:,} bytes, more than 2 GiB: bound their number with tables.{name}.max_size"
        )
    return chosen.cast(pa.string()), counts_of(chosen, words, counts)


def counts_of(some: pa.Array, words: pa.LargeStringArray, counts: np.ndarray) -> np.ndarray:
    """Return how often each of ``some`` words was counted (int64), 0 for those that were not."""
    places = pc.index_in(some.cast(pa.large_string()), value_set=words)
    return pc.fill_null(pc.take(pa.array(counts, pa.int64()), places), 0).to_numpy()


def _in_both(
    name: str, config: VocabTable | SubwordTable, words: pa.LargeStringArray, counts: np.ndarray
) -> tuple[pa.StringArray, np.ndarray]:
    """Return the words of the data that a file knows, too, as they are or in another form that a fall-back allows."""
    pretrained = config.pretrained
    chosen, times = choose_words(name, replace(config, max_size=None), words, counts)
    forms = [each for each in pretrained.fallback if each in FORMS]
    matcher = matching.Matcher(chosen, forms, pretrained.lemmas)
    for source in open_sources(name, config):
        for block in read_words(name, source):
            matcher.look(block)
    known = matcher.ways < len(matcher.names) - 1
    if not known.any():
        raise UserError(
            f"the vocabulary of table '{name}' would be empty, as none of the {len(chosen):,} words of the data is in "
            f"{pretrained.path}; name another file, or see what tables.{name}.lower and tables.{name}.pretrained.fallback do"
        )
    return chosen.filter(pa.array(known)).slice(0, config.max_size), times[known][: config.max_size]


def _of_files(name: str, config: VocabTable | SubwordTable, values: str) -> pa.LargeStringArray:
    """Return the words of the files that can be looked up, each once, as many as there may be rows."""
    tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
    found, slots = [pa.array([], pa.binary())], empty_slots(1 << 14)
    read = known = usable = 0
    for source in open_sources(name, config):
        for block in read_words(name, source):
            if config.max_size is not None and known >= config.max_size:
                break
            kept = block.take(pa.array(_stays(block, tokenizer) if values == TEXTS else numbers_in(block)[0]))
            fresh = np.empty(len(kept), bool)
            slots = _roomy(slots, known + len(kept))
            known += _note(hashes_of(kept.cast(pa.string()), values), slots, fresh)
            found.append(kept.filter(pa.array(fresh)))
            read, usable = read + len(block), usable + len(kept)
    why = "the table does not leave as one token each" if values == TEXTS else "are no whole numbers"
    if not known:
        raise UserError(
            f"the vocabulary of table '{name}' would be empty, as all {read:,} words of {config.pretrained.path} {why}; "
            f"{_remedy(name, values)}"
        )
    if usable < read:
        say(f"table {name}: {read - usable:,} of {read:,} words of the files are left out, which {why}")
    return pa.concat_arrays([block.cast(pa.large_binary()) for block in found]).cast(pa.large_string())


def _remedy(name: str, values: str) -> str:
    if values == TEXTS:
        return f"see tables.{name}.tokens and tables.{name}.lower, or name another file"
    return "the table is looked up by numbers: name another file"


def _stays(words: pa.BinaryArray, tokenizer: Tokenizer) -> np.ndarray:
    """Return the words (int64) that are, as texts of their own, one token of the same bytes, which then are UTF-8."""
    hashed = hash_values(TextColumn(words).spans(np.arange(len(words))), tokenizer)
    single = np.flatnonzero(hashed.lengths == 1)
    return single[hashed.take(single).values == matching.hashes_of(words)[single]]


def _roomy(slots: np.ndarray, words: int) -> np.ndarray:
    """Return a hash table with room for so many words, with what is in this one."""
    larger = empty_slots(words)
    if len(larger) <= len(slots):
        return slots
    larger = empty_slots(2 * words)
    move(slots, larger)
    return larger


@numba.njit(nogil=True, cache=True)
def _note(hashes: np.ndarray, slots: np.ndarray, fresh: np.ndarray) -> int:
    """Put hashes into a hash table, write which of them were not there, and return how many."""
    count = 0
    for i in range(len(hashes)):
        at = slot_of(slots, hashes[i])
        fresh[i] = slots[at, 0] == 0
        slots[at, 0] = hashes[i]
        count += fresh[i]
    return count
