"""Tables made of several small ones: a value has a row of each, by the digits of its hash or of the number that it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import CompositionalTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import Encoded, Ids
from bigembed.encoders.ids import IdsColumn, read
from bigembed.encoders.tokens import TokenEncoder, elements_of, settings_of_tokens
from bigembed.encoders.values import NUMBERS, kind_of
from bigembed.errors import UserError
from bigembed.hashing import split
from bigembed.ragged import Ragged


class CompositionalEncoder(TokenEncoder):
    """Gives elements a row of every sub-table (quotient-remainder where these are two; Shi et al. 2019, arXiv:1909.02107).

    Hashed values have the digits of their hash, in the mixed radix of the sub-tables' rows; numbers that are taken as they
    are (``values``) have those of the number, so that no two of them have all their rows in common.

    Parameters
    ----------
    config : CompositionalTable
        The table.
    learned : dict
        The kind of values.
    """

    kind = "compositional"
    config: CompositionalTable

    def __init__(self, config: CompositionalTable, learned: dict[str, Any]) -> None:
        super().__init__(config, self.rows_at_most(config), learned, config.salt)

    @classmethod
    def learn(
        cls,
        name: str,
        config: CompositionalTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "CompositionalEncoder":
        """Make the encoder of a new table; the values are not looked at."""
        return cls(config, {"values": NUMBERS if config.values is not None else kind_of(columns[0])})

    @classmethod
    def restore(
        cls, config: CompositionalTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "CompositionalEncoder":
        """Make the encoder again; it saved no words."""
        return cls(config, learned)

    @classmethod
    def settings_of(cls, config: CompositionalTable) -> dict[str, Any]:
        """Return everything that decides which ids a sample has."""
        own = {"partitions": list(config.partitions), "values": config.values, "salt": config.salt}
        return settings_of_tokens(config) | own

    @classmethod
    def rows_at_most(cls, config: CompositionalTable) -> tuple[int, ...]:
        """Return the rows of each part."""
        return tuple(config.partitions)

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse columns of other values than the table was made for, and numbers that it has no digits for.

        Raises
        ------
        UserError
            Naming both, or the first such number and its row.
        """
        super().check(column, feature, table, part)
        if self.config.values is None:
            return
        if not isinstance(column, IdsColumn):
            raise UserError(
                f"feature '{feature}' crosses columns, but tables.{table}.values takes whole numbers as they are; leave values out"
            )
        found = column.first_outside(self.config.values)
        if found is not None:
            row, value = found
            raise UserError(
                f"feature '{feature}': row {row} of the {part} holds {value} in column '{column.name}', but tables.{table}.values "
                f"says that they are 0 to {self.config.values - 1}; mend the data, or give values and partitions for more"
            )

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return values in memory as rows of every sub-table, of ``dtype`` int64 or int32."""
        if self.config.values is None:
            return super().encode_spans(spans, dtype)
        numbers = read(spans)
        numbers = numbers.distinct() if self.config.distinct else numbers
        return self._digits(Ragged(numbers.values.view(np.uint64), numbers.offsets), _digits_of_numbers, dtype)

    def encode_hashes(self, hashed: Ragged, dtype: Any, distinct: bool = False) -> Encoded:
        """Return tokens by their hashes as rows of every sub-table; see ``TokenEncoder``."""
        elements = elements_of(hashed, self.config.ngrams)
        encoded = self._digits(elements.distinct() if distinct else elements, _digits_of_hashes, dtype)
        return Encoded(encoded.parts, hashed.lengths.astype(np.int32))

    def encode_token(self, token: str) -> Encoded:
        """Return a word or value as the only element of a sample; see ``TokenEncoder``."""
        if self.config.values is None:
            return super().encode_token(token)
        column = self.open(self.from_texts([token], lambda _: f"'{token}'"), "token")
        self.check_values(column, [token])
        encoded = self.encode_spans(column.spans(np.zeros(1, np.int64)))
        if encoded.tokens[0] != 1:
            raise UserError(f"'{token}' is {encoded.tokens[0]} values; give one")
        return encoded

    def check_values(self, column: Column, words: Sequence[Any]) -> None:
        """Refuse numbers that somebody typed, ``words``, where the table takes them as they are and has no digits for them.

        Raises
        ------
        UserError
            Naming the first of them.
        """
        if self.config.values is None:
            return
        assert isinstance(column, IdsColumn)
        found = column.first_outside(self.config.values)
        if found is not None:
            raise UserError(
                f"'{words[found[0]]}' is no value of this table, whose values are the numbers 0 to {self.config.values - 1}"
            )

    def _digits(self, elements: Ragged, digits: Callable[..., None], dtype: Any) -> Encoded:
        out = np.empty((len(self.rows), len(elements.values)), dtype)
        digits(elements.values, np.array(self.rows, np.uint64), out)
        parts = tuple(Ids(Ragged(rows, elements.offsets)) for rows in out)
        return Encoded(parts, elements.lengths.astype(np.int32))


@numba.njit(nogil=True, cache=True)
def _digits_of_hashes(hashes: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(hashes)):
        rest = hashes[i]
        for part in range(len(sizes)):
            out[part, i], rest = split(rest, sizes[part])


@numba.njit(nogil=True, cache=True)
def _digits_of_numbers(numbers: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(numbers)):
        rest = numbers[i]
        for part in range(len(sizes) - 1, -1, -1):  # quotients by the last one, and what remains
            quotient = rest // sizes[part]
            out[part, i] = rest - quotient * sizes[part]
            rest = quotient
