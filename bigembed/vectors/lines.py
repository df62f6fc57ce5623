"""Lines of a word and its numbers, taken out of a block of bytes by compiled code, without an object for any of them."""

import math
from fractions import Fraction

import numba
import numpy as np

LONGEST = 1000  # letters of a number that is rounded with care; a float64 written out in full has some 770

# Powers of ten, each the nearest float64, from 10^-TENS to 10^TENS.
TENS = 70  # nineteen digits times 10^-71 are nothing in float32, and a digit times 10^71 is infinite
POWERS = np.array([float(f"1e{power}") for power in range(-TENS, TENS + 1)])
SPACE, TAB, NEWLINE, RETURN, DOT, PLUS, MINUS, ZERO, NINE, UPPER_E, LOWER_E = (
    ord(letter) for letter in " \t\n\r.+-09Ee"
)
SLACK = 1e-15
# How a number was read: as the nearest float32, as NaN that is to be rounded with care, as too large or long, as none.
FAST, CAREFUL, UNFIT, NONE = range(4)


@numba.njit(nogil=True, cache=True)
def count_lines(data: np.ndarray) -> int:
    """Return how many line ends there are."""
    lines = 0
    for byte in data:
        lines += byte == NEWLINE
    return lines


@numba.njit(nogil=True, cache=True)
def line_end(data: np.ndarray) -> int:
    """Return where the first line ends; there is one."""
    place = 0
    while data[place] != NEWLINE:
        place += 1
    return place


@numba.njit(nogil=True, cache=True)
def last_line(data: np.ndarray) -> int:
    """Return where the last line begins, 0 where there is only one."""
    place = len(data)
    while place > 0 and data[place - 1] != NEWLINE:
        place -= 1
    return place


@numba.njit(nogil=True, cache=True)
def take_lines(
    data: np.ndarray,
    dim: int,
    numbers: bool,
    rows: np.ndarray,
    letters: np.ndarray,
    offsets: np.ndarray,
    starts: np.ndarray,
) -> tuple[int, int, int]:
    """Read lines up to the first that is wrong.

    Parameters
    ----------
    data : ndarray, shape (bytes,), uint8
        Whole lines, each with its end.
    dim : int
    numbers : bool
        Whether to read the numbers; otherwise they are counted.
    rows : ndarray, shape (lines or 0, dim), float32
        Takes the numbers.
    letters : ndarray, shape (bytes,), uint8
    offsets : ndarray, shape (lines + 1,), int32
        Take the words, one after another, and where each ends.
    starts : ndarray, shape (lines,), int32
        Takes where the numbers of each line begin; its length is how many lines are read at most.

    Returns
    -------
    found : int
        Lines read.
    end : int
        Where the next one begins.
    careful : int
        Numbers left as NaN, for ``round_with_care``.
    """
    place, written, careful = 0, 0, 0
    for row in range(len(starts)):
        if place == len(data):
            return row, place, careful
        word = place
        while _parts_fields(data[word]):
            word += 1
        stop = word
        while not _parts_fields(data[stop]) and data[stop] != NEWLINE:
            stop += 1
        after, left = -1, 0
        if numbers and word == place:
            after, left = _numbers(data, stop, rows, row)
        if after < 0:  # a word with spaces, an empty one, or a wrong line
            line = stop + line_end(data[stop:])
            stop = _word_end(data, word, line, dim, word > place)
            after = line + 1
            if stop >= 0 and numbers:
                after, left = _numbers(data, stop, rows, row)
            if stop < 0 or after < 0:
                return row, place, careful
        for letter in range(word, stop):
            letters[written] = data[letter]
            written += 1
        offsets[row + 1], starts[row] = written, stop
        careful += left
        place = after
    return len(starts), place, careful


@numba.njit(nogil=True, cache=True)
def _parts_fields(letter: int) -> bool:
    return letter in (SPACE, TAB)


@numba.njit(nogil=True, cache=True)
def _word_end(data: np.ndarray, word: int, line: int, dim: int, indented: bool) -> int:
    """Return where the word ends that begins at ``word`` and has ``dim`` fields behind it; -1 where there are other than these.

    A number that ends a word is taken for one too many, unless it is all of the word.
    """
    stop = line - 1 if line > word and data[line - 1] == RETURN else line
    for taken in range(dim + 1):
        while stop > word and _parts_fields(data[stop - 1]):
            stop -= 1
        end = stop
        while stop > word and not _parts_fields(data[stop - 1]):
            stop -= 1
        if end == word:
            return word if indented and taken == dim else -1
    _, number_end, how = _number(data, stop)
    if how != NONE and number_end == end and (stop > word or indented):
        return -1
    return end


