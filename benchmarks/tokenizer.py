"""How many pieces a second a tokenizer table takes in, beside the tokenizers library alone on the same cores.

    python benchmarks/tokenizer.py --data DIR/imdb/train.parquet

The process is pinned to so many cores as ``--threads`` says. ``library`` is its ``encode_batch_fast`` on texts that are
Python strings already, without looking at what it returns; ``table`` is the whole way from Arrow's memory to arrays of
row numbers, and is checked against it: first with nothing remembered, then once more. Each figure is the best of several
runs; the ratio to the library is what is asked to be at least 1.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.schema import Algorithm, TokenizerTable
from bigembed.encoders import encode_all
from bigembed.encoders.text import TextColumn
from bigembed.encoders.tokenizer import TokenizerEncoder

WANTED = 1.0  # times the library's speed


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least seconds that ``work`` took, and what it returned."""
    seconds, result = [], None
    for _ in range(repeats):
        result = None  # what the last run made goes before the clock starts
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def measure(algorithm: Algorithm, column: TextColumn, texts: list[str], options: argparse.Namespace) -> float:
    """Print the figures of one algorithm; return the ratio to the library when nothing is remembered."""
    config = TokenizerTable(algorithm=algorithm, vocab_size=options.vocab_size)
    start = time.perf_counter()
    trained = TokenizerEncoder.learn("text", config, [column], np.arange(options.train), options.threads, None)
    print(f"{algorithm.name}: {trained.rows[0]} pieces, trained in {time.perf_counter() - start:.1f} s")

    def fresh() -> TokenizerEncoder:
        return TokenizerEncoder.restore(config, trained.learned, pa.array([], pa.string()), np.empty(0, np.int64))

    encode_all(fresh(), column, np.arange(10))  # compiles
    new = [fresh() for _ in range(options.repeats)]
    cold = [best(lambda encoder=encoder: encode_all(encoder, column, threads=options.threads), 1) for encoder in new]
    encoded = cold[-1][1]
    encode_all(trained, column, threads=options.threads)
    warm, _ = best(lambda: encode_all(trained, column, threads=options.threads), options.repeats)
    plain, encodings = best(
        lambda: trained.tokenizer.encode_batch_fast(texts, add_special_tokens=False), options.repeats
    )
    ids = np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings])
    assert np.array_equal(ids, encoded.ids.values)
    first = min(seconds for seconds, _ in cold)
    for name, seconds in (("library", plain), ("table, nothing remembered", first), ("table, again", warm)):
        beside = f"  {plain / seconds:6.1f} x the library" if name != "library" else ""
        print(f"  {name:<28}{len(ids) / seconds / 1e6:8.2f} M pieces/s{beside}", flush=True)
    return plain / first


def main(arguments: Iterable[str] | None = None) -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Parquet file with a column text")
    parser.add_argument("--column", default="text")
    parser.add_argument("--texts", type=int, default=25_000, help="texts to encode")
    parser.add_argument("--train", type=int, default=2_500, help="texts to train on, of these")
    parser.add_argument("--vocab-size", type=int, default=30_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
    table = pq.read_table(options.data, columns=[options.column])[options.column].slice(0, options.texts)
    options.train = min(options.train, len(table))
    column, texts = TextColumn(table, options.column), table.to_pylist()
    ratios = {algorithm.name: measure(algorithm, column, texts, options) for algorithm in Algorithm}
    told = ", ".join(f"{name} {ratio:.1f} x" for name, ratio in ratios.items())
    print(f"over the library, nothing remembered: {told}; asked {WANTED:.1f} x")


if __name__ == "__main__":
    main()
