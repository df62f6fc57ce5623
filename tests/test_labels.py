"""Labels: what is taken as a class, and what is refused with its row."""

import numpy as np
import pyarrow as pa
import pytest

from bigembed.data.labels import check_labels
from bigembed.errors import UserError


def check(values, kind=None, classes=2, chunks=1):
    array = pa.chunked_array([pa.array(values, kind)] * chunks)
    return check_labels(pa.table({"label": array}), "label", classes, "train")


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        pa.dictionary(pa.int8(), pa.int64()),
    ],
)
def test_whole_numbers_of_every_type_become_int64(kind):
    values = np.float16([0, 1, 1]) if kind == pa.float16() else [0, 1, 1]
    labels = check(values, kind, chunks=2)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 1, 0, 1, 1]


def test_true_and_false_are_one_and_zero():
    assert check([True, False]).tolist() == [1, 0]


def test_int64_in_one_piece_is_not_copied():
    array = pa.array([0, 1, 0])
    labels = check_labels(pa.table({"label": array}), "label", 2, "train")
    assert labels.ctypes.data == array.buffers()[1].address


def test_more_classes_than_a_narrow_type_can_count_are_no_matter():
    assert check([0, 127], pa.int8(), classes=1000).tolist() == [0, 127]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (
            [0, None, 1, None],
            None,
            r"Row 1 of column 'label' of the train part has no label \(null\), 2 of 4 rows have none",
        ),
        ([0, 1, 2], None, r"Row 2 of column 'label' of the train part is 2, out of range for head.classes=2"),
        ([0, -1], pa.int8(), r"Row 1 .* is -1, out of range .* from 0 to 1"),
        ([2**63 + 5], pa.uint64(), r"Row 0 .* is 9223372036854775813, out of range"),
        ([0.0, 0.5], None, r"Row 1 .* is 0.5, not a whole number"),
        ([0.0, float("nan")], None, r"Row 1 .* is nan, not a whole number"),
        ([float("inf")], None, r"Row 0 .* is inf, not a whole number"),
        ([1e300], None, r"Row 0 .* is 1e\+300, out of range"),
        (
            ["pos", "neg"],
            None,
            r"Labels in column 'label' of the train part are string, 'pos' in row 0, .*number the classes",
        ),
        ([[1], [2]], None, r"Labels in column 'label' of the train part are list"),
        ([None, None], pa.null(), r"Row 0 .* has no label"),
    ],
)
def test_what_is_no_class_is_refused_with_its_row_and_value(values, kind, message):
    with pytest.raises(UserError, match=message):
        check(values, kind)


def test_the_row_is_counted_over_all_chunks():
    array = pa.chunked_array([pa.array([0, 1]), pa.array([], pa.int64()), pa.array([1, 7])])
    with pytest.raises(UserError, match=r"Row 3 .* is 7"):
        check_labels(pa.table({"label": array}), "label", 2, "test")
