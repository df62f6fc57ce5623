"""How the tests run bigembed: in this process where the answer is enough, in a real one where signals and exits matter."""

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from warm import PROCESSES

from bigembed.cli import main

# A job of some seconds: every part of the real one, small.
SMALL = [
    "data.rows=1500",
    "data.test_rows=300",
    "data.vocabulary=400",
    "tables.text.dim=8",
    "tables.text.buckets=3000",
    "trainer.batch_size=64",
    "trainer.epochs=2",
    "trainer.report_every=5",
    "runtime.tensorboard=false",
]


def bigembed(*arguments: str) -> int:
    """Run a command in this process and return its exit code; a signal's end is an exit code too."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


def start(*arguments: str, output: Path | None = None, limit: int | None = None) -> BaseProcess:
    """Run a command in a process of its own; ``limit`` is the largest file (bytes) that it may write."""
    process = PROCESSES.Process(target=_child, args=(arguments, output, limit))
    process.start()
    return process


def wait_until(condition: Callable[[], bool], process: BaseProcess, seconds: float = 60) -> bool:
    """Wait until a condition holds or the process has ended; tell whether it held."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if not process.is_alive():
            return condition()
        time.sleep(0.0005)
    raise TimeoutError("the process did not get there")


def _child(arguments: tuple[str, ...], output: Path | None, limit: int | None) -> None:
    if output is not None:
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(main(list(arguments)))


def write_reviews(folder: Path, rows: int = 200, test_rows: int = 50) -> Path:
    """Write train.parquet and test.parquet whose label is told by one word, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", rows), ("test", test_rows)):
        labels = [row % 2 for row in range(count)]
        texts = [
            f"review {row} was {'wonderful' if label else 'dreadful'}, word{row % 17}"
            for row, label in enumerate(labels)
        ]
        pq.write_table(pa.table({"text": texts, "label": pa.array(labels, pa.int64())}), folder / f"{name}.parquet")
    return folder


def tables_of(run: Path) -> dict[str, bytes]:
    """Return the bytes of every table and dense file of the last checkpoint of a run, by name."""
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    return {path.name: path.read_bytes() for path in [*(last / "tables").iterdir(), last / "dense.safetensors"]}
