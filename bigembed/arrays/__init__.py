"""Arrays on the disk: plain .npy files that several processes write and read in rectangles, each with its checksum. No torch."""

from bigembed.arrays.bfloat16 import Bfloat16
from bigembed.arrays.files import BLOCK, ArrayFile, create
from bigembed.arrays.manifest import ArrayEntry, Block, Damaged, FileEntry, Manifest, covers
from bigembed.arrays.threads import in_threads

__all__ = [
    "BLOCK",
    "ArrayEntry",
    "ArrayFile",
    "Bfloat16",
    "Block",
    "Damaged",
    "FileEntry",
    "Manifest",
    "covers",
    "create",
    "in_threads",
]
