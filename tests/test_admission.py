"""Who has a row of a managed table: the compiled rules against slow ones, and what they promise."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from bigembed.admission import FREE, GROUP, Admission, Rules, check_shared, rows_of, whole_rows
from bigembed.config.schema import Policy
from bigembed.errors import UserError
from bigembed.hashing import hash_integers

RULES = [
    Rules(),
    Rules(min_count=3),
    Rules(Policy.lru),
    Rules(Policy.lru, min_count=2),
    Rules(Policy.distance_lfu),
    Rules(Policy.distance_lfu, decay=0.5, min_count=2),
]


def values_of(numbers: np.ndarray) -> np.ndarray:
    """What the encoder makes of numbers: 63 bits of their hash."""
    return (hash_integers(numbers) >> np.uint64(1)).view(np.int64)


def zipf(steps: int, size: int, kinds: int, seed: int = 0, drift: int = 0) -> list[np.ndarray]:
    """Batches of numbers whose frequencies follow Zipf's law; every ``drift`` steps a number is replaced, each at a time of its own."""
    draw = np.random.default_rng(seed)
    weight = 1 / np.arange(1, kinds + 1)
    ranks = np.searchsorted(np.cumsum(weight) / weight.sum(), draw.random((steps, size)))
    phase = draw.integers(0, drift, kinds) if drift else np.zeros(kinds, np.int64)
    version = (np.arange(steps)[:, None] + phase[ranks]) // drift if drift else np.zeros_like(ranks)
    return list(ranks + kinds * version)


