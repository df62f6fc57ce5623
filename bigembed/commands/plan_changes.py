"""Changes that could make tables fit, each tried in the planner."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bigembed.config.check import check
from bigembed.config.physical import part_name, parts, physical
from bigembed.config.placement import check_placement, kernel_of, kind_of
from bigembed.config.schema import (
    DType,
    HashedTable,
    Job,
    Kernel,
    Kind,
    MixedTable,
    Rounding,
    SubwordTable,
    TableConfig,
    VocabTable,
)
from bigembed.errors import UserError

if TYPE_CHECKING:
    from bigembed.sharding.cluster import Cluster
    from bigembed.sharding.planner import Planned

GPUS_A_HOST = 8
MOST_TIMES = 64  # as many ranks are tried at most


@dataclass(frozen=True, slots=True)
class Case:
    """A job with its tables' rows, on a cluster; and the overrides by which it differs from the one that did not fit."""

    job: Job
    rows: dict[str, int]
    cluster: "Cluster"
    overrides: tuple[str, ...] = ()

    def changed(self, overrides: list[str], rows: dict[str, int] | None = None) -> "Case | None":
        """Return the case with more overrides, their values already in the job; None where there are none."""
        return replace(self, overrides=(*self.overrides, *overrides), rows=rows or self.rows) if overrides else None


Change = Callable[[Case], Case | None]


def plan_on_paper(job: Job, rows: dict[str, int], cluster: "Cluster") -> "Planned":
    """Return the plan of a job's tables; nothing is allocated. Raises as ``make_plan`` does."""
    import torch

    from bigembed.model import Model
    from bigembed.sharding.planner import make_plan

    with torch.device("meta"):  # the head as well
        model = Model(job, rows, torch.device("meta"))
    return make_plan(model, physical(job), cluster)


