"""Generated clicks: any number of columns of ids and of numbers, and a best area under the curve that is known.

An id is drawn by Zipf's law: rank ``r`` (the first is 1) in proportion to ``r ** -exponent``; beyond the first 4096 ranks the law
goes down in steps, of 1/256 of the rank. A keyed shuffle makes ids of ranks, so the frequent ids are not the small ones. A number is
about normal (a sum of four uniform ones), and one in 20 is missing. The logit is the sum of

    INTERCEPT
    OWN / sqrt(columns) * s h                                   for every id
    PAIRED / sqrt(2 * PAIRS) * s f · s' f'                      for the ids of columns 0 and 1, and of columns 2 and 3
    BY_NUMBERS / sqrt(numbers) * (±x or ±(|x| - 0.8) / 0.6)     for every number; a missing one counts as 0

where ``h`` and the two entries of ``f`` are about normal, by hashes of the column and the rank. ``s`` goes with
``share / (share + RARE)``: ids that come seldom count little, else nobody could learn what they do, and the best figure would be out of
reach. It is scaled so that its mean square over rows is 1 (by at most 10, where all ids are rare). The label is 1 with probability
``sigmoid(logit)``.

With the default options the best area under the curve is 0.8551 on average over labels, 0.8565 on those that are drawn. A core makes
8 to 25 million ids a second.

All is integer arithmetic on hashes, and additions, multiplications, divisions and roots, which are the same on every machine, bit for
bit; a longer part begins with a shorter one.
"""

import hashlib
import json
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import ClicksData
from bigembed.cores import available_cores
from bigembed.data.converted import held, work_folder
from bigembed.data.generated import share, sigmoid
from bigembed.data.plain import as_arrow, as_numpy
from bigembed.data.rows import Rows, as_wished, wished
from bigembed.errors import UserError
from bigembed.hashing import hash_integers, mix, permuted, reduce
from bigembed.wishes import Columns

INTERCEPT, OWN, PAIRED, BY_NUMBERS = -1.0, 1.2, 0.5, 1.5  # of a DLRM's shortfall most is by pairs, and least by numbers
RARE = 1 / 20
PAIRS = 2

_VERSION = 1  # counts up when the same options give other rows, so that old files are not taken
_FAINTEST = 0.01  # mean square of what ids count that is still made up for
_PARTS = {"train": "rows", "test": "test_rows"}
_MISSING = 0.05
_HEAD, _STEP = 4096, 256  # ranks that are cells of their own; of the others a cell is a so-manieth of its first rank
_BITS = 53  # of a random number that chooses a cell
_GUIDE = 12  # of its upper bits, by which the first cell to look at is found
_BLOCK_BYTES = 4 << 20
_BLOCK_ROWS = (1 << 10, 1 << 16)  # at least, as a column of a block is an object, and at most
_BINS = 1 << 20  # of the probability, for the best area under the curve
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOG_2 = 0.6931471805599453
_FOUR_UNIFORM = 37837.22  # standard deviation of a sum of four numbers of 16 bits


@dataclass(frozen=True, slots=True)
class _Law:
    """Cells of ranks, of which all ranks of one are drawn alike.

    Attributes
    ----------
    firsts, widths : ndarray, shape (cells,), int64
        First rank (from 0), and how many.
    totals : ndarray, shape (cells,), int64
        Random numbers below this choose the cell or one before.
    guide : ndarray, shape (2 ** _GUIDE,), int64
        By a random number's upper bits, the first cell that it may choose.
    strengths : ndarray, shape (cells,), float64
        What the effect of an id counts.
    """

    firsts: np.ndarray
    widths: np.ndarray
    totals: np.ndarray
    guide: np.ndarray
    strengths: np.ndarray


def open_clicks(config: ClicksData, columns: Columns, say: Callable[[str], None] | None = None) -> dict[str, pa.Table]:
    """Return the wished columns of the parts ``train`` and ``test``; parameters and errors as for ``open_clicks_part``."""
    return {part: open_clicks_part(config, part, columns, say) for part in _PARTS}


