"""Where a text may be cut so that its pieces are those of the parts, and a memory of the pieces of parts seen before.

Most tokenizers never let a piece reach over a single space between two words. For them a text is cut before every space
that has a visible ASCII character on either side, and only parts not seen before go to the library: the others are found
by their hashes.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from bigembed.encoders.columns import Spans, uint8_of
from bigembed.encoders.slots import empty_slots, move, slot_of
from bigembed.hashing import BASIS, feed, finish
from bigembed.ragged import Ragged

MOST_PARTS, MOST_IDS = 1 << 19, 1 << 22  # that are remembered, in about 40 MB

# What does not look past a space between two visible ASCII characters, by its name in tokenizer.json.
_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
_PLAIN = {"Digits", "Punctuation"}
_SEPARATORS = {"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"}


def can_be_cut(tokenizer: dict[str, Any]) -> bool:
    """Return whether the pieces of every text are those of its parts, from the contents of ``tokenizer.json``."""
    normalizers = _steps(tokenizer["normalizer"], "normalizers")
    steps = _steps(tokenizer["pre_tokenizer"], "pretokenizers")
    return (
        all(each["type"] in _NORMALIZERS or _replaces_no_space(each) for each in normalizers)
        and all(each["type"] in _PLAIN or _separates(each) for each in steps)
        and any(_separates(each) for each in steps)
        and not any(
            each["rstrip"] or not set(each["content"]).isdisjoint(" \t\n\r") for each in tokenizer["added_tokens"]
        )
    )


def _steps(node: dict[str, Any] | None, plural: str) -> list[dict[str, Any]]:
    if node is None:
        return []
    return [step for each in node[plural] for step in _steps(each, plural)] if node["type"] == "Sequence" else [node]


def _replaces_no_space(normalizer: dict[str, Any]) -> bool:
    pattern = normalizer.get("pattern", {})
    return normalizer["type"] == "Replace" and (
        pattern.get("Regex") == " {2,}"
        or (pattern.get("String", " ").isprintable() and " " not in pattern.get("String", " "))
    )


def _separates(step: dict[str, Any]) -> bool:
    """Whether a step of the pre-tokenizer ends every word at such a space; the last two can be told not to."""
    return step["type"] in _SEPARATORS and step.get("use_regex", True) and step.get("split", True)


class Parts:
    """Numbers for the parts of texts, in the order in which they are first seen.

    Attributes
    ----------
    known : int
        How many have been seen.
    """

    def __init__(self) -> None:
        self.known = 0
        self._slots = empty_slots(1 << 12)  # hash and number of each part

    def look_up(self, spans: Spans) -> tuple[Ragged, Spans]:
        """Return the numbers (int64) of the parts of texts, and the parts that were not known before, in their order."""
        offsets = np.zeros(len(spans) + 1, np.int64)
        _count_parts(spans.begin, spans.end, offsets)
        numbers, begin, end = (np.empty(offsets[-1], np.int64) for _ in range(3))
        before, row = self.known, 0
        while True:
            row, self.known = _look_up(
                *(spans.begin, spans.end, offsets, self._slots, row, self.known, numbers, begin, end, before)
            )
            if row == len(spans):
                new = slice(0, self.known - before)
                return Ragged(numbers, offsets), Spans(begin[new], end[new], spans.owner)
            larger = empty_slots(max(self.known + int(offsets[row + 1] - offsets[row]), 2 * self.known))
            move(self._slots, larger)
            self._slots = larger


class Memory:
    """The pieces of the parts of texts that were seen last; for one thread at a time.

    Parameters
    ----------
    encode : callable
        Returns the pieces (Ragged of int32) of texts (Spans).
    """

    def __init__(self, encode: Callable[[Spans], Ragged]) -> None:
        self._encode = encode
        self._forget()

    def encode(self, spans: Spans, dtype: Any) -> Ragged:
        """Return the pieces of texts, of ``dtype`` int64 or int32."""
        if self._parts.known > MOST_PARTS or self._ends[self._parts.known] > MOST_IDS:
            self._forget()
        before = self._parts.known
        numbers, new = self._parts.look_up(spans)
        if len(new):
            self._remember(before, self._encode(new))
        values, offsets = np.empty(_total(numbers.values, self._ends), dtype), np.zeros_like(numbers.offsets)
        _spell_out(numbers.values, numbers.offsets, self._ends, self._ids, values, offsets)
        return Ragged(values, offsets)

    def _forget(self) -> None:
        self._parts = Parts()
        self._ends = np.zeros(1 << 12, np.int64)  # part i has the pieces from ends[i] to ends[i + 1]
        self._ids = np.empty(1 << 12, np.int32)

    def _remember(self, before: int, pieces: Ragged) -> None:
        """Keep the pieces of the parts from number ``before`` on."""
        used, known = int(self._ends[before]), self._parts.known
        self._ends = _with_room(self._ends, known + 1)
        self._ids = _with_room(self._ids, used + len(pieces.values))
        self._ends[before : known + 1] = used + pieces.offsets
        self._ids[used : used + len(pieces.values)] = pieces.values


def _with_room(array: np.ndarray, size: int) -> np.ndarray:
    if size <= len(array):
        return array
    larger = np.empty(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True)
def _is_cut(begin: int, end: int, at: int) -> bool:
    """Whether a part begins at an address: a space between two visible ASCII characters."""
    if uint8_of(at, 0) != 0x20 or at == begin or at + 1 == end:
        return False
    return 0x20 < uint8_of(at, -1) < 0x7F and 0x20 < uint8_of(at, 1) < 0x7F


@numba.njit(nogil=True, cache=True)
def _count_parts(begin: np.ndarray, end: np.ndarray, offsets: np.ndarray) -> None:
    for row in range(len(begin)):
        count = 1 if begin[row] < end[row] else 0
        for at in range(begin[row], end[row]):
            count += _is_cut(begin[row], end[row], at)
        offsets[row + 1] = offsets[row] + count


@numba.njit(nogil=True, cache=True)
def _look_up(
    begin: np.ndarray,
    end: np.ndarray,
    offsets: np.ndarray,
    slots: np.ndarray,
    row: int,
    known: int,
    numbers: np.ndarray,
    new_begin: np.ndarray,
    new_end: np.ndarray,
    before: int,
) -> tuple[int, int]:
    """Give numbers to the parts of texts from ``row`` on, until ``slots`` may have no room; return where that is, and ``known``."""
    salt, room = np.uint64(0), 2 * len(slots) // 3
    while row < len(begin) and known + offsets[row + 1] - offsets[row] <= room:
        used, first, at = offsets[row], begin[row], begin[row]
        while first < end[row]:
            state = feed(BASIS, np.uint64(uint8_of(at, 0)))
            at += 1
            while at < end[row] and not _is_cut(begin[row], end[row], at):
                state = feed(state, np.uint64(uint8_of(at, 0)))
                at += 1
            hashed = finish(state, salt)
            slot = slot_of(slots, hashed)
            if slots[slot, 0] == 0:
                slots[slot, 0], slots[slot, 1] = hashed, known
                new_begin[known - before], new_end[known - before] = first, at
                known += 1
            numbers[used] = slots[slot, 1]
            used += 1
            first = at
        row += 1
    return row, known


@numba.njit(nogil=True, cache=True)
def _total(numbers: np.ndarray, ends: np.ndarray) -> int:
    total = 0
    for number in numbers:
        total += ends[number + 1] - ends[number]
    return total


@numba.njit(nogil=True, cache=True)
def _spell_out(
    numbers: np.ndarray, rows: np.ndarray, ends: np.ndarray, ids: np.ndarray, out: np.ndarray, offsets: np.ndarray
) -> None:
    """Write the pieces of each text, and where they end."""
    used = 0
    for row in range(len(rows) - 1):
        for i in range(rows[row], rows[row + 1]):
            for k in range(ends[numbers[i]], ends[numbers[i] + 1]):
                out[used] = ids[k]
                used += 1
        offsets[row + 1] = used
