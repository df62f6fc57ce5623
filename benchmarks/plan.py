"""The time and the memory in which a large job is planned: by default 1,000 tables, 10^12 parameters, 1,024 GPUs.

python benchmarks/plan.py
"""

import argparse
import random
import resource
import time

from bigembed.commands.plan_changes import plan_on_paper
from bigembed.config.schema import BagHead, FeatureConfig, GeneratedData, HashedTable, Job
from bigembed.sharding.cluster import GB, GIB, Cluster
from bigembed.sharding.planner import Planned

ALLOWED_SECONDS, ALLOWED_BYTES = 60, 4 * GIB


def large_job(tables: int, parameters: float) -> Job:
    """A job whose tables' rows spread over four powers of ten, in three widths, with 1 to 100 ids a sample."""
    draw = random.Random(0)
    shapes = [(10 ** draw.uniform(5, 9), draw.choice([64, 128, 256])) for _ in range(tables)]
    scale = parameters / sum(rows * dim for rows, dim in shapes)
    job = Job(
        data=GeneratedData(),
        tables={
            f"t{number}": HashedTable(dim=dim, buckets=int(rows * scale)) for number, (rows, dim) in enumerate(shapes)
        },
        features={f"t{number}": FeatureConfig(table=f"t{number}") for number in range(tables)},
        head=BagHead(),
    )
    for table in job.tables.values():
        table.sharding.pooling_factor = float(draw.choice([1, 2, 5, 20, 100]))
    job.trainer.batch_size = 65_536
    return job


def plan(tables: int, parameters: float, gpus: int, gpu_gib: float) -> Planned:
    job = large_job(tables, parameters)
    cluster = Cluster(
        world_size=gpus,
        local_world_size=8,
        device="cuda",
        hbm=int(gpu_gib * GIB),
        ddr=2048 * GIB,
        hbm_bandwidth=3350 * GB,
        ddr_bandwidth=614 * GB,
        intra_bandwidth=450 * GB,
        inter_bandwidth=50 * GB,
        reserve=0.15,
    )
    return plan_on_paper(job, {name: table.buckets for name, table in job.tables.items()}, cluster)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--parameters", type=float, default=1e12)
    parser.add_argument("--gpus", type=int, default=1024)
    parser.add_argument("--gpu-gib", type=float, default=80.0)
    a = parser.parse_args()
    began = time.perf_counter()
    planned = plan(a.tables, a.parameters, a.gpus, a.gpu_gib)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pieces = sum(len(table.pieces) for table in planned.plan.tables.values())
    ranks = planned.ranks()
    slowest, mean = max(load.milliseconds for load in ranks), sum(load.milliseconds for load in ranks) / len(ranks)
    print(f"{a.tables:,} tables, {a.parameters:.3g} parameters, {a.gpus:,} GPUs: {pieces:,} pieces")
    print(f"seconds {seconds:.1f} (asked: at most {ALLOWED_SECONDS})")
    print(f"peak {peak / 2**20:,.0f} MiB (asked: at most {ALLOWED_BYTES / 2**20:,.0f})")
    print(f"the slowest rank {slowest:.3g} ms, the ranks' mean {mean:.3g} ms, by TorchRec's estimates")


if __name__ == "__main__":
    main()
