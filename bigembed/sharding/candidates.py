"""The ways in which tables could be laid over a cluster, with TorchRec's estimates of their bytes and milliseconds."""

import math
from typing import Any

from torch import nn
from torchrec.distributed.planner.constants import HBM_TO_DDR_MEM_BW
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.shard_estimators import EmbeddingPerfEstimator, EmbeddingStorageEstimator
from torchrec.distributed.planner.types import ParameterConstraints, Shard, ShardingOption, Storage, Topology
from torchrec.distributed.types import CacheParams, ModuleSharder

from bigembed.admission import BYTES, check_shared
from bigembed.config.physical import option_path
from bigembed.config.placement import (
    CUTS_COLUMNS,
    IN_HOST_MEMORY,
    cache_load_factor_of,
    column_blocks,
    kernel_of,
    kind_of,
    kinds_of,
    min_partition_of,
)
from bigembed.config.schema import DenseOptimizer, DType, Job, Kernel, Kind, ManagedTable, TableOptimizer
from bigembed.errors import UserError
from bigembed.sharding.cluster import Cluster
from bigembed.sharding.plan import TORCHREC_KIND

STATE_BYTES = 4  # of a number of a fused optimizer's state, whatever the table's numbers are
DENSE_STATES = {DenseOptimizer.adagrad: 1, DenseOptimizer.adam: 2, DenseOptimizer.sgd: 0}  # numbers an entry
MANY_SHARDS = 50_000  # looked at where tables can do with fewer: each costs time and memory
WITHIN_HOSTS = (Kind.table_row_wise, Kind.table_column_wise, Kind.grid)
KINDS = {value: kind for kind, value in TORCHREC_KIND.items()}
KERNELS = {kernel.value: kernel for kernel in Kernel}


def topology_of(cluster: Cluster) -> Topology:
    """Return TorchRec's form of the cluster: bytes a rank that tables may fill, bytes a millisecond."""
    hbm, ddr = cluster.room
    of_host = cluster.ddr_bandwidth / cluster.local_world_size
    alone = cluster.world_size == 1  # nothing travels
    return Topology(
        world_size=cluster.world_size,
        local_world_size=cluster.local_world_size,
        compute_device=cluster.device,
        hbm_cap=hbm,
        ddr_cap=ddr,
        hbm_mem_bw=cluster.hbm_bandwidth / 1000,
        ddr_mem_bw=of_host / 1000,
        hbm_to_ddr_mem_bw=min(HBM_TO_DDR_MEM_BW, of_host / 1000),  # the way goes through both
        intra_host_bw=math.inf if alone else cluster.intra_bandwidth / 1000,
        inter_host_bw=math.inf if alone else cluster.inter_bandwidth / 1000,
    )


def kinds_for(
    job: Job, rows: dict[str, int], kernels: dict[str, list[Kernel]], cluster: Cluster
) -> dict[str, list[Kind]]:
    """Return the kinds to be tried for every table: the one that was asked for, else those that make a difference here.

    Raises
    ------
    UserError
        When a table has too few rows to be cut as was asked.
    """
    kinds = {name: _kinds(job, name, count, cluster) for name, count in rows.items()}
    shards = {
        name: len(kernels[name]) * sum(_shards(job, name, kind, cluster) for kind in kinds[name]) for name in rows
    }
    left = MANY_SHARDS
    for name in sorted(rows, key=lambda table: -weight_bytes(job, table, rows[table])):  # the largest gain most by many
        left -= shards[name]
        if left < 0 and kind_of(job, name) is Kind.auto:
            few = {kind: _shards(job, name, kind, cluster) for kind in kinds[name]}
            few = {kind: count for kind, count in few.items() if count <= cluster.local_world_size}
            if few and weight_bytes(job, name, rows[name]) / max(few.values()) < max(cluster.room) / 2:
                kinds[name] = list(few)
    return kinds


def weight_bytes(job: Job, name: str, rows: int) -> int:
    """Return the bytes of a whole table, without its optimizer's state."""
    return rows * job.tables[name].dim * (4 if job.tables[name].dtype is DType.fp32 else 2)


def constraints_for(job: Job, name: str, kinds: list[Kind], kernels: list[Kernel]) -> ParameterConstraints:
    """Return what TorchRec's planner is told about a table."""
    features = sum(feature.table == name for feature in job.features.values())
    cached = None
    if Kernel.fused_uvm_caching in kernels:  # TorchRec refuses a cache of all rows
        cached = CacheParams(load_factor=min(cache_load_factor_of(job, name), 1 - 2**-20))
    if Kernel.dense in kernels:  # TorchRec plans it for data_parallel alone; it lies and moves as the fused one does
        kernels = [*kernels, Kernel.fused]
    return ParameterConstraints(
        sharding_types=[TORCHREC_KIND[kind] for kind in kinds],
        compute_kernels=[kernel.value for kernel in kernels],
        min_partition=min_partition_of(job, name),
        pooling_factors=[job.tables[name].sharding.pooling_factor or 1.0] * features,
        cache_params=cached,
    )


def _kinds(job: Job, name: str, rows: int, cluster: Cluster) -> list[Kind]:
    kinds = kinds_of(job, name, cluster.device)
    if isinstance(job.tables[name], ManagedTable):
        check_shared(name, rows, cluster.world_size)
        return kinds
    if kind_of(job, name) is not Kind.auto:
        _check_rows(option_path(job, name), kinds[0], rows, _ranks_of_rows(kinds[0], cluster))
        return kinds
    if cluster.world_size == 1:
        return [Kind.table_wise]
    one_way = cluster.local_world_size in (1, cluster.world_size)  # as without hosts
    return [
        kind for kind in kinds if not (kind in WITHIN_HOSTS and one_way) and _fills(rows, _ranks_of_rows(kind, cluster))
    ]


