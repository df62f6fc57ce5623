"""The character n-grams of a subword table's words, counted as the elements of other tables are."""

import numba
import numpy as np
import pyarrow as pa

from bigembed.encoders.subword import END_OF_LINE, SubwordEncoder
from bigembed.encoders.subword_rows import BASIS32, feed32
from bigembed.hashing import BASIS, feed, finish
from bigembed.knowing.elements import DRAWN
from bigembed.knowing.tally import MOST, Tally

_BLOCK = 1 << 14  # words


def tally_grams(encoder: SubwordEncoder, most: int = MOST) -> Tally:
    """Count the character n-grams of the vocabulary's words, each as often as its words came in the data they were learned from.

    Parameters
    ----------
    encoder : SubwordEncoder
        Of the table.
    most : int
        Different n-grams up to which everything is counted exactly.

    Returns
    -------
    Tally
        A key holds the row of the n-gram's bucket.
    """
    words, counts, tally = encoder.words(), encoder.counts(), Tally(most)
    first, buckets = encoder.word_rows[1], encoder.config.buckets
    for start in range(0, len(words), _BLOCK):
        letters, offsets = _letters(words[start : start + _BLOCK])
        size = int((2 + np.diff(offsets)).sum()) * (encoder.config.max_n - encoder.config.min_n + 1)
        hashes, rows, word = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64)
        used = _grams(
            letters, offsets, encoder.config.min_n, encoder.config.max_n, np.uint64(buckets), hashes, rows, word
        )
        keys = rows[:used] + np.uint64(first) | np.uint64(DRAWN) << np.uint64(62)
        tally.add(hashes[:used], keys, counts[start : start + _BLOCK][word[:used]])
    return tally


def _letters(words: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of the words in their brackets (``</s>``, which has no n-grams, is left empty), and where each begins."""
    texts = [b"" if word == END_OF_LINE else f"<{word}>".encode() for word in words.to_pylist()]
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])


@numba.njit(nogil=True, cache=True)
def _grams(
    letters: np.ndarray,
    offsets: np.ndarray,
    min_n: int,
    max_n: int,
    buckets: np.uint64,
    hashes: np.ndarray,
    rows: np.ndarray,
    words: np.ndarray,
) -> int:
    """Write every n-gram's hash of 64 bits, its bucket by fastText's of 32, and the number of its word; return how many they are."""
    used = 0
    for word in range(len(offsets) - 1):
        begin, end = offsets[word], offsets[word + 1]
        for start in range(begin, end):
            if letters[start] & 0xC0 == 0x80:
                continue
            at, hashed, short = start, BASIS, BASIS32
            for n in range(1, max_n + 1):
                if at == end:
                    break
                while True:
                    hashed = feed(hashed, np.uint64(letters[at]))
                    short = feed32(short, letters[at])
                    at += 1
                    if at == end or letters[at] & 0xC0 != 0x80:
                        break
                if n >= min_n and (n > 1 or begin < start < end - 1):
                    hashes[used] = finish(hashed, np.uint64(0))
                    rows[used] = np.uint64(np.uint32(short)) % buckets  # products grow to 64 bits
                    words[used] = word
                    used += 1
    return used
