"""A run folder as files: who may write into it, what lies where, and whether a checkpoint is whole. No torch.

job.yaml            the resolved configuration
data.json           a checksum of labels and texts, by part
encoders/           what was learned from the data before training: vocabularies, borders of numbers
pretrained/         how far files of vectors cover the tables that start from them
checkpoints/        step-000000250/ …
metrics.jsonl       one line a report
metrics.json        the figures of the finished run, written last
tensorboard/        events
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bigembed.arrays import ArrayFile, Bfloat16, Manifest, in_threads
from bigembed.arrays.manifest import NAME as MANIFEST
from bigembed.config import saved
from bigembed.config.schema import FilesData, Job, Which
from bigembed.cores import available_cores
from bigembed.errors import UserError
from bigembed.files import replace, sync_folder

CHECKPOINTS = "checkpoints"
ENCODERS = "encoders"
PRETRAINED = "pretrained"
METRICS = "metrics.json"
METRICS_LINES = "metrics.jsonl"
DATA = "data.json"
SCALES = "numbers.json"  # beside the encoders
LOCK = ".lock"
UNFINISHED = ".unfinished"
REPLACED = ".replaced"
STATE = "state.json"  # in a checkpoint
# What cannot change a result, or is guarded by the fingerprint of the data: a run may be moved, and so may its data.
FREE_TO_CHANGE = re.compile(
    r"(runtime|plan|sharding(?!\.(forward|backward)))\.|tables\.\w+\.sharding\.|"
    r"tables\.\w+\.pretrained\.(path|others|word_list|lemmas) |"  # the first checkpoint holds what the files gave
    r"(data\.(path|work_dir|cache_mib|in_memory_mib)|trainer\.(pipeline|save_memory_mib)|grow) "
)
CHUNK = 1 << 20  # bytes read at once


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
    made = [*(folder / ENCODERS).glob("*"), *(folder / PRETRAINED).glob("*")]
    for path in (folder / saved.NAME, folder / DATA, folder / LOCK, *made):
        path.unlink(missing_ok=True)
    for path in (folder / CHECKPOINTS, folder / ENCODERS, folder / PRETRAINED, folder):
        with suppress(OSError):  # there is more in it than ours
            path.rmdir()


def is_free(difference: str) -> bool:
    """Whether a difference between two jobs ("path (old → new)") cannot change the result."""
    return FREE_TO_CHANGE.match(difference) is not None


def absolute_paths(job: Job, base: Path) -> None:
    """Make the job's paths absolute, so that the run can be continued from any folder."""

    def make_absolute(node: Any, *names: str) -> None:
        for name in names:
            value = getattr(node, name)
            if value is not None:
                setattr(node, name, os.path.join(base, os.path.expanduser(value)))

    make_absolute(job.sharding, "plan")
    for table in job.tables.values():
        pretrained = table.pretrained
        make_absolute(pretrained, "path", "word_list", "lemmas")  # ARCHIVE::MEMBER begins with a path, too
        pretrained.others = [os.path.join(base, os.path.expanduser(other)) for other in pretrained.others]
    if isinstance(job.data, FilesData):
        whole = job.data.path is None and job.data.hub is None  # the parts are paths themselves
        make_absolute(job.data, "path", "work_dir", *(("train", "validation", "test") if whole else ()))


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, the last file of a run."""
    replace(folder / METRICS, json.dumps(metrics, indent=1).encode())


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the figures of a finished run; None where it has not finished.

    Raises
    ------
    UserError
        When the file is damaged.
    """
    path = folder / METRICS
    if not path.exists():
        return None
    try:
        figures = json.loads(path.read_text())
        if {"train", "speed", "checkpoint"} <= set(figures):
            return figures
    except (ValueError, TypeError):
        pass
    raise UserError(f"{path} is damaged; delete it, and resume={folder} makes it again")


def name_of(step: int) -> str:
    """Return the name of the folder of the checkpoint of ``step``."""
    return f"step-{step:09d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of the run in ``folder``, oldest first."""
    return sorted(path.parent for path in (folder / CHECKPOINTS).glob(f"step-*/{MANIFEST}"))


def choose(folder: Path, which: Which) -> Path:
    """Return the best (where there were evaluations) or the last checkpoint of the run in ``folder``.

    Raises
    ------
    UserError
        When there is none, or the best one is gone.
    """
    finished = checkpoints(folder)
    if not finished:
        raise UserError(f"{folder} has no finished checkpoint yet; train on with resume={folder}")
    step = read_state(finished[-1])["progress"]["best_step"] if which is Which.best else None
    if step is None:
        return finished[-1]
    for path in finished:
        if path.name == name_of(step):
            return path
    raise UserError(f"the best checkpoint of {folder}, {name_of(step)}, is gone; use checkpoint=last")


