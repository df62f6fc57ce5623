"""A plan: which rank holds which rectangle of which table, as a file that can be read, kept and followed."""

import json
from dataclasses import asdict, dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

from torch.distributed._shard.sharding_spec import EnumerableShardingSpec, ShardMetadata
from torchrec.distributed.sharding_plan import placement
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding

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
            int(table["rows"]),
            int(table["dim"]),
            DType[table["dtype"]],
            [Piece(*map(int, piece)) for piece in table["pieces"]],
        )
        for name, table in values["tables"].items()
    }
    return Plan(int(values["world_size"]), int(values["local_world_size"]), str(values["device"]), tables)


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


def check_covers(name: str, table: TablePlan, world_size: int, where: str) -> None:
    """Refuse pieces that overlap, leave rows out, or lie on ranks that are not there."""
    bad = [piece.rank for piece in table.pieces if not 0 <= piece.rank < world_size]
    if bad:
        raise UserError(f"{where}: tables.{name} has a piece on rank {bad[0]}, but there are {world_size} ranks")
    if table.kind is Kind.data_parallel:
        wanted = {(rank, 0, 0, table.rows, table.dim) for rank in range(world_size)}
        whole = {(piece.rank, piece.row, piece.column, piece.rows, piece.columns) for piece in table.pieces} == wanted
    else:
        inside = all(
            piece.row >= 0
            and piece.column >= 0
            and piece.rows > 0
            and piece.columns > 0
            and piece.row + piece.rows <= table.rows
            and piece.column + piece.columns <= table.dim
            for piece in table.pieces
        )
        area = sum(piece.rows * piece.columns for piece in table.pieces)
        corners = {(piece.row, piece.column) for piece in table.pieces}
        whole = inside and area == table.rows * table.dim and len(corners) == len(table.pieces)
    if not whole:
        raise UserError(f"{where}: the pieces of tables.{name} are not the whole table, each row and column once")


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