@dataclass
class Slow:
    """The rules in plain Python: a group's rows are a list of [value, count, last], its waiting places another."""

    rows: int
    rules: Rules
    residents: dict[int, list[list[int]]] = field(default_factory=dict)
    waiting: dict[int, list[list[int]]] = field(default_factory=dict)
    now: int = 0

    def step(self, values: np.ndarray) -> tuple[list[int], list[int]]:
        self.now += 1
        groups, taken, missing = self.rows // GROUP, [], []
        for value, times in sorted(Counter(values.tolist()).items()):
            group = value % groups
            own = [entry for entry in self.residents.setdefault(group, []) if entry[0] == value]
            if own:
                own[0][1:] = own[0][1] + times, self.now
            else:
                missing.append((value, times))
        for value, times in missing:
            taken += self.arrive(value, times, value % groups)
        return [self.row(value, value % groups) for value in values.tolist()], taken

    def row(self, value: int, group: int) -> int:
        own = [place for place, entry in enumerate(self.residents[group]) if entry[0] == value]
        return group * GROUP + (own[0] + 1 if own else 0)

    def worth(self, entry: list[int]) -> tuple[float, ...]:
        _, count, last = entry
        if self.rules.policy is Policy.lfu:
            return count, last
        if self.rules.policy is Policy.lru:
            return last, count
        return (count / (self.now - last + 1) ** self.rules.decay,)

    def arrive(self, value: int, times: int, group: int) -> list[int]:
        residents, waiting = self.residents[group], self.waiting.setdefault(group, [])
        found = [entry for entry in waiting if entry[0] == value]
        entry = [value, times + (found[0][1] if found else 0), self.now]
        if entry[1] >= self.rules.min_count:
            if len(residents) < GROUP - 1:
                residents.append(entry)
                if found:
                    found[0][:] = FREE, 0, 0
                return []
            weakest = min(range(GROUP - 1), key=lambda place: self.worth(residents[place]))
            if self.worth(entry)[0] > self.worth(residents[weakest])[0]:
                residents[weakest], entry = entry, residents[weakest]
                self.wait(entry, found, waiting)
                return [group * GROUP + 1 + weakest]
        self.wait(entry, found, waiting)
        return []

    def wait(self, entry: list[int], found: list[list[int]], waiting: list[list[int]]) -> None:
        free = [place for place in waiting if place[0] == FREE]
        if found:
            found[0][:] = entry
        elif free:
            free[0][:] = entry
        elif len(waiting) < GROUP:
            waiting.append(list(entry))
        else:
            min(waiting, key=lambda place: place[1] / (self.now - place[2] + 1))[:] = entry


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_compiled_rules_are_the_slow_ones(rules: Rules) -> None:
    rows = 4 * GROUP
    fast, slow, took = Admission(rows, 0, rows, rules), Slow(rows, rules), 0
    for numbers in zipf(80, 120, 2000, drift=20):
        values = values_of(numbers)
        found, taken = fast.step(values)
        expected, expected_taken = slow.step(values)
        assert found.tolist() == expected
        assert sorted(taken.tolist()) == sorted(expected_taken)
        took += len(taken)
    assert took > 50
    for group, entries in slow.residents.items():
        at = group * GROUP + 1
        assert fast.ids[at : at + len(entries)].tolist() == [entry[0] for entry in entries]
        assert fast.counts[at : at + len(entries)].tolist() == [entry[1] for entry in entries]
        assert fast.last[at : at + len(entries)].tolist() == [entry[2] for entry in entries]
    for group, entries in slow.waiting.items():
        part = slice(group * GROUP, (group + 1) * GROUP)
        places = zip(fast.waiting_ids[part], fast.waiting_counts[part], fast.waiting_last[part], strict=True)
        assert sorted(map(list, places)) == sorted(entries + [[FREE, 0, 0]] * (GROUP - len(entries)))
    assert fast.clock.tolist() == [80]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_nothing_hangs_on_the_order_of_a_batch_or_on_threads_or_on_where_groups_lie(rules: Rules) -> None:
    rows, half = 40 * GROUP, 20 * GROUP
    alone, mixed = Admission(rows, 0, rows, rules), Admission(rows, 0, rows, rules)
    parts = [Admission(half, 0, rows, rules), Admission(half, half, rows, rules)]
    draw, took = np.random.default_rng(1), 0
    for numbers in zipf(12, 20_000, 30_000, drift=4):
        values = values_of(numbers)
        order = draw.permutation(len(values))
        found, taken = alone.step(values)
        again, taken_again = mixed.step(values[order], threads=3)
        assert (again == found[order]).all()
        assert sorted(taken) == sorted(taken_again)
        group = values % (rows // GROUP)
        apart, taken_apart = np.empty_like(found), []
        for part in parts:
            own = (part.first // GROUP <= group) & (group < (part.first + part.rows) // GROUP)
            apart[own], took_here = part.step(values[own])
            taken_apart += took_here.tolist()
        assert (apart == found).all()
        assert sorted(taken_apart) == sorted(taken)
        took += len(taken)
    assert took > 100
    for name, array in alone.state().items():
        assert (mixed.state()[name] == array).all()
        whole = parts[0].clock if name == "clock" else np.concatenate([part.state()[name] for part in parts])
        assert (whole == array).all()


def test_asking_finds_the_rows_and_changes_nothing() -> None:
    rows = 8 * GROUP
    admission = Admission(rows, 0, rows, Rules())
    for numbers in zipf(20, 200, 2000):
        values = values_of(numbers)
        found, _ = admission.step(values)
    before = {name: array.copy() for name, array in admission.state().items()}
    assert (rows_of(values, admission.ids, 0, rows) == found).all()
    many = values_of(np.arange(20_000))
    asked = rows_of(many, admission.ids, 0, rows)
    assert (rows_of(many, admission.ids, 0, rows, threads=2) == asked).all()
    assert all((admission.state()[name] == array).all() for name, array in before.items())
    own = asked % GROUP != 0
    assert (admission.ids[asked[own]] == many[own]).all()
    assert own.sum() == (admission.ids != FREE).sum() > 200
    assert (asked[~own] == many[~own] % (rows // GROUP) * GROUP).all()


def test_no_two_values_share_a_row_and_none_has_two() -> None:
    rows = 8 * GROUP
    admission = Admission(rows, 0, rows, Rules(Policy.lru))
    for numbers in zipf(40, 300, 3000):
        admission.step(values_of(numbers))
    taken = admission.ids[admission.ids != FREE]
    assert len(taken) == len(set(taken.tolist())) == rows - rows // GROUP
    assert (admission.ids[::GROUP] == FREE).all()


def test_a_value_gets_a_row_when_it_was_seen_often_enough() -> None:
    admission = Admission(GROUP, 0, GROUP, Rules(min_count=3))
    assert [admission.step(np.array([7]))[0].tolist() for _ in range(4)] == [[0], [0], [1], [1]]
    assert admission.step(np.array([8, 9, 8, 8]))[0].tolist() == [2, 0, 2, 2]
    assert admission.counts[:4].tolist() == [0, 4, 3, 0]


def test_the_count_of_a_value_that_lost_its_row_is_not_forgotten() -> None:
    admission = Admission(GROUP, 0, GROUP, Rules())
    admission.step(np.repeat(np.arange(GROUP - 1), 2))
    assert admission.step(np.array([100, 100, 100]))[1].tolist() == [
        1
    ]  # the first of those seen as rarely and as long ago
    assert admission.step(np.array([0]))[0].tolist() == [2]  # the third time it is seen; the others were seen twice
    assert admission.waiting_ids[0] == 1


def test_counts_stop_at_the_largest_number() -> None:
    most = np.iinfo(np.int32).max
    admission = Admission(GROUP, 0, GROUP, Rules())
    admission.step(np.arange(GROUP - 1))
    admission.counts[1:] = most
    admission.step(np.arange(GROUP - 1))
    assert (admission.counts[1:] == most).all()
    admission.step(np.array([50]))
    admission.waiting_counts[:] = most
    rows, taken = admission.step(np.array([50]))
    assert (rows.tolist(), taken.tolist()) == ([0], [])
    assert admission.waiting_counts[0] == most


def test_a_group_is_the_remainder_of_a_value() -> None:
    """Checkpoints are written by it, and TorchRec sends values to ranks by it."""
    rows = 5 * GROUP
    values = np.array([0, 4, 5, 2**63 - 1, 2**62 + 3])
    assert rows_of(values, np.full(rows, FREE), 0, rows).tolist() == [0, 4 * GROUP, 0, 2 * GROUP, 2 * GROUP]


@pytest.mark.parametrize("rows", [1, 32, 33, 1000, 100_000, 1_000_000, 123_456_789])
def test_rows_are_rounded_up_to_what_ranks_can_share(rows: int) -> None:
    whole = whole_rows(rows)
    assert whole % GROUP == 0
    assert rows <= whole <= max(rows + GROUP, rows * 17 / 16)
    assert whole_rows(whole) == whole
    if rows >= 100_000:
        for ranks in (1, 2, 3, 4, 6, 8, 12, 16):
            check_shared("ad", whole, ranks)


def test_ranks_that_cannot_share_a_table_are_refused_with_a_number_of_rows_that_they_can() -> None:
    with pytest.raises(UserError) as error:
        check_shared("ad", 96, 2)
    assert str(error.value) == (
        "tables.ad is managed in 3 groups of 32 rows, which 2 ranks cannot share evenly; use tables.ad.rows=128 or another number of "
        "ranks"
    )
    check_shared("ad", whole_rows(128), 2)


def hits_of_the_ideal(batches: list[np.ndarray], rows: int) -> int:
    """Occurrences of numbers that are among the ``rows`` most frequent of all batches before theirs, or as frequent as the last of them."""
    counts, hits = np.zeros(1 + max(int(batch.max()) for batch in batches), np.int64), 0
    for batch in batches:
        as_frequent = np.bincount(counts)[::-1].cumsum()[::-1]  # how many numbers were seen so often or more
        least = max(1, int(np.searchsorted(-as_frequent, -rows)) - 1)
        hits += int((counts[batch] >= least).sum())
        np.add.at(counts, batch, 1)
    return hits


def hits_of_ours(batches: list[np.ndarray], rows: int) -> int:
    """Occurrences of numbers that have a row of their own before their batch is learned from."""
    admission, hits = Admission(rows, 0, rows, Rules()), 0
    for batch in batches:
        values = values_of(batch)
        hits += int((rows_of(values, admission.ids, 0, rows) % GROUP != 0).sum())
        admission.step(values)
    return hits


@pytest.mark.parametrize("drift", [0, 100, 30])
def test_most_hits_of_an_ideal_table_are_kept(drift: int) -> None:
    batches = zipf(150, 2000, 30_000, drift=drift)
    assert hits_of_ours(batches, 3200) >= 0.95 * hits_of_the_ideal(batches, 3200) > 100_000


@pytest.mark.slow
def test_most_hits_of_an_ideal_table_are_kept_over_ten_million_values() -> None:
    batches = zipf(1221, 8192, 500_000, drift=600)
    rows = 100_000
    assert hits_of_ours(batches, rows) >= 0.95 * hits_of_the_ideal(batches, rows) > 5_000_000
