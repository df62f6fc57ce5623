"""The options as text, for the help of a command and for the page docs/options.md: both come from the schema."""

import dataclasses
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from bigembed.config import kinds, schema

COMMAND_OPTIONS = {"evaluate": schema.EvaluateOptions, "predict": schema.PredictOptions, "export": schema.ExportOptions}


def command_help(command: str, usage: str) -> str:
    """Return what ``bigembed COMMAND --help`` prints."""
    lines = [f"bigembed {command}: {usage}", ""]
    for title, options in _sections() if command == "train" else [("", COMMAND_OPTIONS[command])]:
        lines += [title] if title else []
        lines += [f"  {name} ({kind}; default {default})\n      {text}" for name, kind, default, text in _rows(options)]
        lines.append("")
    return "\n".join(lines).rstrip()


def page() -> str:
    """Return the text of docs/options.md."""
    lines = ["# Options", "", "Made from the schema by `python -m bigembed.config.options`; do not edit.", ""]
    sections = [*_sections(), *((f"bigembed {name}", options) for name, options in COMMAND_OPTIONS.items())]
    for title, options in sections:
        lines += [f"## {title}", "", (options.__doc__ or "").strip().replace("``", "`"), ""]
        lines += ["| option | type | default | what it does |", "|---|---|---|---|"]
        lines += [f"| `{name}` | {kind} | `{default}` | {text} |" for name, kind, default, text in _rows(options)]
        lines.append("")
    return "\n".join(lines)


def _sections() -> Iterator[tuple[str, Any]]:
    """Yield title and dataclass of every group of a job."""
    yield "job", schema.Job
    for prefix, axis, group in (("data", kinds.DATA, "data"), ("tables.NAME", kinds.TABLES, "table@tables.NAME"), ("head", kinds.HEADS, "head")):
        for name, options in axis.items():
            yield f"{prefix} ({group}={name})", options
    yield "features.NAME", schema.FeatureConfig
    yield "optim.tables", schema.TableOptimConfig
    yield "optim.dense", schema.DenseOptimConfig
    yield "optim", schema.OptimConfig
    yield "trainer", schema.TrainerConfig
    yield "runtime", schema.RuntimeConfig


def _rows(options: Any) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and help of every option of a dataclass that is no group itself."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
            continue
        yield field.name, _type_name(hint, field.metadata), _default(field), field.metadata["help"]


def _type_name(hint: Any, metadata: Any) -> str:
    parts = typing.get_args(hint)
    if type(None) in parts:
        return _type_name(parts[0], metadata) + " or null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(hint.__members__)
    name = {int: "integer", float: "number", str: "text", bool: "true, false"}.get(hint, "list of integers")
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below", "multiple": "a multiple of"}
    bounds = [f"{words[key]} {value}" for key, value in metadata.items() if key in words]
    return ", ".join([name, *bounds])


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default if field.default is not dataclasses.MISSING else "[]"
    if value == schema.MISSING:
        return "must be given"
    if isinstance(value, Enum):
        return value.name
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if not isinstance(value, float | int) or isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(page(), end="")
