"""What Hydra and OmegaConf find wrong, as one sentence with the path of the key and the names that would be right."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from bigembed.config import kinds
from bigembed.config.groups import SCHEMA, groups

# What Hydra says in several lines, or with advice for its own files, as one sentence of ours.
SENTENCES = (
    (
        r"Could not append to config\. An item is already at '(?P<key>.+?)'",
        "there is an option '{key}' already; write it without the +",
    ),
    (
        r"Multiple values for (?P<key>.+?)\. To override",
        "a choice of '{key}' is made already; write it without the +",
    ),
    (
        r"Could not delete from config\. '(?P<key>.+?)' does not exist",
        "there is no '{key}' to take away",
    ),
    (
        r"Could not override '(?P<key>.+?)'\.\s+Did you mean to override (?P<near>.+?)\?\s.*use (?P<added>\+\S+)",
        "the job has no '{key}' to change; did you mean {near}? to add one write +GROUP@PLACE.NAME=CHOICE, as in "
        "+table@tables.words=hashed",
    ),
    (
        r"(?:Ambiguous value for argument|Sweep parameters) '(?P<override>.+?)'(?: requires|\s+1\. )",
        "{override} gives several values; add -m for a sweep over them, write [1,2] for a list, or quote a text that "
        "has a comma: \"key='a,b'\"",
    ),
)


def sentence(error: Exception) -> str:
    """Return one sentence for an error of Hydra or OmegaConf."""
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        quoted = f"\"{key}='{value}'\""
        hint = f"; quote a value with special characters, twice because of the shell: {quoted}" if equals else ""
        return f"'{error.override}' is not an override of the form key=value{hint}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return _refused(str(error).splitlines()[0], error.__cause__)
    for pattern, words in SENTENCES:
        found = re.match(pattern, str(error), re.DOTALL)
        if found:
            return words.format(**found.groupdict())
    in_file = re.match(r"In '(.+?)': \w+ raised while composing config:\n(.+?)\n\s*full_key: (.*)", str(error))
    if in_file:
        return "{0}.yaml: {2}: {1}".format(*in_file.groups())
    path = getattr(error, "full_key", None)
    return (f"{path}: " if path else "") + str(error).splitlines()[0].rstrip(".")


def _refused(first: str, cause: BaseException) -> str:
    """Say why OmegaConf did not take an override."""
    if "Could not override" in first:
        return _unknown_key(first.split("'")[1], cause)
    override = first.removeprefix("Error merging override ")
    reason = str(cause).splitlines()[0].rstrip(".")
    if "does not support deletion" in reason:
        return f"{override}: an option cannot be taken away, only set"
    if "is not Optional" in reason:
        return f"{override}: the option cannot be null"
    named = re.match(r"\+*((table|feature|number)s\.[^.=]+)", override)
    if "is not a subclass" in reason and "ShardingConfig" not in reason and named:
        node, group = named.groups()
        choices = " or ".join(f"{group}@{node}={name}" for name in groups()[group])
        return f"{override}: {node} takes its kind by {choices}, with a + in front where there is no {node} yet"
    return f"{override}: {reason[0].lower()}{reason[1:]}"


def unknown_option(composed: DictConfig) -> str:
    """Say which key of a configuration its dataclass does not have; ``+`` puts such a key there."""
    path, names = next(_unknown_to_schema(composed))
    return f"there is no option '{path}'" + _known(path.rpartition(".")[2], names)


def _unknown_to_schema(node: DictConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of every key that its dataclass does not have, and the names that it has."""
    known = getattr(OmegaConf.get_type(node), "__dataclass_fields__", None)
    for key in node:
        child = node._get_node(key)
        if known is not None and key not in known:
            yield node._get_full_key(key), sorted(known)
        elif isinstance(child, DictConfig) and not child._is_none():
            yield from _unknown_to_schema(child)


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
    elsewhere = _kinds_with(key, OmegaConf.get_type(parent))
    names = sorted(name for name in map(str, parent) if where or name != "hydra")
    return f"there is no option '{path}'{elsewhere}" + _known(key, names, f"below '{where}'" if where else "")


def _kinds_with(key: str, options_class: type | None) -> str:
    """Say which other kinds of the same axis have an option."""
    axes: dict[str, Mapping[str, type]] = {"data": kinds.DATA, "table": kinds.TABLES, "head": kinds.HEADS}
    for group, axis in axes.items():
        if options_class in axis.values():
            having = [f"{group}={name}" for name, other in axis.items() if key in _fields(other)]
            return f" here, only with {' or '.join(having)}" if having else ""
    return ""


def _fields(options_class: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(options_class)]


def _known(wrong: str, names: Sequence[str], where: str = "") -> str:
    close = get_close_matches(wrong, names, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} known{' ' + where if where else ''}: {', '.join(names) or 'none'}"
