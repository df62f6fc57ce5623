import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigembed.config.schema import Candidates, ProtocolConfig, Unseen
from bigembed.errors import UserError
from bigembed.interactions import ListFigures, by_decade, cases, catalogue_of, known
from bigembed.interactions.lists import FIGURES
from bigembed.ragged import Ragged

ITEMS = 12


def ragged(rows):
    return Ragged(np.array([v for row in rows for v in row], np.int64), np.cumsum([0, *map(len, rows)]))


def rows_of(values):
    return [values.values[a:b].tolist() for a, b in zip(values.offsets, values.offsets[1:], strict=False)]


def codes(*values):
    return np.array(values, np.int64)


# Users 0 to 3; user 3 has no history. Items 0 to 11; 10 and 11 have no interactions.
BEFORE = known(codes(0, 0, 1, 1, 2, 2, 2), codes(0, 1, 2, 3, 4, 5, 6), None, 4, ITEMS)
TRAINED = np.arange(ITEMS) < 10


def made(user, item, hits=None, given_lists=None, before=BEFORE, trained=TRAINED, seed=0, **options):
    protocol = ProtocolConfig(**options)
    return cases(codes(*user), codes(*item), hits, before, protocol, trained, given_lists, seed)


def test_a_case_is_a_user_with_what_he_should_find():
    found = made([1, 0, 1, 2], [7, 8, 5, 9])
    assert found.users.tolist() == [0, 1, 2] and len(found) == 3
    assert rows_of(found.targets) == [[8], [5, 7], [9]]
    assert found.missing.tolist() == [0, 0, 0]
    assert found.candidates is None and found.told == [] and found.before is BEFORE


def test_what_was_never_seen_is_missed():
    found = made([-2, 0, 0, -1, -2, 3], [7, 10, -1, -2, 8, 7])
    assert found.users.tolist() == [-1, -1, 0, 3]
    assert rows_of(found.targets) == [[], [], [], [7]]
    assert found.missing.tolist() == [2, 1, 2, 0]
    assert found.told == [
        "3 rows are of 2 users that are not in training: they count as not found (protocol.unseen=miss).",
        "3 rows are of 3 items that are not in training: they count as not found (protocol.unseen=miss).",
        "1 users have no training interactions: only their features tell of them, no history.",
    ]


def test_what_was_never_seen_is_skipped():
    found = made([-2, 0, 0, -1, -2, 3, 1], [7, 10, -1, -2, 8, 7, 8], unseen=Unseen.skip)
    assert found.users.tolist() == [1]
    assert rows_of(found.targets) == [[8]] and found.missing.tolist() == [0]
    assert found.told == [
        "4 rows are of 3 users that are not in training: they are left out (protocol.unseen=skip).",
        "3 rows are of 3 items that are not in training: they are left out (protocol.unseen=skip).",
    ]
    nothing = made([-1], [4], unseen=Unseen.skip)
    assert len(nothing) == len(nothing.targets) == len(nothing.missing) == 0 and len(nothing.told) == 1
    assert len(made([], [])) == 0


def test_repeats_count_once():
    found = made([0, 0, 1, 0], [7, 8, 7, 7])
    assert rows_of(found.targets) == [[7, 8], [7]]
    assert found.told == ["1 rows repeat a user and an item: every pair counts once."]


def test_items_that_a_user_has_are_found_only_where_they_are_candidates():
    found = made([0, 0], [0, 7])
    assert rows_of(found.targets) == [[7]] and found.missing.tolist() == [1]
    assert found.told == [
        "1 rows have an item that their user has in training: it is no candidate (protocol.remove_seen=true), so they count as "
        "not found."
    ]
    kept = made([0, 0], [0, 7], remove_seen=False)
    assert rows_of(kept.targets) == [[0, 7]] and kept.told == []


def test_rows_that_are_no_hits_are_not_to_be_found():
    found = made([0, 0, 1], [7, 8, 9], hits=np.array([True, False, False]))
    assert found.users.tolist() == [0] and rows_of(found.targets) == [[7]] and found.told == []


def given_of(user, item, lists, missing=None):
    return codes(*user), codes(*item), ragged(lists), codes(*(missing or [0] * len(user)))


