"""Tables without a vocabulary: every word and n-gram is hashed into one of the rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.config.schema import HashedTable
from bigembed.encoders.text import TextColumn, Tokenizer
from bigembed.encoders.tokens import TextEncoder, make_plan


class HashedEncoder(TextEncoder):
    """Hashes words and n-grams, with the table's salt, into the same rows; there is nothing to learn.

    Parameters
    ----------
    config : HashedTable
        The table.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    """

    kind = "hashed"

    def __init__(self, config: HashedTable) -> None:
        plan = make_plan(config.salt, config.buckets, 0, config.buckets, config.ngrams)
        super().__init__(config, config.buckets, np.zeros((0, 2), np.uint64), plan)

    @classmethod
    def learn(
        cls,
        name: str,
        config: HashedTable,
        columns: Sequence[TextColumn],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "HashedEncoder":
        """Make the encoder of a new table; the texts are not looked at."""
        return cls(config)

    @classmethod
    def restore(cls, config: HashedTable, words: pa.StringArray, counts: np.ndarray) -> "HashedEncoder":
        """Make the encoder again; it saved no words."""
        return cls(config)

    @classmethod
    def settings_of(cls, config: HashedTable) -> dict[str, Any]:
        """Return everything that decides which ids a text has."""
        cutting = Tokenizer(config.tokens, config.pattern, config.lower).settings
        return {
            **cutting,
            "ngrams": config.ngrams,
            "distinct": config.distinct,
            "buckets": config.buckets,
            "salt": config.salt,
        }
