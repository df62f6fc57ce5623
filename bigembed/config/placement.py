"""Which sharding kinds and kernels a table may have: what TorchRec does wrong or ignores is refused here, with the reason. No torch."""

from functools import cache

from bigembed.config.physical import option_path
from bigembed.config.schema import (
    DType,
    Job,
    Kernel,
    Kind,
    ManagedTable,
    Pooling,
    Precision,
    Rounding,
    TableConfig,
    TableOptimizer,
)
from bigembed.errors import UserError

CUTS_ROWS = (Kind.row_wise, Kind.table_row_wise, Kind.grid)
CUTS_COLUMNS = (Kind.column_wise, Kind.table_column_wise, Kind.grid)
IN_HOST_MEMORY = (Kernel.fused_uvm, Kernel.fused_uvm_caching)
INT8_BLOCK = 32  # FBGEMM's codec gives each block a scale
DEFAULT_WIDTH = 128  # of a column shard at least, in TorchRec
OF_BAGS_ONLY = (Kind.table_row_wise, Kind.table_column_wise, Kind.grid)


def kind_of(job: Job, name: str) -> Kind:
    """Return the kind that is asked for a table."""
    own = job.tables[name].sharding.kind
    return job.sharding.kind if own is None else own


def kernel_of(job: Job, name: str) -> Kernel:
    """Return the kernel that is asked for a table."""
    own = job.tables[name].sharding.kernel
    asked = job.sharding.kernel if own is None else own
    return Kernel.dense if asked is Kernel.auto and kind_of(job, name) is Kind.data_parallel else asked


def min_partition_of(job: Job, name: str) -> int | None:
    """Return the least width of a column shard of a table; None where TorchRec's holds."""
    own = job.tables[name].sharding.min_partition
    return job.sharding.min_partition if own is None else own


def column_blocks(job: Job, name: str) -> int:
    """Return into how many blocks TorchRec cuts a table's columns: of the least width that divides them and is a multiple of 4."""
    return _blocks(min_partition_of(job, name) or DEFAULT_WIDTH, job.tables[name].dim)


@cache
def _blocks(least: int, dim: int) -> int:
    return dim // next((width for width in range(-(-least // 4) * 4, dim, 4) if dim % width == 0), dim)


def cache_load_factor_of(job: Job, name: str) -> float:
    """Return which part of a table's rows its cache on the GPU holds."""
    own = job.tables[name].sharding.cache_load_factor
    return job.sharding.cache_load_factor if own is None else own


def is_sequence(job: Job, name: str) -> bool:
    """Whether a table's rows are looked up one by one, not pooled."""
    return any(feature.pooling is Pooling.none for feature in job.features.values() if feature.table == name)


def kinds_of(job: Job, name: str, device: str) -> list[Kind]:
    """Return the kinds that a table may have on a device ("cpu" or "cuda"): the one that was asked for, or all that are right."""
    asked = kind_of(job, name)
    left_out = {Kind.auto} if kernel_of(job, name) is Kernel.dense else {Kind.auto, Kind.data_parallel}
    candidates = [kind for kind in Kind if kind not in left_out] if asked is Kind.auto else [asked]
    return [kind for kind in candidates if wrong_kind(job, name, kind, device) is None]


def kernels_of(job: Job, name: str, device: str) -> list[Kernel]:
    """Return the kernels that a table may have on a device: the one that was asked for, or all that are right."""
    asked = kernel_of(job, name)
    if asked is not Kernel.auto:
        return [asked]
    hosted = IN_HOST_MEMORY if device == "cuda" else ()
    return [Kernel.fused, *(kernel for kernel in hosted if wrong_kernel(job, name, kernel, device) is None)]


def check_placement(job: Job, device: str) -> None:
    """Refuse sharding options that contradict each other, or that TorchRec gets wrong on this device ("cpu" or "cuda").

    Raises
    ------
    UserError
        Naming the table, the option and the reason.
    """
    for name, table in job.tables.items():
        kind, kernel = kind_of(job, name), kernel_of(job, name)
        _check_options(job, name)
        if reason := wrong_dtype(table, kernel, device):
            raise UserError(f"{option_path(job, name)}.dtype={table.dtype.name}: {reason}")
        if reason := wrong_kernel(job, name, kernel, device):
            raise UserError(f"{option_path(job, name)} has the kernel {kernel.name}: {reason}")
        if kind is not Kind.auto and (reason := wrong_kind(job, name, kind, device)):
            raise UserError(f"{option_path(job, name)} is sharded {kind.name}: {reason}")
        if not kinds_of(job, name, device):
            reasons = {wrong_kind(job, name, each, device) for each in Kind if each is not Kind.auto}
            raise UserError(
                f"{option_path(job, name)} can be sharded in no way: {'; '.join(sorted(filter(None, reasons)))}"
            )


