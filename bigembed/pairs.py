"""Who has which item: the interactions opened and split, and what a batch of them needs."""

from dataclasses import dataclass, replace

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigembed.config.schema import (
    Candidates,
    Job,
    Of,
    ProtocolConfig,
    RetrievalHead,
    RetrievalLoss,
    Sampling,
    SequenceHead,
    Split,
)
from bigembed.data import open_data, open_part
from bigembed.data.labels import codes_of_groups
from bigembed.data.rows import is_list
from bigembed.encoders import NumberColumn
from bigembed.errors import UserError
from bigembed.hashing import hash_integers, mix
from bigembed.interactions import Cases, Catalogue, Known, Sampler, cases, held_out, known
from bigembed.joining import Catalogues, check_known, has_file, joined, key_of, open_catalogues
from bigembed.ragged import Ragged
from bigembed.report import say
from bigembed.wishes import NUMBERS, VALUES

SHARED = 0x5A  # salt that keeps the key of shared negatives apart


@dataclass(slots=True)
class Pairs:
    """The training interactions of a retrieval job, as batches need them.

    Attributes
    ----------
    users, items : Catalogue
        A row each; their numbers are the codes.
    user, item : ndarray, shape (interactions,), int64
        Codes.
    known : Known
        The same by user.
    sequences : ndarray, int64, or None
        Users with two interactions or more: the samples of a sequence head; None: the interactions are the samples.
    sampler : Sampler
        Draws negatives.
    position_weight : float
        What each position of a sequence counts, so that samples count 1 on average.
    """

    users: Catalogue
    items: Catalogue
    user: np.ndarray
    item: np.ndarray
    known: Known
    sequences: np.ndarray | None
    sampler: Sampler
    position_weight: float

    @property
    def samples(self) -> int:
        """How many samples an epoch has."""
        return len(self.user if self.sequences is None else self.sequences)


@dataclass(slots=True)
class Needed:
    """What a batch looks up: users by sample, each item once; and the head's tensors, in which items are places among ``codes``.

    Attributes
    ----------
    users : ndarray, shape (samples,), int64
        Codes.
    codes : ndarray, int64
        Different items.
    extras : dict of str to ndarray
        As the retrieval heads take them.
    """

    users: np.ndarray
    codes: np.ndarray
    extras: dict[str, np.ndarray]


@dataclass(slots=True)
class Interactions:
    """The opened data of a retrieval job.

    Attributes
    ----------
    catalogues : dict of Of to Catalogue
        Users and items.
    train : Table
        The training rows, held-out ones left out; with the columns of users and items that features read.
    pairs : Pairs
        The same as codes.
    judged : dict of str to Cases
        validation and test, where there are any.
    """

    catalogues: Catalogues
    train: pa.Table
    pairs: Pairs
    judged: dict[str, Cases]


@dataclass(slots=True)
class _Rows:
    """Interactions as codes, with what the splits and the judging need."""

    user: np.ndarray
    item: np.ndarray
    times: np.ndarray | None
    hits: np.ndarray | None

    def take(self, index: np.ndarray) -> "_Rows":
        times, hits = (None if each is None else each[index] for each in (self.times, self.hits))
        return _Rows(self.user[index], self.item[index], times, hits)


def open_interactions(job: Job, judge: bool = True) -> Interactions:
    """Open the data of a retrieval job and split it; without ``judge`` nothing is made of what it is judged on.

    Raises
    ------
    UserError
        For whatever is wrong with the data.
    """
    wished = _wished(job)
    parts = open_data(job.data, wished, (), say)
    own = job.interactions
    train = _rated(job, parts.train)
    test_rows = _split(job, train, own.test_split, own.test_fraction, 1) if parts.test is None else None
    rest = train if test_rows is None else _without(train, test_rows)
    fraction = job.data.validation_fraction
    split = own.split if parts.validation is None and fraction else None
    validation_rows = _split(job, rest, split, fraction, 0)
    kept = rest if validation_rows is None else _without(rest, validation_rows)
    if not kept.num_rows:
        raise UserError("no interactions are left to train on after those that are judged on were set aside")
    catalogues = open_catalogues(job, kept)
    judged = {
        "validation": parts.validation if validation_rows is None else rest.take(pa.array(validation_rows)),
        "test": parts.test if test_rows is None else train.take(pa.array(test_rows)),
    }
    rows = _codes(job, kept, catalogues, "train part", strict=True)
    pairs = _pairs(job, rows, catalogues)
    cases_of = _judged(job, judged, rows, catalogues, pairs) if judge else {}
    return Interactions(catalogues, joined(job, kept, catalogues, "train part"), pairs, cases_of)


