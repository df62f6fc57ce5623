"""Labels, checked before they reach the model."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.errors import UserError


def check_labels(table: pa.Table, column: str, classes: int, part: str) -> np.ndarray:
    """Return the labels of a part as numbers.

    Parameters
    ----------
    table : Table
        The part.
    column : str
        Its column of labels: whole numbers of any width, true and false, or floats without a fraction.
    classes : int
        Labels are ``0`` to ``classes - 1``.
    part : str
        What messages call the part.

    Returns
    -------
    ndarray, shape (rows,), int64
        The column's own memory where that is int64 in one piece; then it cannot be written to.

    Raises
    ------
    UserError
        A label is null, out of range or no whole number; the message names its row (the first is 0) and value.
    """
    labels = table[column]
    where = f"column {column!r} of the {part} part"
    kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    labels = labels.cast(kind)
    if labels.null_count:
        row = pc.index(pc.is_null(labels), True).as_py()
        raise UserError(
            f"Row {row} of {where} has no label (null), {labels.null_count} of {len(labels)} rows have none; drop them."
        )
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        example = f", {_short(labels[0].as_py())} in row 0" if len(labels) else ""
        raise UserError(
            f"Labels in {where} are {kind}{example}, not whole numbers from 0 to {classes - 1}; number the classes."
        )
    if pa.types.is_boolean(kind):
        labels = labels.cast(pa.uint8())
    elif pa.types.is_floating(kind):
        labels = labels.cast(pa.float64())
    values = _values(labels)
    if pa.types.is_floating(kind):
        # First what is no whole number (NaN and infinity too), so that the message says that and not "out of range".
        _refuse(values, (values != np.floor(values)) | ~np.isfinite(values), where, "not a whole number", classes)
    _refuse(values, (values < 0) | (values >= classes), where, f"out of range for head.classes={classes}", classes)
    return values.astype(np.int64, copy=False)


def _values(labels: pa.ChunkedArray) -> np.ndarray:
    """Return numbers without nulls, where possible in their own memory; Arrow's own way imports pandas."""
    dtype = np.dtype("float64" if pa.types.is_floating(labels.type) else str(labels.type))
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset :][: len(chunk)] for chunk in labels.chunks if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, dtype)])


def _refuse(values: np.ndarray, bad: np.ndarray, where: str, what: str, classes: int) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"Row {row} of {where} is {_short(values[row].item())}, {what}; labels are whole numbers from 0 to "
            f"{classes - 1}: number the classes from 0, or set head.classes."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + " …"
