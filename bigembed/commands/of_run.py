"""The job of a run as a command on other data takes it."""

import re

from bigembed.config import saved
from bigembed.config.check import check
from bigembed.config.schema import FilesData, Job
from bigembed.errors import UserError

ALLOWED = r"(data|runtime)\..*|features\.[^.]*\.column=.*"


def on_other_data(job: Job, overrides: list[str], command: str, also: tuple[str, ...] = ()) -> tuple[Job, bool]:
    """Return the job of a run with overrides for ``command``, and whether its data is other than that of the run.

    Besides what all commands take, options in ``also`` can be given.

    Raises
    ------
    UserError
        An override changes what the run is.
    """
    for text in overrides:
        if not re.fullmatch(ALLOWED, text) and not text.startswith(
            tuple(f"{name}=" if name[-1] != "." else name for name in also)
        ):
            can = ", ".join(("data.…", "runtime.…", *also))
            raise UserError(
                f"{text} cannot be changed for bigembed {command}; what can: {can} and features.NAME.column"
            )
    elsewhere = any(text.startswith("data.") for text in overrides)
    if elsewhere:
        if not isinstance(job.data, FilesData) and any(text.startswith("data.path=") for text in overrides):
            job.data = FilesData()  # a run on generated reviews, asked about real ones
        if isinstance(job.data, FilesData):
            job.data.hub = None
    job.sharding.plan = None  # made for the ranks that trained
    job = saved.override(job, overrides)
    check(job)
    return job, elsewhere
