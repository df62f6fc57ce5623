"""A run folder as files: who may write into it, what lies where, and whether a checkpoint is whole. No torch.

job.yaml            the resolved configuration
encoders/           what was learned from the data before training: vocabularies
checkpoints/        step-000000250/ …, best.json
metrics.jsonl       one line a report
metrics.json        the figures of the finished run, written last
tensorboard/        events
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bigembed.config import saved
from bigembed.config.schema import Job, Which
from bigembed.errors import UserError
from bigembed.files import replace

CHECKPOINTS = "checkpoints"
ENCODERS = "encoders"
METRICS = "metrics.json"
METRICS_LINES = "metrics.jsonl"
BEST = "best.json"
MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 26  # bytes read or written at once


def claim(folder: Path, job: Job) -> None:
    """Make ``folder`` the folder of a new run and keep its configuration there.

    Raises
    ------
    UserError
        When there is a run already, or the folder cannot be written.
    """
    if (folder / saved.NAME).exists():
        raise UserError(
            f"{folder} holds a run already; continue it with resume={folder}, or choose another folder with hydra.run.dir=DIR"
        )
    try:
        for name in (CHECKPOINTS, ENCODERS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        saved.save(job, folder)
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written: {error.strerror}; choose another with hydra.run.dir=DIR"
        ) from None


def release(folder: Path) -> None:
    """Take back what ``claim`` made, if the run ended before its first report: it leaves nothing to continue."""
    if (folder / METRICS_LINES).exists():
        return
    for path in (folder / saved.NAME, *(folder / ENCODERS).iterdir()):
        path.unlink(missing_ok=True)
    for path in (folder / CHECKPOINTS, folder / ENCODERS, folder):
        with suppress(OSError):  # there is more in it than ours
            path.rmdir()


def absolute_paths(job: Job, base: Path) -> None:
    """Make the data's paths absolute, so that the run can be continued from any folder."""
    for name in ("path", "work_dir"):
        value = getattr(job.data, name, None)
        if value is not None:
            setattr(job.data, name, os.path.join(base, os.path.expanduser(value)))


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run."""
    replace(folder / METRICS, json.dumps(metrics, indent=1).encode())


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the figures of a finished run; None where it has not finished."""
    path = folder / METRICS
    return json.loads(path.read_text()) if path.exists() else None


def mark_best(folder: Path, step: int) -> None:
    """Note which checkpoint is the best."""
    replace(folder / CHECKPOINTS / BEST, json.dumps({"step": step}).encode())


def best_step(folder: Path) -> int | None:
    """Return the step of the best checkpoint; None where none was chosen."""
    path = folder / CHECKPOINTS / BEST
    return json.loads(path.read_text())["step"] if path.exists() else None


def name_of(step: int) -> str:
    """Return the name of the folder of the checkpoint of ``step``."""
    return f"step-{step:09d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of the run in ``folder``, oldest first."""
    return sorted(path.parent for path in (folder / CHECKPOINTS).glob(f"step-*/{MANIFEST}"))


def choose(folder: Path, which: Which) -> Path:
    """Return the best (where one was chosen) or the last checkpoint of the run in ``folder``.

    Raises
    ------
    UserError
        When there is none.
    """
    finished = checkpoints(folder)
    if not finished:
        raise UserError(f"{folder} has no finished checkpoint yet; train on with resume={folder}")
    step = best_step(folder) if which is Which.best else None
    return next((path for path in finished if step is not None and path.name == name_of(step)), finished[-1])


def read_state(path: Path) -> dict[str, Any]:
    """Return where the run stood when the checkpoint at ``path`` was written."""
    return json.loads((path / "state.json").read_text())


def read_array(path: Path) -> np.ndarray:
    """Return an array of a checkpoint, memory-mapped, read-only.

    Raises
    ------
    UserError
        When the file is missing or no array.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def verify(path: Path) -> None:
    """Compare every file of the checkpoint at ``path`` with the manifest.

    Raises
    ------
    UserError
        Naming the first file that is missing, cut or changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} has no readable {MANIFEST}, so it is no finished checkpoint") from None
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path} is a checkpoint of format {manifest.get('format')}; this bigembed reads format {FORMAT}"
        )
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file} is missing; the checkpoint is damaged, use another one")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise UserError(
                f"{file} has {size:,} bytes instead of {expected['bytes']:,}; the checkpoint is damaged, use another one"
            )
        if checksum(file) != expected["xxh3_64"]:
            raise UserError(
                f"{file} is not what was written (its checksum differs); the checkpoint is damaged, use another one"
            )


def checksum(path: Path) -> str:
    """Return the XXH3 checksum (64 bit, hexadecimal) of a file."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
