"""A plan: which rank holds which rectangle of which table, as a file that can be read, kept and followed."""

import json
from dataclasses import asdict, dataclass
from dataclasses import replace as replace_fields
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from torch.distributed._shard.sharding_spec import EnumerableShardingSpec, ShardMetadata
from torchrec.distributed.sharding_plan import placement
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding

from bigembed.config.placement import CUTS_COLUMNS, CUTS_ROWS
from bigembed.config.schema import DType, Job, Kernel, Kind
from bigembed.errors import UserError
from bigembed.files import replace

FORMAT = 1
TORCHREC_KIND = {kind: kind.value for kind in Kind} | {Kind.grid: "grid_shard"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a table on a rank: where it begins, and how large it is."""

    rank: int
    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table: what it is, and its pieces; a data_parallel table has one whole piece a rank."""

    kind: Kind
    kernel: Kernel
    rows: int
    dim: int
    dtype: DType
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every table's pieces, for so many ranks of a kind of device ("cpu" or "cuda")."""

    world_size: int
    local_world_size: int
    device: str
    tables: dict[str, TablePlan]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values, pieces as lists of rank, row, column, rows, columns."""
        tables = {
            name: {
                "kind": table.kind.name,
                "kernel": table.kernel.name,
                "rows": table.rows,
                "dim": table.dim,
                "dtype": table.dtype.name,
                "pieces": [list(asdict(piece).values()) for piece in table.pieces],
            }
            for name, table in self.tables.items()
        }
        return {
            "format": FORMAT,
            "world_size": self.world_size,
            "local_world_size": self.local_world_size,
            "device": self.device,
            "tables": tables,
        }

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        replace(path, json.dumps(self.as_dict()).encode())


def from_dict(values: dict[str, Any]) -> Plan:
    """Return the plan that ``as_dict`` made ``values`` of; KeyError, TypeError or ValueError where it is none."""
    if values["format"] != FORMAT:
        raise ValueError(f"it is of format {values['format']}, this bigembed reads format {FORMAT}")
    tables = {
        str(name): TablePlan(
            Kind[table["kind"]],
            Kernel[table["kernel"]],
            _whole(table["rows"]),
            _whole(table["dim"]),
            DType[table["dtype"]],
            [Piece(*map(_whole, piece)) for piece in table["pieces"]],
        )
        for name, table in values["tables"].items()
    }
    return Plan(_whole(values["world_size"]), _whole(values["local_world_size"]), str(values["device"]), tables)


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise ValueError(f"{number!r} is no whole number")
    return number


def load(path: Path) -> Plan:
    """Return the plan in a file.

    Raises
    ------
    UserError
        When the file is missing or no plan.
    """
    try:
        return from_dict(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"sharding.plan={path} cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise UserError(
            f"sharding.plan={path} is no plan that bigembed plan wrote: it lacks or does not know {error}"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"sharding.plan={path} is no plan that bigembed plan wrote: {error}") from None


def check_layout(name: str, plan: Plan, where: str) -> None:
    """Refuse pieces that are not the whole table once, or lie otherwise than TorchRec looks for them: it goes by the kind alone.

    Raises
    ------
    UserError
        Naming the table and what its kind asks for.
    """
    table, world, local = plan.tables[name], plan.world_size, plan.local_world_size
    lost = [piece.rank for piece in table.pieces if not 0 <= piece.rank < world]
    if lost:
        raise UserError(f"{where}: tables.{name} has a piece on rank {lost[0]}, but there are {world} ranks")
    blocks = [list(block) for _, block in groupby(table.pieces, key=lambda piece: (piece.column, piece.columns))]
    if table.kind is Kind.data_parallel:
        right = table.pieces == [Piece(rank, 0, 0, table.rows, table.dim) for rank in range(world)]
    else:
        columns = sorted((block[0].column, block[0].columns) for block in blocks)
        ends = list(accumulate((width for _, width in columns), initial=0))
        right = [column for column, _ in columns] == ends[:-1] and ends[-1] == table.dim
        right = right and (len(blocks) == 1 or table.kind in CUTS_COLUMNS) and all(width > 0 for _, width in columns)
        right = right and all(block == _over_rows(block[0], table, world, local) for block in blocks)
        hosts = {piece.rank // local for piece in table.pieces}
        right = right and (len(hosts) == 1 or table.kind is not Kind.table_column_wise)
    if not right:
        raise UserError(
            f"{where}: the pieces of tables.{name} are not those of a table that is sharded {table.kind.name}; plan anew"
        )


def _over_rows(first: Piece, table: TablePlan, world: int, local: int) -> list[Piece]:
    """Return the pieces of a block of columns: equal runs of rows over the ranks that its kind cuts rows for, the last one shorter."""
    ranks = [first.rank]
    if table.kind is Kind.row_wise:
        ranks = list(range(world))
    elif table.kind in CUTS_ROWS:
        host = first.rank // local
        ranks = list(range(host * local, (host + 1) * local))
    run = -(-table.rows // len(ranks))
    starts = [number * run for number in range(len(ranks))]
    return [
        Piece(rank, row, first.column, min(run, table.rows - row), first.columns)
        for rank, row in zip(ranks, starts, strict=True)
    ]


def to_torchrec(
    tables: dict[str, TablePlan], device: str, local_world_size: int, extras: dict[str, dict[str, Any]]
) -> EmbeddingModuleShardingPlan:
    """Return TorchRec's form of the plan of one module's tables; ``extras`` are further fields of its ParameterSharding, by table."""
    return EmbeddingModuleShardingPlan(
        {name: _parameter_sharding(table, device, local_world_size, extras[name]) for name, table in tables.items()}
    )


def _parameter_sharding(
    table: TablePlan, device: str, local_world_size: int, extras: dict[str, Any]
) -> ParameterSharding:
    kind = TORCHREC_KIND[table.kind]
    ranks = [piece.rank for piece in table.pieces]
    if table.kind is Kind.data_parallel:
        return ParameterSharding(sharding_type=kind, compute_kernel=table.kernel.value, ranks=ranks, **extras)
    shards = [
        ShardMetadata(
            shard_sizes=[piece.rows, piece.columns],
            shard_offsets=[piece.row, piece.column],
            placement=placement(device, piece.rank, local_world_size),
        )
        for piece in table.pieces
    ]
    return ParameterSharding(
        sharding_type=kind,
        compute_kernel=table.kernel.value,
        ranks=ranks,
        sharding_spec=EnumerableShardingSpec(shards),
        **extras,
    )


def with_placement(job: Job, name: str, kind: Kind, kernel: Kernel) -> Job:
    """Return a copy of ``job`` in which a table asks for a kind and a kernel."""
    table = job.tables[name]
    own = replace_fields(table.sharding, kind=kind, kernel=kernel)
    return replace_fields(job, tables={**job.tables, name: replace_fields(table, sharding=own)})
