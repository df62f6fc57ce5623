"""Tables whose rows stand for words, filled from files of words: vocabularies, pieces of a tokeniser, words with their n-grams.

Files side by side are filled one by one, each with its own columns and its own matches; files in order together, with one
memory of what was found how. Those without n-grams come first, as they stream; a file with n-grams knows all its words before
its first row, so that afterwards only what it is the best for is composed.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from bigembed.config.schema import Fallback, Join, SubwordTable, TableConfig
from bigembed.encoders import Encoder
from bigembed.errors import UserError
from bigembed.hashing import MASK, stream_of
from bigembed.pretrained.composing import composable, sums
from bigembed.pretrained.fitting import Fitted, Tell, normalised, places, slices, zeros
from bigembed.pretrained.fitting import fit as fit_place
from bigembed.pretrained.matching import Matcher
from bigembed.pretrained.steps import Normalise, Put, Step
from bigembed.vectors.source import Source

_AT_ONCE = 1 << 16  # words of a dictionary that are looked up at once
_DRAWN = (Fallback.mean, Fallback.normal, Fallback.zeros)


def steps_of_words(
    name: str, table: TableConfig, encoder: Encoder, sources: Sequence[Source], seed: int, tell: Tell
) -> Generator[Step, None, np.ndarray]:
    """Yield what fills the rows of words; return in which way each was found, as ``Matcher.ways``. See ``placing.place``."""
    config, words = table.pretrained, encoder.words()
    together = len(sources) > 1 and config.join is Join.concatenated
    drawn = Fallback.mean in config.fallback or Fallback.normal in config.fallback
    fits = [
        fit_place(table, place, tell, drawn and (together or number == 0))
        for number, place in enumerate(places(name, table, sources))
    ]
    matcher = Matcher(words, config.fallback, config.lemmas, 1 if together else len(fits))
    yield from _before(table, encoder, fits)
    if together:
        found = [matcher.fresh() for _ in fits]
        for each, own in zip(fits, found, strict=True):
            yield from _fill(table, encoder, [each], own, tell)
        matcher.levels[:] = np.min([own.levels for own in found], 0)
        yield from _complete(table, encoder, fits, found)
        if config.normalise:
            yield from _normalise(encoder.word_rows[0] + matcher.found(), table.dim)
    else:
        yield from _fill(table, encoder, fits, matcher, tell)
    yield from _draw(name, table, encoder, fits if together else fits[:1], seed, matcher)
    return matcher.ways


def refuse_words(name: str, table: TableConfig, sources: Sequence[Source]) -> None:
    """Refuse files that do not go together with a table of words.

    Raises
    ------
    UserError
        A file has no words; or n-grams that are not those of the table.
    """
    for source in sources:
        if not source.has_words:
            raise UserError(
                f"{source.path} holds vectors without words, and the rows of table '{name}' stand for words: name their file "
                f"with tables.{name}.pretrained.word_list, one word a line"
            )
    if isinstance(table, SubwordTable):
        _refuse_ngrams(name, table, [source for source in sources if source.ngrams is not None])


def _refuse_ngrams(name: str, table: SubwordTable, sources: Sequence[Source]) -> None:
    config = table.pretrained
    if len(sources) > 1 and config.join is Join.in_order:
        raise UserError(
            f"{sources[0].path} and {sources[1].path} both have n-grams, and table '{name}' has room for those of one: leave one out, "
            f"or set tables.{name}.pretrained.join=concatenated"
        )
    if sources and config.normalise:
        raise UserError(
            f"table '{name}' takes the rows of {sources[0].path} as they are, words and n-grams, of which vectors are the mean: leave out "
            f"tables.{name}.pretrained.normalise"
        )
    for source in sources:
        ngrams = source.ngrams
        assert ngrams is not None
        if ngrams.places is not None:
            raise UserError(
                f"{source.path} has lost the rows of most of its n-grams (it is pruned), and table '{name}' has one for each: give "
                "the file before it was quantised, or take a table of kind vocab, for which words are composed"
            )
        theirs = {"min_n": ngrams.min_n, "max_n": ngrams.max_n, "buckets": ngrams.buckets}
        if theirs != {key: getattr(table, key) for key in theirs}:
            remedy = " ".join(f"tables.{name}.{key}={value}" for key, value in theirs.items())
            raise UserError(
                f"{source.path} has n-grams of {ngrams.min_n} to {ngrams.max_n} characters in {ngrams.buckets:,} buckets, and table "
                f"'{name}' others: set {remedy}"
            )


def _before(table: TableConfig, encoder: Encoder, fits: Sequence[Fitted]) -> Iterator[Step]:
    """Yield zeros for the rows of n-grams of which files fill some columns only."""
    widths = [each.place.width for each in fits if each.place.source.ngrams is not None]
    if not isinstance(table, SubwordTable) or not widths or sum(widths) == table.dim:
        return
    first = encoder.word_rows[1]
    for some in slices(table.buckets, 2):
        yield zeros(np.arange(first + some.start, first + some.stop), 0, table.dim)


def _fill(
    table: TableConfig, encoder: Encoder, group: Sequence[Fitted], matcher: Matcher, tell: Tell
) -> Iterator[Step]:
    """Yield what fills the rows from files that share what was found."""
    raw, first = isinstance(table, SubwordTable), encoder.word_rows[0]
    of_ngrams = {number: each for number, each in enumerate(group) if each.place.source.ngrams is not None}
    composed = {} if raw else {number: _match(each.place.source, matcher, number) for number, each in of_ngrams.items()}
    claims = Fallback.subwords in table.pretrained.fallback and bool(of_ngrams)
    if claims and not raw:
        _claim(encoder, of_ngrams, matcher)
    for number, each in enumerate(group):
        if number in composed:
            continue
        source, words = each.place.source, 0
        for block in source.blocks():
            if block.words is not None:
                words = block.first + len(block.words)
                targets, at = matcher.look(block.words, number)
                whole = np.array_equal(at, np.arange(len(block.rows)))
                yield from each.puts(first + targets, block.rows if whole else block.rows[at])
            else:  # of n-grams, which a file without them, or one that is composed, does not come to here
                bucket = block.first - words
                rows = np.arange(bucket, bucket + len(block.rows)) + encoder.word_rows[1]
                yield from each.puts(rows, block.rows)
            tell(source, words)
    if claims and raw:  # whose rows need nothing of it: now that few words are left
        _claim(encoder, of_ngrams, matcher)
    for number, at in composed.items():
        yield from _compose(table, encoder, group[number], number, at, matcher, tell)


def _match(source: Source, matcher: Matcher, number: int) -> np.ndarray:
    """Look all words of a file with n-grams up; return for each of the table its place among them, or -1: int64."""
    assert source.dictionary is not None
    found = np.full(len(matcher.levels), -1, np.int64)
    for start in range(0, len(source.dictionary), _AT_ONCE):
        targets, at = matcher.look(source.dictionary.slice(start, _AT_ONCE), number)
        found[targets] = start + at
    return found


def _claim(encoder: Encoder, of_ngrams: Mapping[int, Fitted], matcher: Matcher) -> None:
    """Give to the first file with n-grams what it has n-grams of, and is found in no better way."""
    number = min(of_ngrams)
    source = of_ngrams[number].place.source
    wanted = matcher.worse_than(Fallback.subwords.value, number)
    words = _bytes_of(encoder).take(pa.array(wanted))
    matcher.claim(wanted[composable(source, words)], Fallback.subwords.value, number)


def _compose(
    table: TableConfig,
    encoder: Encoder,
    fitted: Fitted,
    number: int,
    at: np.ndarray,
    matcher: Matcher,
    tell: Tell,
) -> Iterator[Step]:
    """Yield what composes the words that a file with n-grams is best for: its own, and the table's that it does not have."""
    source, place = fitted.place.source, fitted.place
    assert source.dictionary is not None and source.count is not None
    best = matcher.of_file(number)
    if not len(best):
        return
    by_ngrams = matcher.ways[best] == matcher.way(Fallback.subwords.value)
    named, unseen = best[~by_ngrams], best[by_ngrams]
    words = pa.concat_arrays([source.dictionary.take(pa.array(at[named])), _bytes_of(encoder).take(pa.array(unseen))])
    rows = encoder.word_rows[0] + np.concatenate([named, unseen])
    for some in slices(len(rows), 2):
        yield zeros(rows[some], place.column, place.room)
    for add in sums(source, words, rows):
        yield replace(add, vectors=fitted.mapped(add.vectors), column=place.column)
        tell(source, source.count)
    if fitted.normalise:
        yield from _normalise(rows, table.dim)


