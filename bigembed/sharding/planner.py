"""Tables laid over ranks by TorchRec's planner, with what it estimates: bytes and milliseconds of every piece."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.proposers import GridSearchProposer, UniformProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, Shard, ShardingOption

from bigembed.config.placement import kernel_of, kernels_of
from bigembed.config.schema import Job, Kernel
from bigembed.optim import collections, table_of
from bigembed.sharding.candidates import KERNELS, KINDS, Candidates, constraints_for, kinds_for, topology_of
from bigembed.sharding.cluster import Cluster
from bigembed.sharding.plan import Piece, Plan, TablePlan
from bigembed.sharding.proposers import Search, by_table, looks
from bigembed.sharding.room import NoRoom, check_room, no_way
from bigembed.sharding.sharders import sharders

logging.getLogger("torchrec.distributed.planner").setLevel(logging.ERROR)  # it warns of how it is called


class Load(NamedTuple):
    """What something costs a rank: bytes in its GPU's and its host's memory, milliseconds of a step."""

    hbm: int = 0
    ddr: int = 0
    forward: float = 0.0
    backward: float = 0.0
    forward_comms: float = 0.0
    backward_comms: float = 0.0
    prefetch: float = 0.0

    @property
    def milliseconds(self) -> float:
        """The whole time, nothing of it overlapping."""
        return sum(self[2:])

    def plus(self, other: "Load") -> "Load":
        """Return the sum of both."""
        return Load(
            self.hbm + other.hbm,
            self.ddr + other.ddr,
            self.forward + other.forward,
            self.backward + other.backward,
            self.forward_comms + other.forward_comms,
            self.backward_comms + other.backward_comms,
            self.prefetch + other.prefetch,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and TorchRec's estimates of it.

    Attributes
    ----------
    plan : Plan
        Where every piece of every table lies.
    cluster : Cluster
        What it was planned for.
    loads : dict of str to list of Load
        What every piece costs, by table, in the order of its pieces.
    """

    plan: Plan
    cluster: Cluster
    loads: dict[str, list[Load]]

    def ranks(self) -> list[Load]:
        """Return what every rank bears."""
        sums = [Load()] * self.cluster.world_size
        for name, table in self.plan.tables.items():
            for piece, load in zip(table.pieces, self.loads[name], strict=True):
                sums[piece.rank] = sums[piece.rank].plus(load)
        return sums


def make_plan(model: nn.Module, job: Job, cluster: Cluster) -> Planned:
    """Return where the pieces of a model's tables (on meta) lie best on a cluster, by TorchRec's estimates; the same for the same input.

    GPUs' memory comes first: the host's is used only where the tables do not fit otherwise.

    Raises
    ------
    NoRoom
        When the tables do not fit.
    UserError
        When they cannot be laid as the job asks.
    """
    rows = {name: len(weight) for name, weight in _weights(model).items()}
    kernels = {name: kernels_of(job, name, cluster.device) for name in rows}
    first = {name: of[:1] for name, of in kernels.items()}
    for stage in [first, kernels] if first != kernels else [kernels]:
        try:
            return _planned(_best(model, job, cluster, rows, stage), job, rows, cluster)
        except NoRoom:
            if stage is kernels:
                raise
    raise AssertionError("the last stage returns or raises")


def _weights(model: nn.Module) -> dict[str, Any]:
    """Return the weights of the tables of ``model`` by table."""
    return {
        table_of(name): weight for module in collections(model).values() for name, weight in module.named_parameters()
    }


def _best(
    model: nn.Module, job: Job, cluster: Cluster, rows: dict[str, int], kernels: dict[str, list[Kernel]]
) -> list[ShardingOption]:
    """Return an option for every table, its shards with their ranks."""
    kinds = kinds_for(job, rows, kernels, cluster)
    topology, batch_size = topology_of(cluster), -(-job.trainer.batch_size // cluster.world_size)
    constraints = {name: constraints_for(job, name, kinds[name], kernels[name]) for name in rows}
    candidates = Candidates(job, topology, batch_size, constraints)
    with _quiet():
        made = sharders(job, cluster.world_size)
        space = candidates.enumerate(model, made)
        check_room(by_table(space), job, rows, cluster)
        planner = EmbeddingShardingPlanner(
            topology=topology,
            batch_size=batch_size,
            enumerator=candidates,
            storage_reservation=FixedPercentageStorageReservation(
                0.0
            ),  # TorchRec's spares GPUs alone: ours is in the caps
            proposer=[GridSearchProposer(looks(space)), Search(cluster.room), UniformProposer()],
            stats=[],
            constraints=constraints,
            debug=False,
        )
        try:
            planner.plan(model, made)
        except PlannerError as error:
            raise no_way(by_table(space), job, rows, cluster) from error
    assert planner._best_plan is not None  # the estimates are nowhere else
    return planner._best_plan


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchRec tells the root logger what we tell better, and gives it a handler on the way."""
    handlers, level = list(logging.root.handlers), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers


def _planned(options: list[ShardingOption], job: Job, rows: dict[str, int], cluster: Cluster) -> Planned:
    found = {option.name: option for option in options}
    tables, loads = {}, {}
    for name in job.tables:
        option, table = found[name], job.tables[name]
        kernel = Kernel.dense if kernel_of(job, name) is Kernel.dense else KERNELS[option.compute_kernel]
        pieces = [Piece(shard.rank, *shard.offset, *shard.size) for shard in option.shards]
        tables[name] = TablePlan(KINDS[option.sharding_type], kernel, rows[name], table.dim, table.dtype, pieces)
        loads[name] = _loads(option.shards)
    plan = Plan(cluster.world_size, cluster.local_world_size, cluster.device, tables)
    return Planned(plan, cluster, loads)


def _loads(shards: list[Shard]) -> list[Load]:
    """Return the estimates of shards; those that share theirs share one Load."""
    made: dict[tuple[int, int], Load] = {}
    for shard in shards:
        storage, perf = shard.storage, shard.perf
        assert storage is not None and perf is not None
        key = id(storage), id(perf)
        if key not in made:
            made[key] = Load(
                storage.hbm,
                storage.ddr,
                perf.fwd_compute,
                perf.bwd_compute,
                perf.fwd_comms,
                perf.bwd_comms,
                perf.prefetch_compute,
            )
    return [made[id(shard.storage), id(shard.perf)] for shard in shards]