def open_clicks_part(
    config: ClicksData, part: str, columns: Columns, say: Callable[[str], None] | None = None
) -> pa.Table:
    """Make one part, or open it where it was made before and is too large for memory.

    Parameters
    ----------
    config : ClicksData
        How many rows, columns and ids, and the seed.
    part : str
        ``train`` or ``test``.
    columns : mapping of str to DataType
        The wished ones of ``id0`` … (int64), ``number0`` … (float64, some of them null), ``label`` (int8, 0 or 1) and
        ``probability`` (float64), with which label 1 was drawn.
    say : callable, optional
        Told what takes longer than a second; by default that is logged.

    Returns
    -------
    Table
        In memory, or memory-mapped where it takes more than ``data.in_memory_mib``.

    Raises
    ------
    UserError
        There is no such part or column, a column is wished for as what it is not, or the file cannot be written.
    """
    if part not in _PARTS:
        raise UserError(f"Generated clicks have no {part} part; they have {' and '.join(_PARTS)}.")
    for name in columns:
        match = re.fullmatch(r"(id|number)(0|[1-9]\d{0,8})", name)
        there = (config.columns if match[1] == "id" else config.numbers) if match else 0
        if name not in ("label", "probability") and (match is None or int(match[2]) >= there):
            numbers = f"number0 … number{config.numbers - 1}, " if config.numbers else ""
            raise UserError(
                f"Generated clicks have no column {name!r}, they have id0 … id{config.columns - 1}, {numbers}label, probability; "
                "data.columns and data.numbers say how many there are."
            )
    rows = getattr(config, _PARTS[part])
    schema = wished("generated clicks", pa.schema([(name, _type_of(name)) for name in columns]), columns)
    made = (as_wished("generated clicks", 0, batch, schema) for batch in _batches(config, part, list(columns)))
    size = rows * sum(field.type.bit_width for field in schema) // 8
    return held(
        work_folder(config.work_dir) / f"clicks-{part}-{_fingerprint(config, part, schema)}.arrow",
        lambda: Rows(schema, size, made),
        config.in_memory_mib << 20,
        "making clicks",
        say or logging.getLogger(__name__).info,
    )


def best_auc(config: ClicksData) -> float:
    """Return the area under the curve that the ideal classifier, which knows the probabilities, expects on the test rows.

    That is the expected number of pairs of a clicked and another row in which the clicked one has the higher probability (of equal
    ones, one half), over that of all such pairs. Probabilities within ``2 ** -20`` count as equal.
    """
    return _area(config, drawn=False)


def drawn_auc(config: ClicksData) -> float:
    """Return the area under the curve of the probabilities on the test labels as they were drawn: ``best_auc``, and chance."""
    return _area(config, drawn=True)


def _area(config: ClicksData, drawn: bool) -> float:
    clicked, others = np.zeros(_BINS), np.zeros(_BINS)
    itself = 0.0  # a row makes no pair with itself
    for batch in _batches(config, "test", ["label", "probability"]):
        probability = as_numpy(batch.column("probability"))
        weights = as_numpy(batch.column("label")).astype(np.float64) if drawn else probability
        bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
        clicked += np.bincount(bins, weights, _BINS)
        others += np.bincount(bins, 1.0 - weights, _BINS)
        itself += float((weights * (1.0 - weights)).sum())
    below = np.cumsum(others) - others / 2
    return float(((clicked * below).sum() - itself / 2) / (clicked.sum() * others.sum() - itself))


def _type_of(name: str) -> pa.DataType:
    kinds = {"id": pa.int64(), "number": pa.float64(), "label": pa.int8(), "probability": pa.float64()}
    return kinds[name.rstrip("0123456789")]


def _fingerprint(config: ClicksData, part: str, schema: pa.Schema) -> str:
    """Return a name for these columns of these rows."""
    options = [config.columns, config.ids, config.numbers, config.exponent, config.seed, getattr(config, _PARTS[part])]
    fields = [[field.name, str(field.type)] for field in schema]
    return hashlib.sha256(json.dumps([_VERSION, options, fields]).encode()).hexdigest()[:20]


