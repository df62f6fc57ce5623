"""How many words a second the subword encoder takes in on one core, beside what is asked for and beside fastText's dictionary.

    python benchmarks/subword.py --data DIR/imdb/train.parquet            (needs the extra "peers")

The process is pinned to one core. Both make the same n-grams of 3 to 6 characters, and the same rows, of the same words:

repeated    every word is known, and its rows were made before: all but copying is looking up
cold        no word is known: every word's n-grams are made wherever it stands
learn       the words are counted, sorted, and their rows made

bigembed reads the raw texts in Arrow's memory, cuts and lower-cases them; rows are made and let go a few megabytes at a time.
fastText reads a file with bigembed's tokens set apart by spaces, and what that took is left out. The cheapest function of the
library in which its dictionary encodes texts is ``test``: its model has rows of one number here, whose average is in fastText's
time. Of ``learn`` it is ``train_supervised`` without an epoch. The runs of both take turns, after one to warm up; the figures
are medians, by the clock on the wall and by the time that the processor gave us, and the ratio is that of the latter.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.schema import SubwordTable
from bigembed.encoders import TextColumn, tokenize
from bigembed.encoders.subword import SubwordEncoder

ASKED = {"repeated": 15e6, "cold": 4e6}  # words a second
OPTIONS = {"min_n": 3, "max_n": 6, "buckets": 2_000_000}


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of ``work``: on the wall, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(name: str, words: int, repeats: int, works: dict[str, Callable[[], Any]]) -> None:
    """Print how fast each of ``works`` takes in the words, and how much faster the first is than the others."""
    runs: dict[str, list[tuple[float, float]]] = {who: [] for who in works}
    for _ in range(repeats + 1):
        for who, work in works.items():
            runs[who].append(seconds(work))
    speeds = {}
    for who, times in runs.items():
        wall, cpu = (words / statistics.median(each) for each in zip(*times[1:], strict=True))
        speeds[who] = cpu
        asked = (
            f"  asked {ASKED[name] / 1e6:.0f} M: {cpu / ASKED[name]:.2f} x"
            if who == "bigembed" and name in ASKED
            else ""
        )
        print(f"{name:<10}{who:<10}{wall / 1e6:8.2f} M/s wall{cpu / 1e6:8.2f} M/s cpu{asked}", flush=True)
    for who in [*works][1:]:
        print(f"{name:<10}bigembed over {who}: {speeds['bigembed'] / speeds[who]:.2f} x", flush=True)


def ours(column: TextColumn) -> tuple[dict[str, Callable[[], Any]], int]:
    """Return what is measured of bigembed, and how many words there are."""
    config = SubwordTable(**OPTIONS)

    def learn() -> SubwordEncoder:
        return SubwordEncoder.learn("text", config, [column], None, 1, None)

    known = learn()
    unknown = SubwordEncoder(config, known.words()[:0], known.counts()[:0])
    encoded = known.encode(column, np.arange(len(column)), known.dtype)
    words, rows = int(encoded.tokens.sum()), len(encoded.ids.values)
    print(f"{len(column)} texts, {words} words, {len(known.words())} different, {rows / words:.1f} rows a word\n")

    def encode(encoder: SubwordEncoder) -> None:
        for spans in column.blocks():
            encoder.encode_spans(spans, encoder.dtype)

    return {"repeated": lambda: encode(known), "cold": lambda: encode(unknown), "learn": learn}, words


def fasttexts(path: Path) -> dict[str, Callable[[], Any]]:
    """Return what is measured of fastText, none where it is not installed."""
    try:
        import fasttext
    except ImportError:
        return {}

    def learn(least: int = 1) -> Any:
        options = {"minn": OPTIONS["min_n"], "maxn": OPTIONS["max_n"], "bucket": OPTIONS["buckets"], "minCount": least}
        return fasttext.train_supervised(str(path), dim=1, epoch=0, thread=1, verbose=0, **options)

    known, unknown = learn(), learn(1 << 30)
    return {"repeated": lambda: known.test(str(path)), "cold": lambda: unknown.test(str(path)), "learn": learn}


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Parquet file with a column text")
    parser.add_argument("--column", default="text")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    table = pq.read_table(options.data, columns=[options.column])
    column = TextColumn(table[options.column], options.column)
    works, words = ours(column)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        lines = (
            f"__label__{i % 2} {' '.join(tokenize(text))}\n" for i, text in enumerate(table[options.column].to_pylist())
        )
        path.write_text("".join(lines))
        theirs = fasttexts(path)
        if not theirs:
            print("fastText is not installed", file=sys.stderr)
        for name, work in works.items():
            compare(name, words, options.repeats, {"bigembed": work, **({"fastText": theirs[name]} if theirs else {})})


if __name__ == "__main__":
    main()
