"""Memory that two processes of one host share, and the cores that a process has: by affinity, by quota, by its ranks."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bigembed import cores
from bigembed.shared import attach, publish

# ---------------------------------------------------------------- arrays

ARRAYS = {
    "int64": np.arange(-5, 100_000, dtype=np.int64),
    "float32": np.linspace(0, 1, 999, dtype=np.float32).reshape(27, 37),
    "uint8": np.frombuffer(bytes(range(256)) * 3, np.uint8),  # read-only, less than a page
    "bool": np.array([True, False, True]),
    "big-endian": np.arange(10, dtype=">i4"),
    "every third column": np.arange(120, dtype=np.float64).reshape(10, 12)[:, ::3],
    "columns first": np.asfortranarray(np.arange(12, dtype=np.int32).reshape(3, 4)),
    "one": np.array([[[7]]], np.int16),
    "nothing": np.empty(0, np.int64),
    "no rows": np.empty((0, 4), np.float32),
    "no columns": np.empty((4, 0), np.float32),
}

# Reads places from its input, and tells what it finds there.
READER = """
import json, sys
import numpy as np
from bigembed.shared import attach
found = [attach(place) for place in json.loads(sys.stdin.readline())]
writeable = [array.flags.writeable and array.size > 0 for array in found]
print(json.dumps([[array.dtype.str, array.shape, array.tolist(), each] for array, each in zip(found, writeable)]))
"""
# Publishes an array, tells where, and ends when it is told to.
PUBLISHER = """
import json, sys
import numpy as np
from bigembed.shared import publish
print(json.dumps(publish(np.arange(100_000))), flush=True)
sys.stdin.readline()
"""


@contextmanager
def publisher() -> Iterator[tuple["subprocess.Popen[str]", dict[str, object]]]:
    """A process that has published the numbers below 100,000, and where."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
        process.kill()


def test_another_process_finds_every_array_as_it_was() -> None:
    places = [publish(array) for array in ARRAYS.values()]
    given = json.dumps(places)  # plain values: they travel through a store
    done = subprocess.run([sys.executable, "-c", READER], input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(ARRAYS) == 11
    for (name, array), (dtype, shape, values, writeable) in zip(ARRAYS.items(), found, strict=True):
        assert (dtype, tuple(shape), values) == (array.dtype.str, array.shape, array.tolist()), name
        assert not writeable, name


def test_what_was_published_is_a_copy() -> None:
    array = np.arange(10)
    place = publish(array)
    array[:] = 0
    assert attach(place).tolist() == list(range(10))


def test_memory_lives_as_long_as_somebody_has_it() -> None:
    with publisher() as (process, place):
        array = attach(place)
        process.communicate("end\n", timeout=60)
        assert process.returncode == 0
    assert not Path(str(place["path"])).exists()
    assert np.array_equal(array, np.arange(100_000))
    with pytest.raises(OSError):
        attach(place)


def test_processes_that_attach_have_the_same_memory_and_not_copies() -> None:
    with publisher() as (_, place):
        mapped = attach(place)
        with open(str(place["path"]), "r+b") as memory:
            memory.seek(8 * 70_000)
            memory.write((-1).to_bytes(8, sys.byteorder, signed=True))
        assert mapped[70_000] == -1
        with pytest.raises(ValueError, match="read-only"):
            mapped[0] = 1


# ---------------------------------------------------------------- cores


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells the quota, in the place of the real one; eight cores by affinity."""
    file = tmp_path / "cpu.max"
    asked: list[str] = []

    def elsewhere(path: str) -> Path:
        asked.append(path)
        return file

    monkeypatch.setattr(cores, "Path", elsewhere)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    cores.available_cores()
    assert asked == ["/sys/fs/cgroup/cpu.max"]
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("260000 100000\n", 3),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("100000 50000\n", 2),
        ("", 8),
        ("300000\n", 8),
        (None, 8),
    ],
)
def test_cores_are_those_of_the_quota_but_not_more_than_of_the_affinity(
    text: str | None, expected: int, quota: Path
) -> None:
    if text is not None:
        quota.write_text(text)
    assert cores.available_cores() == expected


def test_cores_are_at_least_one_and_shared_with_the_ranks_of_the_host(
    quota: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {}
    for ranks in (1, 2, 3, 8, 9):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        shares[ranks] = cores.threads_here()
    assert shares == {1: 8, 2: 4, 3: 2, 8: 1, 9: 1}


def test_sizes_are_those_that_torchrun_tells_and_one_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (cores.world_size(), cores.local_world_size()) == (1, 1)
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (cores.world_size(), cores.local_world_size()) == (16, 4)
