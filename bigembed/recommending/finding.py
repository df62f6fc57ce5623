"""The best items of users, or of items, block by block."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
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
from bigembed.recommending.asking import Scene
from bigembed.recommending.tables import Found
from bigembed.report import telling
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
    of : Of
        Whether users ask for items, or items for their neighbours by the cosine.

    Attributes
    ----------
    items : Tensor, shape (items, dim), float32
        Vectors whose dot products with those of who asks are the scores.
    """

    def __init__(
        self,
        job: Job,
        model: Any,
        encoders: Mapping[str, Encoder],
        scales: Mapping[str, Scale],
        scene: Scene,
        of: Of = Of.user,
    ) -> None:
        self._model, self.scene, self.of, self._size = model, scene, of, job.trainer.eval_batch_size
        self._runtime = Runtime(0, 1, torch.device("cpu"))
        none = np.empty(0, np.int64)
        sampler = Sampler(Sampling.uniform, 0.0, scene.before.counts)  # nothing is drawn
        pairs = Pairs(scene.users, scene.items, none, none, scene.before, None, sampler, 1.0)
        self._examples = open_pairs(job, dict(encoders), dict(scales), pairs)
        tell, done = telling("vectors of items", len(scene.items)), count(0, self._size)
        with torch.no_grad():
            self._vectors = ItemVectors(model, self._examples, self._size, self._runtime, lambda: tell(next(done)))
        vectors = self.items.float()  # tables may be of half precision
        self._vectors.vectors = functional.normalize(vectors, dim=1) if of is Of.item else vectors

    @property
    def items(self) -> torch.Tensor:
        """The vectors that are searched."""
        return self._vectors.vectors

    def lists(self, asking: np.ndarray, k: int, seen: bool, search: Search) -> Iterator[tuple[np.ndarray, Found]]:
        """Yield the codes (int64) of those who ask, in order, block by block, with the best ``k`` items of each.

        ``seen``: what a user has already is told as well. An item is not its own neighbour.
        """
        size = min(self._size, max(1, ENTRIES // k))
        for start in range(0, len(asking), size):
            codes = asking[start : start + size]
            yield codes, search(*self.queries(codes, seen), k)

    def queries(self, codes: np.ndarray, seen: bool) -> tuple[torch.Tensor, Ragged | None]:
        """Return the vectors, shape (n, dim), of those who ask, and the codes that each is not to find."""
        if self.of is Of.item:
            return self.items[torch.from_numpy(codes)], Ragged(codes, np.arange(len(codes) + 1))
        before = self.scene.before
        with torch.no_grad():
            batch = collate_users(self._examples, codes, before, len(codes))
            vectors = self._model.users(batch)[: len(codes)].float()
        return vectors, None if seen else before.items.take(codes)

    def exact(self, vectors: torch.Tensor, removed: Ragged | None, k: int) -> Found:
        """Search all items; see ``Search``."""
        return best_items(vectors, self._vectors, removed, len(vectors), k, self._runtime)
