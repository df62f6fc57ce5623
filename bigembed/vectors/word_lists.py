"""The words of arrays: a file with a word a line, beside the array or where the user says."""

import re
from collections.abc import Iterator

import numba
import numpy as np
import pyarrow as pa

from bigembed.errors import UserError
from bigembed.vectors.blocks import words_path
from bigembed.vectors.streams import Stream, open_stream
from bigembed.vectors.word2vec import LONGEST, binary_array

OURS = ".words.txt"  # as ``words_path`` says
ENDINGS = (".vocab", ".txt", ".words")
CHUNK = 1 << 20  # bytes of the file in memory at once
LOOKED_AT = 100  # lines
VECTOR = re.compile(rb"(?s).*([ \t]-?\d*\.\d+([eE][-+]?\d+)?){2}[ \t\r]*")
NEWLINE, RETURN, SPACE, TAB, ZERO, NINE = b"\n\r \t09"


def beside(stream: Stream) -> str | None:
    """Return the file of words that lies beside an array: FILE.words.txt, else FILE with one of the usual endings; or None."""
    if any(member for _, member in stream.layers):
        return None
    names = [stream.disk, stream.disk.with_suffix("")] if stream.layers else [stream.disk]
    places = [words_path(name) for name in names] + [names[-1].with_suffix(ending) for ending in ENDINGS]
    return next((str(place) for place in places if place != stream.disk and place.is_file()), None)


def open_list(path: str, rows: int, of: str) -> bool:
    """Hold a file of words to what the array says; return whether every line has a count behind the word.

    That is so in the .vocab files of word2vec and gensim. The file is read once for this.

    Parameters
    ----------
    path : str
        The file, compressed or not, or a member of an archive.
    rows : int
        How many the array has.
    of : str
        What messages call the array.

    Raises
    ------
    UserError
        When it has not as many lines as the array has rows, or its lines are vectors.
    """
    lines, counted = 0, not path.endswith(OURS)  # our own have words alone
    for words, all_counted in _lines(path, False):
        if lines == 0 and all(VECTOR.fullmatch(line) for line in words.slice(0, LOOKED_AT).to_pylist()):
            raise UserError(
                f"{path} holds vectors and not words alone; name a file with the word of each row, one a line, with word_list="
            )
        lines, counted = lines + len(words), counted and all_counted
        if lines > rows:
            break
    if lines != rows:
        many = f"more than {rows:,}" if lines > rows else f"{lines:,}"
        raise UserError(
            f"{path} has {many} lines, but {of} has {rows:,} rows; name a file with the word of each row, one a line, with word_list="
        )
    return counted and rows > 0


def words_of(path: str, counted: bool) -> Iterator[pa.BinaryArray]:
    """Yield the words of a file that ``open_list`` has looked at, some thousands at a time."""
    return (words for words, _ in _lines(path, counted))


def _lines(path: str, counted: bool) -> Iterator[tuple[pa.BinaryArray, bool]]:
    """Yield the lines, without counts where they are ``counted``, and whether all of them could be."""
    buffer = np.empty(CHUNK + 1, np.uint8)
    filled, before = 0, 0
    with open_stream(path).open() as reader:
        ended = False
        while not ended:
            read = reader.readinto(buffer[filled:CHUNK])
            ended = filled + read < CHUNK
            filled += read
            if ended and filled and buffer[filled - 1] != NEWLINE:
                buffer[filled] = NEWLINE
                filled += 1
            letters = np.empty(filled, np.uint8)
            offsets = np.zeros(np.count_nonzero(buffer[:filled] == NEWLINE) + 1, np.int32)
            end, longest, could = _words(buffer[:filled], counted, letters, offsets)
            if longest > LONGEST or filled - end > LONGEST:
                raise UserError(
                    f"{path}: one of the lines from {before + 1:,} on is longer than {LONGEST:,} bytes, which is no word"
                )
            before += len(offsets) - 1
            if len(offsets) > 1:
                yield binary_array(letters, offsets), could
            filled -= end
            buffer[:filled] = buffer[end : end + filled].copy()


@numba.njit(nogil=True, cache=True)
def _words(data: np.ndarray, counted: bool, letters: np.ndarray, offsets: np.ndarray) -> tuple[int, int, bool]:
    """Copy the words of the whole lines in ``data``; return where these end, the longest, and if all have a count."""
    start, written, longest, could = 0, 0, 0, True
    for line in range(len(offsets) - 1):
        stop = start
        while data[stop] != NEWLINE:
            stop += 1
        following = stop + 1
        stop -= stop > start and data[stop - 1] == RETURN
        longest = max(longest, stop - start)
        number = stop
        while number > start and ZERO <= data[number - 1] <= NINE:
            number -= 1
        word = number
        while word > start and (data[word - 1] == SPACE or data[word - 1] == TAB):
            word -= 1
        could &= start < word < number < stop
        if counted:
            stop = word
        for place in range(start, stop):
            letters[written] = data[place]
            written += 1
        offsets[line + 1] = written
        start = following
    return start, longest, could
