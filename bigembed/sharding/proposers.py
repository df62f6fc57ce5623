"""Which combinations of the tables' options the planner tries: a bounded number of them, however many tables there are."""

import heapq
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torchrec.distributed.planner.types import Proposer, ShardingOption

WORK = 30_000  # shards that the combinations of one proposer may have together: about a second
LEAST_LOOKS = 8  # combinations of a proposer, however many shards each has
LEAST_STEP = 2**0.5  # by which a limit falls

Options = list[ShardingOption]


def by_table(search_space: Options) -> list[Options]:
    """Return the options of each table, in the order of the search space."""
    tables: dict[str, Options] = {}
    for option in search_space:
        tables.setdefault(option.fqn, []).append(option)
    return list(tables.values())


def looks(search_space: Options) -> int:
    """Return how many combinations of the tables' options a proposer may try."""
    shards = sum(len(option.shards) for option in search_space) / len(search_space)
    return max(LEAST_LOOKS, int(WORK / (len(by_table(search_space)) * shards)))


def bytes_of(option: ShardingOption) -> tuple[list[int], list[int]]:
    """Return the bytes of an option's shards, in GPUs' memories and in hosts'."""
    storages: Any = [shard.storage for shard in option.shards]
    return [storage.hbm for storage in storages], [storage.ddr for storage in storages]


def milliseconds(option: ShardingOption) -> list[float]:
    """Return the estimated times of an option's shards."""
    perfs: Any = [shard.perf for shard in option.shards]
    return [perf.total for perf in perfs]


def largest_shard(option: ShardingOption) -> tuple[int, int]:
    """Return the bytes of an option's largest shard, in a GPU's memory and in a host's."""
    hbm, ddr = bytes_of(option)
    return max(hbm), max(ddr)


def fits(option: ShardingOption, room: tuple[int, int]) -> bool:
    """Whether every shard of an option goes into an empty rank."""
    hbm, ddr = largest_shard(option)
    return hbm <= room[0] and ddr <= room[1]


def largest_bytes(option: ShardingOption) -> float:
    """Return the bytes of an option's largest shard, wherever."""
    return float(sum(largest_shard(option)))


def longest_time(option: ShardingOption) -> float:
    """Return the milliseconds of an option's slowest shard."""
    return max(milliseconds(option))


def bytes_on_gpus(option: ShardingOption) -> float:
    """Return the bytes of an option in all GPUs together."""
    return float(sum(bytes_of(option)[0]))


class Search(Proposer):
    """Tries combinations by several rules, then betters the best of them where it is slowest.

    Parameters
    ----------
    room : (int, int)
        Bytes that a rank has, in its GPU's memory and in its share of the host's: what is larger cannot fit.
    """

    def __init__(self, room: tuple[int, int]) -> None:
        self.room = room

    def load(self, search_space: Options, enumerator: Any = None) -> None:
        """Begin with a search space."""
        everything, self.left = by_table(search_space), looks(search_space)
        self.tables = by_table([option for option in search_space if fits(option, self.room)])
        self.listed = [
            *greedy(everything, self.left, max),
            *greedy(everything, self.left, sum),
            *limited(self.tables, self.left, largest_bytes),
            *limited(self.tables, self.left, longest_time),
            *frugal(self.tables, self.left),
        ][::-1]
        self.best: Options = []
        self.rating = math.inf
        self.changes: list[tuple[int, ShardingOption]] = []

    def propose(self) -> Options | None:
        """Return what is listed, then the best combination with one table changed; None when that betters nothing."""
        if self.listed:
            return self.listed.pop()
        if not self.changes or not self.left:
            return None
        self.left -= 1
        table, option = self.changes.pop()
        return [*self.best[:table], option, *self.best[table + 1 :]]

    def feedback(
        self,
        partitionable: bool,
        plan: Options | None = None,
        perf_rating: float | None = None,
        storage_constraint: Any = None,
    ) -> None:
        """Keep the best combination, and what could be changed in it."""
        if partitionable and plan and perf_rating is not None and perf_rating < self.rating:
            self.rating, self.best = perf_rating, list(plan)
            self.changes = self._changes()[::-1]

    def _changes(self) -> list[tuple[int, ShardingOption]]:
        """Return the other options of the slowest rank's tables, those of the table that costs most first."""
        times: dict[int | None, dict[int, float]] = {}
        for table, option in enumerate(self.best):
            for shard, time in zip(option.shards, milliseconds(option), strict=True):
                of = times.setdefault(shard.rank, {})
                of[table] = of.get(table, 0.0) + time
        if None in times:  # tried by another proposer before
            return []
        slowest = max(times.values(), key=lambda of: sum(of.values()))
        return [
            (table, option)
            for table in sorted(slowest, key=lambda each: -slowest[each])
            for option in sorted(self.tables[table], key=longest_time)
            if option is not self.best[table]
        ]


