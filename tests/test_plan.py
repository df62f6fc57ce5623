"""Plans: what they cover and cost, what is refused, what would help, and how they are told; on paper, and against real memory."""

import gc
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from running import SMALL, bigembed
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation

from bigembed.commands.plan_changes import CHANGES, plan_on_paper
from bigembed.commands.plan_picture import picture
from bigembed.config import compose
from bigembed.config.groups import groups
from bigembed.config.placement import check_placement, kernels_of, kinds_of
from bigembed.config.schema import (
    AttentionHead,
    BagHead,
    DenseOptimizer,
    Device,
    DType,
    FeatureConfig,
    GeneratedData,
    HashedTable,
    Job,
    Kernel,
    Kind,
    Pooling,
    Rounding,
    TableOptimizer,
)
from bigembed.errors import UserError
from bigembed.model import Model
from bigembed.sharding import plan as plans
from bigembed.sharding.candidates import Candidates, constraints_for, kinds_for, topology_of
from bigembed.sharding.cluster import GB, GIB, Cluster, cluster_of, cluster_on_paper
from bigembed.sharding.planner import Planned, make_plan
from bigembed.sharding.room import NoRoom
from bigembed.sharding.sharders import sharders
from bigembed.sharding.summary import summary_of

ROOT = Path(__file__).resolve().parents[1]


def job_of(tables: dict[str, tuple[int, int]], **sharding: Any) -> Job:
    """A job with hashed tables of (rows, dim)."""
    job = Job(
        data=GeneratedData(),
        tables={name: HashedTable(dim=dim, buckets=rows) for name, (rows, dim) in tables.items()},
        features={name: FeatureConfig(table=name) for name in tables},
        head=BagHead(),
    )
    for name, value in sharding.items():
        setattr(job.sharding, name, value)
    return job


def cluster(world: int, local: int, device: str = "cuda", *, gpu: float = 80, host: float = 2048) -> Cluster:
    """Equal hosts, with GiB of a GPU and of a host."""
    hbm = int(gpu * GIB) if device == "cuda" else 0
    return Cluster(world, local, device, hbm, int(host * GIB), 3350 * GB, 614 * GB, 450 * GB, 50 * GB, reserve=0.15)


def rows_of(job: Job) -> dict[str, int]:
    return {name: table.buckets for name, table in job.tables.items()}  # type: ignore[attr-defined]


def planned(job: Job, on: Cluster) -> Planned:
    """The plan of a job, which covers every table and leaves the reserve free."""
    check_placement(job, on.device)
    made = plan_on_paper(job, rows_of(job), on)
    assert list(made.plan.tables) == list(job.tables)
    for name, table in made.plan.tables.items():
        plans.check_layout(name, made.plan, "test")
        assert (table.rows, table.dim, table.dtype) == (
            rows_of(job)[name],
            job.tables[name].dim,
            job.tables[name].dtype,
        )
    for load in made.ranks():
        assert load.hbm <= on.room[0] and load.ddr <= on.room[1]
    return made


def milliseconds(made: Planned) -> float:
    return max(load.milliseconds for load in made.ranks())


def sentence_of(job: Job, on: Cluster, error: type[UserError] = NoRoom) -> str:
    with pytest.raises(error) as caught:
        planned(job, on)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- what is planned

