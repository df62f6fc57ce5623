"""Which options of a table, and of the features that it is looked up by, go together. No torch, no data."""

import math
import re
from collections.abc import Callable
from typing import Any

from bigembed.config.schema import (
    BucketizedTable,
    Combine,
    CompositionalTable,
    HashedTable,
    Job,
    ManagedTable,
    MixedTable,
    Policy,
    Scheme,
    SubwordTable,
    TableConfig,
    TextTable,
    TokenizerTable,
    Tokens,
)
from bigembed.errors import UserError

MOST_VALUES = 2**62  # that the digits of a composition can tell apart


def check_tables(job: Job) -> None:
    """Refuse tables whose options contradict each other, and features that they cannot serve.

    Raises
    ------
    UserError
        Naming the option and what would be right.
    """
    for name, table in job.tables.items():
        path = f"tables.{name}"
        if isinstance(table, TextTable):
            _check_tokens(path, table)
        for kind, check in CHECKS.items():
            if type(table) is kind:
                check(path, table)
    for name, feature in job.features.items():
        table, path = job.tables[feature.table], f"features.{name}"
        if feature.crossed_with and not isinstance(table, HashedTable | CompositionalTable | ManagedTable):
            raise UserError(
                f"{path}.crossed_with: values of several columns are hashed together, which tables.{feature.table} does not; "
                "use table=hashed, compositional or managed"
            )
        if feature.crossed_with and isinstance(table, CompositionalTable) and table.values is not None:
            raise UserError(
                f"{path}.crossed_with: what is crossed is hashed, but tables.{feature.table}.values takes whole numbers as they are; "
                "leave values out"
            )
        if feature.column in feature.crossed_with or len(set(feature.crossed_with)) < len(feature.crossed_with):
            raise UserError(f"{path}.crossed_with names a column twice")
        if feature.weights is not None:
            _check_weights(path, feature.table, table)


def _check_tokens(path: str, table: TextTable) -> None:
    if (table.tokens is Tokens.regex) != (table.pattern is not None):
        raise UserError(f"{path}.pattern goes with {path}.tokens=regex, and {path}.tokens=regex needs a pattern")
    if table.pattern is not None:
        try:
            re.compile(table.pattern)
        except re.error as error:
            raise UserError(f"{path}.pattern is no regular expression: {error}") from None


def _check_hashed(path: str, table: HashedTable) -> None:
    if table.sign and table.importance is not None:
        raise UserError(f"{path}.importance learns signs as well; leave out {path}.sign")


def _check_compositional(path: str, table: CompositionalTable) -> None:
    sizes, product = table.partitions, math.prod(table.partitions)
    if len(sizes) < 2:
        raise UserError(f"{path}.partitions is {sizes}; give the rows of two sub-tables or more, or use table=hashed")
    if product > MOST_VALUES:
        raise UserError(
            f"{path}.partitions multiply to {product:,}; at most 2^62 vectors can be told apart, so take smaller ones"
        )
    if table.combine is Combine.concat and table.dim % (4 * len(sizes)):
        raise UserError(
            f"{path}.dim is {table.dim}, which {len(sizes)} sub-tables cannot share in multiples of 4; use a multiple of "
            f"{4 * len(sizes)}, or combine=add or mult"
        )
    if table.values is None:
        return
    if table.values > product:
        raise UserError(
            f"{path}.values is {table.values:,}, but {path}.partitions tell only {product:,} apart; take larger partitions"
        )
    if table.ngrams > 1 or table.salt:
        raise UserError(
            f"{path}.values takes whole numbers as they are, so that ngrams and salt mean nothing; leave them out (ngrams=1)"
        )


def _check_subword(path: str, table: SubwordTable) -> None:
    if table.min_n > table.max_n:
        raise UserError(f"{path}.min_n is {table.min_n}, above {path}.max_n, which is {table.max_n}; exchange them")


def _check_bucketized(path: str, table: BucketizedTable) -> None:
    if (table.scheme is Scheme.given) != bool(table.borders):
        raise UserError(f"{path}.borders go with {path}.scheme=given, and {path}.scheme=given needs borders")
    if any(high <= low for low, high in zip(table.borders, table.borders[1:], strict=False)):
        raise UserError(f"{path}.borders must rise from one to the next, but they are {table.borders}")


def _check_mixed(path: str, table: MixedTable) -> None:
    if len(table.widths) != len(table.blocks) + 1 or not table.blocks:
        raise UserError(
            f"{path}.widths are {len(table.widths)} and {path}.blocks {len(table.blocks)}; give a width for each block and one for all "
            "other words, e.g. widths=[16,4] blocks=[10000]"
        )


def _check_managed(path: str, table: ManagedTable) -> None:
    if table.decay != 1.0 and table.policy is not Policy.distance_lfu:
        raise UserError(f"{path}.decay has no meaning for {path}.policy={table.policy.name}; leave it out")


def _check_weights(path: str, name: str, table: TableConfig) -> None:
    if isinstance(table, SubwordTable | TokenizerTable):
        raise UserError(
            f"{path}.weights: a value of tables.{name} has several rows, so that a weight has none of its own"
        )
    if isinstance(table, TextTable) and (table.ngrams > 1 or table.distinct):
        raise UserError(
            f"{path}.weights are one for each value, but tables.{name} has n-grams or leaves out repeated values; set "
            f"tables.{name}.ngrams=1 and tables.{name}.distinct=false"
        )


CHECKS: dict[type[TableConfig], Callable[[str, Any], None]] = {
    HashedTable: _check_hashed,
    CompositionalTable: _check_compositional,
    SubwordTable: _check_subword,
    BucketizedTable: _check_bucketized,
    MixedTable: _check_mixed,
    ManagedTable: _check_managed,
}
