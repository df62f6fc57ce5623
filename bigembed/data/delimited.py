"""Lines of cells without quotes and without a header, as many published data sets have: cut into blocks, parsed by Arrow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bigembed.data.lines import Block, blocks, whole_lines
from bigembed.errors import UserError

_STAND_IN = b"\x01"  # Arrow's separators are one character
_NAMES = {"\t": "tabs", "|": "'|'", "::": "'::'"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a line is made.

    Attributes
    ----------
    separator : str
        Between two cells.
    fields : mapping of str to DataType
        The name and type (int64, float64 or string) of each cell.
    may_be_empty : bool
        Whether numbers may be missing (null); else they are refused. An empty text is a text.
    latin : bool
        Whether blocks that are no UTF-8 are ISO 8859-1 (Latin-1), as old files are.
    """

    separator: str
    fields: Mapping[str, pa.DataType]
    may_be_empty: bool = False
    latin: bool = False


def read_delimited(path: Path, layout: Layout, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the fields of these names; empty lines are left out.

    Raises
    ------
    UserError
        With the line, where one has another number of cells, a cell is no number or empty, or bytes are not UTF-8.
    """
    for block in blocks(path, whole_lines, _from_latin if layout.latin else None):
        block, separator = _one_character(path, block, layout.separator)
        if not block.data.strip(b"\r\n"):
            continue
        try:
            table = _parse(block, separator, layout, {name: layout.fields[name] for name in names}, threads=True)
        except (pa.ArrowException, ValueError):  # ValueError: a message of Arrow's with half a character
            _refuse(path, block, separator, layout, names)
        for name in names if not layout.may_be_empty else ():
            if table[name].null_count:
                line = _line_of(block, pc.index(pc.is_null(table[name]), True).as_py())
                raise UserError(f"{path}, line {line}: {name!r} is empty; complete the line or drop it.")
        yield from table.combine_chunks().to_batches()


def _from_latin(path: Path, data: bytes, line: int) -> bytes:
    """Return a block as UTF-8, be it that or Latin-1."""
    try:
        data.decode()
        return data
    except UnicodeDecodeError:
        return data.decode("latin-1").encode()


def _one_character(path: Path, block: Block, separator: str) -> tuple[Block, str]:
    """Return a block with a separator that Arrow can read."""
    if len(separator) == 1:
        return block, separator
    at = block.data.find(_STAND_IN)
    if at >= 0:
        line = block.line + block.data.count(b"\n", 0, at)
        raise UserError(f"{path}, line {line}: byte 0x01 is a control character; take it out, or get the file anew.")
    data = block.data.replace(separator.encode(), _STAND_IN)
    return Block(data, block.line, block.longest), _STAND_IN.decode()


def _parse(
    block: Block,
    separator: str,
    layout: Layout,
    types: Mapping[str, pa.DataType],
    threads: bool,
    malformed: "list[pa.csv.InvalidRow] | None" = None,
) -> pa.Table:
    def keep(row: pa.csv.InvalidRow) -> str:
        if malformed is not None:
            malformed.append(row)
        return "error"

    return pa.csv.read_csv(
        pa.BufferReader(block.data),
        read_options=pa.csv.ReadOptions(
            column_names=list(layout.fields), use_threads=threads, block_size=max(1 << 20, block.longest + 1)
        ),
        parse_options=pa.csv.ParseOptions(delimiter=separator, quote_char=False, invalid_row_handler=keep),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(types), column_types=dict(types), check_utf8=False, null_values=[""]
        ),
    )


def _refuse(path: Path, block: Block, separator: str, layout: Layout, names: Sequence[str]) -> NoReturn:
    """Raise what is wrong with a block that Arrow did not take."""
    malformed: list[pa.csv.InvalidRow] = []
    try:
        texts = _parse(block, separator, layout, dict.fromkeys(names, pa.string()), threads=False, malformed=malformed)
    except (pa.ArrowException, ValueError) as error:
        if not malformed:
            raise UserError(f"{path}, lines from {block.line}: {str(error).splitlines()[0]}.") from None
        fields = list(layout.fields)
        each = ", ".join(fields) if len(fields) < 10 else f"{', '.join(fields[:3])} … {fields[-1]}"
        raise UserError(
            f"{path}, line {_line_of(block, malformed[0].number - 1)}: {malformed[0].actual_columns} columns with "
            f"{_NAMES[layout.separator]} between them, but a line of this form has {len(fields)}: {each}."
        ) from None
    bad = [(row, name) for name in names if (row := _first_bad(texts[name], layout.fields[name])) is not None]
    if not bad:
        raise UserError(f"{path}, lines from {block.line}: they cannot be read; get the file anew.")
    row, name = min(bad)
    cell = texts[name][row].as_py()
    what = "a whole number of 64 bits" if layout.fields[name] == pa.int64() else "a number"
    shown = repr(cell) if len(cell) <= 40 else repr(cell[:40]) + " …"
    raise UserError(f"{path}, line {_line_of(block, row)}: {name!r} is {shown}, not {what}.")


def _first_bad(cells: pa.ChunkedArray, kind: pa.DataType) -> int | None:
    """Return the first row whose cell is not of a type, or None: halved until it is found."""
    cells = pc.utf8_trim_whitespace(cells)
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    low, high = 0, len(cells)
    if _fits(cells, kind):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(cells.slice(low, middle - low), kind):
            low = middle
        else:
            high = middle
    return low


def _fits(cells: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        cells.cast(kind)
        return True
    except pa.ArrowInvalid:
        return False


def _line_of(block: Block, row: int) -> int:
    """Return the line of a row (the first is 0) of a block; empty lines are no rows."""
    lines = (number for number, line in enumerate(block.data.split(b"\n")) if line.strip(b"\r"))
    return block.line + next((number for place, number in enumerate(lines) if place == row), 0)