def wrong_kernel(job: Job, name: str, kernel: Kernel, device: str) -> str | None:
    """Say why a table cannot have a kernel; None where it can."""
    if kernel is Kernel.key_value:
        return (
            "rows on SSD cannot be filled by their global number nor written into a checkpoint that is a plain array; "
            "use fused_uvm or fused_uvm_caching"
        )
    if isinstance(job.tables[name], ManagedTable) and kernel in (Kernel.dense, Kernel.fused_uvm_caching):
        return "it is managed: rows begin anew in FBGEMM's own memory, which this kernel does not use, or copies; use fused or fused_uvm"
    if kernel in IN_HOST_MEMORY and device == "cpu":
        return "it keeps a GPU's rows in the host's memory, and there is no GPU; use fused"
    if kernel is Kernel.dense and job.optim.clip_value is not None:
        return "a dense kernel (data_parallel's too) does not clip what reaches the rows; use fused, or no optim.clip_value"
    if kernel is Kernel.dense and is_sequence(job, name) and device == "cpu":
        return "TorchRec's dense kernel (data_parallel's too) gives sequences of wrong sizes on a CPU; use fused"
    return None


def wrong_kind(job: Job, name: str, kind: Kind, device: str) -> str | None:
    """Say why a table cannot be sharded in a way; None where it can."""
    kernel, sequence = kernel_of(job, name), is_sequence(job, name)
    if isinstance(job.tables[name], ManagedTable) and kind is not Kind.row_wise:
        return "it is managed: each rank gives out rows of its own; use row_wise"
    if kind is Kind.data_parallel:
        if kernel not in (Kernel.auto, Kernel.dense):
            return f"every rank holds the whole table, whose kernel is dense, not {kernel.name}; leave the kernel out"
        return wrong_kernel(job, name, Kernel.dense, device)
    if sequence and kind in OF_BAGS_ONLY:
        return "TorchRec has it for pooled features only; use table_wise, row_wise or column_wise"
    if kind in CUTS_COLUMNS and job.optim.tables.kind is TableOptimizer.rowwise_adagrad:
        return (
            "each column shard would keep a row's state of its own, another optimizer than rowwise_adagrad; "
            "use optim.tables.kind=adagrad or sgd, or a kind that does not cut columns"
        )
    width, dim = min_partition_of(job, name) or DEFAULT_WIDTH, job.tables[name].dim
    if kind in CUTS_COLUMNS and column_blocks(job, name) == 1:
        return f"its dim {dim} is too small to be cut into pieces of {width} columns; set a smaller min_partition, or another kind"
    int8 = _int8(job)
    if int8 and kind in CUTS_ROWS:
        return f"sharding.{int8[0]}=int8 cannot add up what row shards send; use fp16, bf16, or table_wise"
    if int8 and kind in CUTS_COLUMNS:
        return f"sharding.{int8[0]}=int8 is scaled in blocks that column shards need not keep; use fp16, bf16, or table_wise"
    return None


def wrong_dtype(table: TableConfig, kernel: Kernel, device: str) -> str | None:
    """Say why a table cannot have its dtype; None where it can."""
    if table.dtype is DType.fp32:
        return None
    if device == "cpu" and table.dtype is DType.bf16:
        return "FBGEMM trains no bf16 table on a CPU; use fp32 or fp16"
    if table.rounding is Rounding.stochastic and (device == "cpu" or kernel is Kernel.dense):
        where = "on a CPU" if device == "cpu" else "with a dense kernel"
        return (
            f"updates are rounded to the nearest {where}, so that small ones are lost; use fp32, or take it as it is with "
            "rounding=nearest"
        )
    return None


def _int8(job: Job) -> list[str]:
    """Return the directions in which int8 travels between ranks."""
    return [way for way in ("forward", "backward") if getattr(job.sharding, way) is Precision.int8]


def _check_options(job: Job, name: str) -> None:
    """Refuse a table's own options where the choices leave them without effect."""
    own, kind, kernel = job.tables[name].sharding, kind_of(job, name), kernel_of(job, name)
    for way in _int8(job):
        if job.tables[name].dim % INT8_BLOCK:
            raise UserError(
                f"sharding.{way}=int8 travels in blocks of {INT8_BLOCK} columns, but {option_path(job, name)}.dim is "
                f"{job.tables[name].dim}; use a multiple of {INT8_BLOCK}, or fp16 or bf16"
            )
    if own.min_partition is not None and kind not in (Kind.auto, *CUTS_COLUMNS):
        raise UserError(
            f"{option_path(job, name)}.sharding.min_partition has no meaning for a table that is sharded {kind.name}"
        )
    if own.cache_load_factor is not None and kernel not in (Kernel.auto, Kernel.fused_uvm_caching):
        raise UserError(
            f"{option_path(job, name)}.sharding.cache_load_factor has no meaning for the kernel {kernel.name}"
        )
