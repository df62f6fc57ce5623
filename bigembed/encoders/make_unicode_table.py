"""Make ``unicode.npz``: class and lower case of every code point, the same for every Python that runs bigembed.

    python -m bigembed.encoders.make_unicode_table

Run it with a Python of the wanted Unicode version (``unicodedata.unidata_version``). Ids of words may change with the
table: vocabularies record its version and are refused under another.
"""

import unicodedata

import numpy as np

from bigembed.encoders.text import (
    APOSTROPHE,
    DOTTED_I,
    EXTEND,
    IGNORED,
    INVALID,
    SEPARATOR,
    SHIFT,
    SINGLE,
    SPACE,
    SYMBOL,
    TABLE,
    WORD,
)

# Format characters are invisible and would tear words apart, so they are ignored, but for: the ones that join, the tags
# that make flags of emoji, the one that stands for a space, and the ones that can be seen (signs around numbers).
_JOINERS = {0x200C, 0x200D, *range(0xE0020, 0xE0080)}
_ZERO_WIDTH_SPACE = 0x200B
_VISIBLE = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
_HAN = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH")


def entry(code: int) -> int:
    """Return the entry of one code point: class, whether it is white space, and the way to its lower case."""
    character = chr(code)
    space = SPACE if character.isspace() else 0
    return _class(code) | space | (_lower(character) - code) << SHIFT


def make() -> tuple[np.ndarray, np.ndarray]:
    """Return ``page_of`` (shape (0x1101,), uint8) and the different ``pages`` (shape (pages, 256), int32)."""
    entries = [entry(code) for code in range(INVALID)]
    entries += [SYMBOL | 0xFFFD - INVALID - byte << SHIFT for byte in range(256)]
    pages, page_of = np.unique(np.array(entries, np.int32).reshape(-1, 256), axis=0, return_inverse=True)
    return page_of.ravel().astype(np.uint8), pages


def _class(code: int) -> int:
    category = unicodedata.category(chr(code))
    if chr(code) in "'’":
        return APOSTROPHE
    if category[0] == "M" or code in _JOINERS:
        return EXTEND
    if category[0] == "Z" or category == "Cc" or code == _ZERO_WIDTH_SPACE:
        return SEPARATOR
    if category == "Cf" and code not in _VISIBLE:
        return IGNORED
    if unicodedata.name(chr(code), "").startswith(_HAN):
        return SINGLE
    return WORD if category[0] in "LN" or category == "Pc" else SYMBOL


def _lower(character: str) -> int:
    lower = character.lower()
    return DOTTED_I if lower == "i̇" else ord(lower)


if __name__ == "__main__":
    page_of, pages = make()
    assert len(pages) <= 256 and SEPARATOR == 0
    np.savez_compressed(TABLE, page_of=page_of, pages=pages, unicode=unicodedata.unidata_version)