def open_other(job: Job, interactions: Interactions) -> dict[str, Cases]:
    """Return the test part of other data (``job.data``), to be judged after the training interactions of the run."""
    table = open_part(job.data, "test", _wished(job), (), say)
    pairs = interactions.pairs
    return _judged(job, {"test": table}, _Rows(pairs.user, pairs.item, None, None), interactions.catalogues, pairs)


def _wished(job: Job) -> dict[str, pa.DataType]:
    own = job.interactions
    wished = {own.user: VALUES, own.item: VALUES}
    return wished | {name: NUMBERS for name in (own.time, own.rating) if name is not None}


def _rated(job: Job, table: pa.Table) -> pa.Table:
    """Return the rows that are rated well enough."""
    hits = hits_of(job, table)
    if hits is None or hits.all():
        return table
    say(
        f"{int((~hits).sum()):,} of {len(hits):,} training rows are rated below {job.interactions.min_rating:g} and left out"
    )
    return table.filter(pa.array(hits))


def hits_of(job: Job, table: pa.Table) -> np.ndarray | None:
    """Return which rows are rated well enough, shape (rows,), bool; None where all are, as there is no rating."""
    if job.interactions.rating is None or job.interactions.min_rating is None:
        return None
    return numbers_in(table, job.interactions.rating) >= job.interactions.min_rating  # NaN: no hit


def numbers_in(table: pa.Table, column: str) -> np.ndarray:
    """Return a column of numbers, shape (rows,), float64; NaN where there is none."""
    return np.concatenate([np.array(block) for block in NumberColumn(table[column], column).values()] or [np.empty(0)])


def _split(job: Job, table: pa.Table, split: Split | None, fraction: float, salt: int) -> np.ndarray | None:
    """Return the rows (int64, ascending) to be set aside; None where nothing is asked for."""
    if split is None:
        return None
    key = key_of(job, Of.user)
    users = codes_of_groups(table[key], key, "train", "interactions.user")
    times = None if job.interactions.time is None else numbers_in(table, job.interactions.time)
    return held_out(users, times, split, fraction, job.seed + salt, "the training part")


def _without(table: pa.Table, rows: np.ndarray) -> pa.Table:
    kept = np.ones(table.num_rows, bool)
    kept[rows] = False
    return table.filter(pa.array(kept))


def _codes(job: Job, table: pa.Table, catalogues: Catalogues, part: str, strict: bool) -> _Rows:
    """Return interactions as codes; ``strict`` refuses those that no catalogue has."""
    codes = {}
    for of in (Of.user, Of.item):
        column = table[key_of(job, of)]
        codes[of] = catalogues[of].codes(column, apart=not strict)
        if strict and has_file(job, of):
            check_known(codes[of], column, of, part)
    times = None if job.interactions.time is None else numbers_in(table, job.interactions.time)
    return _Rows(codes[Of.user], codes[Of.item], times, hits_of(job, table))


