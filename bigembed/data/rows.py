"""The rows of one file as Arrow record batches of a few megabytes, so that files of any size can be gone through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.schema import Format
from bigembed.data.forms import FORMS, form_of
from bigembed.data.lines import csv_types, json_types, read_csv, read_json_lines
from bigembed.errors import UserError
from bigembed.wishes import IDS, NUMBERS, VALUES, WEIGHTS, Columns

BATCH_BYTES = 4 << 20  # decoded bytes aimed at in one batch: large enough to cost nothing, small beside the tables
TypeOf = Callable[[pa.DataType], pa.DataType | None]
BATCH_ROWS = 1 << 16  # texts that Parquet keeps once in a dictionary decode to more than its metadata says


@dataclass(slots=True)
class Rows:
    """A file that is about to be read.

    Attributes
    ----------
    schema : Schema
        Of the wished columns, in the wished order.
    size : int
        About how many bytes they take decoded, as far as that is known beforehand; 0 where it is not.
    batches : iterator of RecordBatch
        The rows in order, each batch of that schema.
    """

    schema: pa.Schema
    size: int
    batches: Iterator[pa.RecordBatch]


def read_rows(path: Path, format: Format, columns: Columns) -> Rows:
    """Open one file; only the wished columns are read.

    Raises
    ------
    UserError
        Here or while the batches are taken: the file is missing, empty, damaged, no such file, or lacks a column.
    """
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes).")
    return _READERS[format](path, columns)


def wished(path: Path | str, schema: pa.Schema, columns: Columns) -> pa.Schema:
    """Return the schema of the wished columns of a file that has types of its own.

    Raises
    ------
    UserError
        A column is missing, or one holds something else than is wished for.
    """
    fields = []
    for name, kind in columns.items():
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            times = "no column" if not found else f"{len(found)} columns"
            raise UserError(
                f"{path} has {times} {name!r}, it has {', '.join(map(repr, schema.names))}; "
                "name the right one in features.NAME.column, or wherever the job names it."
            )
        stored = schema.field(found[0]).type
        plain = stored.value_type if pa.types.is_dictionary(stored) else stored
        if kind in _TYPES:
            type_of, what = _TYPES[kind]
            plain = type_of(plain)
            if plain is None:
                fraction = kind == VALUES and pa.types.is_floating(stored)
                remedy = "look it up in a table of kind bucketized" if fraction else "name another column"
                raise UserError(f"Column {name!r} of {path} holds {stored}, not {what}; {remedy}, or convert it.")
        fields.append(pa.field(name, plain))
    return pa.schema(fields)


def as_wished(path: Path | str, first: int, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch that begins at row ``first`` of a file in the types of ``schema``, its texts checked as UTF-8."""
    arrays = []
    for field in schema:
        array = batch.column(field.name)
        item = field.type.value_type if is_list(field.type) else field.type
        if pa.types.is_string(item) or pa.types.is_large_string(item):
            array = _as_text(path, first, array, field)
        elif array.type != field.type:
            array = array.cast(field.type, safe=not pa.types.is_floating(item))  # numbers may lose digits
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def is_list(kind: pa.DataType) -> bool:
    """Return whether rows of a type are lists: plain, large, or of a fixed size."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _as_text(path: Path | str, first: int, array: pa.Array, field: pa.Field) -> pa.Array:
    """Return texts, or lists of them, in the type of ``field``, after a look at every byte."""
    try:
        text = array if array.type == field.type else array.cast(field.type)
        text.validate(full=True)
        return text
    except pa.ArrowInvalid:
        in_lists = is_list(array.type)
        as_bytes = array.cast(_with_item(array.type, pa.large_binary()) if in_lists else pa.large_binary())
        for row, value in enumerate(as_bytes.to_pylist()):
            try:
                for each in (value or []) if in_lists else [value]:
                    (each or b"").decode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"Row {first + row} (the first is 0) of {path} is not valid UTF-8 in column {field.name!r} "
                    f"({error.reason}); write the file anew."
                ) from None
        raise


def _text_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which texts (also bytes, and nulls) are read, so that files of a part fit together; None for all else."""
    types = pa.types
    checks = (types.is_string, types.is_string_view, types.is_binary, types.is_large_binary, types.is_binary_view)
    if any(check(kind) for check in (*checks, types.is_null)):
        return pa.string()
    return kind if types.is_large_string(kind) else None


