"""Tables whose rows are given out during training: the encoder only says which value it is, as a number of 63 bits."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.admission import whole_rows
from bigembed.config.schema import ManagedTable
from bigembed.encoders.columns import Column
from bigembed.encoders.encoder import Encoded, Ids
from bigembed.encoders.tokens import TokenEncoder, elements_of, settings_of_tokens
from bigembed.encoders.values import kind_of
from bigembed.errors import UserError
from bigembed.ragged import Ragged


class ManagedEncoder(TokenEncoder):
    """Gives elements by the upper 63 bits of their hash; which row that has, only the model knows.

    Parameters
    ----------
    config : ManagedTable
        The table.
    learned : dict
        The kind of values.
    """

    kind = "managed"
    config: ManagedTable

    def __init__(self, config: ManagedTable, learned: dict[str, Any]) -> None:
        super().__init__(config, (whole_rows(config.rows),), learned, config.salt)
        self.dtype = np.dtype(np.int64)

    @classmethod
    def learn(
        cls,
        name: str,
        config: ManagedTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "ManagedEncoder":
        """Make the encoder of a new table; the values are not looked at."""
        return cls(config, {"values": kind_of(columns[0])})

    @classmethod
    def restore(
        cls, config: ManagedTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "ManagedEncoder":
        """Make the encoder again; it saved no words."""
        return cls(config, learned)

    @classmethod
    def settings_of(cls, config: ManagedTable) -> dict[str, Any]:
        """Return everything that decides which numbers a sample has."""
        return settings_of_tokens(config) | {"salt": config.salt}

    @classmethod
    def rows_at_most(cls, config: ManagedTable) -> tuple[int, ...]:
        """Return the rows of each part."""
        return (whole_rows(config.rows),)

    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes as numbers of 63 bits; see ``TokenEncoder``."""
        elements = elements_of(hashed, self.config.ngrams)
        elements = elements.distinct() if distinct else elements
        numbers = (elements.values >> np.uint64(1)).view(np.int64)
        return Encoded((Ids(Ragged(numbers, elements.offsets)),), hashed.lengths.astype(np.int32))

    def row_of(self, token: str) -> int:
        """Refuse: rows change hands during training.

        Raises
        ------
        UserError
            Always.
        """
        raise UserError(
            f"which row '{token}' has in a managed table changes in training; bigembed explain tells it of a checkpoint"
        )
