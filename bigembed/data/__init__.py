"""Where rows come from: every kind of data as Arrow tables, in memory or memory-mapped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from bigembed.config.schema import ClicksData, DataConfig, FilesData, GeneratedData
from bigembed.data.clicks import open_clicks, open_clicks_part
from bigembed.data.files import open_file_part, open_files
from bigembed.data.generated import open_generated, open_generated_part
from bigembed.wishes import Columns

_OPENERS: dict[type[DataConfig], tuple[Callable[..., dict[str, pa.Table]], Callable[..., pa.Table]]] = {
    FilesData: (open_files, open_file_part),
    GeneratedData: (open_generated, open_generated_part),
    ClicksData: (open_clicks, open_clicks_part),
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the data of a job.

    Attributes
    ----------
    train : Table
        The training rows, at least one; where ``validation`` is None, a part of them is split off by ``order.Order``.
    validation, test : Table or None
        At least one row each, if there.
    """

    train: pa.Table
    validation: pa.Table | None
    test: pa.Table | None


def open_data(
    config: DataConfig,
    features: Columns | Sequence[str],
    labels: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Parts:
    """Open all parts of the data.

    Parameters
    ----------
    config : DataConfig
        Where the rows come from.
    features : mapping of str to DataType, or sequence of str
        The columns of the features that the job needs, and what is asked for in each, see ``bigembed.wishes``; names alone
        ask for texts.
    labels : sequence of str
        The columns of labels, which come as the data has them, and from CSV and JSON lines as int64. No other is read.
    say : callable, optional
        Told, in one line, what takes longer than a second; by default that is logged.

    Returns
    -------
    Parts
        Tables of just these columns, ``features`` first.

    Raises
    ------
    UserError
        Whatever is wrong with the data.
    """
    tables = _OPENERS[type(config)][0](config, _columns(features, labels), say)
    return Parts(tables["train"], tables.get("validation"), tables.get("test"))


def open_part(
    config: DataConfig,
    part: str,
    features: Columns | Sequence[str],
    labels: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> pa.Table:
    """Open one part, ``train``, ``validation`` or ``test``, or of files ``users``, ``items`` or ``negatives``.

    All else is as for ``open_data``, which does not open the latter three. Where ``data.path`` is one file, that file is the
    part, whichever of the first three is asked for.
    """
    return _OPENERS[type(config)][1](config, part, _columns(features, labels), say)


def _columns(features: Columns | Sequence[str], labels: Sequence[str]) -> Columns:
    wishes = features if isinstance(features, Mapping) else dict.fromkeys(features, pa.string())
    return {**wishes, **dict.fromkeys(labels, pa.int64())}
