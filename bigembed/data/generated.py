"""Reviews made by a seeded generator, with a best accuracy that is known: what the default job trains on.

A review is a run of words whose frequencies follow Zipf's law. Some of the frequent words are positive or negative,
more or less strongly, and a negation (``not``, ``never``, ``no``, ``hardly``) turns the word after it around. The label
is drawn with probability ``sigmoid(SHARPNESS * balance / words)``, where the balance is the sum of the strengths, each
turned around where negated. As that probability is known, so is the best accuracy that any classifier can expect.

With the default options the best accuracy is 0.9447. A mean of embeddings (dim 16) under a linear layer, trained on the
40,000 reviews for 5 passes with rowwise Adagrad, expects 0.938 with words and bigrams (after the first pass too) and at
most 0.889 with words alone, which do not see what is negated. The 50,000 reviews are made in 0.2 s on one core.

Everything is integer arithmetic on hashes and then additions, multiplications and divisions: the same seed gives the
same reviews, bit for bit, on every machine.
"""

from collections.abc import Callable

import numba
import numpy as np
import pyarrow as pa

from bigembed.config.schema import GeneratedData
from bigembed.errors import UserError
from bigembed.hashing import hash_integers, mix, reduce
from bigembed.wishes import Columns

NEGATIONS = ("not", "never", "no", "hardly")
SHARPNESS = 11.0

_SHORTEST, _SPREAD = 40, 100  # words of a review: from the one, up to the other more, most often half-way
_FIRST_POLAR = 8  # the most frequent words are as neutral as "the" and "of"
_POLAR_RANKS = 100  # polar words are among the first 100th of the vocabulary, so that a model can learn them all
_POLAR_SHARE = 2  # one in so many pairs of words of these ranks is positive and negative
_NEGATED = 0.25  # how often a polar word is negated
_FIRM, _FIRMER = 0.75, 0.25  # how many of a review's polar words agree, at the least, and by how much more at the most
_IDLE = 0.02  # how often another word is
_CHUNK = 8192  # reviews made at a time
_CONSONANTS = np.frombuffer(b"bdfgklmprstvz", np.uint8)  # no n and no h: no word is a negation
_VOWELS = np.frombuffer(b"aeiou", np.uint8)
_SYLLABLES = len(_CONSONANTS) * len(_VOWELS)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NEGATION_LETTERS = np.frombuffer("".join(NEGATIONS).encode(), np.uint8)
_NEGATION_ENDS = np.cumsum([0] + [len(word) for word in NEGATIONS])
_NEGATION_DRAW = np.array([0, 0, 0, 0, 1, 1, 2, 3])  # not is said as often as the others together
_CELLS = 1 << 16
_PARTS = {"train": 1, "test": 2}


def generate(config: GeneratedData) -> tuple[pa.Table, pa.Table]:
    """Make the training and the test reviews.

    Parameters
    ----------
    config : GeneratedData
        How many, of how many words, and the seed.

    Returns
    -------
    train, test : Table
        ``text`` (string), ``label`` (int8, 0 or 1) and ``probability`` (float64), with which label 1 was drawn.
    """
    return _reviews(config, "train", config.rows), _reviews(config, "test", config.test_rows)


def best_accuracy(config: GeneratedData) -> float:
    """Return the accuracy that the ideal classifier, which knows the probabilities, expects on the test reviews."""
    probability = _reviews(config, "test", config.test_rows)["probability"].to_numpy()
    return float(np.maximum(probability, 1.0 - probability).mean())


def open_generated(
    config: GeneratedData, columns: Columns, say: Callable[[str], None] | None = None
) -> dict[str, pa.Table]:
    """Return the wished columns of the parts ``train`` and ``test``; what there is takes too little time to ``say``.

    Raises
    ------
    UserError
        A wished column is not made.
    """
    return {part: open_generated_part(config, part, columns, say) for part in _PARTS}


