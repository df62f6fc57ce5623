"""Signals reach ranks at different moments; all ranks must stop after the same step."""

import torch
import torch.distributed as dist

from bigembed.runtime import Runtime
from bigembed.signals import Stop, Stopped

EVERY = 4  # calls between two exchanges: each costs the cores of gloo ranks a third of a millisecond


class Agreement:
    """Whether any rank was asked to stop, as every rank sees it at the same call.

    What a rank knows travels while the next steps are made, so that nobody waits for it: a signal shows some calls later.
    """

    def __init__(self, stop: Stop, runtime: Runtime) -> None:
        self.stop, self.runtime = stop, runtime
        self.number = torch.zeros(1, dtype=torch.int32)
        self.travelling: dist.Work | None = None
        self.calls = 0

    def check(self) -> None:
        """Raise Stopped if a signal came; every rank must call it equally often."""
        if self.runtime.control is None:
            self.stop.check()
            return
        self.calls += 1
        if self.calls % EVERY:
            return
        known = self._arrived()
        if known:
            self.stop.number = known  # also where no signal came
            raise Stopped(known)
        self.number = torch.tensor([self.stop.number or 0], dtype=torch.int32)
        self.travelling = dist.all_reduce(self.number, dist.ReduceOp.MAX, group=self.runtime.control, async_op=True)

    def close(self) -> None:
        """Let what is travelling arrive."""
        self._arrived()

    def _arrived(self) -> int:
        if self.travelling is None:
            return 0
        self.travelling.wait()
        self.travelling = None
        return int(self.number)
