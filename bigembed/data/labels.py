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
    if pa.types.is_boolean(kind):
        labels = labels.cast(pa.uint8())
    elif pa.types.is_floating(kind):
        labels = labels.cast(pa.float64())  # Arrow has no arithmetic of half floats
        # First what is no whole number (NaN and infinity too), so that the message says that and not "out of range".
        _refuse(labels, pc.invert(pc.equal(labels, pc.floor(labels))), where, "not a whole number", classes)
        _refuse(labels, pc.invert(pc.is_finite(labels)), where, "not a whole number", classes)
    elif not pa.types.is_integer(kind):
        example = f", {_short(labels[0].as_py())} in row 0" if len(labels) else ""
        raise UserError(
            f"Labels in {where} are {kind}{example}, not whole numbers from 0 to {classes - 1}; number the classes."
        )
    outside = pc.or_(pc.less(labels, _like(0, labels)), pc.greater(labels, _like(classes - 1, labels)))
    _refuse(labels, outside, where, f"out of range for head.classes={classes}", classes)
    labels = labels.cast(pa.int64())
    if labels.num_chunks == 1:
        return labels.chunk(0).to_numpy(zero_copy_only=True)
    return labels.to_numpy()


def _refuse(labels: pa.ChunkedArray, bad: pa.ChunkedArray, where: str, what: str, classes: int) -> None:
    row = pc.index(bad, True).as_py()
    if row >= 0:
        value = _short(labels[row].as_py())
        raise UserError(
            f"Row {row} of {where} is {value}, {what}; labels are whole numbers from 0 to {classes - 1}: "
            "number the classes from 0, or set head.classes."
        )


def _like(value: int, labels: pa.ChunkedArray) -> pa.Scalar:
    """Return a bound in the labels' own type (saturated), as comparing int8 with int64 would widen the whole column."""
    if pa.types.is_floating(labels.type):
        return pa.scalar(float(value)).cast(labels.type)
    bounds = np.iinfo(str(labels.type))  # Arrow's names of integers are NumPy's; its own translation imports pandas
    return pa.scalar(min(max(value, bounds.min), bounds.max), labels.type)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + " …"
