"""From the command line to one typed job, through Hydra; its errors become one sentence with the path of the key."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigembed.config import kinds, schema
from bigembed.config.check import check
from bigembed.errors import UserError

SCHEMA = "schema"


def conf_dir() -> Path:
    """Return the folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def run(arguments: Sequence[str], task: Callable[[schema.Job, Path], Any]) -> None:
    """Compose the job that ``arguments`` describe and call ``task(job, folder)``, once per job of a sweep.

    Raises
    ------
    UserError
        For every mistake in the arguments.
    """
    _register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing, so that the sentence is ours

    failures: list[UserError] = []

    def job_task(composed: DictConfig) -> Any:
        runtime = HydraConfig.get()
        try:
            return task(to_job(composed), Path(runtime.runtime.output_dir))
        except UserError as error:  # a bad job does not end a sweep: the others run, then this is told
            failures.append(error)
            if runtime.mode is RunMode.MULTIRUN:
                print(f"job {runtime.job.num} of the sweep failed: {error}", file=sys.stderr)

    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job_task)
    with _own_argv(arguments):
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_sentence(error)) from None
        except ValueError as error:
            if "Config group override" not in str(error):
                raise
            groups = ", ".join(sorted(path.name for path in conf_dir().iterdir() if path.is_dir()))
            raise UserError(f"a group takes the name of one of its choices, e.g. head=bag; the groups: {groups}") from None
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise UserError(f"{len(failures)} jobs of the sweep failed, the first of them so: {failures[0]}")


def to_job(composed: DictConfig) -> schema.Job:
    """Return the composed configuration as checked, typed objects."""
    try:
        job = OmegaConf.to_object(composed)
    except AttributeError:  # +group.key=…: OmegaConf takes it, the dataclass has no such slot
        path, names = next(_unknown_to_schema(composed))
        raise UserError(f"there is no option '{path}'" + _known(path.rpartition(".")[2], names)) from None
    except OmegaConfBaseException as error:
        raise UserError(_sentence(error)) from None
    assert isinstance(job, schema.Job)
    check(job)
    return job


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name=SCHEMA, node=schema.Job)
    for group, classes in (("data", kinds.DATA), ("table", kinds.TABLES), ("feature", kinds.FEATURES), ("head", kinds.HEADS)):
        for name, options_class in classes.items():
            store.store(group=group, name=f"{SCHEMA}_{name}", node=options_class)


class _own_argv:
    """Hydra reads ``sys.argv``: show it ours, and put back what was there."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __enter__(self) -> None:
        self.before, sys.argv = sys.argv, ["bigembed train", *self.arguments]

    def __exit__(self, *_: object) -> None:
        sys.argv = self.before


def _sentence(error: Exception) -> str:
    """Say in one sentence what Hydra or OmegaConf found wrong, with the names that would have been right."""
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not an override of the form key=value" + (
            "; quote values with special characters: key='value'" if "=" in error.override else ""
        )
    if isinstance(error, ConfigCompositionException):
        cause = error.__cause__
        first = str(error).splitlines()[0]
        override = first.split("'")[1] if "Could not override" in first else first.removeprefix("Error merging override ")
        if cause is None:  # table@tables.word=…: Hydra says how to add it
            return " ".join(str(error).split()).replace(" To append to your default list use", "; to add it write")
        if "Could not override" in first:
            return _unknown_key(override, cause)
        reason = str(cause).splitlines()[0]
        return f"{override}: {reason[0].lower()}{reason[1:]}"
    path = getattr(error, "full_key", None)
    return (f"{path}: " if path else "") + str(error).splitlines()[0]


def _missing_choice(error: MissingConfigException) -> str:
    lines = str(error).splitlines()
    wished = lines[0].split("'")[-2] if "'" in lines[0] else str(error.missing_cfg_file)
    group, _, name = wished.rpartition("/")
    known = [option for option in error.options or () if not option.startswith(SCHEMA)]
    return f"there is no '{name}' in the group '{group}'" + _known(name, known)


def _unknown_key(path: str, cause: BaseException) -> str:
    """Say below which node the key is unknown, and what is known there."""
    parent = getattr(cause, "parent_node", None)
    if parent is None:
        return f"there is no option '{path}'"
    where = parent._get_full_key(None)
    key = str(getattr(cause, "key", path))
    return f"there is no option '{path}'" + _known(key, sorted(map(str, parent)), f"below '{where}'" if where else "")


def _unknown_to_schema(node: DictConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of every key that its dataclass does not have, and the names that it has."""
    known = getattr(OmegaConf.get_type(node), "__dataclass_fields__", None)
    for key in node:
        if known is not None and key not in known:
            yield node._get_full_key(key), sorted(known)
        elif OmegaConf.is_dict(node._get_node(key)) and not node._get_node(key)._is_none():
            yield from _unknown_to_schema(node[key])


def _known(wrong: str, names: Sequence[str], where: str = "") -> str:
    close = get_close_matches(wrong, names, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} known{' ' + where if where else ''}: {', '.join(names) or 'none'}"