def _complete(table: TableConfig, encoder: Encoder, fits: Sequence[Fitted], found: Sequence[Matcher]) -> Iterator[Step]:
    """Yield zeros for the columns of the files that do not give a word's row anything, where another file does."""
    lacking = [own.is_missing() for own in found]
    if isinstance(table, SubwordTable):  # whose words have vectors by n-grams, but no row for that
        lacking = [
            each | (own.ways == own.way(Fallback.subwords.value)) for each, own in zip(lacking, found, strict=True)
        ]
    given = ~np.all(lacking, 0)
    for each, without in zip(fits, lacking, strict=True):
        empty = np.flatnonzero(without & given)
        for some in slices(len(empty), 2):
            yield zeros(encoder.word_rows[0] + empty[some], each.place.column, each.place.room)


def _draw(
    name: str, table: TableConfig, encoder: Encoder, fits: Sequence[Fitted], seed: int, matcher: Matcher
) -> Iterator[Step]:
    """Yield what the words get that are in no file: the mean, random vectors, zeros."""
    draws = np.random.Generator(np.random.PCG64([seed & MASK, stream_of(name)]))
    mean, deviation = np.zeros((2, table.dim))
    for each in fits:
        columns = slice(each.place.column, each.place.column + each.place.width)
        mean[columns], deviation[columns] = each.mean, each.deviation
    for fallback in table.pretrained.fallback:
        if fallback not in _DRAWN:
            continue
        targets = matcher.claim(matcher.worse_than(fallback.value), fallback.value)
        for some in slices(len(targets), table.dim):
            vectors = np.zeros((1, table.dim)) if fallback is Fallback.zeros else mean[None]
            if fallback is Fallback.normal:
                vectors = mean + deviation * draws.standard_normal((some.stop - some.start, table.dim))
            vectors = normalised(vectors) if table.pretrained.normalise else vectors.astype(np.float32)
            yield Put(encoder.word_rows[0] + targets[some], vectors, given=False)


def _normalise(rows: np.ndarray, width: int) -> Iterator[Step]:
    for some in slices(len(rows), 2):
        yield Normalise(rows[some], 0, width)


def _bytes_of(encoder: Encoder) -> pa.BinaryArray:
    words = encoder.words()
    assert words is not None
    return words.cast(pa.binary())
