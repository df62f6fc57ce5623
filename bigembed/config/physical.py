"""The job as TorchRec sees it: every table of the configuration as the tables ("parts") that it is made of. No torch."""

from dataclasses import dataclass, replace

from bigembed.config.schema import (
    Combine,
    CompositionalTable,
    FeatureConfig,
    HashedTable,
    Job,
    MixedTable,
    Pooling,
    SubwordTable,
    TableConfig,
    option,
)

LANE = 4  # FBGEMM's rows are multiples of this wide


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tables that a table is made of.

    Attributes
    ----------
    suffix : str
        What its name adds to that of the table; empty for the only part.
    dim : int
        Width of its rows.
    per_element : int
        Rows that each element (token, n-gram, value) has in it; 0: that differs.
    reach, centre : float
        Its rows start uniform in [centre - reach, centre + reach].
    """

    suffix: str
    dim: int
    per_element: int
    reach: float
    centre: float = 0.0


@dataclass(slots=True)
class PartTable(TableConfig):
    """One part of a table that has several."""

    centre: float = option(0.0, "Its rows start uniform in [centre - init_range, centre + init_range].")
    of: str = option("", "Table of the configuration that it is a part of.")


def parts(table: TableConfig) -> tuple[Part, ...]:
    """Return the parts of a table, in the order in which its encoder gives their ids."""
    dim, reach = table.dim, table.init_range or 1 / table.dim
    if isinstance(table, HashedTable) and table.importance is not None:
        weights = -(-table.functions // LANE) * LANE
        return Part("rows", dim, table.functions, reach), Part("importance", weights, 1, 0.0, 1.0)
    if isinstance(table, HashedTable):
        return (Part("", dim, table.functions, reach),)
    if isinstance(table, CompositionalTable):
        width = dim // len(table.partitions) if table.combine is Combine.concat else dim
        first, others = Part("0", width, 1, reach), 1.0 if table.combine is Combine.mult else 0.0
        return first, *(Part(str(i), width, 1, reach, others) for i in range(1, len(table.partitions)))
    if isinstance(table, MixedTable):
        return tuple(Part(str(i), width, 0, reach) for i, width in enumerate(table.widths))
    return (Part("", dim, 0 if isinstance(table, SubwordTable) else 1, reach),)


def first_values(table: TableConfig) -> tuple[float, float]:
    """Return the least and the greatest that a number of a row of a physical job's table can begin as."""
    reach = 1 / table.dim if table.init_range is None else table.init_range
    centre = table.centre if isinstance(table, PartTable) else 0.0
    return centre - reach, centre + reach


def part_name(name: str, part: Part) -> str:
    """Return the name of a part of the table, or of the feature, of this name."""
    return f"{name}-{part.suffix}" if part.suffix else name


def option_path(job: Job, name: str) -> str:
    """Return the path of the options of a table of a physical job."""
    table = job.tables[name]
    return f"tables.{table.of if isinstance(table, PartTable) else name}"


def per_element(job: Job, feature: FeatureConfig) -> bool:
    """Whether the rows of a feature are looked up one by one: they stay a sequence, or are not simply added up."""
    table = job.tables[feature.table]
    multiplied = isinstance(table, CompositionalTable) and table.combine is Combine.mult
    weighed = isinstance(table, HashedTable) and table.importance is not None
    return feature.pooling is Pooling.none or multiplied or weighed


def is_weighted(job: Job, feature: FeatureConfig) -> bool:
    """Whether each id of a feature counts by a weight of its own, because one of those that share its table has weights."""
    table = job.tables[feature.table]
    signed = isinstance(table, HashedTable) and table.sign
    return signed or any(each.weights is not None for each in job.features.values() if each.table == feature.table)


def physical(job: Job) -> Job:
    """Return the job with each table of several parts as these, and each feature as one of each part; "text" becomes "text-0", ….

    Features whose rows are looked up one by one have pooling none in it.
    """
    tables: dict[str, TableConfig] = {}
    for name, table in job.tables.items():
        for part in parts(table):
            tables[part_name(name, part)] = _part_table(name, table, part) if part.suffix else table
    features = {}
    for name, feature in job.features.items():
        for part in parts(job.tables[feature.table]):
            pooling = Pooling.none if per_element(job, feature) else feature.pooling
            table_name = part_name(feature.table, part)
            features[part_name(name, part)] = replace(feature, table=table_name, pooling=pooling)
    return replace(job, tables=tables, features=features)


def _part_table(name: str, table: TableConfig, part: Part) -> PartTable:
    return PartTable(
        dim=part.dim,
        init_range=part.reach,
        dtype=table.dtype,
        rounding=table.rounding,
        lr=table.lr,
        pretrained=table.pretrained,
        sharding=table.sharding,
        centre=part.centre,
        of=name,
    )
