"""Texts as they lie in Arrow's memory, and the one compiled state machine that cuts them into tokens.

A row is reached as a span, the addresses of its first byte and of the byte after its last, so that nothing is copied
and a memory-mapped column of thousands of chunks can be read in any order. A token is the 64-bit hash of its normalised
bytes and the span it came from; its bytes are written out (``spell``) only where somebody reads them.

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
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba.extending import intrinsic

from bigembed.config.schema import Tokens
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
_BLOCK_ROWS = 1 << 16
_BLOCK_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class Spans:
    """Texts by their addresses.

    Attributes
    ----------
    begin, end : ndarray, shape (rows,), int64
        Address of each text's first byte, and of the byte after its last.
    owner : object
        Keeps the memory alive.
    """

    begin: np.ndarray
    end: np.ndarray
    owner: Any

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.begin)

    def __getitem__(self, rows: slice) -> "Spans":
        """Return some of the texts."""
        return Spans(self.begin[rows], self.end[rows], self.owner)

    @property
    def size(self) -> int:
        """The bytes of all texts together."""
        return int((self.end - self.begin).sum())

    def texts(self) -> Iterator[str]:
        """Yield each text as a Python string; a byte that is not UTF-8 becomes U+FFFD."""
        for begin, end in zip(self.begin.tolist(), self.end.tolist(), strict=True):
            yield ctypes.string_at(begin, end - begin).decode(errors="replace")


class TextColumn:
    """A column of texts in Arrow's memory, whose rows can be reached in any order without a copy.

    Parameters
    ----------
    array : Array or ChunkedArray
        Of string, binary, their large and view forms, or a dictionary of these; sliced or memory-mapped as may be.
    name : str
        What messages call the column.

    Raises
    ------
    UserError
        The column is of another type, or rows have no text.
    """

    def __init__(self, array: pa.Array | pa.ChunkedArray, name: str = "text") -> None:
        self.name = name
        self._array = array  # keeps the buffers alive
        self._length = len(array)
        chunks = [chunk for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array]) if len(chunk)]
        self._check(array, chunks)
        self._starts = np.cumsum([0] + [len(chunk) for chunk in chunks], dtype=np.int64)
        buffers: list[int] = []
        self._chunks = np.array([_layout(chunk, buffers) for chunk in chunks], np.int64).reshape(-1, _FIELDS)
        self._buffers = np.array(buffers, np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def spans(self, index: np.ndarray) -> Spans:
        """Return the rows named by ``index`` (int64), in that order.

        Raises
        ------
        IndexError
            An entry of ``index`` is not a row of the column.
        """
        index = np.ascontiguousarray(index, np.int64)
        begin, end = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
        if not _locate(self._starts, self._chunks, self._buffers, index, begin, end):
            raise IndexError(f"rows {index.min()} to {index.max()} of column {self.name!r}, which has {len(self)}")
        return Spans(begin, end, self._array)

    def blocks(self, index: np.ndarray | None = None) -> Iterator[Spans]:
        """Yield the rows named by ``index`` (int64; by default all) in order, a few megabytes of text at a time."""
        rows = len(self) if index is None else len(index)
        for start in range(0, rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, rows)
            spans = self.spans(np.arange(start, stop) if index is None else index[start:stop])
            block = np.cumsum(spans.end - spans.begin) // _BLOCK_BYTES
            cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(spans)]
            for a, b in pairwise(cuts):
                yield spans[a:b]

    def _check(self, array: pa.Array | pa.ChunkedArray, chunks: list[pa.Array]) -> None:
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if kind not in _TEXT_TYPES and not pa.types.is_null(kind):
            raise UserError(f"column '{self.name}' holds {array.type}, not texts: name a column of strings")
        nulls = [_null_rows(chunk) for chunk in chunks]
        missing = sum(len(rows) for rows in nulls)
        if missing:
            before = 0
            for chunk, rows in zip(chunks, nulls, strict=True):
                if len(rows):
                    break
                before += len(chunk)
            raise UserError(
                f"column '{self.name}' has no text (null) in {missing} of {len(array)} rows, the first is row "
                f"{before + int(rows[0])}: drop these rows or fill them, for example with empty texts"
            )


_TEXT_TYPES = (
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
)

# A chunk as the kernel knows it: width of its offsets in bytes (0: views), address of the offsets or views, address of
# the values (views: number of its first buffer); then width and address of a dictionary's codes (width 0: it is none).
_OFFSET_WIDTH, _OFFSETS, _VALUES, _CODE_WIDTH, _CODES, _FIELDS = range(6)


def _null_rows(chunk: pa.Array) -> np.ndarray:
    """Return the rows without a text; a dictionary may also say null by an entry that is."""
    null = np.flatnonzero(chunk.is_null()) if chunk.null_count else np.empty(0, np.int64)
    if pa.types.is_dictionary(chunk.type) and chunk.dictionary.null_count:
        return np.flatnonzero(chunk.dictionary_decode().is_null())
    return null


def _layout(chunk: pa.Array, buffers: list[int]) -> list[int]:
    code_width = codes = 0
    if pa.types.is_dictionary(chunk.type):
        code_width = chunk.type.index_type.bit_width // 8
        codes = _address(chunk.indices.buffers()[1]) + code_width * chunk.indices.offset
        chunk = chunk.dictionary
    parts = chunk.buffers()
    if chunk.type in (pa.string_view(), pa.binary_view()):
        first = len(buffers)
        buffers.extend(_address(part) for part in parts[2:])
        return [0, _address(parts[1]) + 16 * chunk.offset, first, code_width, codes]
    width = 8 if chunk.type in (pa.large_string(), pa.large_binary()) else 4
    return [width, _address(parts[1]) + width * chunk.offset, _address(parts[2]), code_width, codes]


def _address(buffer: pa.Buffer | None) -> int:
    return 0 if buffer is None else buffer.address


class Rules(NamedTuple):
    """What the state machine goes by: a row of ``pages`` for each 256 code points, and a short cut for ASCII.

    Attributes
    ----------
    fast : ndarray, shape (256,), uint8
        By byte: what an ASCII word character becomes, 1 for a separator, 0 for what needs a closer look.
    page_of : ndarray, shape (0x1101,), uint8
        Page of each 256 code points; the last is for bytes that are not UTF-8.
    pages : ndarray, shape (pages, 256), int32
        Class of each code point, and the way from it to what it becomes.
    """

    fast: np.ndarray
    page_of: np.ndarray
    pages: np.ndarray


@cache
def unicode_table() -> tuple[np.ndarray, np.ndarray, str]:
    """Return ``page_of``, ``pages`` and the version of Unicode that they are made from."""
    with np.load(TABLE) as table:
        return table["page_of"], table["pages"], str(table["unicode"])


@cache
def _rules(tokens: Tokens, lower: bool) -> Rules:
    page_of, pages, _ = unicode_table()
    classes, space, change = pages & CLASS, (pages & SPACE) != 0, pages >> SHIFT
    invalid = pages[page_of[-1]] >> SHIFT
    if tokens is Tokens.words:
        pages = classes
    elif tokens is Tokens.whitespace:
        pages = np.where(space, SEPARATOR, WORD)
    else:
        pages = np.full_like(pages, WORD)  # the matches are the words; they are lower case already
        lower = False
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
    return Rules(fast, page_of, pages)


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
    lower : bool
        Whether everything is lower-cased first, code point by code point.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    """

    def __init__(self, tokens: Tokens = Tokens.words, pattern: str | None = None, lower: bool = True) -> None:
        if (tokens is Tokens.regex) != (pattern is not None):
            raise UserError("pattern is for tokens=regex, and tokens=regex needs one: give both or neither")
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise UserError(f"pattern {pattern!r} is not a regular expression of Python's: {error}") from None
        self.lower = lower
        self.rules = _rules(tokens, lower)
        # Regular expressions go by Python's own Unicode.
        version = unicode_table()[2] if pattern is None else None
        self.settings = {"tokens": tokens.name, "pattern": pattern, "lower": lower, "unicode": version}

    def prepare(self, spans: Spans) -> Spans:
        """Return the texts as the state machine reads them with ``rules``."""
        if self._pattern is None:
            return spans
        texts = [_BETWEEN.join(self._matches(text)) for text in spans.texts()]
        ends = np.cumsum([0] + [len(text) for text in texts], dtype=np.int64)
        memory = np.frombuffer(b"".join(texts), np.uint8)
        ends += memory.ctypes.data
        return Spans(ends[:-1], ends[1:], memory)

    def _matches(self, text: str) -> Iterator[bytes]:
        assert self._pattern is not None
        if self.lower:
            # What Python makes of a capital sigma depends on its place.
            text = text.replace("\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}").lower()
        if self._pattern.groups:
            return (match[0].encode() for match in self._pattern.finditer(text))
        return (match.encode() for match in self._pattern.findall(text))


