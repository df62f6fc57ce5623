"""What a plan comes to, as plain values: per table, per rank, and what limits the step. Estimates, all of them."""

from dataclasses import asdict
from typing import Any

from bigembed.config.placement import IN_HOST_MEMORY
from bigembed.config.schema import Kernel
from bigembed.sharding.cluster import Cluster
from bigembed.sharding.planner import Load, Planned

TIMES = ("forward", "forward_comms", "backward_comms", "backward", "prefetch")  # in the order of a step


def summary_of(planned: Planned, batch_size: int) -> dict[str, Any]:
    """Return what a plan for steps of ``batch_size`` samples comes to.

    Returns
    -------
    dict
        "cluster" and "batch_size"; "step_ms" and "samples_per_s", of the slowest rank and of the tables alone; "tables" by name, with
        bytes over all ranks and the milliseconds of the slowest piece; "ranks" in order; "limit", with a sentence as "text".
    """
    ranks = planned.ranks()
    slowest = max(range(len(ranks)), key=lambda rank: ranks[rank].milliseconds)
    step = ranks[slowest].milliseconds
    return {
        "fits": True,
        "estimated_by": "TorchRec's planner; nothing here was measured",
        "cluster": cluster_values(planned.cluster),
        "batch_size": batch_size,
        "step_ms": step,
        "samples_per_s": 1000 * batch_size / step if step else None,
        "limit": _limit(planned, slowest, ranks),
        "tables": {name: _table(planned, name) for name in planned.plan.tables},
        "ranks": [{"hbm": load.hbm, "ddr": load.ddr, "ms": _times(load)} for load in ranks],
    }


def cluster_values(cluster: Cluster) -> dict[str, Any]:
    """Return the cluster as plain values, with the bytes that a rank has for tables."""
    hbm, ddr = cluster.room
    return {**asdict(cluster), "room_hbm": hbm, "room_ddr": ddr}


def _times(load: Load) -> dict[str, float]:
    return {"total": load.milliseconds, **{name: getattr(load, name) for name in TIMES}}


def _table(planned: Planned, name: str) -> dict[str, Any]:
    table, loads = planned.plan.tables[name], planned.loads[name]
    return {
        "kind": table.kind.name,
        "kernel": table.kernel.name,
        "rows": table.rows,
        "dim": table.dim,
        "dtype": table.dtype.name,
        "pieces": len(table.pieces),
        "ranks": sorted({piece.rank for piece in table.pieces}),
        "hbm": sum(load.hbm for load in loads),
        "ddr": sum(load.ddr for load in loads),
        "ms": _times(max(loads, key=lambda load: load.milliseconds)),
    }


def _limit(planned: Planned, rank: int, ranks: list[Load]) -> dict[str, Any]:
    """Return what takes most of the slowest rank's time, and for which table most of that."""
    causes: dict[str, dict[str, float]] = {}
    for name, table in planned.plan.tables.items():
        for piece, load in zip(table.pieces, planned.loads[name], strict=True):
            if piece.rank == rank:
                talk = load.forward_comms + load.backward_comms
                for cause, time in (
                    (_memory(planned.cluster, table.kernel), load.milliseconds - talk),
                    (_network(planned.cluster), talk),
                ):
                    of = causes.setdefault(cause, {})
                    of[name] = of.get(name, 0.0) + time
    cause = max(causes, key=lambda each: sum(causes[each].values()))
    heaviest = max(causes[cause], key=lambda each: causes[cause][each])
    step, part = ranks[rank].milliseconds, sum(causes[cause].values())
    mean = sum(load.milliseconds for load in ranks) / len(ranks)
    share = f" ({part / step:.0%})" if step else ""
    slowest = f"rank {rank:,}, the slowest" if len(ranks) > 1 else "the step"
    text = f"{cause}: {part:,.4g} of the {step:,.4g} ms{share} of {slowest}, most of it for tables.{heaviest}"
    if mean < 0.99 * step:
        text += f"; the ranks' mean is {mean:,.4g} ms"
    return {"rank": rank, "what": cause, "table": heaviest, "ms": part, "mean_ms": mean, "text": text}


def _memory(cluster: Cluster, kernel: Kernel) -> str:
    if cluster.device == "cpu":
        return "the bandwidth of the host's memory"
    return "the way to the host's memory" if kernel in IN_HOST_MEMORY else "the bandwidth of the GPU's memory"


def _network(cluster: Cluster) -> str:
    return "communication between hosts" if cluster.hosts > 1 else "communication within the host"