def _pairs(job: Job, rows: _Rows, catalogues: Catalogues) -> Pairs:
    head = job.head
    assert isinstance(head, RetrievalHead)
    users, items = catalogues[Of.user], catalogues[Of.item]
    if isinstance(head, SequenceHead) and head.time_buckets and rows.times is not None:
        unknown = int(len(rows.times) - np.count_nonzero(np.isfinite(rows.times)))
        if unknown:
            raise UserError(
                f"head.time_buckets needs the time of every interaction, but column '{job.interactions.time}' has none in "
                f"{unknown:,} of {len(rows.times):,} training rows; set head.time_buckets=0, or leave those rows out"
            )
    all_of = known(rows.user, rows.item, rows.times, len(users), len(items))
    sampler = Sampler(head.sampling, head.power, all_of.counts, all_of.items if head.leave_known else None)
    sequences, weight = None, 1.0
    if isinstance(head, SequenceHead):
        lengths = all_of.histories.lengths
        sequences = np.flatnonzero(lengths > 1)
        if not len(sequences):
            raise UserError(
                "no user has two training interactions, so that there is no next item to learn; use head=two_tower"
            )
        weight = 1 / float(np.minimum(lengths[sequences] - 1, head.max_length).mean())
    return Pairs(users, items, rows.user, rows.item, all_of, sequences, sampler, weight)


def _judged(
    job: Job, tables: dict[str, pa.Table | None], train: _Rows, catalogues: Catalogues, pairs: Pairs
) -> dict[str, Cases]:
    """Return the cases of the parts; what comes before the test is training and validation."""
    found, before, earlier = {}, pairs.known, train
    trained = pairs.known.counts > 0
    there_are = {name: table for name, table in tables.items() if table is not None}
    for number, (name, table) in enumerate(there_are.items(), 1):
        rows = _codes(job, table, catalogues, f"{name} part", strict=False)
        given = _given(job, catalogues) if name == "test" else None
        found[name] = cases(rows.user, rows.item, rows.hits, before, _protocol(job, name), trained, given, job.seed)
        for sentence in found[name].told:
            say(f"warning: {name} part: {sentence}")
        if number == len(there_are):  # nobody is judged after it
            break
        there = (rows.user >= 0) & (rows.item >= 0)
        there &= True if rows.hits is None else rows.hits
        earlier = _joined(earlier, rows.take(np.flatnonzero(there)))
        before = known(earlier.user, earlier.item, earlier.times, len(catalogues[Of.user]), len(catalogues[Of.item]))
    return found


def _joined(first: _Rows, second: _Rows) -> _Rows:
    times = None
    if first.times is not None and second.times is not None:
        times = np.concatenate([first.times, second.times])
    return _Rows(np.concatenate([first.user, second.user]), np.concatenate([first.item, second.item]), times, None)


def _protocol(job: Job, part: str) -> ProtocolConfig:
    """Return how a part is judged: lists of negatives are given for the test part alone."""
    if part == "test" or job.protocol.candidates is not Candidates.given:
        return job.protocol
    return replace(job.protocol, candidates=Candidates.sampled)


def _given(job: Job, catalogues: Catalogues) -> tuple[np.ndarray, np.ndarray, Ragged, np.ndarray] | None:
    """Return users, items, the codes of their given negatives, and how many of these no catalogue has."""
    if job.protocol.candidates is not Candidates.given:
        return None
    own = job.interactions
    table = open_part(job.data, "negatives", {name: VALUES for name in (own.user, own.item, own.negatives)}, (), say)
    lists = table[own.negatives].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0)
    if not is_list(lists.type):
        raise UserError(f"column '{own.negatives}' of data.negatives holds {lists.type}, not lists of items")
    if lists.null_count:
        raise UserError(
            f"column '{own.negatives}' of data.negatives has no list in {lists.null_count:,} rows; drop them"
        )
    codes = catalogues[Of.item].codes(pa.chunked_array([lists.flatten()]))
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    there = codes >= 0
    kept = np.concatenate([[0], np.cumsum(there)])[offsets]
    users, items = (catalogues[of].codes(table[key_of(job, of)]) for of in (Of.user, Of.item))
    return users, items, Ragged(codes[there], kept), lengths - np.diff(kept)


