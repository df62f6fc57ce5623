"""Matrix factorisation by alternating least squares: each rank solves its share of the rows, and writes those that it holds.

It is done on the CPUs. Every rank has both matrices and all interactions while it lasts: what each has solved is told to all after
every half sweep.
"""

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel

from bigembed.checkpoint import Group
from bigembed.config.physical import first_values
from bigembed.config.schema import Job, Of, RetrievalHead
from bigembed.errors import UserError
from bigembed.examples import Examples, Feature
from bigembed.hashing import fill_uniform, stream_of
from bigembed.interactions import Catalogue
from bigembed.least_squares import Exchange, Side, both_sides, improve
from bigembed.pretrained.steps import Put
from bigembed.report import say, telling
from bigembed.runtime import Runtime
from bigembed.sharding.rows import Shard, forget_caches, weights
from bigembed.starting.held import Held

AT_ONCE = 1 << 16  # rows that are found, and written, at once
BYTES = 1 << 26  # that are told at once


@dataclass(frozen=True, slots=True)
class Matrix:
    """The vectors of the users, or of the items.

    Attributes
    ----------
    table : str
        The table that they are for.
    vectors : ndarray, shape (catalogue's rows, dim), float32
        By code.
    codes, rows : ndarray, shape (n,), int64
        Those in training, and the row of each in the table.
    """

    table: str
    vectors: np.ndarray
    codes: np.ndarray
    rows: np.ndarray


def start_from_interactions(job: Job, examples: Examples, model: DistributedModelParallel, runtime: Runtime) -> bool:
    """Fill the tables of a matrix factorisation by ``head.als_sweeps`` sweeps; all ranks call it together.

    Rows that belong to nobody in training become zeros.

    Returns
    -------
    bool
        Whether there were any sweeps.

    Raises
    ------
    UserError
        When users, or items, in training have no row of their own.
    """
    head, pairs, group = job.head, examples.pairs, Group(runtime.control)
    if not isinstance(head, RetrievalHead) or not head.als_sweeps:
        return False
    assert pairs is not None
    sides = both_sides(pairs.known.items, len(pairs.items), head.als_weight, head.als_l2)
    features = {job.features[each.name].of: each for each in examples.features}
    users = _matrix(job, features[Of.user], pairs.users, sides[0])
    items = _matrix(job, features[Of.item], pairs.items, sides[1])
    _sweep(head, users.vectors, items.vectors, sides, group)
    for matrix in (users, items):
        _write(matrix, weights(model)[matrix.table], group)
    forget_caches(model)
    return True


def _matrix(job: Job, feature: Feature, catalogue: Catalogue, side: Side) -> Matrix:
    """Return what the sweeps begin with: vectors uniform in the table's init_range, zeros of those that are not in training."""
    table, count = job.features[feature.name].table, len(catalogue)
    vectors = np.empty((count, job.tables[table].dim), np.float32)
    low, high = first_values(job.tables[table])
    place, threads = (0, 0, vectors.shape[1]), torch.get_num_threads()
    fill_uniform(vectors, job.seed, stream_of(table), *place, low, high, threads)
    there = side.seen.lengths > 0
    vectors[~there] = 0
    codes = np.flatnonzero(there)
    return Matrix(table, vectors, codes, _rows_of(feature, codes, catalogue, table))


def _sweep(head: RetrievalHead, users: np.ndarray, items: np.ndarray, sides: tuple[Side, Side], group: Group) -> None:
    """Make the sweeps, each of the users first."""
    began, tell = time.perf_counter(), telling("sweeps of alternating least squares", head.als_sweeps)
    threads, world = torch.get_num_threads(), 1 if group.group is None else dist.get_world_size(group.group)
    for sweep in range(head.als_sweeps):
        for rows, others, side in ((users, items, sides[0]), (items, users, sides[1])):
            improve(rows, others, side, head.als_weight, threads, group.rank, world, _exchange(group))
        tell(sweep + 1)
    say(
        f"{head.als_sweeps} sweeps of alternating least squares over {len(sides[0].seen.values):,} pairs of a user and an item: "
        f"{time.perf_counter() - began:.1f} s"
    )


def _rows_of(feature: Feature, codes: np.ndarray, catalogue: Catalogue, table: str) -> np.ndarray:
    """Return the row (int64) of each of ``codes``, its own.

    Raises
    ------
    UserError
        One has several, or none that is not others' as well.
    """
    rows = np.empty(len(codes), np.int64)
    for start in range(0, len(codes), AT_ONCE):
        ids = feature.encode(codes[start : start + AT_ONCE]).ids
        wrong = np.flatnonzero(ids.lengths != 1)
        if len(wrong):
            key = catalogue.keys[int(codes[start + wrong[0]])].as_py()
            raise UserError(
                f"head.als_sweeps needs one row for every {catalogue.what}, but {key!r} has {ids.lengths[wrong[0]]} in table '{table}'; "
                f"set tables.{table}.tokens=whole"
            )
        rows[start : start + AT_ONCE] = ids.values
    distinct, counts = np.unique(rows, return_counts=True)
    own = (counts == 1) & (distinct >= feature.encoder.word_rows[0])  # the rows before are for unknown words
    without = len(rows) - np.count_nonzero(own)
    if without:
        raise UserError(
            f"head.als_sweeps needs a row of its own for every {catalogue.what}, but {without:,} of {len(rows):,} have none in table "
            f"'{table}'; leave tables.{table}.max_size, min_count and lower out"
        )
    return rows


def _exchange(group: Group) -> Exchange:
    """Return what tells all ranks the rows of an array that each has made."""

    def exchange(array: np.ndarray, borders: list[int]) -> None:
        if group.group is None:
            return
        size = max(1, BYTES // max(1, array[:1].nbytes))
        for rank, (begin, end) in enumerate(pairwise(borders)):
            for start in range(begin, end, size):
                dist.broadcast(torch.from_numpy(array[start : min(start + size, end)]), src=rank, group=group.group)

    return exchange


def _write(matrix: Matrix, shards: list[Shard], group: Group) -> None:
    """Write the vectors of those in training into their rows, as far as they are here, and zeros into all other rows."""
    held = Held(shards, [], group)
    count = shards[0].shape[0] if shards else 0
    zeros = np.zeros((1, matrix.vectors.shape[1]), np.float32)
    for start in range(0, count, AT_ONCE):
        held.take(Put(np.arange(start, min(start + AT_ONCE, count)), zeros))
    for start in range(0, len(matrix.codes), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        held.take(Put(matrix.rows[some], matrix.vectors[matrix.codes[some]]))
