"""One training step: plain, or in one of TorchRec's pipelines, which send the next batch's ids around during the present step."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import PrefetchTrainPipelineSparseDist, TrainPipelineSparseDist

from bigembed.batch import Batch
from bigembed.config.schema import Pipeline
from bigembed.errors import UserError
from bigembed.optim import Optimizers
from bigembed.runtime import Runtime

PIPELINES = {Pipeline.sparse_dist: TrainPipelineSparseDist, Pipeline.prefetch: PrefetchTrainPipelineSparseDist}


class Stepper:
    """Makes steps with the batches of an iterator.

    Parameters
    ----------
    model : DistributedModelParallel
        What is trained; its forward gives the loss and more.
    optimizers : Optimizers
        Theirs.
    kind : Pipeline
        none, sparse_dist or prefetch.
    device : torch.device
        Where the model lies.
    """

    def __init__(
        self, model: DistributedModelParallel, optimizers: Optimizers, kind: Pipeline, device: torch.device
    ) -> None:
        self.model, self.optimizers, self.device = model, optimizers, device
        self.read: deque[Batch] = deque()  # batches that the pipeline has taken and not yet trained on
        self.noted: Iterator[Batch] = iter(())
        self.pipeline = None if kind is Pipeline.none else PIPELINES[kind](model, optimizers, device)

    def step(self, batches: Iterator[Batch], left: int) -> tuple[Batch, torch.Tensor]:
        """Train on the next batch; return it and its samples' losses.

        ``left`` is how many steps, this one included, are made before the model is asked something: the pipeline takes no more
        batches, since what it has begun to send around of sequences does not outlast a pause.
        """
        if self.pipeline is not None:
            if not self.read:
                self.noted = self._noted(islice(batches, left))
            losses, _ = self.pipeline.progress(self.noted)
            return self.read.popleft(), losses
        batch = next(batches)
        self.optimizers.zero_grad()
        loss, (losses, _) = self.model(batch.to(self.device, non_blocking=True))
        loss.backward()
        self.optimizers.step()
        return batch, losses

    def pause(self) -> None:
        """Make the model one that can be asked; the next step goes on where the last one ended."""
        if self.pipeline is not None:
            self.pipeline.detach()

    def _noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.read.append(batch)
            yield batch


def choose(asked: Pipeline, cached: bool, moved: bool, runtime: Runtime) -> Pipeline:
    """Return the pipeline that fits: what was asked for, or by the ranks and whether tables have a cache on the GPU.

    ``moved``: whether rows change between steps as well, behind the back of a cache that is filled ahead.

    Raises
    ------
    UserError
        When the one that was asked for does not work here.
    """
    if asked is Pipeline.prefetch and not cached:
        raise UserError(
            "trainer.pipeline=prefetch fills the caches of fused_uvm_caching tables ahead, but no table has one; use sparse_dist"
        )
    if asked is Pipeline.prefetch and moved:
        raise UserError(
            "trainer.pipeline=prefetch fills caches before rows are pulled back or thaw (pretrained.pull, freeze_steps); use sparse_dist"
        )
    if asked is not Pipeline.auto:
        return asked
    if cached and not moved:
        return Pipeline.prefetch
    return Pipeline.sparse_dist if cached or runtime.world > 1 else Pipeline.none
