"""The configuration of the run that a new one grows from, as what Hydra composes the new one's from."""

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from bigembed.config import saved
from bigembed.config.groups import SCHEMA
from bigembed.config.schema import Job
from bigembed.config.saved import _literal as literal
from bigembed.errors import UserError

NAME = "grown"
OF_THE_JOB = ("optim", "trainer", "plan", "runtime")  # groups whose files have no kinds


def begin_from(job: Job, folder: Path, arguments: list[str]) -> list[str]:
    """Return ``arguments`` with one more, by which Hydra starts from ``job``, of the run in ``folder``.

    Everything of it that is a choice stays one, so that it can be exchanged, dropped and added to as in any other job:
    ``table@tables.NAME=KIND``, ``~feature@features.NAME``.

    Raises
    ------
    UserError
        An experiment is given besides.
    """
    given = next((each for each in arguments if each.lstrip("+~").startswith("experiment")), None)
    if given is not None:
        raise UserError(f"grow= takes the options of {folder}, and {given} would be others; give them one by one")
    store, values = ConfigStore.instance(), literal(saved.as_dict(job))
    defaults: list[Any] = []

    def choose(group: str, place: str, name: str, node: dict[str, Any], there: bool) -> None:
        """Make ``node`` a choice of ``group`` at ``place``, and choose it."""
        node = dict(node)
        kind = node.pop("kind", "column" if group == "feature" else None)
        schema = [] if kind is None else [f"{SCHEMA}_{kind}"]
        store.store(group=group, name=name, node={"defaults": [*schema, "_self_"], **node})
        defaults.append({f"{'override ' if there else ''}/{group}{place}": name})

    for group in ("data", "head", *OF_THE_JOB):
        choose(group, "", NAME, values.pop(group), there=True)
    for group, of_all in (("table", "tables"), ("feature", "features")):
        named = values.pop(of_all)
        if "text" not in named:  # conf/train.yaml has one
            defaults.append({f"override /{group}@{of_all}.text": None})
        for name, node in named.items():
            choose(group, f"@{of_all}.{name}", f"{NAME}_{name}", node, there=name == "text")
    store.store(
        group="experiment",
        name=NAME,
        node={"defaults": [*sorted(defaults, key=_is_override), "_self_"], **values, "grow": str(folder.absolute())},
        package="_global_",
    )
    return [*arguments, f"experiment={NAME}"]


def _is_override(entry: dict[str, str]) -> bool:
    return next(iter(entry)).startswith("override")
