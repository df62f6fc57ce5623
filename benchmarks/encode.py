"""How many words a second the encoders take in on one core, beside what is asked for and beside other tools.

    python benchmarks/encode.py --data DIR/imdb/train.parquet

The process is pinned to one core. Each figure is the median of several runs after one to warm up, by the clock on the
wall and by the time the processor gave us: the two differ where others use the machine. The peers read a part of the
texts, each counts the words that it makes of them, and those that are not installed are left out.
"""

import argparse
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.schema import HashedTable, VocabTable
from bigembed.encoders import HashedEncoder, TextColumn, VocabEncoder, build
from bigembed.encoders.vocab import count_words

ENCODE, COUNT = 15e6, 10e6  # words a second on one core
PART = 5000  # texts that the peers read


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the median seconds of ``work``: on the wall, and of the processor."""
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def report(name: str, words: int, seconds: tuple[float, float], wanted: float | None = None) -> float:
    """Print a line; return the words per second of processor time."""
    wall, cpu = (words / value for value in seconds)
    beside = f"  asked {wanted / 1e6:.0f} M: {cpu / wanted:.2f} x" if wanted else ""
    print(f"{name:<58}{wall / 1e6:8.2f} M/s wall{cpu / 1e6:8.2f} M/s cpu{beside}", flush=True)
    return cpu


def ours(column: TextColumn, repeats: int) -> tuple[float, float]:
    """Measure bigembed; return its words a second of encoding (vocabulary and bigrams) and of counting."""
    index = np.arange(len(column))
    options = {"ngrams": 2, "buckets": 1_000_000}
    vocab, hashed = (build("text", kind(**options), [column]) for kind in (VocabTable, HashedTable))
    words = int(vocab.encode(column, index).tokens.sum())
    print(f"{len(column)} texts, {words} words, {len(vocab.words())} different\n")
    speeds = []
    for name, encoder in (("vocabulary", vocab), ("hashed", hashed)):
        seconds = measure(lambda encoder=encoder: encoder.encode(column, index, encoder.dtype), repeats)
        speeds.append(report(f"encode, {name}, words and bigrams", words, seconds, ENCODE))
    for name, kind in (("vocabulary", VocabEncoder), ("hashed", HashedEncoder)):
        table = (VocabTable if kind is VocabEncoder else HashedTable)(buckets=options["buckets"])
        encoder = kind.restore(table, vocab.learned, vocab.words(), vocab.counts())
        seconds = measure(lambda encoder=encoder: encoder.encode(column, index, encoder.dtype), repeats)
        report(f"encode, {name}, words", words, seconds)
    seconds = measure(lambda: count_words(VocabTable(), [column]), repeats)
    return speeds[0], report("count a vocabulary", words, seconds, COUNT)


def python(texts: list[str], repeats: int) -> tuple[float, float]:
    """Measure Python's re and dict; return words a second of encoding with bigrams, and of counting."""
    find = re.compile(r"\w+(?:'\w+)*|[^\w\s]").findall
    counts = Counter(word for text in texts for word in find(text.lower()))
    rows = {word: row for row, (word, _) in enumerate(counts.most_common(), 1)}

    def encode() -> None:
        for text in texts:
            words = find(text.lower())
            _ = [rows.get(word, 0) for word in words], [hash(pair) % 1_000_000 for pair in zip(words, words[1:])]  # noqa: B905, RUF007

    words = counts.total()
    speed = report("peer, encode: re, dict, hash()", words, measure(encode, repeats))
    count = measure(lambda: Counter(word for text in texts for word in find(text.lower())), repeats)
    return speed, report("peer, count: re and Counter", words, count)


def tokenizers(texts: list[str], repeats: int) -> tuple[float, float] | None:
    """Measure Hugging Face's tokenizers, without bigrams, which it does not know; return encoding and counting."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    except ImportError:
        return None

    def fresh() -> Any:
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
        return tokenizer

    def train() -> Any:
        tokenizer = fresh()
        trainer = trainers.WordLevelTrainer(vocab_size=10_000_000, show_progress=False, special_tokens=["[UNK]"])
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    trained = train()
    words = sum(len(encoding.ids) for encoding in trained.encode_batch_fast(texts))
    speed = report("peer, encode: tokenizers, words", words, measure(lambda: trained.encode_batch_fast(texts), repeats))
    return speed, report("peer, count: tokenizers", words, measure(train, repeats))


def main(arguments: Iterable[str] | None = None) -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Parquet file with a column text")
    parser.add_argument("--column", default="text")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    table = pq.read_table(options.data, columns=[options.column])
    pa.set_cpu_count(1)
    column = TextColumn(table[options.column], options.column)
    encode, count = ours(column, options.repeats)
    part = table[options.column].slice(0, PART).to_pylist()
    for name, peer in (("Python", python), ("tokenizers", tokenizers)):
        speeds = peer(part, max(1, options.repeats // 3))
        if speeds is None:
            print(f"{name} is not installed")
        else:
            print(f"over {name}: encoding {encode / speeds[0]:.1f} x, counting {count / speeds[1]:.1f} x")


if __name__ == "__main__":
    main()