def test_given_negatives_are_matched_and_cleaned():
    lists = given_of([1, 0, 0], [8, 8, 7], [[2, 9, 9, -1], [1, 5, 8], [4, 7, 7, 3]], [0, 2, 0])
    found = made([0, 0, 1], [7, 8, 8], given_lists=lists, candidates=Candidates.given)
    assert found.users.tolist() == [0, 0, 1]
    assert rows_of(found.targets) == [[7], [8], [8]]
    assert rows_of(found.candidates) == [[3, 4, 7], [5, 8], [8, 9]]
    assert found.told == [
        "3 given negatives are items that are not in the catalogue: they are left out.",
        "2 lists of negatives hold the item itself that is to be found: it is taken out of them.",
        "2 given negatives are items that the user has in training: they are no candidates (protocol.remove_seen=true).",
        "1 given negatives repeat one of their list: each counts once.",
    ]
    kept = made([0, 0, 1], [7, 8, 8], given_lists=lists, candidates=Candidates.given, remove_seen=False)
    assert rows_of(kept.candidates) == [[3, 4, 7], [1, 5, 8], [2, 8, 9]]


def test_given_negatives_of_what_was_never_seen():
    lists = given_of([0, -1, 0], [7, 7, 10], [[1, 5], [1, 2], [5, 6]])
    options = {"given_lists": lists, "candidates": Candidates.given, "remove_seen": False}
    found = made([-5, 0, 0, 0], [7, 7, -3, 10], **options)
    assert found.users.tolist() == [-1, 0, 0, 0]
    assert rows_of(found.targets) == [[], [], [7], []]
    assert found.missing.tolist() == [1, 1, 0, 1]
    assert rows_of(found.candidates) == [[], [], [1, 5, 7], [5, 6]]
    skipped = made([-5, 0, 0, 0], [7, 7, -3, 10], unseen=Unseen.skip, **options)
    assert skipped.users.tolist() == [0] and rows_of(skipped.candidates) == [[1, 5, 7]]


def test_rows_without_a_list_and_lists_without_a_row_are_refused():
    lists = given_of([0, 1], [7, 8], [[1], [2]])
    with pytest.raises(UserError, match=r"Row 1 of the part that is judged has no list of negatives .* as 2 of 3 rows"):
        made([0, 0, 1], [7, 8, 9], given_lists=lists, candidates=Candidates.given)
    with pytest.raises(UserError, match=r"Row 1 of data\.negatives is for a pair .* as 1 of 2 rows"):
        made([0], [7], given_lists=lists, candidates=Candidates.given)
    with pytest.raises(UserError, match="has no list"):
        made([0], [7], given_lists=given_of([], [], []), candidates=Candidates.given)
    # A row that is no hit has a list all the same.
    hits = np.array([True, False])
    assert len(made([0, 1], [7, 8], hits=hits, given_lists=lists, candidates=Candidates.given)) == 1
    twice = given_of([0, 0], [7, 7], [[1, 3], [2]])
    found = made([0, 0], [7, 7], given_lists=twice, candidates=Candidates.given)
    assert rows_of(found.candidates) == [[3, 7]]
    assert "1 lists of negatives repeat a user and an item: the first list of every pair counts." in found.told


INTERACTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, ITEMS - 1)), max_size=30)
TESTED = st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, ITEMS - 1)), max_size=12)


@given(INTERACTIONS, TESTED, st.integers(1, 9), st.booleans(), st.sampled_from(Unseen))
def test_sampled_negatives_are_items_that_the_user_does_not_have(train, tested, count, remove, unseen):
    before = known(codes(*(u for u, _ in train)), codes(*(i for _, i in train)), None, 4, ITEMS)
    options = {"sampled": count, "remove_seen": remove, "unseen": unseen, "candidates": Candidates.sampled}
    user, item = codes(*(u for u, _ in tested)), codes(*(i for _, i in tested))
    found = made(user, item, before=before, trained=before.counts > 0, seed=7, **options)
    expected = {}
    for u, i in sorted(set(tested)):
        seen_user, seen_item = any(u == each for each, _ in train), any(i == each for _, each in train)
        if unseen is Unseen.skip and not (seen_user and seen_item):
            continue
        can = u >= 0 and seen_item and not (remove and (u, i) in train)
        expected[u, i] = [i] if can else []
    assert found.users.tolist() == [max(u, -1) for u, _ in expected]
    assert rows_of(found.targets) == list(expected.values())
    assert found.missing.tolist() == [1 - len(targets) for targets in expected.values()]
    for (u, _), targets, own in zip(expected, expected.values(), rows_of(found.candidates), strict=True):
        free = set(range(ITEMS)) - {i for who, i in train if who == u}
        free -= {i for who, i in expected if who == u}
        assert own == sorted(set(own)) and set(targets) <= set(own)
        negatives = set(own) - set(targets)
        assert negatives <= free and len(negatives) == (min(count, len(free)) if u >= 0 else 0)