def open_run(folder: Path, which: Which | None) -> tuple[Job, Path]:
    """Return the job of a run and its best or last checkpoint (None: the one that training judged by), all of it whole.

    Raises
    ------
    UserError
        When a file is damaged, or the configuration or an encoder is not what the checkpoint was made with.
    """
    job = saved.load(folder)
    path = choose(folder, which or job.trainer.test_with)
    verify(path)
    check_belongs(folder, job, path)
    return job, path


def identity(folder: Path, job: Job) -> dict[str, Any]:
    """Return what a checkpoint belongs to: the configuration that makes the result, and the encoders' checksums."""
    names = [*job.tables, *([SCALES] if job.numbers else [])]
    return {"job": saved.as_dict(job), "encoders": {name: checksum(folder / ENCODERS / name) for name in names}}


def check_belongs(folder: Path, job: Job, path: Path) -> None:
    """Refuse a checkpoint that was made with another configuration or other encoders than the run's.

    Raises
    ------
    UserError
        Naming the options or the file.
    """
    then, now = read_state(path)["identity"], identity(folder, job)
    before = saved.as_dict(saved.from_dict(then["job"]))  # an option newer than the checkpoint had its default
    changed = [text for text in saved.different(before, now["job"]) if not is_free(text)]
    if changed:
        raise UserError(
            f"{folder / saved.NAME} is not what {path.name} was made with: {', '.join(changed)}; put it back"
        )
    for name, digest in now["encoders"].items():
        if then["encoders"].get(name) != digest:
            raise UserError(f"{folder / ENCODERS / name} is not what {path.name} was made with; put it back")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep the run in ``folder`` for this process.

    Raises
    ------
    UserError
        When another process has it.
    """
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is being trained by another process; wait for it, or stop it first") from None
        yield


def recover(folder: Path) -> None:
    """Clear away what a kill left of a checkpoint half replaced or half written."""
    for path in (folder / CHECKPOINTS).glob(f".step-*{REPLACED}"):
        final = path.with_name(path.name.removeprefix(".").removesuffix(REPLACED))
        if final.exists():
            shutil.rmtree(path)
        else:
            path.rename(final)
    for path in (folder / CHECKPOINTS).glob(f".step-*{UNFINISHED}"):
        shutil.rmtree(path)


def put(unfinished: Path, final: Path) -> None:
    """Give a written checkpoint its name; one of that name is there until then, and ``recover`` finds it after a kill."""
    replaced = final.with_name(f".{final.name}{REPLACED}")
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    unfinished.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def drop(path: Path) -> None:
    """Delete a checkpoint; its name goes first, so that a half-deleted one is never taken for one."""
    doomed = path.with_name(f".{path.name}{UNFINISHED}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def drop_old(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete the checkpoints of the run in ``folder`` that are neither among the latest ``keep`` nor that of ``best_step``."""
    for path in checkpoints(folder)[:-keep]:
        if best_step is None or path.name != name_of(best_step):
            drop(path)


def read_state(path: Path) -> dict[str, Any]:
    """Return where the run stood when the checkpoint at ``path`` was written.

    Raises
    ------
    Damaged
        When the file is not what was written.
    """
    return json.loads(Manifest.load(path).file(path, STATE))


def read_array(path: Path) -> np.ndarray:
    """Return an array of a checkpoint, memory-mapped, read-only: an ndarray, or a Bfloat16, which is indexed like one of float32.

    Raises
    ------
    UserError
        When the file is missing or no array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return Bfloat16(array) if array.dtype == np.uint16 else array  # type: ignore[return-value]


def verify(path: Path) -> None:
    """Compare every file of the checkpoint at ``path`` with the manifest, on all cores.

    Raises
    ------
    Damaged
        Naming the first file that is missing, cut or changed.
    """
    manifest = Manifest.load(path)
    for name in manifest.files:
        manifest.file(path, name)
    for name, entry in manifest.arrays.items():
        with ArrayFile.to_read(path / name, entry) as file:
            in_threads(file.verify, entry.blocks, available_cores())


def checksum(path: Path) -> str:
    """Return the XXH3 checksum (64 bit, hexadecimal) of a file."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()