def needed(
    head: RetrievalHead, pairs: Pairs, rows: np.ndarray, seeds: np.ndarray, whole: np.ndarray, salt: int
) -> Needed:
    """Return what the samples ``rows`` (int64) need; ``whole`` are those of all ranks, ``seeds`` (int64) the samples' own."""
    extras: dict[str, np.ndarray] = {}
    if pairs.sequences is None:
        users, own, all_own = pairs.user[rows], pairs.item[rows], pairs.item[whole]
        wanted, whose = {"item": own}, users
    else:
        assert isinstance(head, SequenceHead)
        users = pairs.sequences[rows]
        read, targets = _targets(head, pairs.known, users)
        wanted, extras = _read(head, pairs.known, read)
        wanted["item"] = own = targets
        samples = np.repeat(np.arange(len(users)), extras["lengths"])
        seeds = hash_integers(seeds[samples] ^ (extras["places"] + 1), salt).view(np.int64)
        whose = users[samples]
        all_own = _targets(head, pairs.known, pairs.sequences[whole])[1] if head.in_batch else own
        extras["position_weight"] = np.array(pairs.position_weight, np.float32)
    key = int(hash_integers(whole[:1], salt ^ SHARED)[0] >> np.uint64(1))
    wanted |= _negatives(head, pairs, whose, own, all_own, seeds, key, extras)
    return _each_once(head, pairs, users, wanted, extras, salt)


def of_users(head: RetrievalHead, pairs: Pairs, users: np.ndarray, before: Known) -> Needed:
    """Return what the vectors of ``users`` (int64 codes) need, who have what ``before`` says."""
    if not isinstance(head, SequenceHead):
        return Needed(users, np.empty(0, np.int64), {})
    wanted, extras = _read(head, before, _latest(before, users, head.max_length))
    return _each_once(head, pairs, users, wanted, extras, 0)


def most_items(head: RetrievalHead, samples: int, world: int, items: int) -> int:
    """Return how many different items each of ``world`` ranks with so many samples looks up at most, of a catalogue of so many."""
    if head.sampling is Sampling.all:
        return items
    positions = samples * head.max_length if isinstance(head, SequenceHead) else samples
    shared = (head.negatives if head.shared else 0) + (world * positions if head.in_batch else 0)
    return min(items, samples + positions * (1 + (0 if head.shared else head.negatives)) + shared)


@dataclass(slots=True)
class _Stretch:
    """Pieces of histories: for every sample, places (int64) in the values of all histories, one after the other."""

    places: np.ndarray
    lengths: np.ndarray


def _latest(before: Known, users: np.ndarray, count: int) -> _Stretch:
    """Return the last ``count`` interactions of each user, or as many as there are."""
    begins, ends = before.histories.offsets[users], before.histories.offsets[users + 1]
    lengths = np.minimum(ends - begins, count)
    return _Stretch(_run(ends - lengths, lengths), lengths)


