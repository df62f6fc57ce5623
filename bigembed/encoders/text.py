"""Columns of texts, and the one compiled state machine that cuts them into tokens.

A token is the 64-bit hash of its normalised bytes and the span it came from; its bytes are written out (``spell``) only
where somebody reads them.

How ``words`` cuts, by the class of each code point (``make_unicode_table`` assigns them):

- a word is a run of letters, numbers and connectors (``_``);
- a symbol (punctuation, signs, emoji) is a token of its own, and so is a Han ideograph;
- what extends (marks, joiners, variation selectors) continues whatever token is open and opens a word where none is;
- an apostrophe (``'``, and ``’``, which becomes one) inside a word belongs to it, elsewhere it is a symbol;
- white space and control characters separate; invisible formatting (soft hyphen, byte order mark …) is dropped.

A byte that is not UTF-8 counts as the symbol U+FFFD.
"""

import ctypes
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import Tokens
from bigembed.encoders.columns import (
    BYTES,
    ArrowColumn,
    Layout,
    Spans,
    address,
    int32_of,
    refuse_nulls,
    uint8_at,
    uint8_of,
)
from bigembed.encoders.lists import null_rows
from bigembed.errors import UserError
from bigembed.hashing import BASIS, feed, hash_bytes

TABLE = Path(__file__).with_name("unicode.npz")

SEPARATOR, WORD, SYMBOL, SINGLE, EXTEND, APOSTROPHE, IGNORED = range(7)
# An entry of the table: the class, whether it is white space, then (shifted) the distance to the lower-case code point.
CLASS, SPACE, SHIFT = 7, 8, 4
INVALID = 0x110000  # INVALID + byte stands for a byte that is not UTF-8: a page of the table after the last code point
DOTTED_I = INVALID + 0x130  # what U+0130 becomes, in place of the two code points that it is in lower case

_NONE = 0  # no token is open (SEPARATOR's number, which no token can have)
_STOP = 1  # in the fast table: an ASCII separator; greater: the byte that a word character becomes; 0: look closer