def greedy(tables: list[Options], looks: int, score: Callable[[list[float]], float]) -> list[Options]:
    """Return what TorchRec's GreedyProposer proposes, in strides: the table with the largest shard moves to its next slower option.

    TorchRec's looks at every move, thousands for many tables, each as dear as there are shards. ``score`` makes one time of the times
    of an option's shards: their maximum or their sum.
    """
    tables = [sorted(options, key=lambda option: score(milliseconds(option))) for options in tables]
    moves = sum(len(options) - 1 for options in tables)
    stride = -(-moves // looks) or 1
    chosen = [0] * len(tables)
    heap = [_largest_first(options[0], table) for table, options in enumerate(tables)]
    heapq.heapify(heap)
    proposals = [[options[0] for options in tables]]
    move = 0
    while move < moves:
        table = heapq.heappop(heap)[-1]
        if chosen[table] + 1 < len(tables[table]):
            chosen[table] += 1
            heapq.heappush(heap, _largest_first(tables[table][chosen[table]], table))
            move += 1
            if move % stride == 0 or move == moves:
                proposals.append([options[at] for options, at in zip(tables, chosen, strict=True)])
    return proposals


def _largest_first(option: ShardingOption, table: int) -> tuple[int, int, int, int, int]:
    hbm, ddr = bytes_of(option)
    return -max(hbm), -sum(hbm), -max(ddr), -sum(ddr), table


def limited(tables: list[Options], looks: int, measure: Callable[[ShardingOption], float]) -> list[Options]:
    """Return every table's fastest option below a limit, which is lowered from proposal to proposal.

    A limit on ``largest_bytes`` lets tables fit into ranks, one on ``longest_time`` spreads them evenly.
    """
    tables = [sorted(options, key=lambda option: sum(milliseconds(option))) for options in tables]
    sizes = [[measure(option) for option in options] for options in tables]
    least = [of.index(min(of)) for of in sizes]
    limit, end = max(map(max, sizes)), max(map(min, sizes)) / 8
    step = max(LEAST_STEP, (limit / end) ** (1 / looks))
    proposals: list[Options] = []
    while limit > end:
        chosen = [
            next((at for at, size in enumerate(of) if size <= limit), smallest)
            for of, smallest in zip(sizes, least, strict=True)
        ]
        proposals.append([options[at] for options, at in zip(tables, chosen, strict=True)])
        limit /= step
    return [*proposals, [options[at] for options, at in zip(tables, least, strict=True)]]


def frugal(tables: list[Options], looks: int) -> list[Options]:
    """Return combinations that leave GPUs' memory step by step, first where a byte of it costs least time.

    Of each table only those options count that are on the convex hull of bytes and times; a step goes from one to the next.
    """
    hulls = [_hull(options) for options in tables]
    steps = sorted(
        (-(before[0] - after[0]) / (after[1] - before[1]), table)
        for table, hull in enumerate(hulls)
        for before, after in pairwise(hull)
    )
    stride = -(-len(steps) // looks) or 1
    chosen = [0] * len(tables)
    proposals = []
    for step, (_, table) in enumerate([*steps, (0.0, None)]):
        if step % stride == 0 or table is None:
            proposals.append([hull[at][2] for hull, at in zip(hulls, chosen, strict=True)])
        if table is not None:
            chosen[table] += 1
    return proposals


def _hull(options: Options) -> list[tuple[float, float, ShardingOption]]:
    """Return bytes on GPUs, time and option of those with the least time for their bytes, the fastest first."""
    hull: list[tuple[float, float, ShardingOption]] = []
    for option in sorted(options, key=lambda each: (sum(milliseconds(each)), bytes_on_gpus(each))):
        size, time = bytes_on_gpus(option), sum(milliseconds(option))
        if hull and (size >= hull[-1][0] or time <= hull[-1][1]):
            continue
        while len(hull) > 1 and (hull[-2][0] - hull[-1][0]) * (time - hull[-1][1]) <= (hull[-1][0] - size) * (
            hull[-1][1] - hull[-2][1]
        ):
            hull.pop()
        hull.append((size, time, option))
    return hull