@pytest.mark.parametrize("items", [30, 400])  # gone through; tried
def test_samples_are_as_likely_and_depend_on_their_pair_alone(items):
    users = 2000
    before = known(np.arange(users), np.zeros(users, np.int64), None, users, items)
    trained = np.ones(items, bool)
    options = {"before": before, "trained": trained, "candidates": Candidates.sampled, "sampled": 15}
    found = made(np.arange(users), np.full(users, 1), **options)
    assert (found.candidates.lengths == 16).all()
    times = np.bincount(found.candidates.values, minlength=items)
    assert times[0] == 0 and times[1] == users
    share = 15 / (items - 2)
    assert times[2:] == pytest.approx(np.full(items - 2, users * share), abs=5 * math.sqrt(users * share * (1 - share)))
    some = made(np.arange(700, 900), np.full(200, 1), **options)
    assert rows_of(some.candidates) == rows_of(found.candidates)[700:900]
    assert rows_of(made(np.arange(9), np.full(9, 1), seed=1, **options).candidates) != rows_of(found.candidates)[:9]
    few = made([0], [1], **{**options, "sampled": items})
    assert few.candidates.values.tolist() == list(range(1, items))
    assert few.told == [
        f"1 rows have fewer than {items} negatives (protocol.sampled): their users have all other items."
    ]


def plain(lists, targets, missing, at):
    """The figures as they are written down, in plain Python."""
    sums = {f"{name}@{k}": 0.0 for k in at for name in FIGURES}
    judged = [case for case in range(len(lists)) if targets[case] or missing[case]]
    for case in judged:
        n = len(targets[case]) + missing[case]
        for k in at:
            hits = [code in targets[case] for code in lists[case][:k]]
            ideal = sum(1 / math.log2(r + 2) for r in range(min(k, n)))
            sums[f"hr@{k}"] += any(hits)
            sums[f"recall@{k}"] += sum(hits) / n
            sums[f"precision@{k}"] += sum(hits) / k
            sums[f"ndcg@{k}"] += sum(hit / math.log2(r + 2) for r, hit in enumerate(hits)) / ideal
            sums[f"mrr@{k}"] += 1 / (1 + hits.index(True)) if any(hits) else 0
            sums[f"map@{k}"] += sum(sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit) / min(k, n)
    return {name: value / len(judged) for name, value in sums.items()} if judged else {}


@st.composite
def judged(draw):
    width, count = draw(st.integers(1, 7)), draw(st.integers(0, 8))
    lists, targets, missing, labels = [], [], [], []
    for _ in range(count):
        own = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=width))
        lists.append(own + [-1] * (width - len(own)))
        targets.append(sorted(draw(st.sets(st.integers(0, ITEMS - 1), max_size=6))))
        missing.append(draw(st.integers(0, 3)))
        labels.append(draw(st.integers(-1, 1)))
    return np.array(lists, np.int64).reshape(count, width), targets, missing, labels


COUNTS = np.array([0, 1, 9, 10, 99, 100, 5, 5, 5, 5, 5, 1000])


@given(judged(), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 8))
def test_figures_are_those_of_plain_python(given_cases, at, cut):
    lists, targets, missing, labels = given_cases
    labels = np.array(labels, np.int64)
    popular = by_decade(COUNTS)

    def figures(span):
        made = ListFigures(at, COUNTS, {"gender": ["F", "M"]}, {"popularity": popular})
        made.update(lists[span], ragged(targets[span]), codes(*missing[span]), {"gender": labels[span]})
        return made

    whole = figures(slice(None))
    one, other = figures(slice(0, cut)), figures(slice(cut, None))
    one.set_sums(one.sums() + other.sums())
    one.covered |= other.covered
    result = whole.result()
    assert one.result() == pytest.approx(result)
    at = sorted(set(at))
    expected = plain(lists.tolist(), targets, missing, at)
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    if not expected:
        assert result == {}
        return
    for k in at:
        listed = [code for row in lists[:, :k].tolist() for code in row if code >= 0]
        assert result[f"coverage@{k}"] == pytest.approx(len(set(listed)) / ITEMS)
        assert (f"popularity@{k}" in result) == bool(listed)
        if listed:
            assert result[f"popularity@{k}"] == pytest.approx(
                np.mean([math.log10(1 + COUNTS[code]) for code in listed])
            )
    assert result["samples"] == sum(map(len, targets)) + sum(missing)
    assert result["users"] == sum(bool(own or more) for own, more in zip(targets, missing, strict=True))
    slices = {f"gender={label}": np.flatnonzero(labels == place) for place, label in enumerate("FM")}
    parts = {name: (rows, [targets[i] for i in rows], [missing[i] for i in rows]) for name, rows in slices.items()}
    for place, label in enumerate(popular[0]):
        own = [[code for code in row if popular[1][code] == place] for row in targets]
        parts[f"popularity={label}"] = (np.arange(len(lists)), own, [0] * len(own))
    for name, (rows, own, more) in parts.items():
        part = plain(lists[rows].tolist(), own, more, at)
        got = {key: value for key, value in result.items() if key.endswith(f"/{name}") and not key.startswith("users")}
        kept = {f"{key}/{name}": value for key, value in part.items() if key.split("@")[0] in ("hr", "recall", "ndcg")}
        assert got == pytest.approx(kept)


