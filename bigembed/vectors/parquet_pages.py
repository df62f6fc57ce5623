"""What a Parquet file says of its columns and their pages, read before Arrow unpacks them.

A few bytes can be made to stand for as many gigabytes; and what pyarrow tells of a column ends the process where the file is
damaged (https://github.com/apache/arrow/issues/45283 is one such case). So the end of the file and the headers of its pages are
read here: structs in Thrift's compact protocol, whose fields have numbers (FileMetaData and PageHeader of parquet.thrift).
"""

from dataclasses import dataclass
from typing import Any, BinaryIO

from bigembed.errors import UserError

FOOTER = 1 << 21  # bytes; as objects, theirs and ours, they take up to a hundred times as much
DEEPEST = 8  # structs and lists in one another
HEADERS = (1 << 9, 1 << 17)  # bytes read for the header of a page: at first, and if they do not hold it
ROW_GROUPS, ROWS, COLUMNS, ABOUT = 4, 3, 1, 3  # fields of FileMetaData, RowGroup (twice), ColumnChunk
VALUES, PACKED_ALL, FIRST_DATA, FIRST_DICTIONARY = 5, 7, 9, 11  # of ColumnMetaData
SIZE, PACKED, DATA, DICTIONARY, DATA_2 = 2, 3, 5, 7, 8  # of PageHeader; the last three are headers of their own
ENCODINGS = {DATA: 2, DATA_2: 4}  # fields of these; field 1 is how many values a page has
DICTIONARY_CODES = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY
DELTA_BYTE_ARRAY = 7  # words told by what they share with the one before: of any length, in a few bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a column lies in a row group, and how many values it has.

    Attributes
    ----------
    start, end : int
        Bytes of the file.
    values : int
    """

    start: int
    end: int
    values: int


@dataclass(frozen=True, slots=True)
class Page:
    """What the header of a page says: its bytes unpacked and in the file, and its values, none for a dictionary."""

    size: int
    packed: int
    values: int
    encoding: int | None


def row_groups(file: BinaryIO, path: str) -> list[tuple[int, list[Chunk]]]:
    """Return the rows of every row group and its columns, by the end of the file.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(4), "little")
    if file.read(4) != b"PAR1" or length > size - 12:
        raise UserError(f"{path}: does not end as a Parquet file of {size:,} bytes does; it was cut, or is damaged")
    if length > FOOTER:
        raise UserError(
            f"{path}: its list of columns takes {length:,} bytes, and up to {FOOTER:,} are read; write it with larger row groups, or "
            f"with the vectors in one column of lists"
        )
    file.seek(size - 8 - length)
    data = file.read(length)
    groups = list[tuple[int, list[Chunk]]]()
    try:
        number, kind, place = _field(data, 0, 0)
        while kind:
            if number == ROW_GROUPS:
                count, _, place = _list(data, place)
                for _ in range(count):
                    group, place = _struct(data, place, DEEPEST)
                    groups.append((_whole(group[ROWS]), [_chunk(column, size) for column in group[COLUMNS]]))
            else:
                _, place = _value(data, place, kind, DEEPEST)
            number, kind, place = _field(data, place, number)
        if sum(chunk.end - chunk.start for _, chunks in groups for chunk in chunks) > size:
            raise ValueError("columns in the same place")
    except (IndexError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: its list of columns, at byte {size - 8 - length:,}, cannot be read; the file is damaged"
        ) from None
    return groups


