"""The other forms of words under which a file of vectors may have them: all at once, by Arrow's kernels."""

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import Fallback
from bigembed.errors import UserError

_AT_ONCE = 1 << 16  # words
_LINES = 1 << 22  # bytes of a file of lemmas


def other_forms(words: pa.Array, fallback: Fallback) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """Yield words and forms of them that differ from the word and from its earlier forms.

    case: lower case, the first letter of the text upper, that of every word upper, all upper. unicode: NFC, NFD, NFKC, and
    without accents: NFD less its marks, composed again. digits: every decimal digit as 0, as #. piece: without the
    mark of a piece that a space comes before. Each form is made of the word as it is.

    Parameters
    ----------
    words : pa.StringArray or pa.LargeStringArray, shape (words,)
        The words.
    fallback : Fallback
        Which forms; there are none of ``subwords`` and what follows it.

    Yields
    ------
    places : ndarray, shape (n,), int64
        Words, by number.
    forms : pa.StringArray or pa.LargeStringArray, shape (n,)
        A form of each.
    """
    for start in range(0, len(words), _AT_ONCE):
        block = words.slice(start, _AT_ONCE)
        earlier = [block]
        for form in _forms(block, fallback):
            new = pc.not_equal(form, block)
            for each in earlier[1:]:
                new = pc.and_(new, pc.not_equal(form, each))
            earlier.append(form)
            places = pc.indices_nonzero(new)
            yield start + places.to_numpy().astype(np.int64), form.take(places)


def read_lemmas(path: str) -> Iterator[tuple[pa.StringArray, pa.StringArray]]:
    """Yield the words and the lemmas of a file of lines 'word lemma', with a tab or spaces between them; empty lines are none.

    Raises
    ------
    UserError
        The file cannot be read, or a line of it is none of these: naming it.
    """
    number = 1
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"the file of lemmas {path} is no regular file; name one of lines 'word lemma'")
    try:
        with Path(path).open("rb") as file:
            while lines := file.readlines(_LINES):
                text = pa.array(lines, pa.binary())
                wrong = np.flatnonzero(~valid_utf8(text))
                if len(wrong):
                    raise UserError(f"{path}, line {number + int(wrong[0])}: it is not UTF-8; convert the file")
                yield _fields(path, number, text.cast(pa.string()))
                number += len(lines)
    except OSError as error:
        raise UserError(
            f"the file of lemmas {path} cannot be read: {error.strerror}; name one of lines 'word lemma'"
        ) from None


def _fields(path: str, number: int, lines: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
    """Return the words and lemmas of lines, of which the first has this number."""
    lines = pc.utf8_trim(lines, " \t\r\n")
    tabbed = pc.if_else(pc.match_substring(lines, "\t"), lines, pc.replace_substring_regex(lines, " +", "\t"))
    fields = pc.split_pattern_regex(tabbed, " *\t[ \t]*")
    filled = pc.not_equal(lines, "")
    wrong = pc.indices_nonzero(pc.and_(filled, pc.not_equal(pc.list_value_length(fields), 2)))
    if len(wrong):
        at = wrong[0].as_py()
        raise UserError(
            f"{path}, line {number + at}: {lines[at].as_py()[:60]!r} is not a word and its lemma, with a tab or a space "
            "between them; mend the line"
        )
    both = fields.filter(filled).flatten()
    first = np.arange(0, len(both), 2)
    return both.take(pa.array(first)), both.take(pa.array(first + 1))


def _forms(words: pa.Array, fallback: Fallback) -> Iterator[pa.Array]:
    if fallback is Fallback.case:
        yield pc.utf8_lower(words)
        yield pc.utf8_capitalize(words)
        yield pc.utf8_title(words)
        yield pc.utf8_upper(words)
    elif fallback is Fallback.unicode:
        for form in ("NFC", "NFD", "NFKC"):
            yield pc.utf8_normalize(words, form=form)
        bare = pc.replace_substring_regex(pc.utf8_normalize(words, form="NFD"), r"\p{Mn}+", "")
        yield pc.utf8_normalize(bare, form="NFC")
    elif fallback is Fallback.digits:
        for digit in ("0", "#"):
            yield pc.replace_substring_regex(words, r"\p{Nd}", digit)
    elif fallback is Fallback.piece:
        yield pc.replace_substring_regex(words, r"^[Ġ▁](.+)$", r"\1")


def valid_utf8(words: pa.Array) -> np.ndarray:
    """Return which words, given as bytes, are UTF-8: shape (words,), bool."""
    _, offsets, letters = words.buffers()
    valid = np.ones(len(words), bool)
    if len(words) and letters is not None:
        width = np.int64 if pa.types.is_large_binary(words.type) or pa.types.is_large_string(words.type) else np.int32
        bounds = np.frombuffer(offsets, width)[words.offset : words.offset + len(words) + 1]
        _validate(np.frombuffer(letters, np.uint8), bounds, valid)
    return valid


@numba.njit(nogil=True, cache=True)
def _validate(letters: np.ndarray, bounds: np.ndarray, valid: np.ndarray) -> None:
    """Write which strings are UTF-8, as Unicode's table 3-7 has it."""
    for i in range(len(valid)):
        at, end = bounds[i], bounds[i + 1]
        while at < end:
            first = letters[at]
            if first < 0x80:
                at += 1
                continue
            size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
            if size == 0 or at + size > end:
                valid[i] = False
                break
            # The second byte's range rules out what is too long, surrogates, and what is beyond the last code point.
            least = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
            most = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
            if not least <= letters[at + 1] <= most:
                valid[i] = False
                break
            for k in range(2, size):
                if letters[at + k] & 0xC0 != 0x80:
                    valid[i] = False
            if not valid[i]:
                break
            at += size