@numba.njit(nogil=True, cache=True)
def _numbers(data: np.ndarray, place: int, rows: np.ndarray, row: int) -> tuple[int, int]:
    """Read the numbers of a row up to the end of its line; return where the next line begins, or -1, and how many are left as NaN."""
    careful = 0
    for column in range(rows.shape[1]):
        while _parts_fields(data[place]):
            place += 1
        rows[row, column], place, how = _number(data, place)
        if how >= UNFIT or not (_parts_fields(data[place]) or data[place] == NEWLINE or data[place] == RETURN):
            return -1, 0
        careful += how == CAREFUL
    while _parts_fields(data[place]):
        place += 1
    place += data[place] == RETURN
    return (place + 1 if data[place] == NEWLINE else -1), careful


@numba.njit(nogil=True, cache=True)
def _number(data: np.ndarray, place: int) -> tuple[np.float32, int, int]:
    """Read a number; return it, where it ends, and how it was read.

    Nineteen digits times a power of ten is, in float64, off by three roundings, less than 4·10⁻¹⁶ of it. Where all that lies within
    SLACK of it has the same float32, that is the nearest one of the number; elsewhere, once in 10⁷, it is left to Python.
    """
    start, digits, taken, tens, any_digit = place, np.uint64(0), 0, 0, False
    minus = data[place] == MINUS
    place += minus or data[place] == PLUS
    behind = False
    while ZERO <= data[place] <= NINE or (data[place] == DOT and not behind):
        if data[place] == DOT:
            behind = True
        else:
            any_digit = True
            if taken < 19:
                digits = digits * np.uint64(10) + np.uint64(data[place] - ZERO)
                taken += int(digits > 0)
                tens -= behind
            else:
                tens += not behind
        place += 1
    if not any_digit:
        return np.float32(0), place, NONE
    if data[place] == LOWER_E or data[place] == UPPER_E:
        place += 1
        down = data[place] == MINUS
        place += down or data[place] == PLUS
        if not ZERO <= data[place] <= NINE:
            return np.float32(0), place, NONE
        power = 0
        while ZERO <= data[place] <= NINE:
            power = min(10 * power + int(data[place]) - ZERO, 1 << 20)
            place += 1
        tens += -power if down else power
    if place - start > LONGEST:
        return np.float32(0), place, UNFIT
    if digits == 0:
        return np.float32(-0.0 if minus else 0.0), place, FAST
    if tens > TENS:
        return np.float32(0), place, UNFIT
    if tens < -TENS:
        return np.float32(-0.0 if minus else 0.0), place, FAST
    double = np.float64(digits) * POWERS[tens + TENS]
    single, other = np.float32(double * (1 - SLACK)), np.float32(double * (1 + SLACK))
    if single != other:
        return np.float32(np.nan), place, CAREFUL
    return -single if minus else single, place, UNFIT if np.isinf(single) else FAST


def round_with_care(chunk: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> int:
    """Read the numbers that ``take_lines`` left as NaN; return how many rows come before the first one that is too large.

    Parameters
    ----------
    chunk : ndarray, shape (bytes,), uint8
    rows : ndarray, shape (rows, dim), float32
        Changed in place.
    starts : ndarray, shape (lines,), int32
        As ``take_lines`` leaves it.
    """
    left = np.isnan(rows)
    for row in np.flatnonzero(left.any(1)).tolist():
        start = starts[row]
        fields = chunk[start : start + line_end(chunk[start:])].tobytes().split()
        for column in np.flatnonzero(left[row]).tolist():
            rows[row, column] = _nearest(fields[column].decode())
        if np.isinf(rows[row]).any():
            return row
    return len(rows)


def _nearest(number: str) -> np.float32:
    """Return the nearest float32; by way of the nearest float64 alone, one just off the middle of two may come out wrong."""
    double = float(number)
    with np.errstate(over="ignore"):
        single = np.float32(double)
    other = np.nextafter(single, np.float32(math.copysign(math.inf, double - float(single))))
    if (float(single) + float(other)) / 2 == double:
        beyond = Fraction(number) - Fraction(double)
        if beyond:
            return max(single, other) if beyond > 0 else min(single, other)
    return single
