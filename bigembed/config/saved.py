"""The resolved job as a run keeps it: one YAML file, from which the same typed job is made again."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigembed import __version__
from bigembed.config import kinds
from bigembed.config.check import check
from bigembed.config.schema import Job
from bigembed.errors import UserError
from bigembed.files import replace

NAME = "job.yaml"
END = "..."  # YAML's own mark


class _Dumper(yaml.SafeDumper):
    """Quotes and escapes what is no plain printable text: unquoted, U+0085 and the like are read back as spaces."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def save(job: Job, folder: Path) -> None:
    """Write ``job`` to ``folder``/job.yaml, the last line of which marks the end."""
    content = {"bigembed": __version__, "job": as_dict(job)}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_end=True)
    replace(folder / NAME, text.encode())


def load(folder: Path) -> Job:
    """Return the job of the run in ``folder``.

    Raises
    ------
    UserError
        When the folder is no run, or its job.yaml does not fit the schema.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; a run is the folder that bigembed train wrote")
    if not path.is_file():
        raise UserError(f"{folder} holds no {NAME}, so it is no run; a run is the folder that bigembed train wrote")
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if text.splitlines()[-1:] != [END]:  # options that are cut off would silently be the defaults
            raise ValueError(f"it is cut short: its last line is not '{END}'")
        if not isinstance(content, dict) or not isinstance(content.get("job"), dict):
            raise ValueError("it has no node 'job'")
        job = from_dict(content["job"])
        check(job)
        return job
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path} cannot be read as a job: {_named(error)}") from None
    except KeyError as error:
        raise UserError(f"{path} cannot be read as a job: it has no {error}") from None


def as_dict(job: Job) -> dict[str, Any]:
    """Return ``job`` as plain values, each node that has several kinds with the name of its kind."""
    return _plain(job)


def from_dict(values: dict[str, Any]) -> Job:
    """Return the job that ``as_dict`` made ``values`` of, checked by the types of the schema."""
    values = literal(values)
    data, head, tables = values.pop("data"), values.pop("head"), values.pop("tables")
    composed = OmegaConf.merge(OmegaConf.structured(Job), values)
    composed.data = _of_kind("data", kinds.DATA, data)
    composed.head = _of_kind("head", kinds.HEADS, head)
    composed.tables = {name: _of_kind(f"tables.{name}", kinds.TABLES, table) for name, table in tables.items()}
    job = OmegaConf.to_object(composed)
    assert isinstance(job, Job)
    return job


def override(job: Job, overrides: list[str]) -> Job:
    """Return a copy of ``job`` with ``overrides`` ("trainer.keep=2") applied.

    Raises
    ------
    UserError
        When an override is not of that form, or names no option, or gives a value of the wrong type.
    """
    values = as_dict(job)
    for entry in overrides:
        path, equals, text = entry.partition("=")
        if not equals:
            raise UserError(f"'{entry}' is not an override of the form key=value")
        *parents, key = path.split(".")
        node, options = values, typing.cast(Any, job)
        for part in parents:
            node = node.get(part, {}) if isinstance(node, dict) else {}
            options = options.get(part) if isinstance(options, dict) else getattr(options, part, None)
        if not isinstance(node, dict) or key not in node or isinstance(node[key], dict) or key not in _fields(options):
            raise UserError(f"there is no option '{path}' in the configuration of this run")
        node[key] = _value(entry, text, typing.get_type_hints(type(options))[key])
    try:
        return from_dict(values)
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: {_named(error)}") from None


def flat(job: Job) -> dict[str, Any]:
    """Return the options of ``job`` by their paths."""
    return _flat("", as_dict(job))


def different(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the paths at which two configurations as plain values differ, each with both values."""
    old, new = _flat("", before), _flat("", after)
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    return [f"{path} ({old.get(path)} → {new.get(path)})" for path in paths]


def differences(before: Job, after: Job) -> list[str]:
    """Return the paths of the options in which two jobs differ, each with both values."""
    return different(as_dict(before), as_dict(after))


def _of_kind(path: str, classes: Mapping[str, type], values: dict[str, Any]) -> Any:
    values = dict(values)
    kind = values.pop("kind")
    if kind not in classes:
        raise ValueError(f"{path}.kind is '{kind}'; known: {', '.join(classes)}")
    try:
        return OmegaConf.merge(OmegaConf.structured(classes[kind]), values)
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}.{_named(error)}") from None


def _value(entry: str, text: str, hint: Any) -> Any:
    """Return what the text of an override means; where text is wanted, 010 and no are text too."""
    wants_text = hint is str or (str in typing.get_args(hint) and typing.get_origin(hint) is not list)
    if wants_text and text != "null" and text[:1] not in ("'", '"'):
        return text
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise UserError(f"{entry}: {_named(error)}") from None


def _named(error: Exception) -> str:
    """Return the first line of an error, after the path of the option where it has one."""
    path = getattr(error, "full_key", None)
    return (f"{path}: " if path else "") + (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _fields(options: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(options)] if dataclasses.is_dataclass(options) else []


def literal(value: Any) -> Any:
    """Return ``value`` with every text escaped, so that OmegaConf takes "${" for what it is."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, dict):
        return {name: literal(entry) for name, entry in value.items()}
    return [literal(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        several = any(type(value) in axis.values() for axis in (kinds.DATA, kinds.TABLES, kinds.HEADS))
        return {"kind": kinds.kind_of(value), **fields} if several else fields
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _flat(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    entries = [_flat(f"{path}.{name}" if path else name, entry) for name, entry in value.items()]
    return {name: entry for part in entries for name, entry in part.items()}
