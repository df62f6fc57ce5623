"""What all tests share."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# As the command does before torch loads, which the tests load without it: threads that spin take the other process's core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The first call of a kernel compiles it, which takes seconds.
settings.register_profile("bigembed", deadline=None)
settings.load_profile("bigembed")

# The files that take longest. xdist's processes get files in this order, so that they end at about the same time.
FIRST = (
    "test_docs",
    "test_config",
    "test_topology",
    "test_failures",
    "test_growth",
    "test_cli",
    "test_train",
    "test_starting",
)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # xdist would begin with the files of most tests, however small these are


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(FIRST)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is loaded by now stays: composing a job is a fifth faster if the collector does not go through it


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: $BIGEMBED_TEST_DATA, or shared/data beside the checkout; skips where there is none."""
    given = os.environ.get("BIGEMBED_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; BIGEMBED_TEST_DATA names another folder")
    return folder
