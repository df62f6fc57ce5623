"""Which kind of table, and how large, by what a sample of the data shows and the memory there is; docs/tables.md has the rules."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from bigembed.config.physical import parts
from bigembed.config.schema import (
    BucketizedTable,
    CompositionalTable,
    DType,
    HashedTable,
    IdsTable,
    Job,
    ManagedTable,
    SubwordTable,
    TableConfig,
    TableOptimizer,
    TextTable,
    TokenizerTable,
    Tokens,
    VocabTable,
)
from bigembed.knowing.collisions import expected, places_of_functions
from bigembed.knowing.sample import Group, Sampled

MIN_COUNTS = (1, 2, 3, 5, 10)
NEW_WORDS = 0.02  # of the tokens of texts, from which on words are cut into pieces
GRAMS_A_WORD = 4  # buckets for the character n-grams of each word: English has 5 different ones a word
LEAST_ROWS = 16
ROWS_A_BIN, MOST_BINS = 1000, 256
STATE_BYTES = 4  # of a number of an optimizer's state, whatever the table's numbers are
KINDS: dict[str, type[TextTable] | type[TokenizerTable]] = {
    "vocab": VocabTable,
    "hashed": HashedTable,
    "quotient_remainder": CompositionalTable,
    "subword": SubwordTable,
    "tokenizer": TokenizerTable,
    "managed": ManagedTable,
}
"""What is proposed for texts and values, by the names of the choices."""


@dataclass(frozen=True, slots=True)
class Case:
    """A table that something is to be proposed for.

    Attributes
    ----------
    table : TableConfig
        As it is configured.
    sampled : Sampled
        What a sample shows of it.
    kinds : tuple of str
        What can be proposed; none where the table stays what it is.
    row_bytes : int
        Of a row, with the optimizer's state.
    """

    table: TableConfig
    sampled: Sampled
    kinds: tuple[str, ...]
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed for a table.

    Attributes
    ----------
    kind : str
        Name of the choice in the group ``table``.
    table : TableConfig
        Its options.
    rows : int
        Of all its parts, at most.
    bytes : int
        Of its weights and the optimizer's state.
    collisions : float
        Share of the different values that have all their rows in common with another one, as expected.
    mixed : float
        Share of a row's occurrences that are other values', on average over occurrences: of the first part.
    unknown : float
        Share of the occurrences whose value has no row.
    why : str
        The rule that led there.
    """

    kind: str
    table: TableConfig
    rows: int
    bytes: int
    collisions: float
    mixed: float
    unknown: float
    why: str


def row_bytes(table: TableConfig, optimizer: TableOptimizer) -> int:
    """Return the bytes of a row of a table, with the optimizer's state."""
    states = {TableOptimizer.rowwise_adagrad: 1, TableOptimizer.adagrad: table.dim, TableOptimizer.sgd: 0}[optimizer]
    return table.dim * (4 if table.dtype is DType.fp32 else 2) + STATE_BYTES * states


def bytes_of(job: Job, rows: Mapping[str, tuple[int, ...]]) -> int:
    """Return the bytes of the tables of a job and of the optimizer's state; ``rows`` are those of every table's parts."""
    return sum(
        count * row_bytes(replace(table, dim=part.dim), job.optim.tables.kind)
        for name, table in job.tables.items()
        for part, count in zip(parts(table), rows[name], strict=True)
    )


def kinds_for(job: Job, name: str, of_texts: bool, stream: bool) -> tuple[str, ...]:
    """Return what can be proposed for a table, by the names of the choices; none where it stays what it is."""
    table, features = job.tables[name], [each for each in job.features.values() if each.table == name]
    if isinstance(table, BucketizedTable):
        return ()
    crossed = any(each.crossed_with for each in features)
    kinds = [*([] if crossed else ["vocab"]), "hashed", "quotient_remainder"]
    cut = not isinstance(table, TextTable) or table.tokens is not Tokens.whole
    if of_texts and cut and not any(each.crossed_with or each.weights for each in features):
        kinds += ["subword"]
        plain = not isinstance(table, TextTable) or (table.tokens is not Tokens.regex and not table.distinct)
        kinds += ["tokenizer"] if plain and getattr(table, "ngrams", 1) == 1 else []
    return (*kinds, "managed") if stream else tuple(kinds)


def propose(cases: Mapping[str, Case], memory: float, mixed: float, stream: bool = False) -> dict[str, Proposal]:
    """Propose a kind and a size for every table.

    Parameters
    ----------
    cases : mapping of str to Case
        The tables.
    memory : float
        Bytes for all of them together.
    mixed : float
        Which share of a row's occurrences may be other values', on average over occurrences.
    stream : bool
        Whether new values go on coming after training.

    Returns
    -------
    dict of str to Proposal
        Together they take more than ``memory`` only where that has no place for a few rows a table.
    """
    return _within(cases, memory, lambda case, room: _choose(case, room, mixed, stream))