def tokenize(text: str, tokens: str = "words", pattern: str | None = None, lower: bool = True) -> list[str]:
    """Return the tokens of one text, cut by the same code as those of a training run.

    Parameters
    ----------
    text : str
        What to cut.
    tokens : str
        ``words``, ``whitespace`` or ``regex``.
    pattern : str, optional
        The regular expression, for ``regex``.
    lower : bool
        Whether to lower-case.

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


def _loader(bits: int, signed: bool) -> Any:
    """Return a compiled function that reads an integer of so many bits at an address: int64 to int64."""

    def load(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.PointerType(ir.IntType(bits)))
            value = builder.load(place, typ=ir.IntType(bits), align=1)
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return numba.int64(numba.int64), emit

    return intrinsic(load)


_uint8_at, _uint16_at, _uint32_at = _loader(8, False), _loader(16, False), _loader(32, False)
_int32_at, _int64_at = _loader(32, True), _loader(64, True)


@numba.njit(nogil=True, cache=True)
def _locate(
    starts: np.ndarray, chunks: np.ndarray, buffers: np.ndarray, index: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> bool:
    """Write the spans of the rows; False if an index is no row."""
    chunk = 0
    for i in range(len(index)):
        row = index[i]
        if row < 0 or row >= starts[-1]:
            return False
        if not starts[chunk] <= row < starts[chunk + 1]:
            chunk = np.searchsorted(starts, row, "right") - 1
        row -= starts[chunk]
        width, codes = chunks[chunk, _CODE_WIDTH], chunks[chunk, _CODES]
        if width == 1:
            row = _uint8_at(codes + row)
        elif width == 2:
            row = _uint16_at(codes + 2 * row)
        elif width == 4:
            row = _uint32_at(codes + 4 * row)
        elif width == 8:
            row = _int64_at(codes + 8 * row)
        width, offsets, values = chunks[chunk, _OFFSET_WIDTH], chunks[chunk, _OFFSETS], chunks[chunk, _VALUES]
        if width == 4:
            begin[i] = values + _int32_at(offsets + 4 * row)
            end[i] = values + _int32_at(offsets + 4 * row + 4)
        elif width == 8:
            begin[i] = values + _int64_at(offsets + 8 * row)
            end[i] = values + _int64_at(offsets + 8 * row + 8)
        else:
            # A view: its length, then up to 12 bytes in place, or the first four, a buffer's number and a place in it.
            view = offsets + 16 * row
            size = _int32_at(view)
            begin[i] = view + 4
            if size > 12:
                begin[i] = buffers[values + _int32_at(view + 8)] + _int32_at(view + 12)
            end[i] = begin[i] + size
    return True


@numba.njit(nogil=True, cache=True)
def _decode(at: int, end: int) -> tuple[int, int]:
    """Return the code point at an address before ``end``, INVALID + byte where there is none, and its bytes."""
    first = _uint8_at(at)
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
        byte = _uint8_at(at + i)
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
    entry = rules.pages[rules.page_of[code >> 8], code & 0xFF]
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
    while at < end and fast[_uint8_at(at)] == _STOP:
        at += 1
    begin, state, kind = at, BASIS, _NONE
    while at < end:
        if kind <= WORD:
            byte = fast[_uint8_at(at)]
            if byte > _STOP:
                if kind == _NONE:
                    begin, kind = at, WORD
                while byte > _STOP:
                    state = feed(state, np.uint64(byte))
                    at += 1
                    if at == end:
                        return begin, at, state
                    byte = fast[_uint8_at(at)]
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
