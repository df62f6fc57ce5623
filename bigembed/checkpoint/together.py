"""What the ranks say to each other about a checkpoint: an error of one is an error of all, so that nobody waits for ever."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from bigembed.errors import UserError
from bigembed.signals import Stopped

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of a gloo group; None: this process alone."""

    group: dist.ProcessGroup | None

    @property
    def rank(self) -> int:
        """Which of them this process is."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def chief(self) -> bool:
        """Whether this is the one that creates and commits."""
        return self.rank == 0

    def everyone(self, value: Any) -> list[Any]:
        """Return what every rank gave, by rank."""
        if self.group is None:
            return [value]
        found = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(found, value, group=self.group)
        return found

    def from_chief(self, value: Result) -> Result:
        """Return what the chief gave."""
        if self.group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def to_chief(self, value: Any) -> list[Any]:
        """Return what every rank gave, by rank, on the chief; nothing on the others."""
        if self.group is None:
            return [value]
        found = [None] * dist.get_world_size(self.group) if self.chief else None
        dist.gather_object(value, found, dst=0, group=self.group)
        return found or []

    def together(self, work: Callable[[], Result]) -> Result:
        """Do something on every rank, and return what it gives on this one.

        Raises
        ------
        UserError, RuntimeError
            The error of the first rank that has one, on all ranks.
        """
        if self.group is None:
            return work()
        result, error = None, None
        try:
            result = work()
        except Stopped:  # a second signal ends at once
            raise
        except Exception as found:
            error = found
        errors = self.everyone(error if error is None or isinstance(error, UserError) else self._named(error))
        first = next((each for each in errors if each is not None), None)
        if first is not None:
            raise first from (None if isinstance(error, UserError) else error)
        return result  # type: ignore[return-value]

    def by_chief(self, work: Callable[[], Result]) -> Result:
        """Do something on the chief, and return what it gives on every rank.

        Raises
        ------
        UserError, RuntimeError
            Its error, on all ranks.
        """
        result = self.together(lambda: work() if self.chief else None)
        return self.from_chief(result)  # type: ignore[return-value]

    def _named(self, error: Exception) -> RuntimeError:
        return RuntimeError(f"rank {self.rank}: {type(error).__name__}: {error}")
