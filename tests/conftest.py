"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The first call of a kernel compiles it, which takes seconds.
settings.register_profile("bigembed", deadline=None)
settings.load_profile("bigembed")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: $BIGEMBED_TEST_DATA, or shared/data beside the checkout; skips where there is none."""
    given = os.environ.get("BIGEMBED_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; BIGEMBED_TEST_DATA names another folder")
    return folder
