"""Tables of words and of the character n-grams that words are made of, numbered as fastText numbers them.

Row ``i`` is the ``i``-th most frequent word. After the words come the buckets, which character n-grams and n-grams of words
share: an n-gram's row is the number of words + its hash modulo the buckets. The character n-grams are those of ``<word>``,
by code points, without the single ``<`` and ``>``; their hash is FNV-1a of 32 bits with every byte extended by its sign.
``</s>``, fastText's end of a line, has none. (Bojanowski et al. 2017; ``Dictionary`` in fastText's source.)

An element is a token, or a run of 2 to ``ngrams`` tokens. A token has the row of its word, where that is known, and then
those of its n-grams, by where these begin and by length; it may have none, if it is unknown and too short. A run has one
row. The runs that end at a token come after it, the short ones first (fastText has all of them at the end of the line).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bigembed.config.schema import SubwordTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.encoder import Encoded, Encoder
from bigembed.encoders.subword_rows import distinct, encode, known_rows, shape_of
from bigembed.encoders.text import Tokenizer, tokenize
from bigembed.encoders.tokens import settings_of_tokens
from bigembed.encoders.values import TEXTS, VALUES, kind_of, open_values
from bigembed.encoders.vocab import choose_words, count_words
from bigembed.errors import UserError

END_OF_LINE = "</s>"


class SubwordEncoder(Encoder):
    """Gives a token the row of its word and those of its character n-grams, so that an unseen word has a vector, too.

    Parameters
    ----------
    config : SubwordTable
        The table.
    words : StringArray, shape (words,)
        The words in the order of their rows.
    counts : ndarray, shape (words,), int64
        How often each was seen.

    Raises
    ------
    UserError
        ``pattern`` is no regular expression, is missing, or belongs to another way of cutting.
    ValueError
        A word is there twice.
    """

    kind = "subword"
    reads = VALUES
    config: SubwordTable

    def __init__(self, config: SubwordTable, words: pa.StringArray, counts: np.ndarray) -> None:
        super().__init__(config, (len(words) + config.buckets,))
        self.tokenizer = Tokenizer(config.tokens, config.pattern, config.lower)
        self.word_rows = (0, len(words))
        self._words = words
        self._counts = counts
        self._shape = shape_of(config, len(words))
        self._known = known_rows(self._shape, words, self.dtype)

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> Column:
        """Return a column of texts, or of lists of texts.

        Raises
        ------
        UserError
            It holds anything else: numbers are not made of characters.
        """
        column = open_values(array, name)
        if kind_of(column) != TEXTS:
            raise UserError(
                f"column '{name}' holds {array.type}, and a subword table is made for texts; use a table of another kind, "
                "for example hashed, or convert the column"
            )
        return column

    @classmethod
    def learn(
        cls,
        name: str,
        config: SubwordTable,
        columns: Sequence[Column],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "SubwordEncoder":
        """Count the words of texts and give the frequent ones rows; see ``bigembed.encoders.build``."""
        words, counts = count_words(config, columns, index, threads, progress)
        return cls(config, *choose_words(name, config, words, counts))

    @classmethod
    def restore(
        cls, config: SubwordTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "SubwordEncoder":
        """Make the encoder from its saved words and their counts."""
        return cls(config, words, counts)

    @classmethod
    def settings_of(cls, config: SubwordTable) -> dict[str, Any]:
        """Return everything apart from the words that decides which ids a text has."""
        return settings_of_tokens(config) | {name: getattr(config, name) for name in ("min_n", "max_n", "buckets")}

    @classmethod
    def rows_at_most(cls, config: SubwordTable) -> tuple[int, ...] | None:
        """Return the rows of the table, where the words are bounded."""
        return None if config.max_size is None else (config.max_size + config.buckets,)

    def words(self) -> pa.StringArray:
        """Return the words of the rows ``word_rows``."""
        return self._words

    def counts(self) -> np.ndarray:
        """Return how often each of ``words()`` was seen (int64)."""
        return self._counts

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the texts as they are."""
        return pa.array(texts, pa.large_string())

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return texts in memory as rows of the table, of ``dtype`` int64 or int32."""
        encoded = self._encode_all_rows(spans, dtype)
        if not self.config.distinct:
            return encoded
        (part,) = encoded.parts
        return Encoded((distinct(part),), encoded.tokens)

    def row_of(self, token: str) -> int:
        """Return the row of a word, or of a run of words given with spaces between them.

        Raises
        ------
        UserError
            ``token`` has no row of its own: it is empty, is unknown, or is cut into more tokens than runs have.
        """
        encoded = self._encode_text(token)
        count, longest = int(encoded.tokens[0]), self.config.ngrams
        if not 1 <= count <= longest:
            raise UserError(f"'{token}' is {count} tokens as this table cuts texts, and it has rows for 1 to {longest}")
        rows = encoded.ids.values
        if count > 1:
            return int(rows[-1])
        if not len(rows) or rows[0] >= len(self._words):
            raise UserError(
                f"'{token}' has no row of its own in this table, only those of its character n-grams; name a word of its vocabulary"
            )
        return int(rows[0])

    def rows_of(self, token: str) -> np.ndarray:
        """Return the rows that a word's vector is the mean of, shape (rows,), int64: of the word, if it is known, and of its n-grams.

        Raises
        ------
        UserError
            ``token`` is not one token as this table cuts texts.
        """
        self._word(token)
        return self._encode_text(token).ids.values

    def pieces_of(self, token: str) -> list[str]:
        """Return the character n-grams of a word, known or not, in the order of their rows.

        Raises
        ------
        UserError
            ``token`` is not one token as this table cuts texts.
        """
        word = self._word(token)
        if word == END_OF_LINE:
            return []
        text, lengths = f"<{word}>", range(self.config.min_n, self.config.max_n + 1)
        # The brackets are no n-grams of their own.
        return [
            text[i : i + n]
            for i in range(len(text))
            for n in lengths
            if i + n <= len(text) and (n > 1 or 0 < i < len(text) - 1)
        ]

    def _word(self, token: str) -> str:
        """Return what the only token of a text is when it is cut."""
        config = self.config
        words = tokenize(token, config.tokens.name, config.pattern, config.lower)
        if len(words) != 1:
            raise UserError(f"'{token}' is {len(words)} tokens as this table cuts texts; name one word")
        return words[0]

    def _encode_text(self, text: str) -> Encoded:
        column = self.open(self.from_texts([text], str), "text")
        return self._encode_all_rows(column.spans(np.zeros(1, np.int64)), np.int64)

    def _encode_all_rows(self, spans: Spans, dtype: Any) -> Encoded:
        """Return texts as rows, those too that a text has had already."""
        return encode(self.tokenizer.prepare(spans), self.tokenizer.rules, self._shape, self._known, dtype)