def _run(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return start, start + 1, … of each piece, side by side."""
    shifts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - shifts, lengths)


def _targets(head: SequenceHead, before: Known, users: np.ndarray) -> tuple[_Stretch, np.ndarray]:
    """Return what is read of each user's history, and the item (int64 codes) that comes after each of it."""
    whole = _latest(before, users, head.max_length + 1)
    lengths = whole.lengths - 1
    starts = before.histories.offsets[users + 1] - whole.lengths
    read = _Stretch(_run(starts, lengths), lengths)
    return read, before.histories.values[read.places + 1]


def _read(head: SequenceHead, before: Known, stretch: _Stretch) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the items of a stretch, and what the head is told of them."""
    ends = np.cumsum(stretch.lengths)
    extras = {
        "lengths": stretch.lengths,
        "places": np.repeat(ends, stretch.lengths) - 1 - np.arange(len(stretch.places)),
    }
    if head.time_buckets:
        extras["gaps"] = _gaps(before, stretch, head.time_buckets)
    return {"history": before.histories.values[stretch.places].astype(np.int64)}, extras


def _gaps(before: Known, stretch: _Stretch, buckets: int) -> np.ndarray:
    """Return the bucket of the time since the interaction before: 0 for none, else 1 + log2 of it, at most ``buckets`` - 1."""
    assert before.times is not None
    first = np.isin(stretch.places, before.histories.offsets[:-1])
    gaps = before.times[stretch.places] - before.times[np.maximum(stretch.places - 1, 0)]
    found = np.floor(np.log2(np.maximum(gaps, 1))).astype(np.int64) + 1
    return np.where(first | (gaps <= 0), 0, np.minimum(found, buckets - 1))


def _negatives(
    head: RetrievalHead,
    pairs: Pairs,
    users: np.ndarray,
    own: np.ndarray,
    all_own: np.ndarray,
    seeds: np.ndarray,
    key: int,
    extras: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the negatives (int64 codes) of positions with ``users`` and their ``own`` items; tell the head of them in ``extras``."""
    wanted: dict[str, np.ndarray] = {}
    every = head.sampling is Sampling.all
    if head.loss is RetrievalLoss.warp:
        extras["items"] = np.array(len(pairs.items))
    if not head.shared and not every:
        wanted["own"], extras["own_out"] = pairs.sampler.each(seeds, head.negatives, users, own)
    if not (head.shared or every or head.in_batch):
        return wanted
    draws = head.negatives if head.shared else 0
    shared = pairs.sampler.shared(draws, key) if every or draws else np.empty(0, np.int64)
    if head.in_batch and not every:
        shared = np.union1d(shared, all_own)
    wanted["shared"] = shared
    extras["logq"] = np.zeros(len(shared), np.float32)
    if head.logq and not every:
        extras["logq"] = pairs.sampler.log_inclusion(shared, draws, len(all_own) if head.in_batch else 0)
    if head.leave_known:
        extras["out"] = np.zeros((len(own), len(shared)), bool)
        _mark_known(users, shared, pairs.known.items.values, pairs.known.items.offsets, extras["out"])
    return wanted


@numba.njit(nogil=True, cache=True)
def _mark_known(users: np.ndarray, shared: np.ndarray, items: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Mark which of the ``shared`` items (ascending) each user has."""
    for i in range(len(users)):
        for j in range(offsets[users[i]], offsets[users[i] + 1]):
            place = np.searchsorted(shared, items[j])
            if place < len(shared) and shared[place] == items[j]:
                out[i, place] = True


def _each_once(
    head: RetrievalHead,
    pairs: Pairs,
    users: np.ndarray,
    wanted: dict[str, np.ndarray],
    extras: dict[str, np.ndarray],
    salt: int,
) -> Needed:
    """Return the wanted items, each once, and where they are among them."""
    if head.sampling is Sampling.all and "shared" in wanted:
        codes = wanted["shared"]  # all of them: a code is its place
        extras |= wanted
    else:
        every = np.concatenate([each.reshape(-1) for each in wanted.values()])
        codes, places = _distinct(every)
        start = 0
        for name, each in wanted.items():
            extras[name] = places[start : start + each.size].reshape(each.shape)
            start += each.size
    if "item" in wanted:
        extras["item_seeds"] = hash_integers(codes, salt).view(np.int64)
    return Needed(users, codes, extras)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values (int64), as they first come, and for each value its place among them (int64)."""
    size = 1 << max(4, (2 * len(values)).bit_length())
    places, codes = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    count = _find_distinct(values, np.full(size, -1, np.int64), places, codes)
    return codes[:count], places


@numba.njit(nogil=True, cache=True)
def _find_distinct(values: np.ndarray, table: np.ndarray, places: np.ndarray, codes: np.ndarray) -> int:
    mask, count = len(table) - 1, 0
    for i in range(len(values)):
        at = np.int64(mix(np.uint64(values[i])) & np.uint64(mask))
        while table[at] >= 0 and codes[table[at]] != values[i]:
            at = (at + 1) & mask
        if table[at] < 0:
            table[at] = count
            codes[count] = values[i]
            count += 1
        places[i] = table[at]
    return count
