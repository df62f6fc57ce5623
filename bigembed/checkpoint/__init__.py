"""Checkpoints: a folder of plain arrays, written by all ranks at once under another name, and renamed last.

``tables/TABLE.weight.npy`` and ``tables/TABLE.STATE.npy`` hold whole tables (every rank writes its own rows or columns into the same
file), ``dense.safetensors`` the rest of the model and its optimizer's state, ``state.json`` where the run stands, ``manifest.json``
the size and checksums of every file, for tables block by block. A folder without a manifest is no checkpoint.
"""

from bigembed.checkpoint.load import load_checkpoint
from bigembed.checkpoint.save import Saver
from bigembed.checkpoint.together import Group

__all__ = ["Group", "Saver", "load_checkpoint"]
