"""Why tables cannot be laid over a cluster, in a sentence: what they need, what there is, what stands in the way, what helps."""

from torchrec.distributed.planner.types import ShardingOption

from bigembed.config.placement import kernel_of, kind_of
from bigembed.config.schema import Job, Kernel, Kind
from bigembed.errors import UserError
from bigembed.sharding.candidates import KINDS
from bigembed.sharding.cluster import GIB, Cluster
from bigembed.sharding.proposers import bytes_of, fits, largest_shard


class NoRoom(UserError):
    """The tables do not fit: less of them, or more room, would help."""


def check_room(tables: list[list[ShardingOption]], job: Job, rows: dict[str, int], cluster: Cluster) -> None:
    """Refuse what cannot fit in any way, given every table's options with their estimates.

    Raises
    ------
    NoRoom
        When the tables together need more than there is, or one of them more than a rank has.
    """
    need, free = _need(tables), _free(tables, cluster)
    if need > free:
        raise NoRoom(
            f"the tables and their optimizer's state need {_gib(need)}, but {_gib(free)} are free{_where(cluster)}; "
            f"{_largest(tables, job, rows)}: fewer buckets, a smaller max_size, dim or dtype"
        )
    hbm, ddr = cluster.room
    for options in tables:
        if any(fits(option, cluster.room) for option in options):
            continue
        option = min(options, key=lambda each: sum(largest_shard(each)))
        of_hbm, of_ddr = largest_shard(option)
        needs, has = (of_hbm, hbm) if of_hbm > hbm else (of_ddr, ddr)
        raise NoRoom(
            f"no rank can hold a piece of tables.{option.name}, {rows[option.name]:,} rows × {job.tables[option.name].dim}: the "
            f"smallest, {KINDS[option.sharding_type].name} with the kernel {option.compute_kernel}, needs {_gib(needs)}, but "
            f"{_gib(has)} are free on a rank; {_loosened(job, [option.name])}fewer buckets, a smaller max_size, dim or dtype"
        )


def no_way(tables: list[list[ShardingOption]], job: Job, rows: dict[str, int], cluster: Cluster) -> NoRoom:
    """Return the error for tables that have room together, but whose pieces do not go into the ranks."""
    asked = [name for name in rows if kind_of(job, name) is not Kind.auto or kernel_of(job, name) is not Kernel.auto]
    return NoRoom(
        f"the tables and their optimizer's state need {_gib(_need(tables))} and {_gib(_free(tables, cluster))} are "
        f"free{_where(cluster)}, but no way was found to lay their pieces; {_largest(tables, job, rows)}: "
        f"{_loosened(job, asked)}fewer buckets, a smaller max_size, dim or dtype"
    )


def _need(tables: list[list[ShardingOption]]) -> int:
    """Return the bytes of all tables, each in its least way."""
    return sum(min(sum(map(sum, bytes_of(option))) for option in options) for options in tables)


def _free(tables: list[list[ShardingOption]], cluster: Cluster) -> int:
    """Return the bytes of all ranks, with those of hosts where a table may lie there."""
    hbm, ddr = cluster.room
    hosts = any(largest_shard(option)[1] for options in tables for option in options)
    return cluster.world_size * (hbm + (ddr if hosts else 0))


def _where(cluster: Cluster) -> str:
    on = f" on {cluster.world_size:,} ranks" if cluster.world_size > 1 else ""
    on += ", GPUs and hosts together," if cluster.device == "cuda" else ""
    return f"{on} beside the reserve (plan.reserve={cluster.reserve:g})" if cluster.reserve else on


def _largest(tables: list[list[ShardingOption]], job: Job, rows: dict[str, int]) -> str:
    largest = max(tables, key=lambda options: min(sum(map(sum, bytes_of(option))) for option in options))[0].name
    return f"the largest is tables.{largest}, {rows[largest]:,} rows × {job.tables[largest].dim}"


def _loosened(job: Job, names: list[str]) -> str:
    """Say which choices of the configuration keep tables from other ways."""
    for name in names:
        of_table = job.tables[name].sharding
        for option, chosen, own in (
            ("kind", kind_of(job, name), of_table.kind),
            ("kernel", kernel_of(job, name), of_table.kernel),
        ):
            if chosen.name != "auto":
                path = "sharding" if own is None else f"tables.{name}.sharding"
                return f"{path}.{option}=auto instead of {chosen.name}, "
    return ""


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