def test_figures_of_known_lists():
    figures = ListFigures([2, 3, 10], np.array([9, 99, 0, 0]))
    figures.update(codes(1, 0, 3).reshape(1, 3), ragged([[0, 3]]), codes(1))
    ideal = 1 + 1 / math.log2(3) + 0.5
    assert figures.result() == pytest.approx(
        {
            "hr@2": 1, "recall@2": 1 / 3, "precision@2": 1 / 2, "ndcg@2": (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
            "mrr@2": 1 / 2, "map@2": 1 / 4, "coverage@2": 0.5, "popularity@2": 1.5,
            "hr@3": 1, "recall@3": 2 / 3, "precision@3": 2 / 3, "ndcg@3": (1 / math.log2(3) + 0.5) / ideal,
            "mrr@3": 1 / 2, "map@3": (1 / 2 + 2 / 3) / 3, "coverage@3": 0.75, "popularity@3": 1,
            "hr@10": 1, "recall@10": 2 / 3, "precision@10": 2 / 10, "ndcg@10": (1 / math.log2(3) + 0.5) / ideal,
            "mrr@10": 1 / 2, "map@10": (1 / 2 + 2 / 3) / 3, "coverage@10": 0.75, "popularity@10": 1,
            "users": 1, "samples": 3,
        }
    )  # fmt: skip


def test_labels_by_decade():
    labels, places = by_decade(np.array([0, 1, 9, 10, 99, 100, 1000]))
    assert labels == ["0", "1-9", "10-99", "100-999", "1000-9999"]
    assert places.tolist() == [0, 1, 1, 2, 2, 3, 4]
    assert by_decade(np.zeros(2, np.int64))[0] == ["0"]


def test_the_given_negatives_of_movielens_are_counted(data_dir):
    train, test, lists = (
        pq.read_table(data_dir / "ml-1m" / f"{name}.parquet") for name in ("train", "test", "test_negatives")
    )
    users, items = (catalogue_of(train[name], name, name) for name in ("user", "item"))
    before = known(users.codes(train["user"]), items.codes(train["item"]), None, len(users), len(items))
    negatives = lists["negatives"].combine_chunks()
    offsets = np.append(0, np.cumsum(negatives.value_lengths().to_numpy()))
    flat = Ragged(items.codes(pa.chunked_array([negatives.flatten()])), offsets)
    given_lists = users.codes(lists["user"]), items.codes(lists["item"]), flat, np.zeros(len(lists), np.int64)
    user, item = users.codes(test["user"], apart=True), items.codes(test["item"], apart=True)
    found = made(
        user, item, before=before, trained=before.counts > 0, given_lists=given_lists, candidates=Candidates.given
    )
    of_pair = {(u, i): own for u, i, own in zip(*(lists[name].to_pylist() for name in lists.column_names), strict=True)}
    of_user, of_item = (train[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    have, there = set((of_user * 10**6 + of_item).tolist()), set(of_item.tolist())
    expected = []
    for u, i in sorted(zip(test["user"].to_pylist(), test["item"].to_pylist(), strict=True)):
        own = {each for each in of_pair[u, i] if each in there and u * 10**6 + each not in have} | {i}
        expected.append(sorted(own) if i in there else [])
    keys = np.append(items.keys.to_numpy(), -1)
    assert [keys[row].tolist() for row in rows_of(found.candidates)] == expected
    holding = sum(i in own for (_, i), own in of_pair.items())
    assert f"{holding:,} lists of negatives hold the item itself" in " ".join(found.told) and holding > 100
    assert found.missing.sum() == sum(not own for own in expected) == len(found) - len(found.targets.values)
