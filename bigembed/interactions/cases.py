"""What is to be found for whom: the rows of a test or validation part as the protocol takes them."""

from dataclasses import dataclass

import numpy as np

from bigembed.config.schema import Candidates, ProtocolConfig, Unseen
from bigembed.interactions.candidates import Given, drawn, keep, listed, lists_of_rows
from bigembed.interactions.known import Known
from bigembed.ragged import Ragged


@dataclass(slots=True)
class Cases:
    """Lists that are to be made, and what they should hold.

    A case is a user, and for ``candidates=given`` or ``sampled`` a row of the test part. Cases are in the order of their users.

    Attributes
    ----------
    users : ndarray, shape (cases,), int64
        Codes; -1: a user that is not in the catalogue, for whom nothing is found.
    targets : Ragged, int64
        Of every case the codes, distinct and ascending, of the items that should be found and can be.
    missing : ndarray, shape (cases,), int64
        How many more should be found and cannot be: they are not in training, or the user has them already.
    candidates : Ragged or None
        Of every case the codes, distinct and ascending, among which its targets are to be found, these included; None: all items.
    before : Known
        What is known of the users: histories to be read, items that are no candidates.
    told : list of str
        What the user should know, a sentence each.
    """

    users: np.ndarray
    targets: Ragged
    missing: np.ndarray
    candidates: Ragged | None
    before: Known
    told: list[str]

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.users)


def cases(
    user: np.ndarray,
    item: np.ndarray,
    hits: np.ndarray | None,
    before: Known,
    protocol: ProtocolConfig,
    trained: np.ndarray,
    given: Given | None,
    seed: int,
) -> Cases:
    """Return the cases of a part.

    Parameters
    ----------
    user, item : ndarray, shape (rows,), int64
        Codes of the part's rows; negative: not in the catalogue, another number for each such user and item (see
        ``Catalogue.codes``, ``apart``).
    hits : ndarray, shape (rows,), bool, or None
        Rows whose items should be found (``interactions.min_rating``); None: all.
    before : Known
        What comes before the part.
    protocol : ProtocolConfig
        How it is judged. A user or item without training interactions is *unseen*: with ``unseen=skip`` its rows are left out. With
        ``miss`` an unseen item is not found; a user that is not in the catalogue finds nothing, one that is in it is judged by
        what his features tell.
    trained : ndarray, shape (items,), bool
        Items that have training interactions.
    given : tuple or None
        For ``candidates=given``: users and items of the lists (codes as above, (lists,)), the codes of their negatives (Ragged), and
        how many negatives of each list are not in the catalogue (int64, (lists,)). Rows and lists belong together by user and
        item; negative codes among the negatives are left out and counted as well. None: negatives are sampled.
    seed : int
        Another seed samples others. What is sampled for a row depends on it, the user and the item alone: items that the user has
        neither in training nor among the rows that are judged.

    Raises
    ------
    UserError
        A row has no list, or a list no row.
    """
    told: list[str] = []
    lists = None if given is None else lists_of_rows(user, item, given, len(trained), told)
    places = _once(user, item, hits, told)
    judged, found = _judge(user[places], item[places], before, protocol, trained, told)
    places, found = places[judged], found[judged]
    user, item = user[places], item[places]
    candidates = None
    if protocol.candidates is Candidates.all:
        users, offsets = _by_user(user)
    else:
        users, offsets = user, np.arange(len(user) + 1)
        if given is not None and lists is not None:
            seen = before if protocol.remove_seen else None
            candidates = listed(user, item, found, given, lists[places], seen, told)
        else:
            candidates = drawn(user, item, found, before, len(trained), protocol.sampled, seed, told)
    targets = keep(Ragged(item, offsets), found)
    missing = np.diff(offsets) - targets.lengths
    return Cases(np.maximum(users, -1), targets, missing, candidates, before, told)


def _once(user: np.ndarray, item: np.ndarray, hits: np.ndarray | None, told: list[str]) -> np.ndarray:
    """Return the places of the hits, every pair of user and item once, in the order of users and then of items."""
    places = np.arange(len(user)) if hits is None else np.flatnonzero(hits)
    low, high = int(item.min(initial=0)), int(item.max(initial=0))
    pairs = user[places] * (high - low + 1) + (item[places] - low)
    first = np.unique(pairs, return_index=True)[1]
    if len(first) < len(places):
        told.append(f"{len(places) - len(first):,} rows repeat a user and an item: every pair counts once.")
    return places[first]


def _by_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct users of ascending rows, and where the rows of each begin."""
    users, begins = np.unique(user, return_index=True)
    return users, np.append(begins, len(user)).astype(np.int64)


def _judge(
    user: np.ndarray, item: np.ndarray, before: Known, protocol: ProtocolConfig, trained: np.ndarray, told: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are judged and the items of which can be found, both (rows,), bool."""
    skip = protocol.unseen is Unseen.skip
    fate = f"are left out (protocol.unseen={protocol.unseen.value})"
    fate = fate if skip else f"count as not found (protocol.unseen={protocol.unseen.value})"
    read = np.zeros(len(user), np.bool_)  # whether the user has training interactions
    inside = user >= 0
    read[inside] = before.histories.lengths[user[inside]] > 0
    strange_user = ~read if skip else ~inside
    if strange_user.any():
        count = len(np.unique(user[strange_user]))
        told.append(f"{strange_user.sum():,} rows are of {count:,} users that are not in training: they {fate}.")
    strange_item = item < 0
    strange_item[~strange_item] = ~trained[item[~strange_item]]
    if strange_item.any():
        count = len(np.unique(item[strange_item]))
        told.append(f"{strange_item.sum():,} rows are of {count:,} items that are not in training: they {fate}.")
    unread = len(np.unique(user[inside & ~read]))
    if unread and not skip:
        told.append(f"{unread:,} users have no training interactions: only their features tell of them, no history.")
    found = ~(strange_user | strange_item)
    judged = found.copy() if skip else np.ones(len(user), np.bool_)
    if protocol.remove_seen:
        seen = before.has(user, item) & found
        found &= ~seen
        if seen.any():
            told.append(
                f"{seen.sum():,} rows have an item that their user has in training: it is no candidate "
                "(protocol.remove_seen=true), so they count as not found."
            )
    return judged, found
