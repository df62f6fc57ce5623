"""The arguments of the commands that are not jobs: key=value, typed by a dataclass."""

from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigembed.errors import UserError

Options = TypeVar("Options")


def parse(arguments: Sequence[str], options: type[Options]) -> tuple[Options, list[str]]:
    """Return the ``options`` that ``arguments`` give, and the arguments with a dot in their key: options of a job.

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
            values[key] = None if value == "null" else value
    for key in known:
        if known[key].default == "???" and not values.get(key):
            raise UserError(f"{key}= is missing: {known[key].metadata['help']}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(options), values)), of_the_job  # type: ignore[return-value]
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{getattr(error, 'full_key', '') or 'option'}: {str(error).splitlines()[0]}") from None
