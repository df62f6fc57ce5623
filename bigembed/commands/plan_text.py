"""A plan as tables for the terminal."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MOST_TABLES, MOST_RANKS = 30, 16
BAR = 20  # characters
MIB, GIB = 2**20, 2**30


def print_summary(values: dict[str, Any], console: Console) -> None:
    """Print what ``summary_of`` returned."""
    console.print(f"It fits: {_cluster(values['cluster'])}.")
    _print_tables(values, console)
    _print_ranks(values, console)
    rate = "" if values["samples_per_s"] is None else f", {values['samples_per_s']:,.0f} samples/s"
    console.print(
        f"A step of {values['batch_size']:,} samples takes {values['step_ms']:,.4g} ms in the tables alone{rate}.\n"
        f"The limit is {values['limit']['text']}.\n"
        "Bytes and times are estimates of TorchRec's planner, not measurements: bytes over bandwidths, without latencies; how many ids "
        "a sample brings is tables.NAME.sharding.pooling_factor, 1 where it is not given.",
        soft_wrap=True,
    )


def print_tried(cluster: dict[str, Any], tried: list[dict[str, Any]], console: Console) -> None:
    """Print what ``what_would_fit`` returned."""
    console.print(f"It does not fit: {_cluster(cluster)}.")
    gpu = cluster["device"] == "cuda"
    hosts = ["of it on hosts"] if gpu else []
    table = _table("tried in the planner", "fits", *hosts, "estimated ms", "what to type")
    for result in tried:
        time = f"{result['step_ms']:,.4g}" if result["fits"] else ""
        lies = [_size(result["ddr"]) if result["fits"] else ""] if gpu else []
        table.add_row(result["change"], "yes" if result["fits"] else "no", *lies, time, _typed(result["overrides"]))
    console.print(table)
    if not any(result["fits"] for result in tried):
        console.print("Nothing of this is enough.")


def _cluster(values: dict[str, Any]) -> str:
    gpu = values["device"] == "cuda"
    hosts = values["world_size"] // values["local_world_size"]
    what = "GPU" if gpu else "CPU rank"
    memory = f"{_gib(values['hbm'])} a GPU, " if gpu else ""
    return (
        f"{_count(values['world_size'], what)} on {_count(hosts, 'host')}, {memory}{_gib(values['ddr'])} a host, "
        f"{values['reserve']:.0%} of it left free"
    )


def _print_tables(values: dict[str, Any], console: Console) -> None:
    tables = values["tables"]
    kinds = _memories(values)
    largest = sorted(tables, key=lambda name: -tables[name]["hbm"] - tables[name]["ddr"])
    table = _table("table", "rows × dim", "numbers", "kind", "kernel", "on ranks", *kinds.values(), "ms")
    for name in largest[:MOST_TABLES]:
        of = tables[name]
        table.add_row(
            name,
            f"{of['rows']:,} × {of['dim']}",
            of["dtype"],
            of["kind"],
            of["kernel"],
            _ranks(of["ranks"], values["cluster"]["world_size"]),
            *(_size(of[memory]) for memory in kinds),
            f"{of['ms']['total']:,.4g}",
        )
    console.print(table)
    if len(largest) > MOST_TABLES:
        console.print(f"… and {len(largest) - MOST_TABLES:,} smaller tables; report=FILE has them all")


def _print_ranks(values: dict[str, Any], console: Console) -> None:
    cluster, ranks = values["cluster"], values["ranks"]
    on_gpu = cluster["device"] == "cuda"
    room = cluster["room_hbm" if on_gpu else "room_ddr"]
    memory = "hbm" if on_gpu else "ddr"
    kinds = _memories(values)
    table = _table("rank", f"of {_gib(room)} for tables", *kinds.values(), "look up", "talk", "update", "ms")
    for rank in _shown(ranks, memory):
        load = ranks[rank]
        full = load[memory] / room if room else 0.0
        bar = "█" * round(BAR * full)
        times = load["ms"]
        table.add_row(
            f"{rank:,}",
            f"{bar:<{BAR}} {full:4.0%}",
            *(_size(load[memory]) for memory in kinds),
            f"{times['forward'] + times['prefetch']:,.4g}",
            f"{times['forward_comms'] + times['backward_comms']:,.4g}",
            f"{times['backward']:,.4g}",
            f"{times['total']:,.4g}",
        )
    console.print(table)
    if len(ranks) > MOST_RANKS:
        console.print(f"of {len(ranks):,} ranks those with the most and the least, in memory and in time")


def _shown(ranks: list[dict[str, Any]], memory: str) -> list[int]:
    """Return the ranks that are worth a line."""
    if len(ranks) <= MOST_RANKS:
        return list(range(len(ranks)))
    by_memory = sorted(range(len(ranks)), key=lambda rank: ranks[rank][memory])
    by_time = sorted(range(len(ranks)), key=lambda rank: ranks[rank]["ms"]["total"])
    return sorted({*by_memory[:3], *by_memory[-3:], *by_time[:3], *by_time[-3:]})


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for column in columns:
        words = column in ("kind", "kernel", "numbers", "on ranks", "what to type", "fits") or column.startswith("of ")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _memories(values: dict[str, Any]) -> dict[str, str]:
    """Return the memories in which there is something, and the heads of their columns."""
    if values["cluster"]["device"] == "cpu":
        return {"ddr": "memory"}
    return {"hbm": "on GPUs"} | ({"ddr": "on hosts"} if any(load["ddr"] for load in values["ranks"]) else {})


def _size(size: int) -> str:
    return _gib(size) if size >= GIB / 10 else f"{size / MIB:,.1f} MiB"


def _ranks(ranks: list[int], world_size: int) -> str:
    if len(ranks) == world_size:
        return "all" if world_size > 1 else "0"
    if len(ranks) > 2 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]:,} – {ranks[-1]:,}"
    return ", ".join(f"{rank:,}" for rank in ranks[:4]) + (f", … ({len(ranks):,})" if len(ranks) > 4 else "")


def _typed(overrides: Iterable[str]) -> str:
    """Return the overrides, those that say the same of many tables as one."""
    overrides = list(overrides)
    if len(overrides) <= 4:
        return " ".join(overrides)
    return f"{' '.join(overrides[:3])} … (report=FILE has all {len(overrides):,})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
