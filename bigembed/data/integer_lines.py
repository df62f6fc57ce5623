"""Lines of whole numbers, ever so many in each: ``user item item …``, and NCF's ``(user,item)`` with negatives; compiled."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numba
import numpy as np
import pyarrow as pa

from bigembed.data.lines import Block, blocks, whole_lines
from bigembed.data.plain import as_arrow
from bigembed.errors import UserError

_BATCH = 1 << 17  # numbers at most in a batch, but for a longer line: as little memory as other readers take
_LINE_BREAK = b"\n"
_DIGIT, _BETWEEN, _BREAK, _WRONG = 0, 1, 2, 3


def read_user_items(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield ``user`` and ``item`` (int64), a row for every item of a line, in its order; a user alone gives no rows.

    Raises
    ------
    UserError
        With the line, where something else than whole numbers from 0 on stands there.
    """
    for block in blocks(path, whole_lines, _as_it_is):
        numbers, ends = _numbers(path, block, _CLASSES, " with blanks between them: user item item …")
        for values, starts, lengths in _cut(numbers, ends):
            users = np.repeat(values[starts], lengths - 1)
            yield pa.RecordBatch.from_arrays(
                [as_arrow(users), as_arrow(np.delete(values, starts))], names=["user", "item"]
            )


def read_negatives(path: Path) -> Iterator[pa.RecordBatch]:
    r"""Yield ``user``, ``item`` (int64) and ``negatives`` (list of int64) of lines ``(user,item)\tnegative\tnegative …``.

    Raises
    ------
    UserError
        With the line, where it is not of this form.
    """
    form = ": (user,item), then the negatives, with tabs between them"
    for block in blocks(path, whole_lines, _as_it_is):
        numbers, ends = _numbers(path, block, _CLASSES_OF_PAIRS, form)
        bad = _not_a_pair(np.frombuffer(block.data, np.uint8))
        if bad >= 0:
            _refuse(path, block, bad, form)
        for values, starts, lengths in _cut(numbers, ends):
            offsets = np.zeros(len(starts) + 1, np.int32)
            np.cumsum(lengths - 2, out=offsets[1:])
            negatives = np.delete(values, np.concatenate([starts, starts + 1]))
            lists = pa.ListArray.from_arrays(as_arrow(offsets), as_arrow(negatives))
            arrays = [as_arrow(values[starts]), as_arrow(values[starts + 1]), lists]
            yield pa.RecordBatch.from_arrays(arrays, names=["user", "item", "negatives"])


def _classes(between: bytes) -> np.ndarray:
    classes = np.full(256, _WRONG, np.uint8)
    classes[np.frombuffer(b"0123456789", np.uint8)] = _DIGIT
    classes[np.frombuffer(between, np.uint8)] = _BETWEEN
    classes[ord("\n")] = _BREAK
    return classes


_CLASSES, _CLASSES_OF_PAIRS = _classes(b" \t\r"), _classes(b" \t\r(),")


def _as_it_is(path: Path, data: bytes, line: int) -> bytes:
    return data


def _numbers(path: Path, block: Block, classes: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a block, and where those of each line end that has any."""
    data = np.frombuffer(block.data, np.uint8)
    values = np.empty(len(data) // 2 + 1, np.int64)
    ends = np.empty(block.data.count(b"\n") + 1, np.int64)
    size, rows, bad = _scan(data, classes, values, ends)
    if bad >= 0:
        _refuse(path, block, bad, form)
    return values[:size], ends[:rows]


def _refuse(path: Path, block: Block, at: int, form: str) -> NoReturn:
    """Raise what is wrong at a byte of a block."""
    data = block.data
    start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    line = data[start : end if end >= 0 else len(data)]
    word = next((word for word in data[max(start, at - 40) : at + 40].split() if not word.isdigit()), line[:40])
    raise UserError(
        f"{path}, line {block.line + data.count(_LINE_BREAK, 0, at)}: {word[:40].decode(errors='replace')!r} does not fit; a line is "
        f"whole numbers (0 … 2^63 - 1){form}."
    )


def _cut(values: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the numbers of some lines at a time, where each line's start in them, and how many they are."""
    row, begin = 0, 0
    while row < len(ends):
        stop = max(row + 1, int(np.searchsorted(ends, begin + _BATCH, "right")))
        bounds = np.concatenate([[begin], ends[row:stop]]) - begin
        yield values[begin : ends[stop - 1]], bounds[:-1], np.diff(bounds)
        row, begin = stop, int(ends[stop - 1])


@numba.njit(nogil=True, cache=True)
def _scan(data: np.ndarray, classes: np.ndarray, values: np.ndarray, ends: np.ndarray) -> tuple[int, int, int]:
    """Read all numbers; return how many there are, the lines that have any, and the first byte that is wrong (-1: none)."""
    size, rows, begin, value, inside = 0, 0, 0, np.int64(0), False
    for i in range(len(data) + 1):
        kind = classes[data[i]] if i < len(data) else _BREAK
        if kind == _DIGIT:
            digit = np.int64(data[i]) - 48
            if value > (9223372036854775807 - digit) // 10:
                return size, rows, i
            value = value * 10 + digit
            inside = True
            continue
        if kind == _WRONG:
            return size, rows, i
        if inside:
            values[size] = value
            size += 1
            value, inside = np.int64(0), False
        if kind == _BREAK and size > begin:
            ends[rows] = size
            rows += 1
            begin = size
    return size, rows, -1


@numba.njit(nogil=True, cache=True)
def _not_a_pair(data: np.ndarray) -> int:
    """Return the first byte where a line that has any number does not begin ``(number,number)`` or goes on so; -1: none."""
    signs, digits = 0, 0  # of "(", "," and ")" of this line so many are past, and so many digits since the last
    for i in range(len(data) + 1):
        c = data[i] if i < len(data) else np.uint8(10)
        if c == 10:
            if signs == 1 or signs == 2:
                return max(i - 1, 0)
            signs, digits = 0, 0
        elif c == 40 or c == 44 or c == 41:
            expected = 40 if signs == 0 else 44 if signs == 1 else 41
            if signs == 3 or c != expected or (signs > 0 and digits == 0):
                return i
            signs, digits = signs + 1, 0
        elif 48 <= c <= 57:
            if signs == 0:
                return i
            digits += 1
        elif signs == 1 or signs == 2:
            return i
    return -1
