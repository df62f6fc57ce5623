"""From the command line to one typed job, through Hydra; its errors become one sentence with the path of the key."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigembed.config import kinds, schema
from bigembed.config.check import check
from bigembed.config.groups import SCHEMA, conf_dir, groups
from bigembed.config.sentences import sentence, unknown_option
from bigembed.errors import UserError


def run(arguments: Sequence[str], task: Callable[[schema.Job, Path], Any]) -> None:
    """Compose the job that ``arguments`` describe and call ``task(job, folder)``, once per job of a sweep.

    Raises
    ------
    UserError
        For every mistake in the arguments.
    """
    _register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that the sentence is ours

    began, jobs = time.time(), 0
    failures: list[UserError] = []
    of_the_task: list[OSError] = []

    def job_task(composed: DictConfig) -> Any:
        nonlocal jobs
        jobs += 1
        runtime = HydraConfig.get()
        folder = Path(runtime.runtime.output_dir)
        try:
            try:
                job = to_job(composed)
            except UserError:
                _remove_made(folder, began)
                raise
            return task(job, folder)
        except UserError as error:  # a bad job does not end a sweep: the others run, then this is told
            failures.append(error)
            if runtime.mode is RunMode.MULTIRUN:
                print(f"job {runtime.job.num} of the sweep failed: {error}", file=sys.stderr)
        except OSError as error:
            of_the_task.append(error)
            raise

    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job_task)
    checked = _checked(arguments)
    with _own_argv(checked):
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(sentence(error)) from None
        except OSError as error:
            if error in of_the_task:
                raise
            raise UserError(
                f"the run folder {error.filename or ''} cannot be made: {error.strerror}; choose another with "
                f"hydra.run.dir=DIR (hydra.sweep.dir=DIR for a sweep)"
            ) from None
        except yaml.YAMLError as error:  # a file in the folder of --config-dir
            raise UserError(f"a configuration file is no YAML: {' '.join(str(error).split())}") from None
        except ValueError as error:
            if "Config group override" not in str(error):
                raise
            raise UserError(
                f"a group takes the name of one of its choices, e.g. head=bag; the groups: {', '.join(groups())}"
            ) from None
    if "--multirun" in checked and not jobs:
        raise UserError("the sweep has no jobs: one of its values is an empty list")
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} jobs of the sweep failed, the first of them so: {failures[0]}")


def to_job(composed: DictConfig) -> schema.Job:
    """Return the composed configuration as checked, typed objects."""
    try:
        job = OmegaConf.to_object(composed)
    except AttributeError:  # +group.key=…: OmegaConf takes it, the dataclass has no such slot
        raise UserError(unknown_option(composed)) from None
    except OmegaConfBaseException as error:
        raise UserError(sentence(error)) from None
    assert isinstance(job, schema.Job)
    check(job)
    return job


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name=SCHEMA, node=schema.Job)
    axes: dict[str, Mapping[str, type]]
    axes = {
        "data": kinds.DATA,
        "table": kinds.TABLES,
        "feature": kinds.FEATURES,
        "number": kinds.NUMBERS,
        "head": kinds.HEADS,
    }
    for group, classes in axes.items():
        for name, options_class in classes.items():
            store.store(group=group, name=f"{SCHEMA}_{name}", node=options_class)


class _Parser(argparse.ArgumentParser):
    """The flags besides the key=value arguments; a mistake is one sentence."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("overrides", nargs="*")
        either = self.add_mutually_exclusive_group()
        either.add_argument("--multirun", "-m", action="store_true")
        either.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
        self.add_argument("--config-dir", "-cd")

    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"{message}; options are written key=value, and the flags are -m (a sweep), --cfg job (show the job "
            f"instead of training it), --config-dir DIR (more YAML files)"
        )


def _checked(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flags in front: Hydra does not take them among the overrides."""
    given = _Parser().parse_intermixed_args(list(arguments))
    for override in given.overrides:
        if override.startswith("="):
            raise UserError(f"'{override}' is not an override of the form key=value")
    flags = ["--multirun"] if given.multirun else []
    flags += [f"--cfg={given.cfg}"] if given.cfg else []
    flags += [f"--config-dir={given.config_dir}"] if given.config_dir else []
    return [*flags, *given.overrides]


def _remove_made(folder: Path, began: float) -> None:
    """Remove the folder that Hydra made for a job that is refused, and empty ones above it in the working folder."""
    here = Path.cwd()
    try:
        if folder == here or folder.stat().st_ctime < began:  # it was there before
            return
        folder.rmdir()
        for above in folder.parents:
            if here not in above.parents:
                return
            above.rmdir()
    except OSError:  # not empty, or not ours
        return


class _own_argv:
    """Hydra reads ``sys.argv``: show it ours, and put back what was there."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __enter__(self) -> None:
        self.before, sys.argv = sys.argv, ["bigembed train", *self.arguments]

    def __exit__(self, *_: object) -> None:
        sys.argv = self.before
