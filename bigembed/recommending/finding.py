"""The best items of users, or of items, block by block."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bigembed.batch import collate_users
from bigembed.config.schema import Job, Of, Sampling
from bigembed.encoders import Encoder, Scale
from bigembed.examples import open_pairs
from bigembed.interactions import Sampler
from bigembed.pairs import Pairs
from bigembed.ragged import Ragged
from bigembed.recommending.asking import Asked, Scene
from bigembed.recommending.tables import Found
from bigembed.retrieving import ItemVectors, best_items
from bigembed.runtime import Runtime

ENTRIES = 1 << 20  # of lists in memory at a time
Search = Callable[[torch.Tensor, Ragged | None, int], Found]
"""What finds them by vectors, shape (n, dim); the codes (ascending) that each is not to find; and k."""


class Recommender:
    """A trained model with the vectors of all items, in one process on the CPU.

    Parameters
    ----------
    job : Job
        The configuration of the run.
    model : Model
        The plain model.
    encoders, scales : mapping
        By table, and by number.
    scene : Scene
        Users, items, and what they have.

    Attributes
    ----------
    items : Tensor, shape (items, dim), float32
        Vectors whose dot products with those of users are the scores.
    """

    def __init__(
        self, job: Job, model: Any, encoders: Mapping[str, Encoder], scales: Mapping[str, Scale], scene: Scene
    ) -> None:
        self._model, self.scene, self._size = model, scene, job.trainer.eval_batch_size
        self._runtime = Runtime(0, 1, torch.device("cpu"))
        none = np.empty(0, np.int64)
        sampler = Sampler(Sampling.uniform, 0.0, scene.before.counts)  # nothing is drawn
        pairs = Pairs(scene.users, scene.items, none, none, scene.before, None, sampler, 1.0)
        self._examples = open_pairs(job, dict(encoders), dict(scales), pairs)
        with torch.no_grad():
            self._vectors = ItemVectors(model, self._examples, self._size, self._runtime)
            self._vectors.vectors = self.items.float()  # tables may be of half precision

    @property
    def items(self) -> torch.Tensor:
        """The vectors that are searched."""
        return self._vectors.vectors

    def by_cosine(self) -> None:
        """Scale the items' vectors to length 1, so that those of items that are asked for find their neighbours."""
        self._vectors.vectors = functional.normalize(self.items, dim=1)

    def lists(self, asked: Asked, k: int, seen: bool, search: Search) -> Iterator[tuple[np.ndarray, Found]]:
        """Yield codes of those who are asked for, in order, with the codes and scores of the best ``k`` items of each.

        ``seen``: what a user has already is told as well. An item is not its own neighbour.
        """
        size = min(self._size, max(1, ENTRIES // k))
        for start in range(0, len(asked.codes), size):
            codes = asked.codes[start : start + size]
            yield codes, search(*self.queries(asked.of, codes, seen), k)

    def queries(self, of: Of, codes: np.ndarray, seen: bool) -> tuple[torch.Tensor, Ragged | None]:
        """Return the vectors, shape (n, dim), of users or items, and the codes that each is not to find."""
        if of is Of.item:
            return self.items[torch.from_numpy(codes)], Ragged(codes, np.arange(len(codes) + 1))
        before = self.scene.before
        with torch.no_grad():
            batch = collate_users(self._examples, codes, before, len(codes))
            vectors = self._model.users(batch)[: len(codes)].float()
        return vectors, None if seen else before.items.take(codes)

    def exact(self, vectors: torch.Tensor, removed: Ragged | None, k: int) -> Found:
        """Search all items; see ``Search``."""
        return best_items(vectors, self._vectors, removed, len(vectors), k, self._runtime)
