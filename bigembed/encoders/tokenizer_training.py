"""Trains tokenizers of the tokenizers library, so that the same texts give the same tokenizer: the library alone does not.

What its trainers do with WordPiece and Unigram hangs on the order of a hash table that is random in every process:

- WordPiece numbers the letters that continue a word (``##e``) as it finds them, and equally frequent pairs of pieces are
  merged in the order of their numbers. Here the letters are found first and handed over in order.
- Unigram gives letters that its pieces do not hold the least score and a little more, one after the other; and it adds up
  expected counts in that order, so that scores differ in their last digits. Here such letters have the least score, and
  scores are rounded to three digits after the point.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bigembed.config.schema import Algorithm, TokenizerTable
from bigembed.encoders.columns import Spans
from bigembed.encoders.cuts import MOST_PARTS, Parts
from bigembed.encoders.text import TextColumn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Texts = Callable[[], Iterator[Spans]]
UNKNOWN = {Algorithm.wordpiece: "[UNK]", Algorithm.unigram: "<unk>"}
_STEP = 1e-4  # between the scores of letters that the pieces of Unigram do not hold
_DIGITS = 3


def train(
    config: TokenizerTable,
    columns: Sequence[TextColumn],
    index: np.ndarray | None,
    progress: Callable[[int], None] | None,
) -> "Tokenizer":
    """Train a tokenizer.

    Parameters
    ----------
    config : TokenizerTable
        Which one, and how large.
    columns : sequence of TextColumn
        The texts; WordPiece goes through them twice.
    index : ndarray, shape (rows,), int64, or None
        The rows of each column to train on; None: all.
    progress : callable, optional
        Called with the number of texts done, after every few megabytes; the rest of the work comes when all are.

    Returns
    -------
    Tokenizer
        Without special tokens; WordPiece and Unigram have a piece for what is unknown, in row 0.

    Raises
    ------
    TooSmall
        The texts have more different characters than there may be pieces.
    """

    def texts(tell: Callable[[int], None] | None) -> Iterator[Spans]:
        done = 0
        for column in columns:
            for spans in column.blocks(index):
                yield spans
                done += len(spans)
                if tell is not None:
                    tell(done)

    tokenizer = _TRAIN[config.algorithm](config, partial(texts, progress), partial(texts, None))
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise TooSmall
    return tokenizer


class TooSmall(Exception):
    """The texts have more different characters than a tokenizer may have pieces."""


def _train_bpe(config: TokenizerTable, texts: Texts, again: Texts) -> "Tokenizer":
    """GPT-2's: every byte is a piece, so that nothing is unknown; a word carries the space before it, also the first."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if config.lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts()), trainer)
    return tokenizer


def _train_wordpiece(config: TokenizerTable, texts: Texts, again: Texts) -> "Tokenizer":
    """BERT's: words and punctuation; ``lower`` takes the accents off as well."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    def fresh() -> Any:
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN[Algorithm.wordpiece]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=config.lower)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    letters = fresh()
    letters.train_from_iterator(
        _batches(_distinct_parts(again())), trainers.WordPieceTrainer(vocab_size=0, show_progress=False)
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[UNKNOWN[Algorithm.wordpiece], *sorted(letters.get_vocab())],
        show_progress=False,
    )
    tokenizer = fresh()
    tokenizer.train_from_iterator(_batches(texts()), trainer)
    return _with_model(tokenizer, {})


def _train_unigram(config: TokenizerTable, texts: Texts, again: Texts) -> "Tokenizer":
    """SentencePiece's: NFKC, words with a mark in front of each."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer, unknown = Tokenizer(models.Unigram()), UNKNOWN[Algorithm.unigram]
    normal = [normalizers.Nmt(), normalizers.NFKC()]
    tokenizer.normalizer = normalizers.Sequence([*normal, normalizers.Lowercase()] if config.lower else normal)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size, special_tokens=[unknown], unk_token=unknown, show_progress=False
    )
    try:
        tokenizer.train_from_iterator(_batches(texts()), trainer)
    except Exception as error:
        if "not large enough to contain all chars" in str(error):
            raise TooSmall from None
        raise
    return _with_model(tokenizer, {"vocab": _settled(json.loads(tokenizer.to_str())["model"]["vocab"])})


_TRAIN = {Algorithm.bpe: _train_bpe, Algorithm.wordpiece: _train_wordpiece, Algorithm.unigram: _train_unigram}


def _batches(texts: Iterable[Spans]) -> Iterator[list[str]]:
    for spans in texts:
        yield list(spans.texts())


def _distinct_parts(texts: Iterable[Spans]) -> Iterator[Spans]:
    """Yield what the texts are made of, most of it once: enough to know all characters."""
    parts = Parts()
    for spans in texts:
        yield parts.look_up(spans)[1]
        if parts.known > MOST_PARTS:
            parts = Parts()


def _settled(vocabulary: list[list[Any]]) -> list[list[Any]]:
    """Return Unigram's pieces and scores free of what hangs on the order of a hash table; the first is the unknown piece."""
    unknown, *pieces = vocabulary
    least = min((score for _, score in pieces), default=0.0)
    within = least + _STEP * (sum(len(piece) == 1 for piece, _ in pieces) + 1)
    scores = {piece: round(least if len(piece) == 1 and score < within else score, _DIGITS) for piece, score in pieces}
    return [unknown, *([piece, scores[piece]] for piece in sorted(scores, key=lambda piece: (-scores[piece], piece)))]


def _with_model(tokenizer: "Tokenizer", model: dict[str, Any]) -> "Tokenizer":
    """Return the tokenizer with these parts of its model changed, and without special tokens, which are looked for in texts."""
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    content["model"].update(model)
    content["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(content))
