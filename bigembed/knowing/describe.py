"""What was measured of a table, as values for JSON: the one form that texts and pictures are made of."""

from itertools import pairwise
from typing import Any

import numpy as np

from bigembed.config.kinds import kind_of
from bigembed.config.physical import part_name, parts
from bigembed.config.schema import (
    CompositionalTable,
    DType,
    HashedTable,
    Job,
    ManagedTable,
    SubwordTable,
    TableConfig,
    TableOptimizer,
    VocabTable,
)
from bigembed.encoders import Encoder
from bigembed.knowing import collisions
from bigembed.knowing.elements import DRAWN, pools_of
from bigembed.knowing.measure import Seen
from bigembed.knowing.norms import Norms, Weights
from bigembed.knowing.tally import Counts, Tally

AT_LEAST = (2, 5, 10)  # occurrences
CURVE = 60  # points of the curve of frequencies
STATE_BYTES = 4
WIDTHS = {DType.fp32: 4, DType.fp16: 2, DType.bf16: 2}


def frequencies(tally: Tally) -> dict[str, Any]:
    """Return how often values came: their number, shares by how often, the curve of ranks, and classes of frequency.

    ``exact`` says whether every value was counted; otherwise ``distinct`` is HyperLogLog's estimate, and shares are those of a
    sample of ``sampled`` of the rows.
    """
    counts = tally.sample()
    shares = {str(least): _share(counts.counts >= least) for least in AT_LEAST}
    return {
        "occurrences": tally.total,
        "distinct": round(tally.distinct()),
        "exact": tally.exact,
        "standard_error": 0.0 if tally.exact else tally.sketch.standard_error,
        "sampled": 2.0**-tally.level,
        "at_least": shares,
        "curve": _curve(counts.counts, 2**tally.level),
    }


def shared_rows(tally: Tally, places: float, rate: float, rows_for: Any = None) -> dict[str, Any]:
    """Return which share of the values that are hashed into rows has all of them in common with another value.

    Parameters
    ----------
    tally : Tally
        The values; only those whose keys are ``DRAWN`` count.
    places : float
        Rows, or sets of rows, that the hash chooses from.
    rate : float
        A wished share of values that share their rows.
    rows_for : callable, optional
        From so many places to the rows of every part that give them; by default one part of as many rows.

    Returns
    -------
    dict
        ``measured`` of different values, ``measured_of_occurrences``, ``expected`` of both; by class of frequency; and the rows
        that the wished rate asks for. What is measured is None where no value is left in the sample.
    """
    everything = tally.sample()
    counts = everything.take(pools_of(everything.keys) == DRAWN)
    share = len(counts) / max(1, len(everything))
    values = len(counts) if tally.exact else tally.distinct() * share
    shared = counts.shared()
    wanted = collisions.places_for(values, rate)
    return {
        "values": round(values),
        "places": float(places),
        "measured": _share(shared),
        "measured_of_occurrences": _share(shared, counts.counts),
        "expected": collisions.expected(values, places),
        "classes": _classes(counts, shared),
        "wanted": {"rate": rate, "rows": [wanted] if rows_for is None else rows_for(wanted)},
    }


def places_of(table: TableConfig) -> tuple[float, Any] | None:
    """Return how many sets of rows a table's hash chooses from, and what gives the rows for another number of them."""
    if isinstance(table, HashedTable):
        functions = table.functions
        if table.importance is not None:
            # The order of the rows counts, and so does the row of weights; of this as many are kept.
            weights = table.importance
            return float(table.buckets) ** functions * weights, lambda m: [_root(m / weights, functions), weights]
        rows_for = lambda m: [collisions.rows_of_functions(m, functions)]  # noqa: E731
        return collisions.places_of_functions(table.buckets, functions), rows_for
    if isinstance(table, CompositionalTable) and table.values is None:
        sizes = table.partitions
        return float(np.prod(np.array(sizes, float))), lambda m: [_root(m, len(sizes))] * len(sizes)
    if isinstance(table, VocabTable | SubwordTable) and table.ngrams > 1:
        return float(table.buckets), None
    return None


