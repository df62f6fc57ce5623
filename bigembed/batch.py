"""What one step works on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from bigembed.config.physical import is_weighted, part_name, parts, per_element
from bigembed.config.schema import Job, Of, SequenceHead
from bigembed.encoders import Encoded
from bigembed.examples import Examples, Feature
from bigembed.hashing import hash_integers
from bigembed.interactions import Known
from bigembed.pairs import Needed, most_items, needed, of_users
from bigembed.ragged import Ragged, concatenate
from bigembed.weighing import weigh

logging.getLogger("torch.fx._symbolic_trace").setLevel(
    logging.ERROR
)  # else the first KeyedJaggedTensor logs a note of torch's


TENSORS = ("features", "weighted", "sizes", "numbers", "labels", "seeds")
Rows = dict[Of, np.ndarray]  # which rows of samples, of users, of items


@dataclass(slots=True)
class Batch(Pipelineable):
    """The samples of one step that belong to this rank, filled up with empty ones to the number that every rank has.

    Attributes
    ----------
    features : KeyedJaggedTensor or None
        For every feature of ``config.physical`` whose ids have no weights its ids (int64), keys in the order of the job's features.
    weighted : KeyedJaggedTensor or None
        The same of the features whose ids have weights, with these (float32).
    sizes : KeyedJaggedTensor or None
        For features that are looked up row by row, and whose elements have each another number of rows, these numbers (int64).
    numbers : Tensor, shape (samples or more, numbers), float32
        Dense features.
    labels : Tensor, shape (samples or more,), int64
        The labels; empty where there are none.
    seeds : Tensor, shape (samples or more,), int64
        What is random in training (dropout) is drawn by these, so that it does not depend on the ranks.
    weight : float
        What the sum of the samples' losses is multiplied with, so that the ranks' average is the mean over the global batch.
    rows : ndarray, shape (samples,), int64
        Which rows of the data part these are; stays on the host.
    tokens : int
        Tokens in the texts, n-grams not counted.
    extras : dict of str to Tensor
        What the head of a retrieval job is told besides.
    single : bool
        Whether no bag of ``features`` has two ids, so that sums are means.
    """

    features: KeyedJaggedTensor | None
    weighted: KeyedJaggedTensor | None
    sizes: KeyedJaggedTensor | None
    numbers: torch.Tensor
    labels: torch.Tensor
    seeds: torch.Tensor
    weight: float
    rows: np.ndarray
    tokens: int
    extras: dict[str, torch.Tensor] = field(default_factory=dict)
    single: bool = False

    @property
    def samples(self) -> int:
        """Samples that count."""
        return len(self.rows)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        if device.type == "cpu":
            return self
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: torch.Stream) -> None:
        """Tell the allocator that ``stream`` uses the tensors."""
        for name in TENSORS:
            value = getattr(self, name)
            if value is not None:
                value.record_stream(stream)
        for value in self.extras.values():
            value.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> "Batch":
        values = {name: getattr(self, name) for name in TENSORS}
        extras = {name: change(value) for name, value in self.extras.items()}
        return replace(
            self, extras=extras, **{name: change(value) for name, value in values.items() if value is not None}
        )


def collate(
    examples: Examples,
    rows: np.ndarray,
    others: np.ndarray | None = None,
    size: int | None = None,
    weight: float = 1.0,
    salt: int = 0,
    whole: np.ndarray | None = None,
    world: int = 1,
) -> Batch:
    """Return ``rows`` (int64) of ``examples`` as a batch of ``size`` samples (default: as many as rows).

    ``others``, one for each row, are those that features of another row are taken from (default: the next of the batch);
    ``weight`` is the batch's; ``salt`` tells the seeds of one epoch from those of another. For retrieval, ``whole`` are the rows
    of all ``world`` ranks (default: these).
    """
    size = len(rows) if size is None else size
    seeds = hash_integers(rows, salt).view(np.int64)
    if examples.pairs is not None:
        head: Any = examples.job.head
        found = needed(head, examples.pairs, rows, seeds, rows if whole is None else whole, salt)
        slots = max(size, len(found.codes))
        if world > 1:  # every rank must have as many as the others
            slots = max(size, most_items(head, size, world, len(examples.pairs.items)))
        return _of_pairs(examples, found, slots, size, seeds, weight, rows)
    labels = np.empty(0, np.int64) if examples.labels is None else _padded(examples.labels[rows], size)
    numbers = _padded(examples.numbers[Of.sample][rows], size)
    keyed, tokens, single = _keyed(examples, dict.fromkeys(Of, rows), size, others)
    dense = (torch.from_numpy(each) for each in (numbers, labels, _padded(seeds, size)))
    return Batch(*keyed, *dense, weight, rows, tokens, single=single)


def collate_users(examples: Examples, users: np.ndarray, before: Known, size: int) -> Batch:
    """Return a batch of ``size`` slots for the vectors of ``users`` (int64 codes), who have what ``before`` says."""
    head: Any = examples.job.head
    assert examples.pairs is not None
    found = of_users(head, examples.pairs, users, before)
    return _of_pairs(examples, found, user_slots(examples, size), size, np.zeros(len(users), np.int64), 1.0, users)


def user_slots(examples: Examples, users: int) -> int:
    """Return how many slots a batch of so many users has at most, on any rank."""
    head, pairs = examples.job.head, examples.pairs
    assert pairs is not None
    read = min(users * head.max_length, len(pairs.items)) if isinstance(head, SequenceHead) else 0
    return max(users, read)


def collate_items(examples: Examples, items: np.ndarray, size: int) -> Batch:
    """Return a batch of ``size`` slots for the vectors of ``items`` (int64 codes)."""
    found = Needed(np.empty(0, np.int64), items, {})
    return _of_pairs(examples, found, size, size, np.empty(0, np.int64), 1.0, items)


def _of_pairs(
    examples: Examples, found: Needed, slots: int, size: int, seeds: np.ndarray, weight: float, rows: np.ndarray
) -> Batch:
    """Return a batch of ``slots`` slots, of which ``size`` are samples: the users' features by sample, each item's once."""
    numbers = np.zeros((slots, len(examples.job.numbers)), np.float32)
    numbers[: len(found.users)] += examples.numbers[Of.user][found.users]
    numbers[: len(found.codes)] += examples.numbers[Of.item][found.codes]
    keyed, tokens, single = _keyed(examples, {Of.user: found.users, Of.item: found.codes}, slots, None)
    wide = dict.fromkeys(("lengths",) if "lengths" in found.extras else ("item", "own", "own_out", "out"), size)
    wide["item_seeds"] = max(1, len(found.codes))  # what is filled up needs an item to name
    extras = {
        name: torch.from_numpy(_padded(each, wide[name]) if name in wide else each)
        for name, each in found.extras.items()
    }
    dense = (torch.from_numpy(each) for each in (numbers, np.empty(0, np.int64), _padded(seeds, size)))
    return Batch(*keyed, *dense, weight, rows, tokens, extras, single)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """Return ``values`` with rows of zeros added, ``size`` rows in all."""
    if len(values) == size:
        return values
    return np.pad(values, [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _keyed(
    examples: Examples, rows: Rows, slots: int, others: np.ndarray | None
) -> tuple[list[KeyedJaggedTensor | None], int, bool]:
    """Return ids of the features at their rows, without weights, with them, and sizes of elements; tokens; whether bags are ``single``."""
    plain, weighted, sizes = Keyed([]), Keyed([], []), Keyed([])
    tokens = 0
    for feature in examples.features:
        own = examples.rows_of(feature, rows[examples.job.features[feature.name].of], others)
        encoded = feature.encode(own)
        _place(examples.job, feature, encoded, own, plain, weighted, sizes)
        tokens += int(encoded.tokens.sum())
    single = all(len(ids.values) <= len(ids) and (ids.lengths <= 1).all() for _, ids in plain.entries)
    return [keyed.tensor(slots) for keyed in (plain, weighted, sizes)], tokens, single


@dataclass(slots=True)
class Keyed:
    """What becomes a KeyedJaggedTensor: a ragged array for each key, with weights where there are any."""

    entries: list[tuple[str, Ragged]]
    weights: list[np.ndarray] | None = None

    def tensor(self, samples: int) -> KeyedJaggedTensor | None:
        """Return the tensor, every key filled up with empty samples to ``samples``; None without keys."""
        if not self.entries:
            return None
        entries = [ragged for _, ragged in self.entries]
        joined = concatenate(entries) if len(entries) > 1 else entries[0]
        lengths = joined.lengths
        if any(len(each) < samples for each in entries):
            lengths = np.concatenate([_padded(each.lengths, samples) for each in entries])
        return KeyedJaggedTensor(
            keys=[key for key, _ in self.entries],
            values=torch.from_numpy(joined.values.astype(np.int64, copy=False)),
            lengths=torch.from_numpy(lengths),
            length_per_key=[len(each.values) for each in entries],
            weights=None if self.weights is None else torch.from_numpy(np.concatenate(self.weights)),
        )


def _place(
    job: Job, feature: Feature, encoded: Encoded, rows: np.ndarray, plain: Keyed, weighted: Keyed, sizes: Keyed
) -> None:
    """Add a feature's ids, weights and sizes to what becomes the tensors of a batch."""
    config = job.features[feature.name]
    own = parts(job.tables[config.table])
    entries = [(part_name(feature.name, part), ids.rows) for part, ids in zip(own, encoded.parts, strict=True)]
    if is_weighted(job, config):
        assert weighted.weights is not None
        given = None if feature.weights is None else feature.weights.take(rows)
        weighted.weights += weigh(job.tables[config.table], config, encoded, given)
        weighted.entries += entries
    else:
        plain.entries += entries
    if per_element(job, config):
        for (key, _), part, ids in zip(entries, own, encoded.parts, strict=True):
            if part.per_element == 0:
                assert ids.sizes is not None
                sizes.entries.append((key, ids.sizes))