def made_as(kind: str, cases: Mapping[str, Case], memory: float, mixed: float) -> dict[str, Proposal]:
    """Return the tables that can be of a kind as such, within ``memory`` bytes for all; others hashed, those of numbers as they stay."""

    def made(case: Case, room: float | None) -> Proposal:
        return _as(case, kind if kind in case.kinds else "hashed", room, mixed, "") if case.kinds else _numbers(case)

    return _within(cases, memory, made)


def share(needs: Mapping[str, float], memory: float) -> dict[str, float]:
    """Divide ``memory`` over tables: each gets what it needs, or where that is too much, by the square root of its need.

    Where the probability that a value shares its row is as need / bytes, the sum of these over the tables is then least.
    """
    shares: dict[str, float] = {}
    waiting = sorted(needs, key=lambda name: needs[name])
    while waiting:
        left, whole = memory - sum(shares.values()), sum(math.sqrt(needs[name]) for name in waiting)
        even = {name: max(0.0, left) * math.sqrt(needs[name]) / whole for name in waiting}
        full = [name for name in waiting if needs[name] <= even[name]]
        if not full:
            return shares | even
        shares |= {name: needs[name] for name in full}
        waiting = [name for name in waiting if name not in full]
    return shares


def _within(
    cases: Mapping[str, Case], memory: float, made: Callable[[Case, float | None], Proposal]
) -> dict[str, Proposal]:
    """Make a proposal for each table without a limit, divide the memory by what they take, and make them anew."""
    wished = {name: made(case, None) for name, case in cases.items()}
    fixed = [name for name, case in cases.items() if not case.kinds]
    left = memory - sum(wished[name].bytes for name in fixed)
    shares = share({name: each.bytes for name, each in wished.items() if name not in fixed}, left)
    return {name: made(case, shares.get(name)) for name, case in cases.items()}


