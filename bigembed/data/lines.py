"""CSV and JSON lines: cut into blocks of whole rows and parsed by Arrow, or by hand where that fails, to name the line.

The cutting is done here and not by Arrow so that a text of any length fits, and so that every error has a line number.
"""

import csv
import io
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from bigembed.errors import UserError
from bigembed.wishes import IDS, NUMBERS, VALUES, WEIGHTS, Columns

BLOCK = 4 << 20  # bytes read at a time
LONGEST = 512 << 20  # bytes that one row may take: more is a quote that is never closed, or no such file at all
_BOM = b"\xef\xbb\xbf"

_IN_CSV: dict[pa.DataType, pa.DataType] = {
    IDS: pa.int64(),
    VALUES: pa.string(),
    NUMBERS: pa.float64(),
    WEIGHTS: pa.float32(),
}


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows of a file.

    Attributes
    ----------
    data : bytes
        The rows, valid UTF-8.
    line : int
        Number of the first line; that of a file is 1.
    longest : int
        Bytes of the longest row, or at least as many.
    """

    data: bytes
    line: int
    longest: int


def read_csv(path: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the wished columns of a CSV file (comma, header, double quotes), each as its wished type.

    Raises
    ------
    UserError
        With the line, where a row is malformed, a value does not fit its type, or bytes are not UTF-8.
    """
    names: list[str] | None = None
    for block in blocks(path, _csv_rows):
        if names is None:
            names, block = _header(path, block, columns)
        yield from _csv_batches(path, block, names, columns)


