"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_synced(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write ``content`` under another name, then rename it to ``path``: a reader sees the old file or the new one."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_synced(unfinished, content)
    os.replace(unfinished, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