def open_generated_part(
    config: GeneratedData, part: str, columns: Columns, say: Callable[[str], None] | None = None
) -> pa.Table:
    """Return the wished columns of one part; errors as for ``open_generated``, or if there is no such part."""
    if part not in _PARTS:
        raise UserError(f"Generated data has no {part} part; it has {' and '.join(_PARTS)}.")
    for name in columns:
        if name not in ("text", "label", "probability"):
            raise UserError(f"Generated data has no column {name!r}, it has 'text', 'label', 'probability'.")
    return _reviews(config, part, config.rows if part == "train" else config.test_rows).select(list(columns))


def spell(rank: int) -> str:
    """Return the word of a rank (the most frequent is 0): one to six syllables, frequent words having fewer."""
    out = np.empty(32, np.uint8)
    return out[: _spell(rank, out, 0)].tobytes().decode()


@numba.njit(nogil=True, cache=True)
def polarity(rank: int, vocabulary: int) -> int:
    """Return how positive (up to 3) or negative (down to -3) the word of a rank is; 0: neither.

    Words ``2 i`` and ``2 i + 1`` are opposites.
    """
    if rank < _FIRST_POLAR or rank >= max(vocabulary // _POLAR_RANKS, 64) or rank // 2 * 2 + 1 >= vocabulary:
        return 0
    drawn = mix(np.uint64(rank // 2) + _GOLDEN)
    if drawn % np.uint64(_POLAR_SHARE):
        return 0
    strength = 1 + int(reduce(mix(drawn + _GOLDEN), np.uint64(3)))
    return strength if rank % 2 == 0 else -strength


def _reviews(config: GeneratedData, part: str, rows: int) -> pa.Table:
    """Make the reviews of a part, some thousands at a time."""
    weights = (1 << 40) // (np.arange(config.vocabulary, dtype=np.int64) + 3)
    totals = np.cumsum(weights)
    # Where to look for a number's rank: the cell of its upper bits names the first rank that it can be.
    cells = np.searchsorted(totals, np.arange(_CELLS) * (int(totals[-1]) // _CELLS + 1), "right").astype(np.int32)
    longest = max(len(spell(config.vocabulary - 1)), max(map(len, NEGATIONS)))
    key = hash_integers(np.array([_PARTS[part]]), config.seed)[0]
    chunks = [_chunk(key, start, min(_CHUNK, rows - start), totals, cells, longest) for start in range(0, rows, _CHUNK)]
    schema = pa.schema([("text", pa.string()), ("label", pa.int8()), ("probability", pa.float64())])
    return pa.Table.from_batches([pa.RecordBatch.from_arrays(arrays, schema=schema) for arrays in chunks], schema)


def _chunk(
    key: np.uint64, start: int, rows: int, totals: np.ndarray, cells: np.ndarray, longest: int
) -> list[pa.Array]:
    letters = np.empty(rows * (_SHORTEST + _SPREAD + 2) * (longest + 2), np.uint8)
    offsets = np.zeros(rows + 1, np.int32)
    labels, probability = np.empty(rows, np.int8), np.empty(rows, np.float64)
    _write_reviews(key, start, totals, cells, letters, offsets, labels, probability)
    text = pa.py_buffer(letters[: offsets[-1]].tobytes())
    return [pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), text), pa.array(labels), pa.array(probability)]


@numba.njit(nogil=True, cache=True)
def _write_reviews(
    key: np.uint64,
    start: int,
    totals: np.ndarray,
    cells: np.ndarray,
    letters: np.ndarray,
    offsets: np.ndarray,
    labels: np.ndarray,
    probability: np.ndarray,
) -> None:
    at = 0
    for i in range(len(labels)):
        state = mix(key + np.uint64(start + i) * _GOLDEN)
        at, balance, words, state = _write_review(state, totals, cells, letters, at)
        offsets[i + 1] = at
        probability[i] = sigmoid(SHARPNESS * balance / words)
        labels[i] = share(state + _GOLDEN) < probability[i]


@numba.njit(nogil=True, cache=True)
def _write_review(
    state: np.uint64, totals: np.ndarray, cells: np.ndarray, letters: np.ndarray, at: int
) -> tuple[int, int, int, np.uint64]:
    """Write one review; return where it ends, its balance, its words, and the state of the random numbers."""
    half = np.uint64(_SPREAD // 2 + 1)
    length = _SHORTEST + np.int64(
        reduce(mix(state + _GOLDEN), half) + reduce(mix(state + _GOLDEN * np.uint64(2)), half)
    )
    mood = 1 if mix(state + _GOLDEN * np.uint64(3)) >> np.uint64(63) else -1
    firmness = _FIRM + _FIRMER * share(state + _GOLDEN * np.uint64(4))
    state += _GOLDEN * np.uint64(5)
    balance = words = sentence = 0
    begin = at
    while words < length:
        state += _GOLDEN * np.uint64(4)
        rank = _draw(mix(state), totals, cells)
        strength = abs(polarity(rank, len(totals)))
        negated = share(state + _GOLDEN) < (_NEGATED if strength else _IDLE)
        if strength:
            wanted = mood if share(state + _GOLDEN * np.uint64(2)) < firmness else -mood
            balance += wanted * strength
            # Of a pair of opposites the first is the positive one.
            rank = rank // 2 * 2 + (1 if (wanted < 0) != negated else 0)
        word = at
        if negated:
            which = _NEGATION_DRAW[mix(state + _GOLDEN * np.uint64(3)) >> np.uint64(61)]
            for j in range(_NEGATION_ENDS[which], _NEGATION_ENDS[which + 1]):
                letters[at] = _NEGATION_LETTERS[j]
                at += 1
            letters[at] = 32
            at += 1
            words += 1
        at = _spell(rank, letters, at)
        words += 1
        if sentence == 0:
            letters[word] -= 32
        sentence += 1
        # Sentences of 5 to 16 words or so.
        if words >= length or (sentence >= 5 and mix(state + _GOLDEN * np.uint64(3)) & np.uint64(7) == 0):
            letters[at] = 46
            at += 1
            sentence = 0
        letters[at] = 32
        at += 1
    return at - 1 if at > begin else at, balance, words, state + _GOLDEN * np.uint64(4)


@numba.njit(nogil=True, cache=True)
def _draw(bits: np.uint64, totals: np.ndarray, cells: np.ndarray) -> int:
    """Return a rank, drawn by Zipf's law."""
    total = np.uint64(totals[-1])
    number = int(reduce(bits, total))
    rank = int(cells[number // (int(total) // _CELLS + 1)])
    while totals[rank] <= number:
        rank += 1
    return rank


@numba.njit(nogil=True, cache=True)
def _spell(rank: int, out: np.ndarray, at: int) -> int:
    """Write the word of a rank, syllable by syllable; return where it ends."""
    while True:
        syllable = rank % _SYLLABLES
        out[at] = _CONSONANTS[syllable // len(_VOWELS)]
        out[at + 1] = _VOWELS[syllable % len(_VOWELS)]
        at += 2
        if rank < _SYLLABLES:
            return at
        rank = rank // _SYLLABLES - 1


@numba.njit(nogil=True, cache=True)
def share(counter: np.uint64) -> float:
    """Return a random number in [0, 1)."""
    return np.float64(mix(counter) >> np.uint64(11)) * 2.0**-53


@numba.njit(nogil=True, cache=True)
def sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)), without the library's exp, whose last bit differs between machines."""
    x = -min(abs(z), 30.0) / 256.0
    power = 1.0
    for k in range(12, 0, -1):
        power = 1.0 + power * x / k
    for _ in range(8):
        power *= power
    return power / (1.0 + power) if z < 0 else 1.0 / (1.0 + power)
