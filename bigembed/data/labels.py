"""Labels, checked before they reach the model."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import RankingLoss
from bigembed.errors import UserError


def check_labels(table: pa.Table, column: str, classes: int, part: str, clicks: bool = False) -> np.ndarray:
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
    clicks : bool
        Whether they are a ranking head's, of whose classes no option tells.

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
    rule = f"labels are whole numbers from 0 to {classes - 1}: number the classes from 0, or set head.classes."
    if clicks:
        rule = "convert the labels to 0 and 1, or, where they are ratings, set head.losses=[squared]."
    if pa.types.is_floating(kind):
        # First what is no whole number (NaN and infinity too), so that the message says that and not "out of range".
        _refuse(values, (values != np.floor(values)) | ~np.isfinite(values), where, "not a whole number", rule)
    told = "neither 0 nor 1" if clicks else f"out of range for head.classes={classes}"
    _refuse(values, (values < 0) | (values >= classes), where, told, rule)
    return values.astype(np.int64, copy=False)


def _values(labels: pa.ChunkedArray) -> np.ndarray:
    """Return numbers without nulls, where possible in their own memory; Arrow's own way imports pandas."""
    dtype = np.dtype("float64" if pa.types.is_floating(labels.type) else str(labels.type))
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset :][: len(chunk)] for chunk in labels.chunks if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, dtype)])


def _refuse(values: np.ndarray, bad: np.ndarray, where: str, told: str, rule: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"Row {row} of {where} is {_short(values[row].item())}, {told}; {rule}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + " …"


def ranking_labels(table: pa.Table, columns: Sequence[str], losses: Sequence[RankingLoss], part: str) -> np.ndarray:
    """Return the labels of a part for a ranking head, shape (rows, labels), float32.

    Raises
    ------
    UserError
        A binary label is not 0 or 1, or a rating is missing or not finite.
    """
    found = np.empty((table.num_rows, len(columns)), np.float32)
    for place, (column, loss) in enumerate(zip(columns, losses, strict=True)):
        if loss is RankingLoss.binary:
            found[:, place] = check_labels(table, column, 2, part, clicks=True)
            continue
        with np.errstate(over="ignore"):  # what float32 does not reach is refused below
            found[:, place] = _values(table[column].cast(pa.float64()).fill_null(np.nan))
        wrong = ~np.isfinite(found[:, place])
        if wrong.any():
            raise UserError(
                f"Row {int(wrong.argmax())} of column {column!r} of the {part} part has no rating (null, not finite, or beyond float32), "
                f"{int(wrong.sum())} of {len(wrong)} rows have none; drop them."
            )
    return found


def check_two_classes(labels: np.ndarray, columns: Sequence[str], losses: Sequence[RankingLoss]) -> None:
    """Refuse training rows whose binary labels, shape (rows, labels), are all the same.

    Raises
    ------
    UserError
        Naming the column.
    """
    for place, (column, loss) in enumerate(zip(columns, losses, strict=True)):
        if loss is RankingLoss.binary and labels[:, place].min() == labels[:, place].max():
            raise UserError(
                f"Column {column!r} of the train part holds nothing but {labels[0, place]:g}, so that there is nothing to tell apart; "
                "give rows of both classes."
            )


def codes_of_groups(values: pa.ChunkedArray, column: str, part: str, option: str = "head.group") -> np.ndarray:
    """Return a number for each different value, shape (rows,), int64; ``option`` names the column.

    Raises
    ------
    UserError
        A value is null, or a list.
    """
    if pa.types.is_nested(values.type):
        raise UserError(
            f"Column {column!r} of the {part} part, {option}, holds lists, and a row is in one group; name another column."
        )
    if values.null_count:
        raise UserError(
            f"Column {column!r} of the {part} part, {option}, has {values.null_count} nulls; drop those rows."
        )
    encoded = values.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return np.asarray(encoded.indices).astype(np.int64)
