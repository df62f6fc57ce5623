"""The options as text, for the help of a command and for the page docs/options.md: both come from the schema."""

import dataclasses
import textwrap
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from bigembed.config import kinds, schema
from bigembed.config.groups import groups

COMMAND_OPTIONS = {
    "plan": schema.PlanOptions,
    "evaluate": schema.EvaluateOptions,
    "predict": schema.PredictOptions,
    "recommend": schema.RecommendOptions,
    "export": schema.ExportOptions,
    "vectors": schema.VectorsOptions,
    "coverage": schema.CoverageOptions,
    "compare": schema.CompareOptions,
    "inspect": schema.InspectOptions,
    "explain": schema.ExplainOptions,
    "advise": schema.AdviseOptions,
}
BESIDES = {
    "hydra.run.dir=DIR": "The run folder; otherwise outputs/DATE/TIME.",
    "hydra.sweep.dir=DIR": "The folder that the run folders of a sweep lie in; otherwise multirun/DATE/TIME.",
    "resume=RUN": "Go on with the run in a folder, as it was configured; only what cannot change the result can be given with it: "
    "runtime, sharding, plan, trainer.pipeline, trainer.save_memory_mib, and where the data lies.",
    "resume=auto": "Begin the run in hydra.run.dir, or go on with it where it is there already.",
    "grow=RUN": "Begin a new run from what another one has learned, with its options where no others are given; see docs/growing.md.",
    "-m": "A sweep: options may have several values, key=1,2,3, and every combination is trained.",
    "--cfg job": "Show the job instead of training it.",
    "--config-dir DIR": "More YAML files, e.g. DIR/experiment/mine.yaml for experiment=mine.",
}
DEFAULTS = (
    "The defaults are those of the schema; `bigembed train --cfg job` shows what the chosen YAML files make of them."
)
WIDTH = 100


class Row(NamedTuple):
    """One option: its path, what it takes, its default (None: must be given) and its help text."""

    path: str
    kind: str
    default: str | None
    text: str


class Section(NamedTuple):
    """Options that belong together."""

    title: str
    about: str
    rows: list[Row]


def command_help(command: str, usage: str) -> str:
    """Return what ``bigembed COMMAND --help`` prints; ``usage`` is of the form "what it does: how to type it"."""
    what, _, typed = usage.partition(": ")
    lines = ["usage: " + typed.replace("; ", "\n       "), "", f"{what[0].upper()}{what[1:]}."]
    if command != "train":
        section = _section("", "", COMMAND_OPTIONS[command])
        about = textwrap.wrap(section.about.replace("`", ""), WIDTH)
        return "\n".join([*lines, "", *about, *_listed(section.rows)])
    lines += ["", "Folders and flags:", *(line for head, text in BESIDES.items() for line in _entry(head, text))]
    lines += [
        "",
        "Choices, each group=name (a table, a feature or a number has a place besides: table@tables.NAME=hashed):",
    ]
    for group, choices in groups().items():
        for name, comment in choices.items():
            lines += _entry(f"{group}={name}", comment)
    lines += ["", "Options, each key=value. " + DEFAULTS.replace("`", "")]
    for section in sections():
        lines += ["", f"{section.title}: {section.about}", *_listed(section.rows)]
    return "\n".join(lines)


