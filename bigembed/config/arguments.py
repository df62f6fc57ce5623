"""The arguments of the commands that are not jobs: key=value, typed by a dataclass."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigembed.config.bounds import check_options
from bigembed.errors import UserError

Options = TypeVar("Options")
# Of a list: a text between quotes of either kind, or one that begins with none and holds no comma.
ENTRY = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s,"'][^,]*?))\s*(?:,|$)""")


def parse(arguments: Sequence[str], options: type[Options]) -> tuple[Options, list[str]]:
    """Return the ``options`` that ``arguments`` give, and the arguments with a dot in their key: options of a job.

    A list is written [a,b], texts with commas in it between quotes of either kind; anything else is its only entry.

    Raises
    ------
    UserError
        When an argument is not key=value, its key is not known, its value has the wrong type, or one that must be given
        is missing.
    """
    values: dict[str, Any] = {}
    of_the_job = []
    known = options.__dataclass_fields__  # type: ignore[attr-defined]
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            hint = f"; did you mean run={argument}?" if "run" in known else ""
            raise UserError(f"'{argument}' is not of the form key=value{hint}")
        if "." in key:
            of_the_job.append(argument)
        elif key not in known:
            raise UserError(f"there is no option '{key}'; known: {', '.join(known)}")
        else:
            values[key] = _entries(key, value) if _is_list(known[key]) else None if value == "null" else value
    for key in known:
        if known[key].default == "???" and not values.get(key):
            raise UserError(f"{key}= is missing: {known[key].metadata['help']}")
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(options), values))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{getattr(error, 'full_key', '') or 'option'}: {str(error).splitlines()[0]}") from None
    check_options(found)
    return found, of_the_job  # type: ignore[return-value]


def _is_list(field: Any) -> bool:
    return field.default_factory is list


def _entries(key: str, value: str) -> list[str]:
    """Return the texts of a list as it is typed, none of them taken for a number or for no."""
    if not value.startswith("["):
        return [value] if value else []
    inside, entries, at = value[1:-1].strip(), [], 0
    while at < len(inside):
        found = ENTRY.match(inside, at)
        if found is None:
            break
        entries.append(next(text for text in found.groups() if text is not None))
        at = found.end()
    if at < len(inside) or not value.endswith("]") or len(value) == 1:
        raise UserError(f"{key}={value} is no list of texts; write {key}=[one,'another, with a comma']")
    return entries