def look_at(file: BinaryIO, chunk: Chunk, largest: int, path: str) -> int:
    """Return how many bytes the pages of a column in a row group take unpacked.

    Parameters
    ----------
    file : file
    chunk : Chunk
    largest : int
        Bytes that a page may take.
    path : str
        What messages call the file.

    Raises
    ------
    UserError
        When a page cannot be unpacked in bounded memory, or they are not what the end of the file says.
    """
    values, unpacked, place = 0, 0, chunk.start
    plain = False
    while place < chunk.end:
        page, place = _page(file, place, chunk.end, path)
        if max(page.size, page.packed) > largest:
            raise UserError(
                f"{path}: its page at byte {place:,} takes {max(page.size, page.packed):,} bytes, more than the {largest:,} that "
                f"are unpacked at once; write it with smaller pages"
            )
        if page.encoding == DELTA_BYTE_ARRAY:
            raise UserError(
                f"{path}: has words in Parquet's encoding DELTA_BYTE_ARRAY, which is not read; write it with another one"
            )
        # A dictionary is given up once, when it is full. The first page then tells how long the words in it are.
        coded = page.encoding in DICTIONARY_CODES
        if coded and plain:
            raise UserError(f"{path}: a page at byte {place:,} goes back to a dictionary; the file is damaged")
        plain |= not coded and page.encoding is not None
        values += page.values
        unpacked += page.size
        place += page.packed
    if values != chunk.values:
        raise UserError(
            f"{path}: the column at byte {chunk.start:,} has {values:,} values, not {chunk.values:,} as the end of the file says; "
            f"the file is damaged"
        )
    return unpacked


def _chunk(column: dict[int, Any], size: int) -> Chunk:
    about = column[ABOUT]
    start = _whole(about[FIRST_DATA])
    if 0 < _whole(about.get(FIRST_DICTIONARY, 0)) < start:
        start = about[FIRST_DICTIONARY]
    end = start + _whole(about[PACKED_ALL])
    if end > size:
        raise ValueError("a column outside of the file")
    return Chunk(start, end, _whole(about[VALUES]))


def _page(file: BinaryIO, place: int, end: int, path: str) -> tuple[Page, int]:
    """Return what the header of the page at a byte says, and where the page begins behind it."""
    for most in HEADERS:
        file.seek(place)
        data = file.read(min(most, end - place))
        try:
            header, length = _struct(data, 0, DEEPEST)
            (kind,) = [kind for kind in (DATA, DATA_2, DICTIONARY) if kind in header]
            about = header[kind]
            values = 0 if kind == DICTIONARY else _whole(about[1])
            page = Page(_whole(header[SIZE]), _whole(header[PACKED]), values, about.get(ENCODINGS.get(kind)))
        except (IndexError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if page.packed <= end - place - length:
            return page, place + length
    raise UserError(f"{path}: there is no page of Parquet at byte {place:,}, where one should be; the file is damaged")


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise ValueError("no number of rows or bytes")
    return value


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number, kind, place = _field(data, place, 0)
    while kind:
        value, place = _value(data, place, kind, depth)
        if value is not None:
            fields[number] = value
        number, kind, place = _field(data, place, number)
    return fields, place


def _field(data: bytes, place: int, before: int) -> tuple[int, int, int]:
    """Return number and kind of the next field, and where its value begins; kind 0 ends a struct."""
    kind, step = data[place] & 15, data[place] >> 4
    place += 1
    if kind and not step:
        value, place = _varint(data, place)
        return _signed(value), kind, place
    return before + step, kind, place


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a whole number, a struct or a list of structs, None for another value, and where it ends."""
    if kind in (1, 2):  # true and false
        return None, place
    if kind in (3, 7):  # a byte, a float of eight
        return None, place + (1 if kind == 3 else 8)
    if kind in (4, 5, 6):
        value, place = _varint(data, place)
        return _signed(value), place
    if kind == 8:  # text
        length, place = _varint(data, place)
        return None, place + length
    if kind == 12 and depth:
        return _struct(data, place, depth - 1)
    if kind not in (9, 10) or not depth:
        raise ValueError(f"no kind {kind}")
    count, kind, place = _list(data, place)
    items = []
    for _ in range(count):
        item, place = (None, place + 1) if kind in (1, 2) else _value(data, place, kind, depth - 1)
        if kind == 12:
            items.append(item)
    return items if kind == 12 else None, place


def _list(data: bytes, place: int) -> tuple[int, int, int]:
    """Return how many items a list has, their kind, and where they begin."""
    count, kind = data[place] >> 4, data[place] & 15
    place += 1
    if count == 15:
        count, place = _varint(data, place)
    if count > len(data):
        raise ValueError("more items than bytes")
    return count, kind, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while shift < 70:
        value |= (data[place] & 127) << shift
        shift += 7
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)
