"""The rows of one file as Arrow record batches of a few megabytes, so that files of any size can be gone through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.schema import Format
from bigembed.data.lines import IDS, Columns, csv_types, json_types, read_csv, read_json_lines
from bigembed.errors import UserError

BATCH_BYTES = 4 << 20  # decoded bytes aimed at in one batch: large enough to cost nothing, small beside the tables
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
        A column is missing, or one of texts or of ids holds something else.
    """
    fields = []
    for name, kind in columns.items():
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            times = "no column" if not found else f"{len(found)} columns"
            raise UserError(
                f"{path} has {times} {name!r}, it has {', '.join(map(repr, schema.names))}; "
                "name the right one in features.NAME.column or head.label."
            )
        stored = schema.field(found[0]).type
        plain = stored.value_type if pa.types.is_dictionary(stored) else stored
        if kind in _TYPES:
            type_of, what = _TYPES[kind]
            plain = type_of(plain)
            if plain is None:
                raise UserError(
                    f"Column {name!r} of {path} holds {stored}, not {what}; name another column, or convert it."
                )
        fields.append(pa.field(name, plain))
    return pa.schema(fields)


def as_wished(path: Path | str, first: int, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch that begins at row ``first`` of a file in the types of ``schema``, its texts checked as UTF-8."""
    arrays = []
    for field in schema:
        array = batch.column(field.name)
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            array = _as_text(path, first, array, field)
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as_text(path: Path | str, first: int, array: pa.Array, field: pa.Field) -> pa.Array:
    try:
        text = array if array.type == field.type else array.cast(field.type)
        text.validate(full=True)
        return text
    except pa.ArrowInvalid:
        for row, value in enumerate(array.cast(pa.large_binary())):
            try:
                (value.as_py() or b"").decode()
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


def _ids_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type in which integers, or lists of them, are read; None for all else."""
    types = pa.types
    if types.is_null(kind):
        return pa.int64()
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return kind if types.is_integer(kind) else None
    item = pa.int64() if types.is_null(kind.value_type) else kind.value_type  # nulls: all the lists are empty
    if not types.is_integer(item):
        return None
    if types.is_fixed_size_list(kind):
        return pa.list_(item, kind.list_size)
    return pa.large_list(item) if types.is_large_list(kind) else pa.list_(item)


_TYPES: dict[pa.DataType, tuple[Callable[[pa.DataType], pa.DataType | None], str]] = {
    pa.string(): (_text_type, "texts"),
    IDS: (_ids_type, "whole numbers or lists of them"),
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
    compressed = path.suffix in (".gz", ".bz2", ".zst")
    return Rows(pa.schema(list(columns.items())), 0 if compressed else path.stat().st_size, reader(path, columns))


def _brief(error: BaseException) -> str:
    """Return the first line of a library's message, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


_READERS: dict[Format, Callable[[Path, Columns], Rows]] = {
    Format.parquet: _read_parquet,
    Format.csv: lambda path, columns: _read_lines(read_csv, csv_types, path, columns),
    Format.jsonl: lambda path, columns: _read_lines(read_json_lines, json_types, path, columns),
}
