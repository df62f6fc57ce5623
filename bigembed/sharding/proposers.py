"""Which combinations of the tables' options the planner tries; their number is bounded, whatever the number of tables."""

import heapq
from collections.abc import Callable
from typing import Any

from torchrec.distributed.planner.types import Proposer, ShardingOption

WORK = 100_000  # shards that the proposals of one proposer may have together: about a second
LEAST_LOOKS = 8  # proposals of a proposer, however many shards each has
SQRT2 = 2**0.5
MOST_LIMITS = 32


def by_table(search_space: list[ShardingOption]) -> list[list[ShardingOption]]:
    """Return the options of each table, in the order of the search space."""
    tables: dict[str, list[ShardingOption]] = {}
    for option in search_space:
        tables.setdefault(option.fqn, []).append(option)
    return list(tables.values())


def looks(search_space: list[ShardingOption]) -> int:
    """Return how many combinations of the tables' options a proposer may try."""
    shards = sum(len(option.shards) for option in search_space) / len(search_space)
    tables = len({option.fqn for option in search_space})
    return max(LEAST_LOOKS, int(WORK / (tables * shards)))


def largest_shard(option: ShardingOption) -> tuple[int, int]:
    """Return the bytes of an option's largest shard, in a GPU's memory and in a host's."""
    hbm, ddr = bytes_of(option)
    return max(hbm), max(ddr)


def bytes_of(option: ShardingOption) -> tuple[list[int], list[int]]:
    """Return the bytes of an option's shards, in GPUs' memories and in hosts'."""
    storages: Any = [shard.storage for shard in option.shards]
    return [storage.hbm for storage in storages], [storage.ddr for storage in storages]


def milliseconds(option: ShardingOption) -> list[float]:
    """Return the estimated times of an option's shards."""
    perfs: Any = [shard.perf for shard in option.shards]
    return [perf.total for perf in perfs]


class _Listed(Proposer):
    """Proposes what was listed when the search space was loaded, whatever comes of it."""

    def __init__(self) -> None:
        self.proposals: list[list[ShardingOption]] = []
        self.next = 0

    def load(self, search_space: list[ShardingOption], enumerator: Any = None) -> None:
        self.proposals, self.next = self.listed(by_table(search_space), looks(search_space)), 0

    def listed(self, tables: list[list[ShardingOption]], looks: int) -> list[list[ShardingOption]]:
        raise NotImplementedError

    def propose(self) -> list[ShardingOption] | None:
        return self.proposals[self.next] if self.next < len(self.proposals) else None

    def feedback(self, *args: Any, **kwargs: Any) -> None:
        self.next += 1


class GreedySteps(_Listed):
    """TorchRec's GreedyProposer in strides: from every table's fastest option, the largest shard's table moves to its next one.

    TorchRec's looks at every move, thousands for many tables, each as dear as there are shards.

    Parameters
    ----------
    use_depth : bool
        Whether an option is as fast as its slowest shard; else as the sum of all.
    """

    def __init__(self, use_depth: bool = True) -> None:
        super().__init__()
        self.score = max if use_depth else sum

    def listed(self, tables: list[list[ShardingOption]], looks: int) -> list[list[ShardingOption]]:
        tables = [sorted(options, key=lambda option: self.score(milliseconds(option))) for options in tables]
        moves = sum(len(options) - 1 for options in tables)
        stride = -(-moves // looks) or 1
        chosen = [0] * len(tables)
        heap = [_largest_first(options[0], table) for table, options in enumerate(tables)]
        heapq.heapify(heap)
        proposals = [[options[0] for options in tables]]
        move = 0
        while move < moves:
            *_, table = heapq.heappop(heap)
            if chosen[table] + 1 == len(tables[table]):
                continue
            chosen[table] += 1
            heapq.heappush(heap, _largest_first(tables[table][chosen[table]], table))
            move += 1
            if move % stride == 0 or move == moves:
                proposals.append([options[at] for options, at in zip(tables, chosen, strict=True)])
        return proposals


def _largest_first(option: ShardingOption, table: int) -> tuple[int, int, int, int, int]:
    hbm, ddr = bytes_of(option)
    return -max(hbm), -sum(hbm), -max(ddr), -sum(ddr), table


class Limited(_Listed):
    """Every table by its fastest option that stays below a limit, which is lowered from proposal to proposal.

    Parameters
    ----------
    measure : function
        Returns of an option what is limited: the bytes of its largest shard lets tables fit into ranks, the milliseconds of its slowest
        spreads them evenly, and its bytes on GPUs sends the largest tables to the hosts' memory first.
    """

    def __init__(self, measure: Callable[[ShardingOption], float]) -> None:
        super().__init__()
        self.measure = measure

    def listed(self, tables: list[list[ShardingOption]], looks: int) -> list[list[ShardingOption]]:
        tables = [sorted(options, key=lambda option: sum(milliseconds(option))) for options in tables]
        sizes = [[self.measure(option) for option in options] for options in tables]
        smallest = [of.index(min(of)) for of in sizes]
        limit, end = max(map(max, sizes)), max(map(min, sizes)) / 8
        proposals = []
        while limit > end and len(proposals) < MOST_LIMITS:
            proposals.append(
                [
                    options[next((at for at, size in enumerate(of) if size <= limit), least)]
                    for options, of, least in zip(tables, sizes, smallest, strict=True)
                ]
            )
            limit /= SQRT2
        return [*proposals, [options[least] for options, least in zip(tables, smallest, strict=True)]]


def largest_bytes(option: ShardingOption) -> float:
    """Return the bytes of an option's largest shard."""
    return float(sum(largest_shard(option)))


def longest_time(option: ShardingOption) -> float:
    """Return the milliseconds of an option's slowest shard."""
    return max(milliseconds(option))


def bytes_on_gpus(option: ShardingOption) -> float:
    """Return the bytes of an option in all GPUs together."""
    return float(sum(bytes_of(option)[0]))