def what_would_fit(
    job: Job, rows: dict[str, int], cluster: "Cluster", tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return what became of each change alone; where none is enough, of them together; and the least number of ranks that is enough.

    Returns
    -------
    list of dict
        With "change" in words, "overrides" to type, "fits", and "step_ms" and "ddr" (bytes in the hosts' memory) or "why" not.
    """
    case, tried = Case(job, rows, cluster), []
    for words, change in CHANGES.items():
        changed = change(_copied(case))
        if changed is not None:
            tell(f"trying: {words}")
            tried.append(_tried(words, changed))
    if not any(result["fits"] for result in tried):
        tried += _together(case, tell)
    for words, changed in _larger(case):
        tell(f"trying: {words}")
        result = _tried(words, changed)
        if result["fits"]:
            return [*tried, result]
    return tried


def _tried(words: str, case: Case) -> dict[str, Any]:
    result: dict[str, Any] = {"change": words, "overrides": list(case.overrides)}
    try:
        check(case.job)
        check_placement(physical(case.job), case.cluster.device)
        planned = plan_on_paper(case.job, case.rows, case.cluster)
    except UserError as error:
        return {**result, "fits": False, "why": str(error)}
    loads = planned.ranks()
    milliseconds = max(load.milliseconds for load in loads)
    return {**result, "fits": True, "step_ms": milliseconds, "ddr": sum(load.ddr for load in loads)}


def _together(case: Case, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Put the changes together, the harmless first, until it fits."""
    words: list[str] = []
    result = None
    for name in TOGETHER:
        changed = CHANGES[name](_copied(case))
        if changed is not None:
            case = changed
            words.append(name)
            if len(words) > 1:
                tell(f"trying: {', '.join(words)}")
                result = _tried(", ".join(words), case)
                if result["fits"]:
                    break
    return [result] if result else []


def _copied(case: Case) -> Case:
    return replace(case, job=copy.deepcopy(case.job))


def _any_kind(case: Case) -> Case | None:
    return _freed(case, "kind", kind_of, Kind.auto, ())


def _kernel(kernel: Kernel) -> Change:
    """Return the change to a kernel in the host's memory, for tables that were bound to another; the planner tries it by itself else."""
    return lambda case: _freed(case, "kernel", kernel_of, kernel, (Kernel.auto, Kernel.dense))


def _freed(case: Case, option: str, asked: Callable[[Job, str], Any], value: Any, but: tuple[Any, ...]) -> Case | None:
    """Give an option of ``sharding`` another value, for all tables at once where none has its own."""
    if option == "kernel" and case.cluster.device == "cpu":
        return None
    names = [name for name in case.job.tables if asked(case.job, name) not in (value, *but)]
    own = [name for name in names if getattr(case.job.tables[name].sharding, option) is not None]
    overrides = [f"tables.{name}.sharding.{option}={value.name}" for name in own]
    for name in own:
        setattr(case.job.tables[name].sharding, option, value)
    if len(own) < len(names):
        setattr(case.job.sharding, option, value)
        overrides.append(f"sharding.{option}={value.name}")
    return case.changed(overrides)


def _fp16(case: Case) -> Case | None:
    overrides = []
    for name, table in case.job.tables.items():
        if table.dtype is DType.fp32:
            table.dtype = DType.fp16
            overrides.append(f"tables.{name}.dtype=fp16")
            if case.cluster.device == "cpu" or kernel_of(case.job, name) is Kernel.dense:
                table.rounding = Rounding.nearest
                overrides.append(f"tables.{name}.rounding=nearest")
    return case.changed(overrides)


def _half_the_dim(case: Case) -> Case | None:
    overrides = []
    for name, table in case.job.tables.items():
        if table.dim >= 8 and not isinstance(table, MixedTable):  # whose rows have widths of their own
            table.dim = table.dim // 8 * 4
            overrides.append(f"tables.{name}.dim={table.dim}")
    return case.changed(overrides)


def _buckets(times: int) -> Change:
    """Return the change to so many times fewer buckets."""

    def change(case: Case) -> Case | None:
        overrides, rows = [], dict(case.rows)
        for name, table in case.job.tables.items():
            if has_buckets(table) and table.buckets >= times:  # type: ignore[attr-defined]
                before, table.buckets = table.buckets, table.buckets // times  # type: ignore[attr-defined]
                rows[_hashed_part(name, table)] -= before - table.buckets  # type: ignore[attr-defined]
                overrides.append(f"tables.{name}.buckets={table.buckets}")  # type: ignore[attr-defined]
        return case.changed(overrides, rows)

    return change


def has_buckets(table: TableConfig) -> bool:
    """Whether a table has rows that are hashed into."""
    return isinstance(table, HashedTable | SubwordTable) or (isinstance(table, VocabTable) and table.ngrams > 1)


def _hashed_part(name: str, table: TableConfig) -> str:
    """Return the name of the part of a table that holds the rows that are hashed into."""
    return part_name(name, parts(table)[-1 if isinstance(table, MixedTable) else 0])


def _larger(case: Case) -> Iterator[tuple[str, Case]]:
    """Yield clusters of twice, four times, … as many ranks; on GPUs a host is filled first."""
    cluster = case.cluster
    fill = cluster.device == "cuda" and cluster.hosts == 1 and case.job.plan.local_world_size is None
    times = 2
    while times <= MOST_TIMES:
        world = times * cluster.world_size
        local = min(world, max(GPUS_A_HOST, cluster.local_world_size)) if fill else cluster.local_world_size
        if world % local == 0:
            larger = replace(cluster, world_size=world, local_world_size=local)
            overrides = (f"plan.world_size={world}", f"plan.local_world_size={local}")
            what = "GPUs" if cluster.device == "cuda" else "ranks, on as many more hosts"
            yield f"{world:,} {what}", replace(case, cluster=larger, overrides=(*case.overrides, *overrides))
        times *= 2


CHANGES: dict[str, Change] = {
    "any kind of sharding": _any_kind,
    "fused_uvm_caching: rows in the hosts' memory, some on the GPU": _kernel(Kernel.fused_uvm_caching),
    "fused_uvm: rows in the hosts' memory": _kernel(Kernel.fused_uvm),
    "fp16": _fp16,
    "half the dimension": _half_the_dim,
    "half the buckets": _buckets(2),
    "a quarter of the buckets": _buckets(4),
}
TOGETHER = (
    "any kind of sharding",
    "fused_uvm_caching: rows in the hosts' memory, some on the GPU",
    "fp16",
    "half the buckets",
    "half the dimension",
)
