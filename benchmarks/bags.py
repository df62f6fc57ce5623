"""Bags of row ids for benchmarks of tables: labels of chance, ids by Zipf's law scattered over all rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BAG, BATCH = 20, 4096  # as in a click log


def bags(folder: Path, samples: int, rows: int, bag: int = BAG, seed: int = 0) -> None:
    """Write train.parquet: ``samples`` lists of ``bag`` ids, half of them by Zipf's law, half uniform."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, samples * bag)
    frequent = rng.random(len(ids)) < 0.5
    ids[frequent] = rng.zipf(1.2, int(frequent.sum())) * 0x9E3779B1 % rows
    lists = pa.ListArray.from_arrays(np.arange(0, len(ids) + 1, bag, dtype=np.int32), pa.array(ids))
    labels = pa.array(rng.integers(0, 2, samples))
    pq.write_table(pa.table({"ids": lists, "label": labels}), folder / "train.parquet")


def options(folder: Path, rows: int, dim: int, batch: int = BATCH) -> list[str]:
    """Return the options of a job on them: one pass, no evaluation, the checkpoint at the end."""
    return [
        "data=files",
        f"data.path={folder}",
        "data.test=null",
        "data.validation_fraction=0",
        "data.in_memory_mib=4096",
        "table@tables.text=ids",
        f"tables.text.rows={rows}",
        f"tables.text.dim={dim}",
        "features.text.column=ids",
        f"trainer.batch_size={batch}",
        "trainer.epochs=1",
        "runtime.tensorboard=false",
    ]