def _choose(case: Case, memory: float | None, mixed: float, stream: bool) -> Proposal:
    """Propose by the rules, within ``memory`` bytes, or without a limit."""
    room = math.inf if memory is None else max(LEAST_ROWS, memory // case.row_bytes)
    tokens, grams = case.sampled.tokens, case.sampled.grams
    if not case.kinds:
        return _numbers(case)
    if isinstance(case.table, IdsTable) and case.table.rows <= room:
        return _measured(case, "ids", case.table, case.table.rows, "the data names the rows, and they fit")
    if stream:
        return _as(case, "managed", memory, mixed, "values go on coming: rows change hands")
    if "subword" in case.kinds and tokens.distinct.new >= NEW_WORDS:
        why = f"{tokens.distinct.new:.1%} of the words to come were never seen"
        if (1 + GRAMS_A_WORD) * math.ceil(tokens.distinct.high) + _buckets(grams, mixed) + 1 <= room:
            return _as(case, "subword", memory, mixed, why)
        if "tokenizer" in case.kinds:
            return _as(case, "tokenizer", memory, mixed, f"{why}, and the words do not fit")
    if "vocab" in case.kinds and _fitting(case, room, mixed) is not None:
        why = "the values fit" if grams is None else "the words fit, with buckets for n-grams"
        return _as(case, "vocab", memory, mixed, why)
    hashed = _as(case, "hashed", memory, mixed, "the values do not fit, but few are mixed up")
    if hashed.mixed <= mixed:
        return hashed
    why = f"the values do not fit; hashed, {hashed.mixed:.0%} would be mixed up"
    if grams is None and "vocab" in case.kinds:
        frequent = _as(case, "vocab", memory, mixed, f"the frequent values have rows; {why.partition('; ')[2]}")
        if frequent.unknown <= hashed.mixed:
            return frequent
    return _as(case, "quotient_remainder", memory, mixed, why)


def _as(case: Case, kind: str, memory: float | None, mixed: float, why: str) -> Proposal:
    """Return a table as one of a kind, within ``memory`` bytes, or without a limit."""
    room = math.inf if memory is None else max(LEAST_ROWS, memory // case.row_bytes)
    if kind in ("vocab", "subword"):
        return _of_words(case, kind, room, mixed, why)
    if kind == "hashed":
        rows = int(min(room, _rows_for(case.sampled.elements, mixed)))
        return _measured(case, kind, _table(case, kind, buckets=rows), rows, why)
    rows = int(min(room, math.ceil(case.sampled.elements.distinct.values)))
    if kind == "tokenizer":
        rows = min(10_000_000, max(300, rows))
        return _measured(case, kind, _table(case, kind, vocab_size=rows), rows, why)
    if kind == "managed":  # of every 32 rows one is for values without a row of their own
        rows = max(32, int(min(room, rows * 33 / 32 + 32)) // 32 * 32)
        return _measured(case, kind, _table(case, kind, rows=rows), rows, why)
    each = max(2, rows // 2)
    options: dict[str, Any] = {"partitions": [each, each]}
    if isinstance(case.table, IdsTable) and each * each >= case.table.rows:
        options["values"] = case.table.rows
    return _measured(case, kind, _table(case, kind, **options), 2 * each, why)


def _numbers(case: Case) -> Proposal:
    """Return a table of intervals with about ``ROWS_A_BIN`` training rows in each."""
    table = case.table
    assert isinstance(table, BucketizedTable)
    if not table.borders:
        bins = min(MOST_BINS, case.sampled.whole / ROWS_A_BIN, case.sampled.tokens.distinct.values)
        table = replace(table, bins=max(2, int(bins)))
    rows = (len(table.borders) or table.bins - 1) + 2
    return _measured(case, "bucketized", table, rows, f"a number: {ROWS_A_BIN:,} training rows an interval")


def _of_words(case: Case, kind: str, room: float, mixed: float, why: str) -> Proposal:
    """Return a table with a row for each word: all of them if they fit, else the most frequent ones."""
    distinct, buckets = case.sampled.tokens.distinct, _buckets(case.sampled.grams, mixed)
    least, words = 1, math.ceil(distinct.high)
    if kind == "vocab":
        least, words = _fitting(case, room, mixed) or (least, words)
    else:
        buckets += GRAMS_A_WORD * words
    fits = words + buckets + 1 <= room
    if not fits:
        part = (room - 1) / (words + buckets)
        words, buckets = max(1, int(words * part)), max(min(buckets, 1), int(buckets * part))
    exact = fits and distinct.low == distinct.high
    options: dict[str, Any] = {"min_count": least, "max_size": None if exact else words}
    if buckets:
        options["buckets"] = buckets
    return _measured(case, kind, _table(case, kind, **options), words + buckets + 1, why)


def _fitting(case: Case, room: float, mixed: float) -> tuple[int, int] | None:
    """Return min_count and words of the largest vocabulary that fits and leaves few occurrences unknown."""
    tokens, buckets = case.sampled.tokens, _buckets(case.sampled.grams, mixed)
    for least in MIN_COUNTS:
        words = math.ceil(tokens.distinct.high * tokens.kept(least))
        if words + buckets + 1 <= room and (least == 1 or tokens.unknown(least) <= mixed):
            return least, words
    return None


def _buckets(grams: Group | None, mixed: float) -> int:
    return 0 if grams is None else _rows_for(grams, mixed)


@cache
def _rows_for(group: Group, mixed: float) -> int:
    return group.rows_for(mixed)


def _table(case: Case, kind: str, **options: Any) -> TableConfig:
    """Return a table of a kind with what it has in common with the configured one."""
    own = KINDS[kind]
    if case.sampled.grams is None and issubclass(own, TextTable):
        options["ngrams"] = 1  # also where there could be n-grams, but every sample has one value
    if type(case.table) is own:
        return replace(case.table, **options)
    shared = {each.name for each in fields(TextTable)} & {each.name for each in fields(own)}
    common = {name: getattr(case.table, name) for name in shared if hasattr(case.table, name)}
    return own(**(common | options))


def _measured(case: Case, kind: str, table: TableConfig, rows: int, why: str) -> Proposal:
    """Return the proposal with what is expected of it."""
    tokens, grams, elements = case.sampled.tokens, case.sampled.grams, case.sampled.elements
    collisions = mixed = unknown = 0.0
    if isinstance(table, HashedTable):
        places = places_of_functions(table.buckets, table.functions)
        collisions, mixed = expected(elements.distinct.values, places), elements.mixed(table.buckets)
    elif isinstance(table, CompositionalTable):
        collisions = 0.0 if table.values else expected(elements.distinct.values, math.prod(table.partitions))
        mixed = elements.mixed(table.partitions[0])
    elif isinstance(table, VocabTable):
        words = tokens.distinct.values * tokens.kept(table.min_count)
        unknown = tokens.unknown(table.min_count)
        if table.max_size is not None and table.max_size < words:
            unknown = max(unknown, 1 - tokens.head(table.max_size))
        if grams is not None:
            collisions, mixed = expected(grams.distinct.values, table.buckets), grams.mixed(table.buckets)
    elif isinstance(table, ManagedTable):
        unknown = 1 - elements.head(table.rows * 31 // 32)
    return Proposal(kind, table, rows, rows * case.row_bytes, collisions, mixed, unknown, why)