def read_json_lines(path: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the wished columns of a file with one JSON object a line, each as its wished type.

    Raises
    ------
    UserError
        With the line, where one is no JSON object, a value does not fit its type, or bytes are not UTF-8.
    """
    schema = pa.schema(list(columns.items()))
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    first = True
    for block in blocks(path, whole_lines):
        try:
            table = pa.json.read_json(
                pa.BufferReader(block.data),
                read_options=pa.json.ReadOptions(block_size=max(1 << 20, block.longest + 1)),
                parse_options=parse,
            )
        except (pa.ArrowException, ValueError) as error:  # ValueError: a message of Arrow's with half a character
            table = _json_by_hand(path, block, columns, error)
        if first and table.num_rows:
            _check_keys(path, block, table)
            first = False
        yield from _batches(table)


def csv_types(path: Path, columns: Columns) -> Columns:
    """Return the types that the columns of a CSV file are read as: it knows no lists, and its values are texts."""
    return {name: _IN_CSV.get(kind, kind) for name, kind in columns.items()}


def json_types(path: Path, columns: Columns) -> Columns:
    """Return the types that the columns of JSON lines are read as; what the data may choose, its first values tell.

    Raises
    ------
    UserError
        With the line, where one before those is no JSON object, or the first of values is none.
    """
    types = dict(csv_types(path, columns))
    open_ones = {name for name, kind in columns.items() if kind in (IDS, VALUES, WEIGHTS)}
    with closing(blocks(path, whole_lines)) as parts:
        block = next(parts, None) if open_ones else None
    lines = [] if block is None else block.data.split(b"\n")
    for number, line in enumerate(lines, 1):
        record = _object(path, line, number) if line.strip() else {}
        for name in [name for name in open_ones if record.get(name) is not None]:
            try:
                types[name], settled = _json_type(columns[name], record[name])
            except ValueError as error:
                where = f"{path}, line {number}: column {name!r}"
                raise UserError(f"{where} is {_short(record[name])}, {error}.") from None
            if settled:
                open_ones.remove(name)
        if not open_ones:
            break
    return types


def _json_type(wish: pa.DataType, value: Any) -> tuple[pa.DataType, bool]:
    """Return the type that a value speaks for, and whether that settles it; ValueError if it is none that is wished for."""
    entries = value if isinstance(value, list) else [value]
    first = next((entry for entry in entries if entry is not None), None)
    item = pa.float32() if wish == WEIGHTS else pa.int64()
    if wish == VALUES:
        if isinstance(first, float) and first % 1:
            raise ValueError("and numbers with a fraction are for a table of kind bucketized")
        if isinstance(first, bool | list | dict):
            raise ValueError("not a text, a whole number, or a list of either")
        item = pa.string() if first is None or isinstance(first, str) else item
    return pa.list_(item) if isinstance(value, list) else item, wish != VALUES or first is not None


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    return table.combine_chunks().to_batches()


def blocks(
    path: Path,
    cut: Callable[[bytes, bool], tuple[int, int, int]],
    checked: Callable[[Path, bytes, int], bytes] | None = None,
) -> Generator[Block]:
    """Yield a file, decompressed, as blocks of whole rows.

    Parameters
    ----------
    path : Path
        The file; its ending tells how it is compressed.
    cut : callable
        Given bytes, and whether they are the last, returns how many of them are whole rows, their lines and the longest row.
    checked : callable, optional
        Given the path, the bytes of a block and its first line, returns what the block is to hold; by default the same,
        refused where it is not UTF-8.

    Raises
    ------
    UserError
        The file cannot be read or decompressed, or a row does not end.
    """
    checked = checked or _checked
    line, rest, size = 1, b"", BLOCK
    try:
        with pa.input_stream(str(path), compression="detect", buffer_size=1 << 20) as stream:
            while True:
                more = stream.read(size)
                data = rest + more
                if line == 1 and data.startswith(_BOM):
                    data = data[len(_BOM) :]
                end, lines, longest = cut(data, not more)
                if end:
                    yield Block(checked(path, data[:end] if end < len(data) else data, line), line, longest)
                line, rest = line + lines, data[end:]
                if not more:
                    break
                if len(rest) > LONGEST:
                    raise UserError(
                        f"{path}, line {line}: a row does not end within {LONGEST >> 20} MiB; is a quote or a line break missing?"
                    )
                size = max(BLOCK, len(rest))  # doubled, so that a long row is not searched again and again
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0].rstrip(". ")
        raise UserError(f"{path} cannot be read after line {line - 1}: {message}.") from None
    if rest:
        raise UserError(f"{path}, line {line}: a quote is opened here and never closed.")


def _checked(path: Path, data: bytes, line: int) -> bytes:
    """Return ``data`` if it is valid UTF-8; Arrow checks it without making a string of it."""
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            at = line + _breaks(data[: error.start])
            byte = f"0x{data[error.start]:02x}"
            raise UserError(f"{path}, line {at}: byte {byte} is not valid UTF-8; convert the file to UTF-8.") from None
    return data


def _csv_rows(data: bytes, last: bool) -> tuple[int, int, int]:
    end, _, lines, longest = scan_csv(np.frombuffer(data, np.uint8), last, -1)
    return end, lines, longest


def whole_lines(data: bytes, last: bool) -> tuple[int, int, int]:
    """Cut between lines; see ``blocks``."""
    end = len(data) if last else data.rfind(b"\n") + 1
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8, end) == 10)
    longest = int(np.diff(breaks, prepend=-1, append=end).max())
    return end, len(breaks), longest


def _header(path: Path, block: Block, columns: Columns) -> tuple[list[str], Block]:
    """Return the names of the columns, and the block without them."""
    end, rows, lines, _ = scan_csv(np.frombuffer(block.data, np.uint8), True, 1)
    names = next(csv.reader(io.StringIO(block.data[:end].decode().strip("\r\n"), newline="")), []) if rows else []
    for name in columns:
        if names.count(name) != 1:
            times = "no column" if name not in names else f"{names.count(name)} columns"
            remedy = "name the right one in features.NAME.column, or wherever the job names it."
            if len(names) == 1 and "\t" in names[0]:
                remedy = "it looks separated by tabs, and CSV is by commas, with the columns' names in the first line: write it so."
            raise UserError(
                f"{path} has {times} {name!r} in its first line, it has {', '.join(map(repr, names))[:200]}; {remedy}"
            )
    return names, Block(block.data[end:], block.line + lines, block.longest)


def _csv_batches(path: Path, block: Block, names: list[str], columns: Columns) -> list[pa.RecordBatch]:
    if not block.data.strip(b"\r\n"):
        return []
    try:
        return _batches(_parse_csv(block, names, columns, threads=True))
    except (pa.ArrowException, ValueError) as error:  # ValueError: a message of Arrow's with half a character
        return _csv_by_hand(path, block, names, columns, error)


def _parse_csv(
    block: Block, names: list[str], columns: Columns, threads: bool, malformed: Callable[[Any], str] | None = None
) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(block.data),
        read_options=pa.csv.ReadOptions(
            column_names=names, use_threads=threads, block_size=max(1 << 20, block.longest + 1)
        ),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=malformed),
        convert_options=pa.csv.ConvertOptions(
            # Nothing but an empty cell is a null: a label written NA is to be named, not dropped.
            include_columns=list(columns),
            column_types=dict(columns),
            check_utf8=False,
            null_values=[""],
        ),
    )


def _csv_by_hand(
    path: Path, block: Block, names: list[str], columns: Columns, error: Exception
) -> list[pa.RecordBatch]:
    """Find the line that Arrow did not take; numbers written as 1.0 or true are made whole numbers after all."""
    table = _as_strings(path, block, names, columns, error)
    arrays = []
    for name, kind in columns.items():
        cells = table[name].combine_chunks()
        if kind in _OF_CELLS:
            convert, what = _READ[kind]
            values = []
            for row, cell in enumerate(cells.to_pylist()):
                try:
                    values.append(convert(_number(cell)))
                except (ValueError, OverflowError) as wrong:
                    where = f"{path}, line {_line_of(block, row)}"
                    raise UserError(f"{where}: column {name!r} is {_short(cell)}, {_none_of(what, wrong)}.") from None
            cells = pa.array(values, kind)
        elif kind != pa.string():
            raise UserError(f"{path}, lines from {block.line}: {error}.") from None
        arrays.append(cells)
    return _batches(pa.table(arrays, names=list(columns)))


def _as_strings(path: Path, block: Block, names: list[str], columns: Columns, error: Exception) -> pa.Table:
    malformed: list[Any] = []

    def keep(row: Any) -> str:
        malformed.append(row)
        return "error"

    try:
        return _parse_csv(block, names, dict.fromkeys(columns, pa.string()), threads=False, malformed=keep)
    except (pa.ArrowException, ValueError):
        if not malformed:
            raise UserError(f"{path}, lines from {block.line}: {error}.") from None
    row = malformed[0]
    raise UserError(
        f"{path}, line {_line_of(block, row.number - 1)}: the row has {row.actual_columns} columns, the header has "
        f"{row.expected_columns}; a text with a comma, a quote or a line break must stand in double quotes."
    )


def _line_of(block: Block, row: int) -> int:
    """Return the line on which a row (the first is 0) of a block of CSV begins."""
    data = block.data
    end, _, lines, _ = scan_csv(np.frombuffer(data, np.uint8), True, row)
    return block.line + lines + _breaks(data[end : len(data) - len(data[end:].lstrip(b"\r\n"))])


def _breaks(data: bytes) -> int:
    """Return the number of line breaks, of Unix, Windows or the old Macintosh."""
    return data.count(b"\n") or data.count(b"\r")


def _number(cell: str) -> Any:
    """Return what the text of a cell stands for: nothing, true or false, or a number; ValueError if none of these."""
    text = cell.strip().lower()
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    if "_" in text:  # which Python takes in a number
        raise ValueError(text)
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _whole(value: Any) -> int | None:
    """Return a number as a whole one, None as None; ValueError if it is none, OverflowError if it has more than 64 bits."""
    if value is None:
        return None
    if not isinstance(value, (bool, int, float)) or value != value // 1:
        raise ValueError(value)
    if not -(2**63) <= value < 2**63:
        raise OverflowError(value)
    return int(value)


def _real(value: Any) -> float | None:
    """Return a number as a float, None and an empty text as None; ValueError if it is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str | None:
    """Return a text, None as None; ValueError if it is none, UnicodeEncodeError if it cannot be written."""
    if value is not None and not isinstance(value, str):
        raise ValueError(value)
    if value is not None:
        value.encode()
    return value


def _list_of(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that makes a list of what ``convert`` makes of each entry, and None of None."""

    def of_list(value: Any) -> list[Any] | None:
        if value is None:
            return None
        if not isinstance(value, list):
            raise ValueError(value)
        return [convert(entry) for entry in value]

    return of_list


_READ: dict[pa.DataType, tuple[Callable[[Any], Any], str]] = {
    pa.string(): (_text, "a text"),
    pa.list_(pa.string()): (_list_of(_text), "a list of texts"),
    pa.int64(): (_whole, "a whole number"),
    pa.list_(pa.int64()): (_list_of(_whole), "a list of whole numbers"),
    pa.float64(): (_real, "a number"),
    pa.float32(): (_real, "a number"),
    pa.list_(pa.float32()): (_list_of(_real), "a list of numbers"),
}
_OF_CELLS = (pa.int64(), pa.float64(), pa.float32())


def _none_of(what: str, error: Exception) -> str:
    """Say that a value is not ``what`` it should be, as ``error`` of ``_READ``'s functions tells."""
    return f"not {what} of 64 bits with a sign" if isinstance(error, OverflowError) else f"not {what}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + " …"


def _json_by_hand(path: Path, block: Block, columns: Columns, error: Exception) -> pa.Table:
    """Find the line that Arrow did not take; numbers written as 1.0 or true are made whole numbers after all."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if not line.strip():
            continue
        record = _object(path, line, number)
        for name, kind in columns.items():
            convert, what = _READ.get(kind, (_as_it_is, ""))
            where = f"{path}, line {number}: column {name!r}"
            try:
                values[name].append(convert(record.get(name)))
            except UnicodeEncodeError:
                raise UserError(f"{where} has half of a surrogate pair (\\ud800 to \\udfff), no character.") from None
            except (ValueError, OverflowError) as wrong:
                raise UserError(f"{where} is {_short(record[name])}, {_none_of(what, wrong)}.") from None
    try:
        return pa.table({name: pa.array(values[name], kind) for name, kind in columns.items()})
    except (pa.ArrowException, ValueError, OverflowError):
        raise UserError(f"{path}, lines from {block.line}: {error}.") from None


def _as_it_is(value: Any) -> Any:
    return value


def _object(path: Path, line: bytes, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line.decode(), object_pairs_hook=_once)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}: not JSON ({str(error).replace('line 1 column', 'column')}); "
            "every line must be one JSON object."
        ) from None
    if isinstance(record, dict):
        return record
    kind = "an array" if isinstance(record, list) else "a single value"
    raise UserError(f"{path}, line {number}: {kind}, but every line must be one JSON object; write one object a line.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"one of the names {', '.join(record)} stands there twice")
    return record


def _check_keys(path: Path, block: Block, table: pa.Table) -> None:
    """Refuse a column that is nowhere in a first block; one that is there as null is taken."""
    absent = [name for name in table.column_names if table[name].null_count == table.num_rows]
    if not absent:
        return
    keys: dict[str, None] = {}
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if line.strip():
            keys.update(dict.fromkeys(_object(path, line, number)))
    for name in absent:
        if name not in keys:
            raise UserError(
                f"{path} has no column {name!r}, it has {', '.join(map(repr, keys))[:200]}; "
                "name the right one in features.NAME.column, or wherever the job names it."
            )


@numba.njit(nogil=True, cache=True)
def scan_csv(data: np.ndarray, last: bool, limit: int) -> tuple[int, int, int, int]:
    """Walk whole rows by Arrow's rules: a quote counts at the start of a field, and two of them inside are one.

    Parameters
    ----------
    data : ndarray, shape (bytes,), uint8
        Begins where a row begins.
    last : bool
        Whether the file ends here; then the last row needs no line break.
    limit : int
        Stop after this many rows; -1: never.

    Returns
    -------
    end, rows, lines, longest : int
        Bytes, rows, line breaks and the longest row of the part walked; empty lines are no rows.
    """
    start, quoted, plain = 0, 1, 2
    state, n = start, len(data)
    end = rows = lines = longest = breaks = i = 0
    while i < n and rows != limit:
        c = data[i]
        i += 1
        lone = c == 13 and (i == n or data[i] != 10)  # a carriage return that is no part of a Windows line break
        if lone and i == n and not last:
            break
        breaks += c == 10 or lone
        if state == quoted:
            if c == 34:
                if i < n and data[i] == 34:
                    i += 1
                else:
                    state = plain
        elif c == 10 or lone:
            rows += i - end > (2 if c == 10 and i > 1 and data[i - 2] == 13 else 1)
            longest = max(longest, i - end)
            lines += breaks
            end, breaks, state = i, 0, start
        elif c == 44:
            state = start
        else:
            state = quoted if c == 34 and state == start else plain
    if last and rows != limit and end < n and state != quoted:
        rows, longest, end, lines = rows + 1, max(longest, n - end), n, lines + breaks
    return end, rows, lines, longest