def page() -> str:
    """Return the text of docs/options.md."""
    lines = ["# Options", "", "Made from the schema by `python -m bigembed.config.options`; do not edit.", ""]
    lines += ["`bigembed train` takes choices, `group=name`, and options, `key=value`.", DEFAULTS, ""]
    lines += ["## Folders and flags", "", "| argument | what it does |", "|---|---|"]
    lines += [f"| `{head}` | {text} |" for head, text in BESIDES.items()]
    lines += [
        "",
        "## Choices",
        "",
        "A table and a feature have a place besides: `table@tables.NAME=hashed`, and with a",
    ]
    lines += ["`+` in front it is one more.", "", "| choice | what it is |", "|---|---|"]
    for group, choices in groups().items():
        lines += [f"| `{group}={name}` | {_escaped(about)} |" for name, about in choices.items()]
    lines.append("")
    commands = [_section(f"bigembed {name}", "", options) for name, options in COMMAND_OPTIONS.items()]
    for section in [*sections(), *commands]:
        lines += [f"## {section.title}", "", _escaped(section.about), ""]
        lines += ["| option | takes | default | what it does |", "|---|---|---|---|"]
        for row in section.rows:
            default = "must be given" if row.default is None else f"`{row.default}`"
            lines.append(f"| `{row.path}` | {row.kind} | {default} | {_escaped(row.text)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def sections() -> Iterator[Section]:
    """Yield the options of a job, group by group; what several kinds have in common comes once."""
    yield _section("job", "", schema.Job)
    yield from _axis("data", "data", kinds.DATA)
    yield from _axis("tables.NAME", "table@tables.NAME", kinds.TABLES)
    yield _section("tables.NAME.pretrained", "tables.NAME.pretrained.", schema.PretrainedConfig)
    yield _section("tables.NAME.sharding", "tables.NAME.sharding.", schema.TableShardingConfig)
    yield _section("features.NAME", "features.NAME.", schema.FeatureConfig)
    yield _section("numbers.NAME", "numbers.NAME.", schema.NumberConfig)
    yield _section("interactions", "interactions.", schema.InteractionsConfig)
    yield _section("protocol", "protocol.", schema.ProtocolConfig)
    yield from _axis("head", "head", kinds.HEADS)
    yield _section("optim", "optim.", schema.OptimConfig)
    yield _section("optim.tables", "optim.tables.", schema.TableOptimConfig)
    yield _section("optim.dense", "optim.dense.", schema.DenseOptimConfig)
    yield _section("trainer", "trainer.", schema.TrainerConfig)
    yield _section("sharding", "sharding.", schema.ShardingConfig)
    yield _section("plan", "plan.", schema.PlanConfig)
    yield _section("runtime", "runtime.", schema.RuntimeConfig)


def _axis(path: str, group: str, axis: Mapping[str, type]) -> Iterator[Section]:
    """Yield a section for what kinds of an axis have in common, then one for each kind."""
    heirs: dict[type, list[str]] = {}  # of every class, the kinds that have its options
    for name, options in axis.items():
        for base in reversed(options.__mro__):
            if dataclasses.is_dataclass(base):
                heirs.setdefault(base, []).append(name)
    shared: dict[tuple[str, ...], Section] = {}
    for options, names in heirs.items():
        if options not in axis.values():
            section = _own(path, f"{path}.", options)
            before = shared.setdefault(tuple(names), section)
            if before is not section:
                shared[tuple(names)] = before._replace(rows=[*before.rows, *section.rows])
    for having, section in shared.items():
        everybody = len(having) == len(axis)
        yield section if everybody else section._replace(about=f"{section.about} For {' and '.join(having)}.")
    for name, options in axis.items():
        yield _own(f"{group}={name}", f"{path}.", options)


def _own(title: str, prefix: str, options: type) -> Section:
    """Return the options of a dataclass that it does not inherit."""
    inherited = {prefix + field.name for base in options.__bases__ for field in _fields(base)}
    section = _section(title, prefix, options)
    return section._replace(rows=[row for row in section.rows if row.path not in inherited])


def _section(title: str, prefix: str, options: Any) -> Section:
    """Return the options of a dataclass that are no groups themselves."""
    hints = typing.get_type_hints(options)
    rows = []
    for field in _fields(options):
        hint = hints[field.name]
        if not dataclasses.is_dataclass(hint) and typing.get_origin(hint) is not dict:
            kind = _kind(hint, field.metadata)
            rows.append(Row(prefix + field.name, kind, _default(field), field.metadata["help"]))
    return Section(title, _about(options), rows)


def _fields(options: Any) -> "tuple[dataclasses.Field[Any], ...]":
    return dataclasses.fields(options) if dataclasses.is_dataclass(options) else ()


def _about(options: Any) -> str:
    return " ".join((options.__doc__ or "").split())


def _kind(hint: Any, metadata: Mapping[str, Any]) -> str:
    parts = typing.get_args(hint)
    if type(None) in parts:
        return _kind(parts[0], metadata) + ", or null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(hint.__members__)
    if parts and issubclass(parts[0], Enum):
        return f"list of {', '.join(parts[0].__members__)}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    name = names[hint] if hint in names else f"list of {names[parts[0]]}s, each"
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below", "multiple": "multiple of"}
    bounds = [f"{words[key]} {_number(value)}" for key, value in metadata.items() if key in words]
    return ", ".join([name, *bounds]).replace("each, ", "each ").removesuffix(", each")


def _number(value: float) -> str:
    large = isinstance(value, int) and value >= 1 << 20 and value & (value - 1) == 0
    return f"2^{int(value).bit_length() - 1}" if large else f"{value:g}"


def _default(field: "dataclasses.Field[Any]") -> str | None:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value == schema.MISSING:
        return None
    if isinstance(value, list):
        return f"[{', '.join(entry.name if isinstance(entry, Enum) else str(entry) for entry in value)}]"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _listed(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        given = f"{row.path}={row.default or ''}   {row.kind}" + (", must be given" if row.default is None else "")
        yield from _entry(given, row.text)


def _entry(head: str, text: str) -> list[str]:
    """Return an entry of a help text: its head, and indented below it what it means."""
    return [f"  {head}", *textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]


def _escaped(text: str) -> str:
    """Return ``text`` for a cell of a Markdown table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    print(page(), end="")