def _batches(config: ClicksData, part: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield some thousand rows at a time, made on all cores."""
    rows = getattr(config, _PARTS[part])
    law = _law(config.ids, config.exponent)
    least, most = _BLOCK_ROWS
    step = min(most, max(least, _BLOCK_BYTES // (8 * (config.columns + config.numbers))))
    cores = available_cores()
    coming: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, rows, step):
            coming.append(pool.submit(_block, config, part, law, names, start, min(step, rows - start)))
            if len(coming) > cores:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _block(config: ClicksData, part: str, law: _Law, names: list[str], start: int, rows: int) -> pa.RecordBatch:
    key = hash_integers(np.array([-1 - list(_PARTS).index(part)]), config.seed)[0]  # columns have those from 0 on
    states, logit = np.empty(rows, np.uint64), np.empty(rows)
    _begin(key, start, INTERCEPT, states, logit)
    made = {**_ids(config, law, names, states, logit), **_numbers(config, names, states, logit)}
    labels, probability = np.empty(rows, np.int8), np.empty(rows)
    _draw_labels(states, logit, labels, probability)
    made |= {"label": as_arrow(labels), "probability": as_arrow(probability)}
    return pa.RecordBatch.from_arrays([made[name] for name in names], names=names)


def _ids(config: ClicksData, law: _Law, names: list[str], states: np.ndarray, logit: np.ndarray) -> dict[str, pa.Array]:
    """Draw the ids of all columns and add what they do to the logit; return those that are asked for."""
    made, wanted = {}, set(names)
    keys = hash_integers(np.arange(config.columns), config.seed)
    own, paired = OWN / np.sqrt(config.columns), PAIRED / np.sqrt(2 * PAIRS)
    factors, cells = np.zeros((len(states), 2)), np.empty(len(states), np.int64)
    for c, key in enumerate(keys):
        ranks = np.empty(len(states), np.int64)
        _draw_ranks(c, states, law.firsts, law.widths, law.totals, law.guide, cells, ranks)
        _add_effects(key, cells, ranks, law.strengths, own, logit)
        if c < 2 * PAIRS:
            _add_pairs(key, cells, ranks, law.strengths, paired if c % 2 else 0.0, factors, logit)
        if f"id{c}" in wanted:
            made[f"id{c}"] = as_arrow(permuted(ranks, config.ids, int(key)))
    return made


def _numbers(config: ClicksData, names: list[str], states: np.ndarray, logit: np.ndarray) -> dict[str, pa.Array]:
    """Draw all numbers and add what they do to the logit; return those that are asked for."""
    made, wanted = {}, set(names)
    signs = hash_integers(np.arange(config.numbers), ~config.seed) & np.uint64(1)
    for j in range(config.numbers):
        values, there = np.empty(len(states)), np.empty(len(states), np.bool_)
        effect = (1.0 if signs[j] else -1.0) * BY_NUMBERS / np.sqrt(config.numbers)
        _draw_numbers(config.columns + j, j % 2 == 1, effect, states, logit, values, there)
        if f"number{j}" in wanted:
            made[f"number{j}"] = as_arrow(values, there)
    return made


def _law(ids: int, exponent: float) -> _Law:
    """Return Zipf's law for so many ids."""
    firsts, rank = [], 0
    while rank < ids:
        firsts.append(rank)
        rank += 1 if rank < _HEAD else rank // _STEP
    starts = np.array(firsts, np.int64)
    widths = np.diff(starts, append=ids)
    weights = widths * _powers(starts + (widths + 1) / 2, -exponent)
    totals = np.cumsum(weights)
    bounds = np.floor(totals / totals[-1] * 2.0**_BITS).astype(np.int64)
    guide = np.searchsorted(bounds, np.arange(1 << _GUIDE) << (_BITS - _GUIDE), "right")
    shares = weights / totals[-1] / widths
    strengths = shares / (shares + RARE)
    strengths /= np.sqrt(max(np.cumsum(strengths**2 * shares * widths)[-1], _FAINTEST))
    return _Law(starts, widths, bounds, guide, strengths)


def _powers(bases: np.ndarray, exponent: float) -> np.ndarray:
    """Return ``bases ** exponent`` of positive bases, without the library's, whose last bit differs between machines."""
    parts, twos = np.frexp(bases)
    ratio = (parts - 1.0) / (parts + 1.0)  # in (-1/3, 0]; log(parts) = 2 artanh(ratio)
    artanh = np.zeros_like(parts)
    for k in range(45, 0, -2):
        artanh = artanh * ratio * ratio + 1.0 / k
    power = exponent * (2.0 * artanh * ratio + twos * _LOG_2)
    halvings = np.floor(power / _LOG_2 + 0.5)
    rest = power - halvings * _LOG_2
    exponential = np.ones_like(rest)
    for k in range(18, 0, -1):
        exponential = 1.0 + exponential * rest / k
    return np.ldexp(exponential, halvings.astype(np.int32))


@numba.njit(nogil=True, cache=True)
def _begin(key: np.uint64, start: int, intercept: float, states: np.ndarray, logit: np.ndarray) -> None:
    """Give every row a state, from which all that is drawn for it comes."""
    for i in range(len(states)):
        states[i] = mix(key + np.uint64(start + i) * _GOLDEN)
        logit[i] = intercept


@numba.njit(nogil=True, cache=True)
def _normal(bits: np.uint64) -> float:
    """Return a number of mean 0 and variance 1, about normal: the sum of the four quarters of a random number."""
    piece = np.uint64(0xFFFF)
    total = (bits & piece) + (bits >> np.uint64(16) & piece) + (bits >> np.uint64(32) & piece) + (bits >> np.uint64(48))
    return (np.float64(total) - 131070.0) / _FOUR_UNIFORM


@numba.njit(nogil=True, cache=True)
def _draw_ranks(
    column: int,
    states: np.ndarray,
    firsts: np.ndarray,
    widths: np.ndarray,
    totals: np.ndarray,
    guide: np.ndarray,
    cells: np.ndarray,
    ranks: np.ndarray,
) -> None:
    """Draw the rank of every row's id in one column, and its cell."""
    for i in range(len(states)):
        bits = mix(states[i] + np.uint64(column + 1) * _GOLDEN)
        number = np.int64(bits >> np.uint64(64 - _BITS))
        cell = guide[number >> (_BITS - _GUIDE)]
        while totals[cell] <= number:
            cell += 1
        cells[i] = cell
        ranks[i] = firsts[cell] + np.int64(reduce(mix(bits + _GOLDEN), np.uint64(widths[cell])))


@numba.njit(nogil=True, cache=True)
def _add_effects(
    key: np.uint64, cells: np.ndarray, ranks: np.ndarray, strengths: np.ndarray, own: float, logit: np.ndarray
) -> None:
    """Add what the ids of a column do by themselves."""
    for i in range(len(ranks)):
        logit[i] += own * strengths[cells[i]] * _normal(mix(key + np.uint64(ranks[i] + 1) * _GOLDEN))


@numba.njit(nogil=True, cache=True)
def _add_pairs(
    key: np.uint64,
    cells: np.ndarray,
    ranks: np.ndarray,
    strengths: np.ndarray,
    paired: float,
    factors: np.ndarray,
    logit: np.ndarray,
) -> None:
    """Add what the ids of a column do with those of the column before, whose ``factors`` are given, and replace these."""
    for i in range(len(ranks)):
        drawn, strength = mix(key + np.uint64(ranks[i] + 1) * _GOLDEN), strengths[cells[i]]
        first, second = strength * _normal(mix(drawn + _GOLDEN)), strength * _normal(mix(drawn - _GOLDEN))
        logit[i] += paired * (first * factors[i, 0] + second * factors[i, 1])
        factors[i, 0] = first
        factors[i, 1] = second


@numba.njit(nogil=True, cache=True)
def _draw_numbers(
    place: int,
    bent: bool,
    effect: float,
    states: np.ndarray,
    logit: np.ndarray,
    values: np.ndarray,
    there: np.ndarray,
) -> None:
    """Draw a column of numbers, which of them are there, and add what they do."""
    for i in range(len(states)):
        bits = mix(states[i] + np.uint64(place + 1) * _GOLDEN)
        there[i] = share(bits + _GOLDEN) >= _MISSING
        values[i] = _normal(bits) if there[i] else 0.0
        logit[i] += effect * ((abs(values[i]) - 0.8) / 0.6 if bent else values[i])


@numba.njit(nogil=True, cache=True)
def _draw_labels(states: np.ndarray, logit: np.ndarray, labels: np.ndarray, probability: np.ndarray) -> None:
    """Turn logits into probabilities, and these into labels."""
    for i in range(len(states)):
        probability[i] = sigmoid(logit[i])
        labels[i] = share(states[i] - _GOLDEN) < probability[i]