def _ranks_of_rows(kind: Kind, cluster: Cluster) -> int:
    """Return over how many ranks a kind cuts the rows."""
    return {
        Kind.row_wise: cluster.world_size,
        Kind.table_row_wise: cluster.local_world_size,
        Kind.grid: cluster.local_world_size,
    }.get(kind, 1)


def _fills(rows: int, ranks: int) -> bool:
    """Whether every rank gets a row: TorchRec cuts blocks of ceil(rows / ranks), which may be used up before the last rank."""
    return -(-rows // ranks) * (ranks - 1) < rows


def _check_rows(path: str, kind: Kind, rows: int, ranks: int) -> None:
    if _fills(rows, ranks):
        return
    why = (
        f"but it has only {rows:,}"
        if rows < ranks
        else f"but its {rows:,} rows in blocks of {-(-rows // ranks):,} are used up before the last rank"
    )
    raise UserError(
        f"{path} is sharded {kind.name}, which cuts its rows over {ranks:,} ranks, {why}; use "
        f"{path}.sharding.kind=table_wise"
    )


def _shards(job: Job, name: str, kind: Kind, cluster: Cluster) -> int:
    """Return into how many pieces a kind cuts a table."""
    if kind is Kind.data_parallel:
        return cluster.world_size
    blocks = column_blocks(job, name) if kind in CUTS_COLUMNS else 1
    return _ranks_of_rows(kind, cluster) * blocks


class Candidates(EmbeddingEnumerator):
    """TorchRec's enumerator, made once, in an order of its own (TorchRec's hangs on Python's hash seed), equal shards estimated once."""

    def __init__(
        self, job: Job, topology: Topology, batch_size: int, constraints: dict[str, ParameterConstraints]
    ) -> None:
        estimators = [
            EmbeddingPerfEstimator(topology=topology, constraints=constraints),
            _StorageEstimator(job, topology, constraints),
        ]
        super().__init__(topology=topology, batch_size=batch_size, constraints=constraints, estimator=estimators)
        self.made: list[ShardingOption] | None = None
        self.shards: list[list[Shard]] = []

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        """Return every option of every table of ``module``."""
        if self.made is None:
            options = super().enumerate(module, sharders)
            for option, shards in zip(options, self.shards, strict=True):
                estimated = {tuple(shard.size): shard for shard in option.shards}
                for shard in shards:
                    like = estimated[tuple(shard.size)]
                    shard.storage, shard.perf = like.storage, like.perf
                option.shards = shards
            tables, kinds, kernels = list(dict.fromkeys(option.fqn for option in options)), list(KINDS), list(KERNELS)
            place = {name: number for number, name in enumerate([*tables, *kinds, *kernels])}
            self.made = sorted(
                options,
                key=lambda option: (place[option.fqn], place[option.sharding_type], place[option.compute_kernel]),
            )
        return self.made

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        """Estimate one shard of each size; the others come back afterwards, for TorchRec keeps a copy of everything in between."""
        self.shards = [option.shards for option in sharding_options]
        for option in sharding_options:
            option.shards = list({tuple(shard.size): shard for shard in option.shards}.values())
        super().populate_estimates(sharding_options)


class _StorageEstimator(EmbeddingStorageEstimator):
    """TorchRec's bytes, the optimizer's state counted as FBGEMM and torch keep it.

    TorchRec multiplies the weights' bytes by a factor of the optimizer's class: half of the state of a table of fp16, and of a dense
    table neither gradient nor state.
    """

    def __init__(self, job: Job, topology: Topology, constraints: dict[str, ParameterConstraints]) -> None:
        super().__init__(topology=topology, constraints=constraints)
        self.job, self.on_gpu = job, topology.compute_device == "cuda"

    def estimate(self, sharding_options: list[ShardingOption], *args: Any, **kwargs: Any) -> None:
        tensors = [option.tensor for option in sharding_options]
        classes = [(tensor, vars(tensor).pop("_optimizer_classes", None)) for tensor in tensors]
        try:
            super().estimate(sharding_options, *args, **kwargs)
        finally:
            for tensor, known in classes:
                if known is not None:
                    tensor._optimizer_classes = known
        for option in sharding_options:
            for shard in option.shards:
                shard.storage += self._besides(option, shard)
                if isinstance(self.job.tables[option.name], ManagedTable):
                    shard.storage += Storage(hbm=0, ddr=BYTES * shard.size[0])

    def _besides(self, option: ShardingOption, shard: Shard) -> Storage:
        """Return the bytes of a shard's optimizer state; of a dense kernel's gradient as well, and of what rows are pulled back to."""
        rows, columns = shard.size
        kind = self.job.optim.tables.kind
        if kernel_of(self.job, option.name) is Kernel.dense or option.compute_kernel == Kernel.dense.value:
            numbers = rows * columns * (1 + DENSE_STATES[self.job.optim.dense.kind])
            size = numbers * option.tensor.element_size()
        else:
            state = {
                TableOptimizer.rowwise_adagrad: rows,
                TableOptimizer.adagrad: rows * columns,
                TableOptimizer.sgd: 0,
            }
            size = STATE_BYTES * state[kind]
        if self.job.tables[option.name].pretrained.pull:
            size += rows * columns * option.tensor.element_size()
        # FBGEMM keeps one number a row on the GPU, also where the rows are in the host's memory.
        hosted = KERNELS[option.compute_kernel] in IN_HOST_MEMORY and kind is not TableOptimizer.rowwise_adagrad
        return Storage(hbm=size, ddr=0) if self.on_gpu and not hosted else Storage(hbm=0, ddr=size)
