"""What the types alone cannot hold: bounds, and options that must fit each other. No torch, no data."""

import re
from collections.abc import Mapping

from bigembed.config import kinds
from bigembed.config.bounds import check_options
from bigembed.config.check_pretrained import check_pretrained
from bigembed.config.check_recommendation import check_recommendation
from bigembed.config.check_tables import check_tables
from bigembed.config.physical import physical
from bigembed.config.placement import check_placement
from bigembed.config.schema import AttentionHead, AutoencoderHead, Device, Job, Pooling
from bigembed.errors import UserError


def check(job: Job) -> None:
    """Refuse a job whose options are out of bounds or contradict each other.

    Raises
    ------
    UserError
        Naming the path of the option, its value and what would be right.
    """
    _check_kinds(job)
    check_options(job)
    _check_names(job)
    own_part = getattr(job.data, "validation", None) is not None
    if job.trainer.early_stop is not None and job.data.validation_fraction == 0 and not own_part:
        raise UserError(
            "trainer.early_stop needs evaluations, but data.validation_fraction is 0 and there is no validation part"
        )
    _check_sequences(job)
    check_tables(job)
    check_pretrained(job)
    check_recommendation(job)
    check_placement(
        physical(job), "cpu" if job.runtime.device is Device.cpu else "cuda"
    )  # what is not known yet is checked when it is
    for path, kind, eps in (
        ("optim.tables", job.optim.tables.kind.name, job.optim.tables.eps),
        ("optim.dense", job.optim.dense.kind.name, job.optim.dense.eps),
    ):
        if kind == "sgd" and eps is not None:
            raise UserError(f"{path}.eps has no meaning for {path}.kind=sgd; leave it out")


def _check_kinds(job: Job) -> None:
    nodes: list[tuple[str, str, object, Mapping[str, type]]]
    nodes = [("data", "data", job.data, kinds.DATA), ("head", "head", job.head, kinds.HEADS)]
    nodes += [(f"tables.{name}", f"table@tables.{name}", table, kinds.TABLES) for name, table in job.tables.items()]
    for path, group, node, axis in nodes:
        if type(node) not in axis.values():
            choices = " or ".join(f"{group}={name}" for name in axis)
            raise UserError(f"{path} has no kind; choose one by {choices}, with a + in front where none was chosen")


def _check_names(job: Job) -> None:
    for kind, names in (("tables", job.tables), ("features", job.features), ("numbers", job.numbers)):
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise UserError(f"{kind}.{name}: a name is made of letters, digits and underscores")
    if not job.features:
        raise UserError("features is empty; add one, e.g. +feature@features.text=column")
    for name, feature in job.features.items():
        if feature.table not in job.tables:
            known = ", ".join(job.tables) or "none"
            raise UserError(
                f"features.{name}.table is '{feature.table}', but there is no such table; known tables: {known}"
            )
    for name in job.tables:
        poolings = {feature.pooling for feature in job.features.values() if feature.table == name}
        if len(poolings) > 1 and Pooling.none in poolings:
            raise UserError(
                f"the features of tables.{name} differ in pooling ({', '.join(sorted(each.name for each in poolings))}); "
                "the rows of a table are pooled, or stay sequences (none)"
            )
        if not poolings:
            raise UserError(f"tables.{name} is used by no feature; drop it, or name it in a feature's table")


def _check_sequences(job: Job) -> None:
    """Sequences and heads must fit each other."""
    if isinstance(job.head, AutoencoderHead):
        _check_autoencoder(job, job.head)
        return
    other = next((name for name, feature in job.features.items() if feature.of_another), None)
    if other is not None:
        raise UserError(f"features.{other}.of_another is for head=autoencoder alone; leave it out")
    sequences = [name for name, feature in job.features.items() if feature.pooling is Pooling.none]
    takes = isinstance(job.head, AttentionHead)
    if sequences and not takes:
        raise UserError(f"features.{sequences[0]}.pooling is none, but the head takes no sequences; use head=attention")
    if takes and not sequences:
        raise UserError(
            "head=attention pools sequences, but no feature is one; set features.NAME.pooling=none, or use head=bag"
        )


def _check_autoencoder(job: Job, head: AutoencoderHead) -> None:
    """Refuse an autoencoder that has not one sequence, and one of another row to tell it from, both of one table."""
    names = {"head.feature": head.feature, "head.another": head.another}
    for path, name in names.items():
        if name not in job.features:
            known = ", ".join(job.features)
            raise UserError(f"{path} is '{name}', but there is no such feature; known features: {known}")
        if job.features[name].pooling is not Pooling.none:
            raise UserError(f"head=autoencoder takes sequences; set features.{name}.pooling=none")
        if job.features[name].of_another != (path == "head.another"):
            wished = "true" if path == "head.another" else "false"
            raise UserError(f"{path} names the feature '{name}', so features.{name}.of_another must be {wished}")
    own, another = job.features[head.feature], job.features[head.another]
    if (own.table, own.column, own.crossed_with) != (another.table, another.column, another.crossed_with):
        raise UserError(
            f"features.{head.another} is features.{head.feature} of another row, but has another table or column; give both the same"
        )
    beside = [f"features.{name}" for name in job.features if name not in names.values()]
    beside += [f"numbers.{name}" for name in job.numbers]
    if beside:
        raise UserError(f"head=autoencoder takes nothing beside its two features; drop {beside[0]}")
