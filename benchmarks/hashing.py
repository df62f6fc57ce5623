"""How many whole numbers and short strings a second become rows of a table on one core, beside Keras's Hashing and StringLookup.

    python benchmarks/hashing.py
    python benchmarks/hashing.py --python DIR/bin/python     (Keras in an environment of its own)

The data is like a click log's: numbers of 40 bits, one a row and in lists of 20, and strings of 8 letters (hexadecimal, as
Criteo's), which are hashed into a million rows or looked up in a vocabulary of 100,000. We read them from Arrow's memory, by
batches. Keras gets the same batches as numpy arrays (strings as bytes, its fastest way in), and once more as tensors made
beforehand, which leaves out a part of the work that we do; its layers are compiled by tf.function, with one thread. Both
processes are pinned to one core. Each figure is the median of several runs after one to warm up, by the processor's clock.

Keras needs TensorFlow for these layers, in versions that may not go with ours, hence --python:

    python -m venv DIR && DIR/bin/pip install keras tensorflow-cpu
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, WORDS, LIST = 1_000_000, 100_000, 20  # of the table, of the vocabulary, of a list
ASKED = {"whole numbers": 200e6, "whole numbers, in lists": 200e6, "strings": 30e6}  # a second
RATIO = 5.0  # asked, over Keras


def pin() -> None:
    """Keep this process on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def speed(work: Callable[[Any], Any], batches: list[Any], values: int, repeats: int) -> float:
    """Return the values a second of processor time of ``work`` on all batches."""
    seconds = []
    for repeat in range(repeats + 1):
        began = time.process_time()
        for batch in batches:
            work(batch)
        if repeat:
            seconds.append(time.process_time() - began)
    return values / statistics.median(seconds)


def make(count: int, folder: Path) -> None:
    """Write the data that both read."""
    rng = np.random.default_rng(0)
    np.save(folder / "numbers.npy", rng.integers(0, 1 << 40, count // LIST * LIST))
    np.save(folder / "strings.npy", hexadecimal(rng.integers(0, 1 << 32, count)))
    words = np.unique(hexadecimal(rng.integers(0, 1 << 32, WORDS + WORDS // 10)))[:WORDS]
    np.save(folder / "words.npy", rng.permutation(words))
    np.save(folder / "known.npy", words[rng.integers(0, len(words), count)])


def hexadecimal(numbers: np.ndarray) -> np.ndarray:
    """Return numbers of 32 bits as 8 letters each (S8)."""
    letters = np.frombuffer(b"0123456789abcdef", np.uint8)
    shifts = np.arange(28, -4, -4)
    return letters[numbers[:, None] >> shifts & 15].reshape(-1).view("S8")


def ours(folder: Path, batch: int, repeats: int) -> dict[str, float]:
    """Return our values a second."""
    import pyarrow as pa

    from bigembed.config.schema import HashedTable, Tokens, VocabTable
    from bigembed.encoders import HashedEncoder, build
    from bigembed.encoders.values import kind_of, open_values

    def column(array: pa.Array) -> Any:
        return open_values(array, "value")

    def texts(name: str) -> pa.Array:
        return pa.array(np.load(folder / f"{name}.npy")).cast(pa.string())

    numbers = pa.array(np.load(folder / "numbers.npy"))
    lists = pa.ListArray.from_arrays(pa.array(range(0, len(numbers) + 1, LIST), pa.int32()), numbers)
    strings, words, known = texts("strings"), texts("words"), texts("known")
    as_they_are = {"tokens": Tokens.whole, "lower": False}
    vocab = build("value", VocabTable(**as_they_are), [column(words)])
    speeds = {}
    for name, array, encoder in (
        ("whole numbers", numbers, None),
        ("whole numbers, in lists", lists, None),
        ("strings", strings, None),
        ("strings, looked up", known, vocab),
    ):
        opened = column(array)
        encoder = encoder or HashedEncoder(HashedTable(buckets=ROWS, **as_they_are), {"values": kind_of(opened)})
        size = batch // LIST if array is lists else batch
        batches = [np.arange(start, min(start + size, len(opened))) for start in range(0, len(opened), size)]
        values = len(numbers) if array is lists else len(opened)

        def encode(index: np.ndarray, opened: Any = opened, encoder: Any = encoder) -> Any:
            return encoder.encode(opened, index, np.int32)

        speeds[name] = speed(encode, batches, values, repeats)
    return speeds


def keras(folder: Path, batch: int, repeats: int) -> dict[str, list[float]]:
    """Return Keras's values a second: from arrays, and from tensors made beforehand."""
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    words = [word.decode() for word in np.load(folder / "words.npy")]
    speeds = {}
    for name, file, layer in (
        ("whole numbers", "numbers", keras.layers.Hashing(ROWS)),
        ("strings", "strings", keras.layers.Hashing(ROWS)),
        ("strings, looked up", "known", keras.layers.StringLookup(vocabulary=words)),
    ):
        array = np.load(folder / f"{file}.npy")
        compiled = tf.function(lambda values, layer=layer: layer(values))
        arrays = [array[start : start + batch] for start in range(0, len(array), batch)]
        tensors = [tf.constant(each) for each in arrays]
        from_arrays = speed(lambda each, call=compiled: call(tf.constant(each)).numpy(), arrays, len(array), repeats)
        speeds[name] = [
            from_arrays,
            speed(lambda each, call=compiled: call(each).numpy(), tensors, len(array), repeats),
        ]
    return speeds


def main(arguments: Iterable[str] | None = None) -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4_000_000, help="values of each kind")
    parser.add_argument("--batch", type=int, default=16_384, help="values of a batch")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--python", default=sys.executable, help="Python that Keras is installed in")
    parser.add_argument(
        "--peer", type=Path, help="measure Keras on the data of this folder, for this program's own use"
    )
    options = parser.parse_args(arguments)
    pin()
    if options.peer:
        print(json.dumps(keras(options.peer, options.batch, options.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(options.count, Path(folder))
        mine = ours(Path(folder), options.batch, options.repeats)
        for name, each in mine.items():
            wanted = f"  asked {ASKED[name] / 1e6:.0f} M: {each / ASKED[name]:.2f} x" if name in ASKED else ""
            print(f"{name:<28}{each / 1e6:8.1f} M/s{wanted}", flush=True)
        command = [options.python, __file__, "--peer", folder]
        command += ["--batch", str(options.batch), "--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"Keras could not be measured: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return
    for name, (from_arrays, from_tensors) in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"Keras, {name:<21}{from_arrays / 1e6:8.1f} M/s, from tensors {from_tensors / 1e6:.1f} M/s", end="")
        print(f"  we: {mine[name] / from_arrays:.1f} x (asked {RATIO:.0f}), {mine[name] / from_tensors:.1f} x")


if __name__ == "__main__":
    main()
