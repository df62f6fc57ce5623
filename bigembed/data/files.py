"""Opens data files as Arrow tables: small ones in memory, large ones converted once and memory-mapped."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bigembed.config.schema import FilesData, Format
from bigembed.data.converted import Say, held, work_folder
from bigembed.data.parts import SIDES, Source, find_part, is_single
from bigembed.data.rows import Rows, as_wished, read_rows, wished
from bigembed.errors import UserError
from bigembed.wishes import Columns

_CONVERSION = 1  # counts up when converted files change their meaning, so that old ones are not taken


def open_files(config: FilesData, columns: Columns, say: Say | None = None) -> dict[str, pa.Table]:
    """Open every part that the configuration names.

    Parameters
    ----------
    config : FilesData
        Which files.
    columns : mapping of str to DataType
        The wished columns; see ``wishes``.
    say : callable, optional
        Told what takes longer than a second; by default that is logged.

    Returns
    -------
    dict of str to Table
        ``train``, and ``validation`` and ``test`` where they are not null.

    Raises
    ------
    UserError
        Whatever is wrong with the files.
    """
    parts = [part for part in ("train", "validation", "test") if getattr(config, part) is not None]
    if len(parts) > 1 and config.path is not None and is_single(Path(config.path).expanduser()):
        raise UserError(
            f"data.path={config.path} is one part by itself, so it has no {parts[1]} part: go without by "
            f"data.{parts[1]}=null, or name each part: data.path=null data.train={config.path} data.{parts[1]}=FILE."
        )
    return {part: open_file_part(config, part, columns, say) for part in parts}


def open_file_part(config: FilesData, part: str, columns: Columns, say: Say | None = None) -> pa.Table:
    """Open one part (``train``, ``validation``, ``test``, ``users``, ``items`` or ``negatives``); all else as for ``open_files``.

    Where ``data.path`` is one file, that file is the part, whichever of the first three is asked for. The last three are
    files even where the others come from the Hub.
    """
    say = say or logging.getLogger(__name__).info
    if config.path is None and config.hub is not None and part not in SIDES:
        return _checked_rows(_from_hub(config.hub, getattr(config, part), part, columns, say), config.hub, part)
    source = find_part(config, part)
    names = str(source.files[0]) + (f" and {len(source.files) - 1} more" if len(source.files) > 1 else "")
    if source.format is Format.datasets:
        return _checked_rows(_map_saved(source.files[0], columns), names, part)
    return _checked_rows(
        _load(source, columns, config.in_memory_mib << 20, work_folder(config.work_dir), say), names, part
    )


def _checked_rows(table: pa.Table, names: str, part: str) -> pa.Table:
    if table.num_rows == 0:
        raise UserError(f"The {part} part ({names}) has no rows.")
    return table


def _load(source: Source, columns: Columns, limit: int, work_dir: Path, say: Say) -> pa.Table:
    """Read the files into memory, or convert them if they turn out to be larger than ``limit`` bytes."""
    target = work_dir / f"{source.part}-{_fingerprint(source, columns)}.arrow"
    return held(target, lambda: _join(source, columns), limit, f"reading {source.files[0]}", say)


def _join(source: Source, columns: Columns) -> Rows:
    """Return the rows of all files of a part, one file after the other; all must have the types of the first."""
    first = read_rows(source.files[0], source.format, columns)
    on_disk = [path.stat().st_size for path in source.files]

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.batches
        for path in source.files[1:]:
            rows = read_rows(path, source.format, columns)
            for field, other in zip(first.schema, rows.schema, strict=True):
                texts = {pa.string(), pa.large_string()}
                if field.type != other.type and not {field.type, other.type} <= texts:
                    raise UserError(
                        f"Column {field.name!r} is {other.type} in {path}, but {field.type} in {source.files[0]}; "
                        "the files of a part must have the same types."
                    )
            same = rows.schema == first.schema
            yield from rows.batches if same else (batch.cast(first.schema) for batch in rows.batches)

    return Rows(first.schema, first.size * sum(on_disk) // on_disk[0], batches())


def _fingerprint(source: Source, columns: Columns) -> str:
    """Return a name for these columns of these files as they are now."""
    stats = []
    for path in source.files:
        try:
            stat = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        stats.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    wishes = [[name, str(kind)] for name, kind in columns.items()]
    content = json.dumps([_CONVERSION, source.format.value, wishes, stats])
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def _map_saved(folder: Path, columns: Columns) -> pa.Table:
    """Return a folder that `datasets` saved: Arrow streams, memory-mapped, without the import of that package."""
    try:
        names = [entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
        tables = [pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in names]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        brief = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{folder} is a saved data set that is damaged or not complete: {brief}; save it anew."
        ) from None
    return _select(pa.concat_tables(tables), folder, columns)


def _select(table: pa.Table, where: Path | str, columns: Columns) -> pa.Table:
    schema = wished(where, table.schema, columns)
    table = table.select(schema.names)
    if table.schema.types == schema.types:
        return table.cast(schema)  # drops the metadata of datasets; nothing is copied
    first, batches = 0, []
    for batch in table.to_batches():
        batches.append(as_wished(where, first, batch, schema))
        first += batch.num_rows
    return pa.Table.from_batches(batches, schema)


def _from_hub(hub: str, split: str | None, part: str, columns: Columns, say: Say) -> pa.Table:
    if split is None:
        raise UserError(f"There is no {part} part, as data.{part} is null; name a split of {hub}.")
    say(f"loading {split} of {hub} from the Hugging Face Hub, or from its cache")
    from datasets import load_dataset  # slow to import, and only needed here

    for name in ("huggingface_hub", "datasets"):  # they tell of every try, twice; what went wrong is told below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        dataset = load_dataset(hub, split=split)
    except Exception as error:  # of many packages: no network, no such data set, no such split, no room
        brief = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UserError(
            f"Part {split!r} of {hub} could not be loaded from the Hugging Face Hub ({brief}); where the Hub cannot be "
            "reached, download the data set elsewhere and give data.path=DIR, with train.parquet and test.parquet."
        ) from None
    return _select(dataset.with_format("arrow")[:], hub, columns)
