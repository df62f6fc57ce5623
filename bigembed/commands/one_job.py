"""A job that a command looks at without training it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from bigembed import growth
from bigembed.config import compose
from bigembed.config.schema import Job
from bigembed.errors import UserError

OF_TRAINING = ("hydra.run.dir=", "hydra.sweep.dir=", "resume=")


def look_at_job(command: str, arguments: list[str], task: Callable[[Job, Path], None]) -> None:
    """Compose the job that ``arguments`` describe, as training would, and call ``task`` with it and an empty folder.

    Raises
    ------
    UserError
        For every mistake in the arguments, and for those that are for training alone.
    """
    for argument in arguments:
        if argument in ("-m", "--multirun") or argument.startswith(OF_TRAINING):
            raise UserError(
                f"{argument} is for bigembed train; bigembed {command} looks at one job and makes no run folder"
            )
    with tempfile.TemporaryDirectory(prefix=f"bigembed-{command}-") as folder:  # which Hydra wants; it stays empty
        compose.run([*growth.begin_from(arguments), f"hydra.run.dir={folder}"], task)
