"""Which words of files of vectors are those of a table: as they are, or in another form, whichever is best."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import Fallback
from bigembed.encoders.slots import empty_slots, slot_of
from bigembed.hashing import hash_bytes
from bigembed.pretrained.forms import other_forms, read_lemmas

EXACT, MISSING = "exact", "missing"


class _Index(NamedTuple):
    """The forms that are wanted, found by their hashes.

    Attributes
    ----------
    slots : ndarray, shape (slots, 2), uint64
        Hash of a form and 1 + the first of its entries.
    targets : ndarray, shape (entries,), int32
        The word that wants the form.
    ways : ndarray, shape (entries,), uint8
        In which way it is a form of this word.
    following : ndarray, shape (entries,), int32
        The next entry of the same form; -1 after the last.
    """

    slots: np.ndarray
    targets: np.ndarray
    ways: np.ndarray
    following: np.ndarray


class Matcher:
    """Finds words in files, one block after another, and remembers how well each has been found.

    The level of what is found is its way first, the file second: the word as it is, in whichever file, goes before another
    form of it in the first file. Of the same level, what comes first in the file stays.

    Parameters
    ----------
    words : pa.StringArray or pa.LargeStringArray, shape (words,)
        Those of the table.
    fallback : sequence of Fallback
        The ways that words may be found in besides ``exact``, the best first; those that are no matter of matching count in
        the order alone.
    lemmas : str, optional
        File of lines 'word lemma', for ``Fallback.lemma``.
    files : int
        How many files there are.

    Attributes
    ----------
    names : tuple of str
        The ways by number: exact, the fall-backs, missing.
    levels : ndarray, shape (words,), int32
        How each word was found: way × files + file.

    Raises
    ------
    UserError
        The file of lemmas cannot be read, or a line of it is none.
    """

    def __init__(
        self, words: pa.Array, fallback: Sequence[Fallback] = (), lemmas: str | None = None, files: int = 1
    ) -> None:
        self.names = (EXACT, *(each.value for each in fallback), MISSING)
        self.files = files
        self.levels = np.full(len(words), (len(self.names) - 1) * files, np.int32)
        self._index = _make_index(words, fallback, lemmas)

    def fresh(self) -> "Matcher":
        """Return one of the same words and forms, for one file, that has found nothing yet."""
        other = object.__new__(Matcher)
        other.names, other.files, other._index = self.names, 1, self._index
        other.levels = np.full(len(self.levels), len(self.names) - 1, np.int32)
        return other

    def look(self, words: pa.Array, file: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return where words of a file are better than what there was.

        Parameters
        ----------
        words : pa.BinaryArray or pa.StringArray, shape (n,)
            The next words of the file.
        file : int
            Its number.

        Returns
        -------
        targets : ndarray, shape (found,), int64
            Words of the table; where one is there twice, the last is the best.
        places : ndarray, shape (found,), int64
            For each, the place in ``words``.
        """
        index, first = self._index, np.empty(len(words), np.int32)
        room = _find(hashes_of(words), index.slots, index.following, first)
        targets, places = np.empty((2, room), np.int64)
        found = _improve(
            first, index.targets, index.ways, index.following, self.files, file, self.levels, targets, places
        )
        return targets[:found], places[:found]

    def claim(self, targets: np.ndarray, way: str, file: int = 0) -> np.ndarray:
        """Say that words (int64) can be had in a way other than matching; return those that have no better one."""
        level = self.way(way) * self.files + file
        better = targets[self.levels[targets] > level]
        self.levels[better] = level
        return better

    def way(self, name: str) -> int:
        """Return the number of a way; that of ``missing`` for one that is not asked for."""
        return self.names.index(name if name in self.names else MISSING)

    @property
    def ways(self) -> np.ndarray:
        """The way in which each word was found, an index into ``names``: shape (words,), uint8."""
        return (self.levels // self.files).astype(np.uint8)

    def is_missing(self) -> np.ndarray:
        """Return which words were found in no way, shape (words,), bool."""
        return self.levels >= self.way(MISSING) * self.files

    def found(self) -> np.ndarray:
        """Return the words that were found in some way, int64."""
        return np.flatnonzero(~self.is_missing())

    def worse_than(self, way: str, file: int = 0) -> np.ndarray:
        """Return the words that were found in no way as good as this one, int64."""
        return np.flatnonzero(self.levels > self.way(way) * self.files + file)

    def of_file(self, file: int) -> np.ndarray:
        """Return the words that were found best in one of the files, int64."""
        return np.flatnonzero(~self.is_missing() & (self.levels % self.files == file))


def hashes_of(words: pa.Array, salt: int = 0) -> np.ndarray:
    """Return the hash of each word's bytes, shape (words,), uint64, none of them 0."""
    width = np.int64 if pa.types.is_large_string(words.type) or pa.types.is_large_binary(words.type) else np.int32
    _, offsets, letters = words.buffers()
    if offsets is None or not len(words):
        return np.empty(0, np.uint64)
    bounds = np.frombuffer(offsets, width)[words.offset : words.offset + len(words) + 1]
    return hash_bytes(np.empty(0, np.uint8) if letters is None else np.frombuffer(letters, np.uint8), bounds, salt)


def _make_index(words: pa.Array, fallback: Sequence[Fallback], lemmas: str | None) -> _Index:
    targets, ways, hashes = (
        [np.arange(len(words), dtype=np.int32)],
        [np.zeros(len(words), np.uint8)],
        [hashes_of(words)],
    )
    for way, each in enumerate(fallback, 1):
        forms = _lemmas(words, lemmas) if each is Fallback.lemma else other_forms(words, each)
        for wanting, form in forms:
            targets.append(wanting.astype(np.int32))
            ways.append(np.full(len(wanting), way, np.uint8))
            hashes.append(hashes_of(form))
    all_targets, all_ways = np.concatenate(targets), np.concatenate(ways)
    index = _Index(empty_slots(len(all_targets)), all_targets, all_ways, np.full(len(all_targets), -1, np.int32))
    _fill(np.concatenate(hashes), index.slots, index.following)
    return index


def _lemmas(words: pa.Array, path: str | None) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield words and their lemmas; of a word that the file has twice, the first."""
    if path is None:
        return
    wanted = Matcher(words)
    for inflected, lemmas in read_lemmas(path):
        targets, places = wanted.look(inflected)
        other = hashes_of(inflected)[places] != hashes_of(lemmas)[places]
        yield targets[other], lemmas.take(pa.array(places[other]))


@numba.njit(nogil=True, cache=True)
def _fill(hashes: np.ndarray, slots: np.ndarray, following: np.ndarray) -> None:
    for i in range(len(hashes)):
        at = slot_of(slots, hashes[i])
        if slots[at, 0] != 0:
            following[i] = np.int32(slots[at, 1]) - 1
        slots[at, 0] = hashes[i]
        slots[at, 1] = i + 1


@numba.njit(nogil=True, cache=True)
def _find(hashes: np.ndarray, slots: np.ndarray, following: np.ndarray, first: np.ndarray) -> int:
    """Write the first entry of each form, or -1; return how many entries there are in all."""
    count = 0
    for i in range(len(hashes)):
        entry = np.int32(np.int64(slots[slot_of(slots, hashes[i]), 1]) - 1)
        first[i] = entry
        while entry >= 0:
            count += 1
            entry = following[entry]
    return count


@numba.njit(nogil=True, cache=True)
def _improve(
    first: np.ndarray,
    of_entry: np.ndarray,
    ways: np.ndarray,
    following: np.ndarray,
    files: int,
    file: int,
    levels: np.ndarray,
    targets: np.ndarray,
    places: np.ndarray,
) -> int:
    """Write which words are better served by which places, and their new levels; return how many these are."""
    used = 0
    for i in range(len(first)):
        entry = first[i]
        while entry >= 0:
            target, level = of_entry[entry], np.int32(np.int64(ways[entry]) * files + file)
            if level < levels[target]:
                levels[target] = level
                targets[used], places[used] = target, i
                used += 1
            entry = following[entry]
    return used