class TextColumn(ArrowColumn):
    """A column of texts; see ``Column``.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of string, binary, their large and view forms, or a dictionary of these.
    name : str
        What messages call the column.

    Raises
    ------
    UserError
        The column is of another type, or rows have no text.
    """

    what = "texts"
    dtype = BYTES

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "text") -> None:
        super().__init__(array, name)

    def contents(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        """Yield the lengths (int64, bytes) and the contents of all texts in order, some texts at a time."""
        for spans in self.blocks():
            yield spans.sizes, memory_of(spans)

    def _check(self) -> None:
        if not is_text(self._array.type):
            raise UserError(f"column '{self.name}' holds {self._array.type}, not texts: name a column of strings")
        nulls = [null_rows(chunk) for chunk in self._parts]
        refuse_nulls(self.name, self._parts, nulls, "no text", "fill them, for example with empty texts")

    def _layout(self, chunk: pa.Array, buffers: list[int]) -> Layout:
        code_width = codes = 0
        if pa.types.is_dictionary(chunk.type):
            code_width = chunk.type.index_type.bit_width // 8
            codes = address(chunk.indices.buffers()[1]) + code_width * chunk.indices.offset
            chunk = chunk.dictionary
        parts = chunk.buffers()
        if chunk.type in (pa.string_view(), pa.binary_view()):
            first = len(buffers)
            buffers.extend(address(part) for part in parts[2:])
            return Layout(0, address(parts[1]) + 16 * chunk.offset, first, 1, code_width, codes)
        width = 8 if chunk.type in (pa.large_string(), pa.large_binary()) else 4
        return Layout(width, address(parts[1]) + width * chunk.offset, address(parts[2]), 1, code_width, codes)


_TEXT_TYPES = (
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a ``TextColumn`` may be of a type; nulls are refused by their number."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in _TEXT_TYPES or pa.types.is_null(kind)


def memory_of(spans: Spans) -> list[Any]:
    """Return the bytes of all texts in order as buffers, without a copy."""
    if not len(spans.begin):
        return []
    cuts = np.flatnonzero(spans.begin[1:] != spans.end[:-1]) + 1  # texts mostly lie side by side
    begins, ends = spans.begin[np.append(0, cuts)], spans.end[np.append(cuts - 1, -1)]
    return [
        (ctypes.c_char * (end - begin)).from_address(begin)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]


class Rules(NamedTuple):
    """What the state machine goes by, as addresses of tables: numba would count references to arrays for each token.

    Attributes
    ----------
    fast : int
        Of 256 uint8, by byte: what an ASCII word character becomes, 1 for a separator, 0 for what needs a closer look.
    page_of : int
        Of 0x1101 uint8: the page of each 256 code points; the last is for bytes that are not UTF-8.
    pages : int
        Of 256 int32 for each page: class of each code point, and the way from it to what it becomes.
    """

    fast: int
    page_of: int
    pages: int


@cache
def unicode_table() -> tuple[np.ndarray, np.ndarray, str]:
    """Return ``page_of``, ``pages`` and the version of Unicode that they are made from."""
    with np.load(TABLE) as table:
        return table["page_of"], table["pages"], str(table["unicode"])


@cache  # which also keeps the tables in memory
def _tables(tokens: Tokens, lower: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tables whose addresses are the ``Rules``."""
    page_of, pages, _ = unicode_table()
    classes, space, change = pages & CLASS, (pages & SPACE) != 0, pages >> SHIFT
    invalid = pages[page_of[-1]] >> SHIFT
    if tokens is Tokens.words:
        pages = classes
    elif tokens is Tokens.whitespace:
        pages = np.where(space, SEPARATOR, WORD)
    else:
        pages = np.full_like(pages, WORD)  # the whole text is one; or the matches are, which are lower case already
        lower = lower and tokens is Tokens.whole
    # The bytes that are not UTF-8 become U+FFFD also where nothing is lower-cased.
    change = change if lower else np.zeros_like(change)
    change[page_of[-1]] = invalid
    pages = (pages | change << SHIFT).astype(np.int32)
    if tokens is Tokens.regex:
        pages[page_of[-1], _BETWEEN[0]] = SEPARATOR
    ascii_page = pages[page_of[0], :128]
    becomes = np.arange(128) + (ascii_page >> SHIFT)
    fast = np.zeros(256, np.uint8)
    fast[:128] = np.where(ascii_page & CLASS == SEPARATOR, _STOP, np.where(ascii_page & CLASS == WORD, becomes, 0))
    fast[: _STOP + 1] = 0  # as words, these two bytes would look like marks of the table
    return fast, np.ascontiguousarray(page_of, np.uint8), np.ascontiguousarray(pages)


# Between the matches of a regular expression: a byte that is in no UTF-8.
_BETWEEN = b"\xff"


class Tokenizer:
    """Cuts texts into tokens.

    Parameters
    ----------
    tokens : Tokens
        How.
    pattern : str or None
        The regular expression for ``Tokens.regex``: its matches, as a whole, are the tokens; empty ones are dropped.
    lower : bool or None
        Whether everything is lower-cased first, code point by code point; None: where texts are cut.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    """

    def __init__(self, tokens: Tokens = Tokens.words, pattern: str | None = None, lower: bool | None = None) -> None:
        if (tokens is Tokens.regex) != (pattern is not None):
            raise UserError("pattern is for tokens=regex, and tokens=regex needs one: give both or neither")
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise UserError(f"pattern {pattern!r} is not a regular expression of Python's: {error}") from None
        self.asked = lower
        lower = tokens is not Tokens.whole if lower is None else lower
        self.lower, self.whole = lower, tokens is Tokens.whole
        self.rules = Rules(*(table.ctypes.data for table in _tables(tokens, lower)))
        # Regular expressions go by Python's own Unicode, and texts taken as they are by none.
        ours = pattern is None and (lower or not self.whole)
        version = unicode_table()[2] if ours else None
        self.settings = {"tokens": tokens.name, "pattern": pattern, "lower": lower, "unicode": version}

    def prepare(self, spans: Spans) -> Spans:
        """Return the texts as the state machine reads them with ``rules``."""
        if self._pattern is None:
            return spans
        texts = [_BETWEEN.join(self._matches(text)) for text in spans.texts()]
        ends = np.cumsum([0] + [len(text) for text in texts], dtype=np.int64)
        memory = np.frombuffer(b"".join(texts), np.uint8)
        ends += memory.ctypes.data
        return replace(spans, begin=ends[:-1], end=ends[1:], owner=memory)

    def _matches(self, text: str) -> Iterator[bytes]:
        assert self._pattern is not None
        if self.lower:
            # What Python makes of a capital sigma depends on its place.
            text = text.replace("\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}").lower()
        if self._pattern.groups:
            return (match[0].encode() for match in self._pattern.finditer(text))
        return (match.encode() for match in self._pattern.findall(text))


def tokenize(text: str, tokens: str = "words", pattern: str | None = None, lower: bool | None = None) -> list[str]:
    """Return the tokens of one text, cut by the same code as those of a training run.

    Parameters
    ----------
    text : str
        What to cut.
    tokens : str
        ``words``, ``whitespace``, ``regex`` or ``whole``.
    pattern : str, optional
        The regular expression, for ``regex``.
    lower : bool, optional
        Whether to lower-case; by default where texts are cut.

    Returns
    -------
    list of str

    Raises
    ------
    UserError
        ``pattern`` does not go with ``tokens`` or is no regular expression.
    """
    tokenizer = Tokenizer(Tokens[tokens], pattern, lower)
    spans = tokenizer.prepare(TextColumn(pa.array([text], pa.large_string())).spans(np.zeros(1, np.int64)))
    out, ends = np.empty(3 * spans.size, np.uint8), np.empty(spans.size, np.int64)
    count = _spell_all(spans.begin[0], spans.end[0], tokenizer.rules, out, ends)
    starts = [0, *ends[:count].tolist()]
    return [out[a:b].tobytes().decode() for a, b in pairwise(starts)]


def hash_words(words: pa.StringArray) -> np.ndarray:
    """Return the hash of each word (shape (words,), uint64), the same as that of a token of these bytes."""
    _, offsets, letters = words.buffers()
    bounds = np.zeros(1, np.int32) if offsets is None else np.frombuffer(offsets, np.int32)
    values = np.empty(0, np.uint8) if letters is None else np.frombuffer(letters, np.uint8)
    return hash_bytes(values, bounds[words.offset : words.offset + len(words) + 1])


@numba.njit(nogil=True, cache=True)
def _decode(at: int, end: int) -> tuple[int, int]:
    """Return the code point at an address before ``end``, INVALID + byte where there is none, and its bytes."""
    first = uint8_at(at)
    if first < 0x80:
        return first, 1
    size, code, least = 1, 0, 0
    if 0xC2 <= first < 0xE0:
        size, code, least = 2, first & 0x1F, 0x80
    elif 0xE0 <= first < 0xF0:
        size, code, least = 3, first & 0x0F, 0x800
    elif 0xF0 <= first < 0xF5:
        size, code, least = 4, first & 0x07, 0x10000
    if size == 1 or at + size > end:
        return INVALID + first, 1
    for i in range(1, size):
        byte = uint8_at(at + i)
        if byte & 0xC0 != 0x80:
            return INVALID + first, 1
        code = code << 6 | byte & 0x3F
    if code < least or code >= INVALID or 0xD800 <= code < 0xE000:
        return INVALID + first, 1
    return code, size


@numba.njit(nogil=True, cache=True)
def _read(at: int, end: int, rules: Rules) -> tuple[int, int, int]:
    """Return class, what it becomes, and bytes of the code point at an address before ``end``."""
    code, size = _decode(at, end)
    entry = int32_of(rules.pages, uint8_of(rules.page_of, code >> 8) << 8 | code & 0xFF)
    return entry & CLASS, code + (entry >> SHIFT), size


@numba.njit(nogil=True, cache=True)
def _utf8(code: int) -> tuple[int, int]:
    """Return the UTF-8 bytes of a code point, the first in the lowest byte, and how many they are."""
    if code < 0x80:
        return code, 1
    if code < 0x800:
        return 0x80C0 | code >> 6 | (code & 0x3F) << 8, 2
    if code == DOTTED_I:
        return 0x87CC69, 3  # i and U+0307
    if code < 0x10000:
        return 0x8080E0 | code >> 12 | (code >> 6 & 0x3F) << 8 | (code & 0x3F) << 16, 3
    return 0x808080F0 | code >> 18 | (code >> 12 & 0x3F) << 8 | (code >> 6 & 0x3F) << 16 | (code & 0x3F) << 24, 4


@numba.njit(nogil=True, cache=True)
def _word_follows(at: int, end: int, rules: Rules) -> bool:
    """Return whether the next code point that counts belongs to a word."""
    while at < end:
        which, _, size = _read(at, end, rules)
        if which != IGNORED:
            return which == WORD
        at += size
    return False


@numba.njit(nogil=True, cache=True)
def next_token(at: int, end: int, rules: Rules) -> tuple[int, int, np.uint64]:
    """Return the next token from an address on: where it begins, where to go on, and the state of its hash.

    It begins at ``end`` if there is none.
    """
    fast = rules.fast
    while at < end and uint8_of(fast, uint8_at(at)) == _STOP:
        at += 1
    begin, state, kind = at, BASIS, _NONE
    while at < end:
        if kind <= WORD:
            byte = uint8_of(fast, uint8_at(at))
            if byte > _STOP:
                if kind == _NONE:
                    begin, kind = at, WORD
                while byte > _STOP:
                    state = feed(state, np.uint64(byte))
                    at += 1
                    if at == end:
                        return begin, at, state
                    byte = uint8_of(fast, uint8_at(at))
            if byte == _STOP and kind == WORD:
                return begin, at, state
        which, code, size = _read(at, end, rules)
        if which == APOSTROPHE:
            code = 0x27
            which = WORD if kind == WORD and _word_follows(at + size, end, rules) else SYMBOL
        if which == IGNORED or (which == SEPARATOR and kind == _NONE):
            at += size
            continue
        if which == EXTEND:
            which = kind if kind != _NONE else WORD
        elif kind != _NONE and (which != WORD or kind != WORD):
            return begin, at, state
        if kind == _NONE:
            begin, kind = at, which
        encoded, count = _utf8(code)
        for _ in range(count):
            state = feed(state, np.uint64(encoded & 0xFF))
            encoded >>= 8
        at += size
    return (end if kind == _NONE else begin), at, state


@numba.njit(nogil=True, cache=True)
def whole_text(at: int, end: int, rules: Rules) -> np.uint64:
    """Return the state of the hash of a text taken whole; the same as ``next_token`` gives, faster."""
    fast, state = rules.fast, BASIS
    while at < end:
        byte = uint8_of(fast, uint8_at(at))
        if byte > _STOP:
            state = feed(state, np.uint64(byte))
            at += 1
            continue
        _, code, size = _read(at, end, rules)
        encoded, count = _utf8(code)
        for _ in range(count):
            state = feed(state, np.uint64(encoded & 0xFF))
            encoded >>= 8
        at += size
    return state


@numba.njit(nogil=True, cache=True)
def spell(at: int, end: int, rules: Rules, out: np.ndarray, used: int) -> int:
    """Write the normalised bytes of the token between two addresses to ``out`` from ``used`` on; return where they end.

    They are at most three times the bytes that were read.
    """
    while at < end:
        which, code, size = _read(at, end, rules)
        at += size
        if which == IGNORED:
            continue
        encoded, count = _utf8(0x27 if which == APOSTROPHE else code)
        for _ in range(count):
            out[used] = encoded & 0xFF
            encoded >>= 8
            used += 1
    return used


@numba.njit(nogil=True, cache=True)
def _spell_all(at: int, end: int, rules: Rules, out: np.ndarray, ends: np.ndarray) -> int:
    """Write all tokens of a text to ``out``, one after the other, and where each ends; return how many they are."""
    count = used = 0
    while True:
        begin, at, _ = next_token(at, end, rules)
        if begin == end:
            return count
        used = spell(begin, at, rules, out, used)
        ends[count] = used
        count += 1