KINDS = {
    Kind.table_wise: (TableOptimizer.rowwise_adagrad, lambda rank, pieces: len(pieces) == 1),
    Kind.row_wise: (TableOptimizer.rowwise_adagrad, lambda rank, pieces: len(pieces) == 8),
    Kind.column_wise: (TableOptimizer.adagrad, lambda rank, pieces: {piece.columns for piece in pieces} == {16}),
    Kind.data_parallel: (TableOptimizer.sgd, lambda rank, pieces: [piece.rank for piece in pieces] == list(range(8))),
    Kind.table_row_wise: (TableOptimizer.sgd, lambda rank, pieces: len({rank // 4 for rank in rank}) == 1),
    Kind.table_column_wise: (TableOptimizer.adagrad, lambda rank, pieces: len({rank // 4 for rank in rank}) == 1),
    Kind.grid: (TableOptimizer.sgd, lambda rank, pieces: len(pieces) == 4 * 4 and len(set(rank)) == 8),
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_asked_for_is_planned(kind: Kind, device: str) -> None:
    assert {*KINDS, Kind.auto} == set(Kind)
    optimizer, holds = KINDS[kind]
    job = job_of({"a": (100_001, 64), "b": (5_000, 64)}, kind=kind, min_partition=16)
    job.optim.tables.kind = optimizer
    made = planned(job, cluster(8, 4, device))
    for table in made.plan.tables.values():
        assert table.kind is kind and table.kernel is (Kernel.dense if kind is Kind.data_parallel else Kernel.fused)
        assert holds([piece.rank for piece in table.pieces], table.pieces)


@pytest.mark.parametrize("kernel", [Kernel.dense, Kernel.fused, Kernel.fused_uvm, Kernel.fused_uvm_caching])
def test_a_kernel_that_is_asked_for_is_planned(kernel: Kernel) -> None:
    job = job_of(
        {"a": (1_000_000, 64)}, kernel=kernel, cache_load_factor=1.0 if kernel is Kernel.fused_uvm_caching else 0.2
    )
    made = planned(job, cluster(16, 8))
    assert made.plan.tables["a"].kernel is kernel


def test_sequences_are_planned_beside_bags() -> None:
    job = job_of({"bag": (100_000, 32), "sequence": (100_000, 32)})
    job.features["sequence"].pooling = Pooling.none
    job.head = AttentionHead()
    made = planned(job, cluster(16, 8, "cpu"))
    assert made.plan.tables["sequence"].kind in (Kind.table_wise, Kind.row_wise)


def test_hosts_memory_is_used_only_where_that_of_the_gpus_is_not_enough() -> None:
    tables = {f"t{number}": (10_000_000 * (1 + number), 128) for number in range(6)}
    ample, tight = planned(job_of(tables), cluster(8, 8)), planned(job_of(tables), cluster(8, 8, gpu=10))
    assert {table.kernel for table in ample.plan.tables.values()} == {Kernel.fused}
    assert all(load.ddr == 0 for load in ample.ranks())
    kernels = {name: table.kernel for name, table in tight.plan.tables.items()}
    assert Kernel.fused_uvm_caching in kernels.values() and kernels["t0"] is Kernel.fused, kernels
    assert milliseconds(tight) > milliseconds(ample)


def test_a_table_that_one_rank_cannot_hold_is_cut() -> None:
    made = planned(job_of({"a": (400_000_000, 64)}), cluster(16, 8, gpu=24))
    assert made.plan.tables["a"].kind in (Kind.row_wise, Kind.table_row_wise)


def test_on_one_rank_every_table_is_whole_and_nothing_travels() -> None:
    made = planned(job_of({"a": (1000, 8), "b": (2000, 16)}), cluster(1, 1, "cpu"))
    assert {table.kind for table in made.plan.tables.values()} == {Kind.table_wise}
    (load,) = made.ranks()
    assert load.forward_comms == load.backward_comms == 0 < load.forward


def test_tables_with_few_rows_are_not_cut_by_rows_unless_asked() -> None:
    tables = {f"t{rows}": (rows, 64) for rows in (1, 2, 3, 4, 5, 8, 9, 12, 16, 17)}
    made = planned(job_of(tables), cluster(4, 4, "cpu"))
    for name in ("t1", "t2", "t3", "t5", "t9"):  # blocks of ceil(rows / 4) leave the last rank none
        assert made.plan.tables[name].kind is Kind.table_wise


@pytest.mark.parametrize(
    ("rows", "part"), [(3, "only 3"), (5, "its 5 rows in blocks of 2 are used up before the last rank")]
)
def test_a_cut_by_rows_that_leaves_a_rank_none_is_refused(rows: int, part: str) -> None:
    text = sentence_of(job_of({"a": (rows, 64)}, kind=Kind.row_wise), cluster(4, 4, "cpu"), UserError)
    assert text.startswith("tables.a is sharded row_wise") and part in text and "table_wise" in text


def _plan_to_compare() -> str:
    job = job_of({f"t{number}": (10_000_000 * (number + 1), 64) for number in range(8)}, min_partition=16)
    job.optim.tables.kind = TableOptimizer.adagrad
    return json.dumps(planned(job, cluster(16, 8, gpu=4)).plan.as_dict())


def test_the_same_input_gives_the_same_plan_in_another_process() -> None:
    code = "import sys; sys.path.insert(0, 'tests'); import test_plan; print(test_plan._plan_to_compare())"
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == _plan_to_compare(), done.stderr


def test_planning_for_one_rank_costs_little() -> None:
    job, on = job_of({f"t{number}": (1_000_000, 16) for number in range(4)}), cluster(1, 1, "cpu")
    model = Model(job, rows_of(job), torch.device("meta"))
    took = []
    for _ in range(5):
        began = time.perf_counter()
        make_plan(model, job, on)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


# ---------------------------------------------------------------- TorchRec's planner as the reference

CASES = [  # tables (log10 of rows, dim), ids a sample, ranks, ranks a host, GiB a GPU, optimizer
    ([(6.2, 64), (7.9, 128), (5.1, 256)], [20, 1, 5], 2, 2, 80, "adagrad"),
    ([(8.3, 128), (7.7, 64), (8.0, 64), (6.0, 128)], [1, 100, 5, 5], 4, 4, 16, "rowwise_adagrad"),
    ([(7.0 + number / 10, 64) for number in range(8)], [1, 5, 20, 100] * 2, 8, 8, 16, "rowwise_adagrad"),
    ([(5.0 + number / 4, 128) for number in range(10)], [100, 1, 20, 5, 1] * 2, 16, 8, 16, "rowwise_adagrad"),
    ([(8.4, 128), (8.2, 128), (8.0, 64), (7.9, 64), (7.5, 64)], [1, 1, 5, 20, 100], 2, 2, 32, "rowwise_adagrad"),
    (
        [
            (7.1, 128),
            (7.7, 256),
            (5.2, 256),
            (7.9, 128),
            (4.0, 128),
        ],  # one must leave the GPUs, and not the one that is looked up most
        [5, 20, 100, 1, 100],
        2,
        2,
        80,
        "adagrad",
    ),
    ([(6.9, 256), (7.9, 256), (5.6, 256), (7.1, 128), (6.6, 256)], [1, 5, 100, 20, 1], 8, 8, 32, "adagrad"),
]


def _of_torchrec(job: Job, on: Cluster) -> float:
    """The milliseconds of the plan that TorchRec's planner finds by its own means among all that is allowed."""
    rows, made, batch = rows_of(job), sharders(job, on.world_size), -(-job.trainer.batch_size // on.world_size)
    constraints = {
        name: constraints_for(job, name, kinds_of(job, name, on.device), kernels_of(job, name, on.device))
        for name in rows
    }
    topology = topology_of(on)
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=batch,
        enumerator=Candidates(job, topology, batch, constraints),
        storage_reservation=FixedPercentageStorageReservation(0.0),
        constraints=constraints,
        stats=[],
    )
    planner.plan(Model(job, rows, torch.device("meta")), made)
    times = [0.0] * on.world_size
    for option in planner._best_plan or []:
        for shard in option.shards:
            times[shard.rank] += shard.perf.total  # type: ignore[index, union-attr]
    return max(times)


@pytest.mark.parametrize("case", CASES)
def test_no_plan_is_slower_than_the_one_that_torchrec_finds(case: Any) -> None:
    shapes, ids, world, local, gpu, optimizer = case
    job = job_of({f"t{number}": (int(10**power), dim) for number, (power, dim) in enumerate(shapes)})
    for table, factor in zip(job.tables.values(), ids, strict=True):
        table.sharding.pooling_factor = float(factor)
    job.optim.tables.kind, job.trainer.batch_size = TableOptimizer[optimizer], 512 * world
    on = cluster(world, local, gpu=gpu)
    assert 0 < milliseconds(planned(job, on)) <= _of_torchrec(job, on) * (1 + 1e-9)


def test_estimates_of_equal_shards_are_those_that_torchrec_makes_of_each() -> None:
    job = job_of({"a": (100_001, 64), "b": (77_777, 128)}, min_partition=16)
    job.optim.tables.kind = TableOptimizer.sgd  # of which TorchRec and we count the same state
    on = cluster(16, 8)
    topology, rows = topology_of(on), rows_of(job)
    kernels = {name: kernels_of(job, name, on.device) for name in rows}
    kinds = kinds_for(job, rows, kernels, on)
    constraints = {name: constraints_for(job, name, kinds[name], kernels[name]) for name in rows}
    model, made = Model(job, rows, torch.device("meta")), sharders(job, on.world_size)
    theirs = EmbeddingEnumerator(topology, 32, constraints).enumerate(model, made)
    ours = Candidates(job, topology, 32, constraints).enumerate(model, made)

    def estimates(options: Any) -> dict[Any, Any]:
        return {
            (option.name, option.sharding_type, option.compute_kernel): [
                (shard.size, shard.offset, shard.storage, shard.perf) for shard in option.shards
            ]
            for option in options
        }

    assert estimates(ours) == estimates(theirs)
    assert len(ours) == 2 * 6 * 3 and any(len({str(shard) for shard in option.shards}) == 16 for option in ours)


def test_the_cluster_is_given_to_torchrec_in_bytes_a_rank_and_bytes_a_millisecond() -> None:
    topology = topology_of(cluster(16, 8, gpu=100, host=800))
    assert {(device.storage.hbm, device.storage.ddr) for device in topology.devices} == {(85 * GIB, 85 * GIB)}
    assert (topology.hbm_mem_bw, topology.intra_host_bw, topology.inter_host_bw) == (3350e6, 450e6, 50e6)
    assert topology_of(cluster(4, 4, "cpu")).ddr_mem_bw == 614e6 / 4


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("optimizer", "dtype", "kernel", "hbm", "ddr"),
    [  # bytes of an entry, of a row's state
        ("sgd", "fp32", "fused", 4 * 64, 0),
        ("adagrad", "fp32", "fused", 8 * 64, 0),
        ("adagrad", "fp16", "fused", (2 + 4) * 64, 0),
        ("rowwise_adagrad", "fp32", "fused", 4 * 64 + 4, 0),
        ("rowwise_adagrad", "fp16", "fused", 2 * 64 + 4, 0),
        ("rowwise_adagrad", "fp32", "fused_uvm", 4, 4 * 64),  # FBGEMM leaves one number a row on the GPU
        ("adagrad", "fp32", "fused_uvm", 0, 8 * 64),
        ("adagrad", "fp32", "dense", 3 * 4 * 64, 0),  # with its gradient and a dense Adagrad's state
    ],
)
def test_bytes_of_a_table_are_its_numbers_and_the_state_of_its_optimizer(
    optimizer: str, dtype: str, kernel: str, hbm: int, ddr: int
) -> None:
    job = job_of({"a": (1_000_000, 64)}, kernel=Kernel[kernel], kind=Kind.table_wise)
    job.optim.tables.kind, job.tables["a"].dtype = TableOptimizer[optimizer], DType[dtype]
    job.optim.dense.kind = DenseOptimizer.adagrad
    job.trainer.batch_size = 1
    (load,) = planned(job, cluster(2, 2)).loads["a"]
    assert load.hbm == pytest.approx(1_000_000 * hbm, abs=2000)
    assert load.ddr == pytest.approx(1_000_000 * ddr, abs=2000)


def _grown(job: Job, rows: dict[str, int]) -> tuple[int, int]:
    """Bytes that this rank's process grew by when it built and filled its tables, and those that were estimated."""
    from bigembed.build import build, fill_rows
    from bigembed.runtime import start

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with start(job.runtime) as runtime:
        small = job_of({"warm": (1000, 8)})
        fill_rows(build(small, {"warm": 1000}, runtime), small)  # threads and caches that come with the first model
        on = cluster_of(job, runtime.world, runtime.local_world)
        estimated = make_plan(Model(job, rows, torch.device("meta")), job, on).ranks()[runtime.rank].ddr
        before = resident()
        model = build(job, rows, runtime)
        fill_rows(model, job)
        for states in model.fused_optimizer.state_dict()["state"].values():  # zeros take room once they are written
            for state in states.values():
                for shard in state.local_shards():
                    shard.tensor.fill_(0)
        grown = resident() - before
        del model
    return grown, estimated


@pytest.mark.parametrize(
    ("world", "optimizer", "dtype", "kind", "pooling"),
    [
        (1, "rowwise_adagrad", "fp32", "auto", "mean"),
        (1, "adagrad", "fp32", "auto", "mean"),
        (1, "adagrad", "fp16", "auto", "mean"),
        (1, "sgd", "fp32", "auto", "none"),
        (2, "rowwise_adagrad", "fp32", "row_wise", "mean"),
    ],
)
def test_estimated_bytes_are_those_that_a_process_takes(
    world: int, optimizer: str, dtype: str, kind: str, pooling: str
) -> None:
    job = job_of({"a": (400_000, 64), "b": (1_200_000, 64)}, kind=Kind[kind])
    job.runtime.device, job.runtime.threads = Device.cpu, 1
    job.optim.tables.kind = TableOptimizer[optimizer]
    for table in job.tables.values():
        table.dtype, table.rounding = DType[dtype], Rounding.nearest
    for feature in job.features.values():
        feature.pooling = Pooling[pooling]
    job.head = AttentionHead() if pooling == "none" else BagHead()
    for grown, estimated in run_ranks(_grown, world, job, rows_of(job)):
        assert estimated > 150 * 2**20
        assert grown == pytest.approx(estimated, rel=0.1)


# ---------------------------------------------------------------- what does not fit


def test_tables_larger_than_all_memory_are_refused_with_need_room_and_the_largest() -> None:
    text = sentence_of(job_of({"small": (10**6, 64), "large": (2**40, 65_536)}), cluster(1, 1, "cpu", host=16))
    assert "need 268,439,552." in text and "but 13.6 GiB are free" in text and "plan.reserve=0.15" in text
    assert "the largest is tables.large, 1,099,511,627,776 rows × 65536: fewer buckets" in text


def test_a_table_of_which_no_rank_can_hold_a_piece_is_refused() -> None:
    job = job_of({"large": (100_000_000, 64), "small": (1000, 64)}, kind=Kind.table_wise)
    text = sentence_of(job, cluster(8, 8, "cpu", host=64))
    assert "no rank can hold a piece of tables.large, 100,000,000 rows × 64" in text
    assert "table_wise" in text and "sharding.kind=auto instead of table_wise" in text and "6.8 GiB are free" in text
    job.sharding.kind = Kind.auto
    assert planned(job, cluster(8, 8, "cpu", host=64)).plan.tables["large"].kind is Kind.row_wise


def test_pieces_that_do_not_go_into_the_ranks_are_refused() -> None:
    job = job_of({name: (12_000_000, 64) for name in "abc"}, kind=Kind.table_wise)
    text = sentence_of(job, cluster(2, 2, "cpu", host=12))
    assert "no way was found" in text and "sharding.kind=auto instead of table_wise" in text


def test_a_cluster_on_paper_says_what_is_missing() -> None:
    job = job_of({"a": (1000, 8)})
    job.plan.device, job.plan.world_size = Device.cuda, 4
    if not torch.cuda.is_available():  # else it is asked
        with pytest.raises(UserError, match=r"plan\.hbm_gib is missing.*plan=h100"):
            cluster_on_paper(job)
    job.plan.hbm_gib = 80.0
    assert (cluster_on_paper(job).world_size, cluster_on_paper(job).local_world_size) == (4, 4)
    job.plan.world_size = 20
    with pytest.raises(UserError, match=r"plan\.world_size=20 .*plan\.local_world_size=8"):
        cluster_on_paper(job)
    job.plan.local_world_size = 10
    assert cluster_on_paper(job).hosts == 2


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("world_size", 64, "plan.world_size is 64, but here it is 2"),
        ("local_world_size", 8, "plan.local_world_size is 8, but here it is 2"),
        ("device", Device.cuda, "plan.device is cuda, but this run computes on cpu"),
    ],
)
def test_a_run_is_not_planned_for_another_cluster_than_its_own(option: str, value: Any, part: str) -> None:
    job = job_of({"a": (1000, 8)})
    job.runtime.device = Device.cpu
    assert cluster_of(job, 2, 2).device == "cpu"
    setattr(job.plan, option, value)
    with pytest.raises(UserError, match=re.escape(part)):
        cluster_of(job, 2, 2)


# ---------------------------------------------------------------- the command

HASHED = ["table@tables.text=hashed", "tables.text.buckets=10000000", "tables.text.dim=32"]


def test_every_preset_is_planned_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    presets = groups()["plan"]
    assert len(presets) == 10 and all(presets.values())
    for name in presets:
        found: list[Job] = []
        compose.run([*HASHED, f"plan={name}", f"hydra.run.dir={tmp_path}"], lambda job, folder: found.append(job))  # noqa: B023
        on = cluster_on_paper(found[0])
        assert name == "this" or on.device == ("cpu" if name == "cpu" else "cuda")
        if on.device == "cuda" and name != "this":
            gib = int(re.search(r"with (\d+) GB", presets[name])[1])  # type: ignore[index]
            assert 0.93 * gib <= on.hbm / GIB <= gib and on.hbm_bandwidth > on.intra_bandwidth > on.inter_bandwidth
            assert found[0].plan.ddr_gib is not None
        large = replace(on, world_size=2 * on.local_world_size)
        planned(found[0], large)


def test_a_plan_is_told_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*HASHED, "plan=h100", "plan.world_size=16", "out=plan.json", "report=report.json", "picture=plan.html"]
    assert bigembed("plan", *options) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.html", "plan.json", "report.json"]
    out = capsys.readouterr().out
    assert "It fits: 16 GPUs on 2 hosts, 80.0 GiB a GPU" in out and "10,000,000 × 32" in out
    assert "The limit is" in out and "not measurements" in out
    plan, report = plans.load(tmp_path / "plan.json"), json.loads((tmp_path / "report.json").read_text())
    assert (plan.world_size, plan.local_world_size, plan.device) == (16, 8, "cuda")
    plans.check_layout("text", plan, "test")
    assert report["fits"] and len(report["ranks"]) == 16
    of = report["tables"]["text"]
    assert of["hbm"] == sum(rank["hbm"] for rank in report["ranks"]) > 10_000_000 * 32 * 4
    assert of["ranks"] == sorted({piece.rank for piece in plan.tables["text"].pieces})
    assert report["step_ms"] == max(rank["ms"]["total"] for rank in report["ranks"])


def test_a_plan_for_the_data_is_trained_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, run = tmp_path / "plan.json", tmp_path / "run"
    assert bigembed("plan", *SMALL, "runtime.device=cpu", f"out={plan}") == 0
    assert "learning the vocabulary of text" in capsys.readouterr().err
    assert bigembed("train", *SMALL, "runtime.device=cpu", f"sharding.plan={plan}", f"hydra.run.dir={run}") == 0
    capsys.readouterr()
    other = [argument for argument in SMALL if "buckets" not in argument]
    assert bigembed("train", *other, f"sharding.plan={plan}", "runtime.device=cpu", f"hydra.run.dir={tmp_path}/b") == 2
    assert "plan anew" in capsys.readouterr().err


def test_what_would_fit_is_what_then_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = [
        *HASHED,
        "plan=l4",
        "plan.world_size=2",
        "plan.hbm_gib=0.9",
        "sharding.kernel=fused",
        "sharding.kind=table_wise",
    ]
    assert bigembed("plan", *options, f"report={report}") == 2
    printed = capsys.readouterr()
    assert "GiB are free on a rank" in printed.err and "It does not fit: 2 GPUs on 1 host" in printed.out
    values = json.loads(report.read_text())
    assert values["fits"] is False and values["why"] in printed.err
    tried = {result["change"]: result for result in values["tried"]}
    assert set(CHANGES) <= set(tried)
    assert {change: result["fits"] for change, result in tried.items()} == {
        "any kind of sharding": True,
        "fused_uvm_caching: rows in the hosts' memory, some on the GPU": True,
        "fused_uvm: rows in the hosts' memory": True,
        "fp16": True,
        "half the dimension": True,
        "half the buckets": True,
        "a quarter of the buckets": True,
    }
    for result in tried.values():
        kept = [
            option for option in options if option.split("=")[0] not in {o.split("=")[0] for o in result["overrides"]}
        ]
        assert bigembed("plan", *kept, *result["overrides"]) == 0, result
        assert f"{result['step_ms']:,.4g} ms" in capsys.readouterr().out


def test_changes_are_put_together_and_ranks_added_where_none_alone_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    options = [*HASHED, "plan=cpu", "plan.world_size=1", "plan.ddr_gib=0.25"]
    assert bigembed("plan", *options, f"report={report}") == 2
    tried = json.loads(report.read_text())["tried"]
    fits = {result["change"]: result for result in tried if result["fits"]}
    assert list(fits) == ["fp16, half the buckets, half the dimension", "8 ranks, on as many more hosts"]
    for result in fits.values():
        kept = [
            option for option in options if option.split("=")[0] not in {o.split("=")[0] for o in result["overrides"]}
        ]
        assert bigembed("plan", *kept, *result["overrides"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-m"], "-m is for bigembed train"),
        (["hydra.run.dir=x"], "hydra.run.dir=x is for bigembed train"),
        (["plan=h900"], "there is no 'h900' in the group 'plan'"),
        (["plan.world_size=0"], "plan.world_size is 0; it must be at least 1"),
        (["out=/nowhere/plan.json"], "out=/nowhere/plan.json cannot be written"),
        (["plan.world_size=12", "plan.hbm_gib=1", "plan.device=cuda"], "plan.world_size=12 ranks do not fill hosts"),
        (["sharding.kind=column_wise"], "optim.tables.kind=adagrad"),
        (["sharding.kernel=fused_uvm"], "there is no GPU"),
        (["sharding.kind=row_wise", "plan.world_size=4", "tables.text.buckets=3"], "only 3"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused_in_one_sentence(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bigembed("plan", *HASHED, "plan=cpu", *arguments) == 2
    error = capsys.readouterr().err
    assert part in error and "Traceback" not in error and error.startswith("bigembed: ")
    assert list(tmp_path.iterdir()) == []


def test_vocabularies_are_planned_by_their_bound_or_learned(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*SMALL, "runtime.device=cpu"]
    assert bigembed("plan", *options, "tables.text.max_size=100000") == 0
    printed = capsys.readouterr()
    assert "103,001 × 8" in printed.out and "learning" not in printed.err
    assert bigembed("plan", *options) == 0
    printed = capsys.readouterr()
    learned = re.search(r"table text: ([\d,]+) rows × 8", printed.err)
    assert "learning the vocabulary of text" in printed.err and learned is not None
    assert f"{learned[1]} × 8" in printed.out and 3001 < int(learned[1].replace(",", "")) < 4000


# ---------------------------------------------------------------- what limits, and the picture


@pytest.mark.parametrize(
    ("on", "sharding", "ids", "what"),
    [
        (cluster(1, 1), {}, 10, "the bandwidth of the GPU's memory"),
        (cluster(1, 1, "cpu"), {}, 10, "the bandwidth of the host's memory"),
        (cluster(8, 8), {"kernel": Kernel.fused_uvm}, 100, "the way to the host's memory"),
        (cluster(8, 8), {"kind": Kind.row_wise}, 1, "communication within the host"),
        (cluster(16, 8), {"kind": Kind.row_wise}, 1, "communication between hosts"),
    ],
)
def test_the_limit_is_what_takes_most_of_the_slowest_ranks_time(
    on: Cluster, sharding: dict[str, Any], ids: float, what: str
) -> None:
    job = job_of({"light": (100_000, 16), "heavy": (100_000, 128)}, **sharding)
    for table in job.tables.values():
        table.sharding.pooling_factor = ids
    values = summary_of(planned(job, on), 1024)
    slowest = values["ranks"][values["limit"]["rank"]]["ms"]["total"]
    assert values["limit"]["what"] == what and values["limit"]["table"] == "heavy"
    assert values["step_ms"] == slowest == max(rank["ms"]["total"] for rank in values["ranks"])
    assert values["samples_per_s"] == pytest.approx(1024 / slowest * 1000)


class _Shapes(HTMLParser):
    """The paths and texts of the drawings in a page, by drawing; every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.drawings: list[list[dict[str, str]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "svg":
            self.drawings.append([])
        if tag == "path":
            self.drawings[-1].append({name: str(value) for name, value in attributes})

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(("world", "tables"), [(8, 3), (64, 20)])
def test_the_picture_shows_what_every_rank_holds(world: int, tables: int) -> None:
    job = job_of({f"t{number}": (100_000 * (1 + number) ** 2, 64) for number in range(tables)})
    made = planned(job, cluster(world, 8))
    page = picture(made, summary_of(made, 512))
    assert "http" not in page
    shapes = _Shapes()
    shapes.feed(page)
    assert shapes.open == [] and len(shapes.drawings) == 2
    memory, times = shapes.drawings
    assert _stacked(memory, world) == pytest.approx(_shares([load.hbm for load in made.ranks()]), abs=0.02)
    assert _stacked(times, world) == pytest.approx(_shares([load.milliseconds for load in made.ranks()]), abs=0.02)
    text = " ".join(shapes.texts)
    assert all(f"t{number}" in text for number in range(tables)) and "room for tables: 68.0" in text
    assert ("smaller tables" in text) == (tables > 11)


def _stacked(paths: list[dict[str, str]], world: int) -> list[float]:
    """The heights of the bars of a drawing, as shares of the highest."""
    heights = [0.0] * world
    step = 1130 / world
    for path in paths:
        for left, tall in re.findall(r"M([\d.]+) [\d.-]+h[\d.]+v([\d.]+)h", path["d"]):
            heights[round((float(left) - 70) / step)] += float(tall)
    return _shares(heights)


def _shares(values: list[float]) -> list[float]:
    return [value / max(values) for value in values]


@pytest.mark.slow
def test_a_thousand_tables_on_a_thousand_gpus_are_planned_in_a_minute() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "plan.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    seconds = float(re.search(r"seconds ([\d.]+)", done.stdout)[1])  # type: ignore[index]
    mib = float(re.search(r"peak ([\d,]+) MiB", done.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert "1,000 tables, 1e+12 parameters, 1,024 GPUs" in done.stdout
    assert seconds <= 60 and mib <= 4096
