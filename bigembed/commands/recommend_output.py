"""Lists of items written: as Parquet, or as lines of text."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigembed.errors import UserError

GROUP = 1 << 20  # entries of lists in a row group, at least


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables to a file and return the number of rows."""
    count = waiting = 0
    held: list[pa.Table] = []
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            held.append(table)
            count += len(table)
            waiting += pc.sum(pc.list_value_length(table[2])).as_py() or 0
            if waiting >= GROUP:
                writer.write_table(pa.concat_tables(held))
                held, waiting = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))
    return count


def write_text(file: TextIO, tables: Iterable[pa.Table]) -> int:
    """Write tables as lines of who asks, what was found and its score, with tabs between them, and return the number of lists.

    Raises
    ------
    UserError
        An id has a tab or a line break in it.
    """
    count = 0
    for table in tables:
        rows = pc.list_parent_indices(table[1].combine_chunks())
        columns = [table[0].take(rows), *(pc.list_flatten(table[number]) for number in (1, 2))]
        texts = [column.cast(pa.string()) for column in columns]
        for column, text in zip(columns, texts, strict=True):
            if pa.types.is_string(column.type) and pc.any(pc.match_substring_regex(text, "[\t\r\n]")).as_py():
                raise UserError(
                    "an id has a tab or a line break in it, which text cannot hold; write output=FILE.parquet"
                )
        lines = pc.binary_join_element_wise(*texts, "\t").to_pylist()
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        count += len(table)
    return count
