"""A managed table under a stream of Zipf ids that drift: hits and milliseconds against an ideal LFU and TorchRec's.

    python benchmarks/managed.py

The ideal LFU counts every id that ever came and has the ``rows`` most frequent of them (of equally frequent ones a share). TorchRec's is
``MCHManagedCollisionModule`` with ``LFU_EvictionPolicy``, evicting every --interval steps. A hit is an id that has a row of its own
before its batch is learned from.
"""

import argparse
import logging
import time

import numba
import numpy as np
import torch
from torchrec import JaggedTensor
from torchrec.modules.mc_modules import LFU_EvictionPolicy, MCHManagedCollisionModule

from bigembed.admission import GROUP, Admission, Rules, rows_of, whole_rows
from bigembed.hashing import hash_integers

ASKED = 0.95  # of the ideal's hits


def stream(ids: int, universe: int, exponent: float, period: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Return ids by Zipf's law, each rank of which another id takes over every ``period`` ids (0: never), and their bound."""
    rng = np.random.default_rng(seed)
    share = np.cumsum(1 / np.arange(1, universe + 1) ** exponent)
    ranks = np.searchsorted(share / share[-1], rng.random(ids))
    turn = (np.arange(ids) + rng.integers(0, period, universe)[ranks]) // period if period else np.zeros(ids, np.int64)
    turns = int(turn.max()) + 1
    return ranks * turns + turn, universe * turns


@numba.njit(cache=True)
def ideal_hits(ids: np.ndarray, bound: int, rows: int, batch: int) -> float:
    """Return the hits of a table of the most frequent ids so far."""
    counts, having, top, hits = np.zeros(bound, np.int64), np.zeros(len(ids) + 2, np.int64), 0, 0.0
    for start in range(0, len(ids), batch):
        stop, above, least = min(start + batch, len(ids)), 0, top
        while least > 0 and above + having[least] <= rows:
            above += having[least]
            least -= 1
        share = (rows - above) / having[least] if least > 0 and having[least] > 0 else 0.0
        for i in range(start, stop):
            hits += 1.0 if counts[ids[i]] > least else share if counts[ids[i]] == least > 0 else 0.0
        for i in range(start, stop):
            seen = counts[ids[i]]
            having[seen] -= seen > 0
            counts[ids[i]] = seen + 1
            having[seen + 1] += 1
            top = max(top, seen + 1)
    return hits


def ours(values: np.ndarray, rows: int, batch: int) -> tuple[int, float]:
    """Return hits, and milliseconds a step (counting, giving out rows, looking up)."""
    table, hits, seconds = Admission(rows, 0, rows, Rules()), 0, 0.0
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        hits += int((rows_of(part, table.ids, 0, rows) % GROUP != 0).sum())
        began = time.perf_counter()
        table.step(part)
        seconds += time.perf_counter() - began
    return hits, 1000 * seconds * batch / len(values)


def torchrec(values: np.ndarray, rows: int, batch: int, interval: int) -> tuple[int, float]:
    """Return the same of TorchRec's module."""
    module = MCHManagedCollisionModule(rows, torch.device("cpu"), LFU_EvictionPolicy(), interval)
    hits, seconds = 0, 0.0
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        features = {"ids": JaggedTensor(part, lengths=torch.tensor([len(part)]))}
        began = time.perf_counter()
        found = module.remap(features)["ids"].values()
        module.profile(features)
        module.evict()
        seconds += time.perf_counter() - began
        hits += int((found != rows - 1).sum())
    return hits, 1000 * seconds * batch / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--universe", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--interval", type=int, default=10)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = whole_rows(options.rows)
    ours(np.arange(1000), rows, 500)  # compiled, or loaded
    print(f"{options.ids:,} ids, {rows:,} rows, batches of {options.batch:,}, one thread")
    for exponent, period in ((0.8, options.ids // 2), (1.0, 0), (1.0, options.ids // 10), (1.2, options.ids // 10)):
        ids, bound = stream(options.ids, options.universe, exponent, period)
        values = (hash_integers(ids) >> np.uint64(1)).view(np.int64)
        best = ideal_hits(ids, bound, rows, options.batch)
        own, own_ms = ours(values, rows, options.batch)
        peer, peer_ms = torchrec(values, rows, options.batch, options.interval)
        drift = f"other ids every {period:,}" if period else "no drift"
        print(
            f"exponent {exponent}, {drift}: ideal hits {best / len(ids):.3f} of the ids; bigembed {own / best:.3f} of these "
            f"(asked: {ASKED}), {own_ms:.1f} ms a step; TorchRec {peer / best:.3f}, {peer_ms:.1f} ms; "
            f"{peer_ms / own_ms:.1f} × as fast as TorchRec"
        )


if __name__ == "__main__":
    main()
