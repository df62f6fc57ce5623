"""The configuration of the run that a new one grows from, as what Hydra composes the new one's from."""

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from bigembed.config import saved
from bigembed.config.groups import SCHEMA
from bigembed.config.saved import literal
from bigembed.config.schema import Job
from bigembed.errors import UserError

GROW = "grow="
NAME = f"{SCHEMA}_grown"  # no choice of the user's
PLAIN = ("optim", "trainer", "plan", "runtime")  # groups whose choices are of one kind
FIRST = "text"  # the table and the feature that conf/train.yaml has


def begin_from(arguments: list[str]) -> list[str]:
    """Return arguments of ``bigembed train`` with ``grow=RUN`` as Hydra is to see it: it then starts from that run's options.

    Raises
    ------
    UserError
        There is no such run, or an experiment is given besides.
    """
    given = [argument for argument in arguments if argument.startswith(GROW)]
    if not given:
        return arguments
    folder = Path(given[-1].removeprefix(GROW))
    others = [argument for argument in arguments if not argument.startswith(GROW)]
    experiment = next((each for each in others if each.lstrip("+~").startswith("experiment")), None)
    if experiment is not None:
        raise UserError(
            f"grow= takes the options of the run in {folder}, and {experiment} has others; give options one by one"
        )
    _offer(saved.load(folder), folder)
    return [*others, f"experiment={NAME}"]


def _offer(job: Job, folder: Path) -> None:
    """Put ``job``, of the run in ``folder``, into Hydra's store as an experiment.

    What is a choice in it stays one, to be exchanged, dropped and added to as in any other job (``~table@tables.NAME``).
    """
    store, values, defaults = ConfigStore.instance(), literal(saved.as_dict(job)), list[Any]()

    def choose(group: str, place: str, name: str, node: dict[str, Any], there: bool) -> None:
        """Make a node a choice of its group, and choose it."""
        kind = node.pop("kind", "column" if group in ("feature", "number") else None)
        schema = [] if kind is None else [f"{SCHEMA}_{kind}"]
        store.store(group=group, name=name, node={"defaults": [*schema, "_self_"], **node})
        defaults.append({f"{'override ' if there else ''}/{group}{place}": name})

    for group in ("data", "head", *PLAIN):
        choose(group, "", NAME, values.pop(group), there=True)
    for group, all_of_them in (("table", "tables"), ("feature", "features"), ("number", "numbers")):
        named, first = values.pop(all_of_them), FIRST if group != "number" else None
        if first is not None and first not in named:
            defaults.append({f"override /{group}@{all_of_them}.{first}": None})
        for name, node in named.items():
            choose(group, f"@{all_of_them}.{name}", f"{NAME}_{name}", node, there=name == first)
    own = {"grow": str(folder.absolute()), "grow_drop": False}
    node = {"defaults": [*sorted(defaults, key=_is_override), "_self_"], **values, **own}
    store.store(group="experiment", name=NAME, node=node, package="_global_")


def _is_override(entry: dict[str, Any]) -> bool:
    """Whether an entry of a defaults list is an override: Hydra wants these last."""
    return next(iter(entry)).startswith("override")
