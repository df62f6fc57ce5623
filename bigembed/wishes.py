"""What can be asked for in a column of the data: Arrow types, of which those that leave a choice are types that no file has.

``pa.string()`` asks for texts. Any other type that is not named here is what CSV and JSON lines, which know no types, are
read as; Parquet and saved `datasets` folders give the type that they have.
"""

from collections.abc import Mapping

import pyarrow as pa

IDS = pa.list_(pa.int64())
"""Whole numbers, or lists of them, of any type that the data has. CSV knows no lists; JSON lines are read as the first of them."""

VALUES = pa.dense_union([pa.field("text", pa.string()), pa.field("number", pa.int64())])
"""Texts, whole numbers, or lists of either, as the data has them. CSV gives texts; JSON lines are read as the first of them."""

NUMBERS = pa.dense_union([pa.field("number", pa.float64())])
"""Numbers, with a fraction or without, or none (null; in CSV and JSON lines also an empty text): read as float64."""

WEIGHTS = pa.dense_union([pa.field("weight", pa.float32()), pa.field("weights", pa.list_(pa.float32()))])
"""Numbers, or lists of them, read as float32. CSV knows no lists; JSON lines are read as the first of them."""

Columns = Mapping[str, pa.DataType]
"""The wished columns by name, and what is asked for in each."""