def parts_of(job: Job, name: str, encoder: Encoder, seen: Seen) -> list[dict[str, Any]]:
    """Return the parts of a table: rows, how many of them the data has, and memory by kind of numbers."""
    table, found = job.tables[name], []
    for part, size, mark in zip(parts(table), encoder.rows, seen.touched, strict=True):
        rows = size if mark is None else mark.rows
        found.append(
            {
                "name": part_name(name, part),
                "rows": rows,
                "dim": part.dim,
                "dtype": table.dtype.name,
                "touched": None if mark is None else mark.count(),
                "bytes": rows * part.dim * WIDTHS[table.dtype],
                "bytes_by_dtype": {dtype.name: rows * part.dim * width for dtype, width in WIDTHS.items()},
                "state_bytes": _state_bytes(job.optim.tables.kind, rows, part.dim),
            }
        )
    return found


def norms_of(weights: Weights) -> dict[str, Any]:
    """Return what the rows of a checkpoint are like: those that the data has, and the others."""
    first = {"touched": weights.first_touched, "untouched": weights.first_untouched}
    groups = {"touched": weights.touched, "untouched": weights.untouched}
    return {name: {**_norms(norms), "as_begun": first[name]} for name, norms in groups.items() if norms.rows}


def kind_and_shape(table: TableConfig) -> dict[str, Any]:
    """Return the kind of a table, and what its values are called."""
    ngrams = getattr(table, "ngrams", 1)
    what = {"tokenizer": "pieces", "bucketized": "intervals", "ids": "ids", "subword": "words"}.get(
        kind_of(table), "values"
    )
    return {"kind": kind_of(table), "what": f"{what} and n-grams" if ngrams > 1 else what}


def per_token(table: TableConfig, seen: Seen) -> dict[str, Any]:
    """Return the samples, tokens and rows looked up, and, for tables that know values, the share of tokens that they do not."""
    knows = isinstance(table, VocabTable | SubwordTable) or (
        isinstance(table, ManagedTable) and seen.touched[0] is not None
    )
    return {
        "samples": seen.samples,
        "tokens": seen.tokens,
        "rows_per_token": seen.looked_up / seen.tokens if seen.tokens and seen.looked_up else None,
        "unknown": seen.unknown / max(1, seen.tokens) if knows else None,
    }


def _norms(norms: Norms) -> dict[str, Any]:
    edges, heights = norms.histogram()
    return {
        "rows": norms.rows,
        "min": norms.least,
        "quartiles": [norms.quantile(share) for share in (0.25, 0.5, 0.75)],
        "max": norms.greatest,
        "edges": edges,
        "histogram": heights,
    }


def _classes(counts: Counts, shared: np.ndarray) -> list[dict[str, Any]]:
    """Return values by how often they came: once, 2 to 9 times, and then by powers of ten."""
    borders, classes = [1, 2, 10], []
    while borders[-1] <= counts.counts.max(initial=0):
        borders.append(10 * borders[-1])
    for low, high in pairwise(borders):
        chosen = (counts.counts >= low) & (counts.counts < high)
        if chosen.any():
            classes.append(
                {
                    "from": low,
                    "to": high - 1,
                    "values": _share(chosen),
                    "occurrences": _share(chosen, counts.counts),
                    "measured": _share(shared[chosen]),
                }
            )
    return classes


def _curve(counts: np.ndarray, times: int) -> list[list[int]]:
    """Return points [rank, count] of the values in the order of their frequency, at ranks in equal steps of their logarithm."""
    if not len(counts):
        return []
    ranks = np.unique(np.geomspace(1, len(counts), CURVE).round().astype(int))
    ordered = np.sort(counts)[::-1]
    return [[int(rank) * times, int(ordered[rank - 1])] for rank in ranks]


def _share(chosen: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    if not len(chosen):
        return None
    return float(chosen.mean()) if weights is None else float(weights[chosen].sum() / weights.sum())


def _state_bytes(kind: TableOptimizer, rows: int, dim: int) -> int:
    numbers = {TableOptimizer.rowwise_adagrad: rows, TableOptimizer.adagrad: rows * dim, TableOptimizer.sgd: 0}
    return STATE_BYTES * numbers[kind]


def _root(number: float, degree: int) -> int:
    """Return the least whole number whose power is at least ``number``."""
    root = max(1, int(number ** (1 / degree)))
    while root**degree < number:
        root += 1
    return root