def _whole_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which whole numbers (also nulls) are read; None for all else."""
    if pa.types.is_null(kind):
        return pa.int64()
    return kind if pa.types.is_integer(kind) else None


def _value_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which texts or whole numbers are read; None for all else."""
    return _text_type(kind) or _whole_type(kind)


def _number_type(kind: pa.DataType) -> pa.DataType | None:
    """Return float64 for numbers of any kind, and nulls; None for all else."""
    types = pa.types
    return pa.float64() if types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind) else None


def _weight_type(kind: pa.DataType) -> pa.DataType | None:
    """Return float32 for numbers of any kind, and nulls; None for all else."""
    return None if _number_type(kind) is None else pa.float32()


def _or_list(item_type: TypeOf) -> TypeOf:
    """Return a function that tells the type in which lists are read, too, by that of their items."""

    def type_of(kind: pa.DataType) -> pa.DataType | None:
        if not is_list(kind):
            return item_type(kind)
        value = kind.value_type
        item = item_type(value.value_type if pa.types.is_dictionary(value) else value)
        return None if item is None else _with_item(kind, item)

    return type_of


def _with_item(kind: pa.DataType, item: pa.DataType) -> pa.DataType:
    """Return the type of lists of another item."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(item, kind.list_size)
    return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)


_TYPES: dict[pa.DataType, tuple[TypeOf, str]] = {
    pa.string(): (_text_type, "texts"),
    IDS: (_or_list(_whole_type), "whole numbers or lists of them"),
    VALUES: (_or_list(_value_type), "texts, whole numbers, or lists of either"),
    NUMBERS: (_number_type, "numbers"),
    WEIGHTS: (_or_list(_weight_type), "numbers or lists of them"),
}


def _read_parquet(path: Path, columns: Columns) -> Rows:
    try:
        # Neither mapped (a mapped file counts as memory in use) nor read ahead by whole columns.
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file, or it was cut short: {_brief(error)}.") from None
    schema = wished(path, file.schema_arrow, columns)
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    return Rows(schema, size, _parquet_batches(path, file, schema, size))


def _parquet_batches(path: Path, file: pq.ParquetFile, schema: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
    rows = file.metadata.num_rows
    per_batch = min(BATCH_ROWS, max(1, rows * BATCH_BYTES // max(size, 1)))
    read = 0
    try:
        for batch in file.iter_batches(batch_size=per_batch, columns=schema.names):
            yield as_wished(path, read, batch, schema)
            read += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged after row {read}: {_brief(error)}; get or write it anew.") from None
    finally:
        file.close()


def _read_lines(
    reader: Callable[..., Iterator[pa.RecordBatch]], types: Callable[..., Columns], path: Path, columns: Columns
) -> Rows:
    columns = types(path, columns)
    return Rows(pa.schema(list(columns.items())), _size(path), reader(path, columns))


def _read_form(format: Format, path: Path, columns: Columns) -> Rows:
    form = form_of(path, format)
    schema = wished(path, form.schema, columns)
    batches = _numbered(form.read(path, schema.names))
    return Rows(schema, _size(path), (as_wished(path, first, batch, schema) for first, batch in batches))


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches, each with the number of its first row."""
    first = 0
    for batch in batches:
        yield first, batch
        first += batch.num_rows


def _size(path: Path) -> int:
    """Return about how many bytes a file of texts takes, 0 where it is compressed."""
    return 0 if path.suffix in (".gz", ".bz2", ".zst") else path.stat().st_size


def _brief(error: BaseException) -> str:
    """Return the first line of a library's message, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


_READERS: dict[Format, Callable[[Path, Columns], Rows]] = {
    Format.parquet: _read_parquet,
    Format.csv: lambda path, columns: _read_lines(read_csv, csv_types, path, columns),
    Format.jsonl: lambda path, columns: _read_lines(read_json_lines, json_types, path, columns),
    **{format: partial(_read_form, format) for format in FORMS},
}
