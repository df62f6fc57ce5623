"""Tables of the pieces of a tokenizer: byte-level BPE, WordPiece or Unigram, by the tokenizers library.

The library has threads of its own, as many as there are cores, unless ``TOKENIZERS_PARALLELISM=false`` says otherwise.
"""

import json
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bigembed.config.schema import TokenizerTable
from bigembed.encoders.columns import Column, Spans
from bigembed.encoders.cuts import Memory, can_be_cut
from bigembed.encoders.encoder import Encoded, Encoder, Ids
from bigembed.encoders.text import TextColumn
from bigembed.encoders.tokenizer_training import TooSmall, train
from bigembed.errors import UserError
from bigembed.ragged import Ragged

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TEXTS = 1024  # that the library is given at once: what it returns takes about a kilobyte for each word
_RARE = "\U00012000 \U00016800 \U0001d800"  # letters that a tokenizer for which any are unknown does not know


class TokenizerEncoder(Encoder):
    """Gives the pieces of texts the rows that the tokenizer numbers them by; special tokens are never added.

    Parameters
    ----------
    config : TokenizerTable
        The table.
    learned : dict
        ``tokenizer``: the contents of its ``tokenizer.json``.
    """

    kind = "tokenizer"
    learns_rows = True
    config: TokenizerTable

    def __init__(self, config: TokenizerTable, learned: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(learned["tokenizer"])
        self._words = _words(self.tokenizer)
        super().__init__(config, (len(self._words),), learned)
        self.word_rows = (0, len(self._words))
        self._cuts = can_be_cut(json.loads(learned["tokenizer"]))
        self._free: list[Memory] = []  # a memory for each thread, lent while it works

    @classmethod
    def open(cls, array: pa.Array | pa.ChunkedArray, name: str) -> TextColumn:
        """Return a column of texts."""
        return TextColumn(array, name)

    @classmethod
    def learn(
        cls,
        name: str,
        config: TokenizerTable,
        columns: Sequence[TextColumn],
        index: np.ndarray | None,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> "TokenizerEncoder":
        """Read the tokenizer, or train it; see ``bigembed.encoders.build``.

        Padding, truncation and dropout that a file asks for are switched off: they are for what reads pieces in its way.

        Raises
        ------
        UserError
            The file is no tokenizer; all texts are empty; or they have more different characters than there may be pieces.
        """
        if config.path is not None:
            return cls(config, {"tokenizer": _read(config.path).to_str()})
        if not any(spans.size for column in columns for spans in column.blocks(index)):
            raise UserError(
                f"the tokenizer of table '{name}' cannot be trained: all texts are empty; name another column"
            )
        try:
            tokenizer = train(config, columns, index, progress)
        except TooSmall:
            raise UserError(
                f"the texts of table '{name}' have more different characters than its tokenizer may have pieces; raise "
                f"tables.{name}.vocab_size={config.vocab_size}, or take tables.{name}.algorithm=bpe, which is made of bytes"
            ) from None
        return cls(config, {"tokenizer": tokenizer.to_str()})

    @classmethod
    def restore(
        cls, config: TokenizerTable, learned: dict[str, Any], words: pa.StringArray, counts: np.ndarray
    ) -> "TokenizerEncoder":
        """Make the encoder from the tokenizer that it saved; no other file is needed."""
        return cls(config, learned)

    @classmethod
    def settings_of(cls, config: TokenizerTable) -> dict[str, Any]:
        """Return where the tokenizer came from: the file, or how it was trained."""
        if config.path is not None:
            return {"path": config.path}
        trained = {name: getattr(config, name) for name in ("vocab_size", "min_frequency", "lower")}
        return {"algorithm": config.algorithm.value, **trained}

    @classmethod
    def rows_at_most(cls, config: TokenizerTable) -> tuple[int, ...]:
        """Return the rows of the file's tokenizer, or how many a trained one has at most.

        Raises
        ------
        UserError
            The file is no tokenizer.
        """
        if config.path is None:
            return (config.vocab_size,)
        return (len(_words(_read(config.path))),)

    def words(self) -> pa.StringArray:
        """Return the pieces in the order of their rows, as the tokenizer spells them."""
        return pa.array(self._words, pa.string())

    def check(self, column: Column, feature: str, table: str, part: str) -> None:
        """Refuse crossed columns, whose values are hashes and no texts.

        Raises
        ------
        UserError
            Naming the feature.
        """
        if not isinstance(column, TextColumn):
            raise UserError(
                f"feature '{feature}' crosses columns, but tables.{table} is of kind tokenizer, which is made for texts; cross "
                "them in a table of kind hashed"
            )

    def from_texts(self, texts: Sequence[str], name: Callable[[int], str]) -> pa.Array:
        """Return the texts as they are."""
        return pa.array(texts, pa.large_string())

    def encode_spans(self, spans: Spans, dtype: Any = np.int64) -> Encoded:
        """Return the pieces of texts in memory as rows of the table, of ``dtype`` int64 or int32."""
        if self._cuts:
            try:
                memory = self._free.pop()
            except IndexError:
                memory = Memory(self._pieces)
            pieces = memory.encode(spans, dtype)
            self._free.append(memory)
        else:
            pieces = self._pieces(spans)
            pieces = Ragged(pieces.values.astype(dtype, copy=False), pieces.offsets)
        return Encoded((Ids(pieces),), pieces.lengths.astype(np.int32))

    def row_of(self, token: str) -> int:
        """Return the row of a text that is one piece, or of a piece as ``words()`` spells it.

        Raises
        ------
        UserError
            ``token`` is several pieces, or none.
        """
        ids = self.tokenizer.encode(token, add_special_tokens=False).ids
        row = ids[0] if len(ids) == 1 else self.tokenizer.token_to_id(token)
        if row is None:
            told = ", ".join(f"'{piece}'" for piece in self.pieces_of(token))
            raise UserError(f"'{token}' has no row of its own in this table: it is {len(ids)} pieces ({told})")
        return int(row)

    def pieces_of(self, text: str) -> list[str]:
        """Return the pieces of a text as the tokenizer spells them."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).tokens)

    def _pieces(self, spans: Spans) -> Ragged:
        """Return the rows (int32) of the pieces of texts, by the library."""
        texts, ids, sizes = spans.texts(), [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        while batch := list(islice(texts, _TEXTS)):
            encodings = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            sizes.append(np.fromiter(map(len, encodings), np.int64, len(batch)))
            rows = chain.from_iterable(encoding.ids for encoding in encodings)
            ids.append(np.fromiter(rows, np.int32, int(sizes[-1].sum())))
        return Ragged(np.concatenate(ids), np.cumsum(np.concatenate(sizes)))


def _read(path: str) -> "Tokenizer":
    """Return the tokenizer of a file, which can encode any text."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(Path(path).expanduser().read_text(encoding="utf-8"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if hasattr(tokenizer.model, "dropout"):
            tokenizer.model.dropout = None
        tokenizer.encode(_RARE, add_special_tokens=False)
        _words(tokenizer)
    except OSError as error:
        raise UserError(
            f"the tokenizer {path} cannot be read: {error.strerror}; name a tokenizer.json, or train one with path=null"
        ) from None
    except BaseException as error:  # what the library finds wrong with it; a panic of Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        brief = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is no tokenizer that can be used ({brief}): name a tokenizer.json of the tokenizers library, or train one "
            "with path=null"
        ) from None
    return tokenizer


def _words(tokenizer: "Tokenizer") -> list[str]:
    """Return the pieces in the order of their numbers; a number without one has a name of ours.

    Raises
    ------
    ValueError
        There are none, or most numbers have none.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    rows = max(vocabulary.values(), default=-1) + 1
    if not vocabulary or rows > 2 * len(vocabulary) + 1024:
        raise ValueError(f"it numbers {len(vocabulary)} pieces up to {rows}")
    words = [f"<row {row}>" for row in range(rows)]
    for piece, row in vocabulary.items():
        words[row] = piece
    return words
