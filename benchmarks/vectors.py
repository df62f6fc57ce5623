"""From a file of vectors to a sharded table: seconds and memory, beside gensim and fastText on the same file.

    python benchmarks/vectors.py [--rows 500000] [--dim 300] [--grams 2000000]      (needs the extra "peers")

The files are made of seeded numbers. Every load is in a fresh process, the file in the page cache, and what is imported and compiled
before does not count. Ours is all that ``bigembed train`` does between the file and the first step: the words of the vocabulary are
read from the file (``vocabulary=file``: "words"), the sharded table with its optimizer is made, its rows are drawn, and then filled from
the file ("rows").
The memory is the peak beyond what the process had before; of ours without the table and the optimizer's state.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

MIB = 2**20
NGRAMS = {"min_n": 3, "max_n": 6}


def make(folder: Path, rows: int, dim: int, grams: int) -> dict[str, Path]:
    """Write the files and return them by name."""
    from bigembed.vectors import WRITERS, Ngrams, write_fasttext
    from bigembed.vectors.blocks import Vectors

    rng = np.random.default_rng(0)

    def vectors(count: int, width: int) -> Vectors:
        table = rng.normal(scale=0.3, size=(count, width)).astype(np.float32)
        words = pa.array([f"w{number:x}" for number in rng.permutation(count)], pa.string())
        return Vectors(table, range(count), words)

    given = vectors(rows, dim)
    files = {name: folder / name for name in ("text", "binary", "fasttext")}
    for name, writer in (("text", "word2vec"), ("binary", "word2vec-binary")):
        with files[name].open("wb") as file:
            file.writelines(WRITERS[writer](given))
    words, table = vectors(200_000, 100), rng.normal(scale=0.1, size=(grams, 100)).astype(np.float32)
    blocks = (table[start : start + 10_000] for start in range(0, grams, 10_000))
    with files["fasttext"].open("wb") as file:
        file.writelines(write_fasttext(words, Ngrams(buckets=grams, rows=grams, **NGRAMS), blocks))
    return files


def ours(path: str, table: str, dim: int) -> dict[str, float]:
    """Load a file into a table as training does; return seconds and the bytes of the peak."""
    from bigembed.build import build, fill_rows
    from bigembed.config import compose
    from bigembed.examples import table_rows
    from bigembed.growth import learn
    from bigembed.optim import Optimizers
    from bigembed.runtime import start
    from bigembed.sharding.rows import weights
    from bigembed.starting import start_from_vectors

    jobs: list[Any] = []

    def load(file: str, width: int, folder: str) -> tuple[float, float, float, int]:
        options = [f"table@tables.text={table}", f"tables.text.dim={width}", "tables.text.ngrams=1"]
        options += [
            f"tables.text.pretrained.path={file}",
            "tables.text.pretrained.vocabulary=file",
            "tables.text.lower=false",
        ]
        options += ["tables.text.tokens=whitespace", f"hydra.run.dir={folder}/run"]
        compose.run(options, lambda job, _: jobs.append(job))
        job = jobs.pop()
        with start(job.runtime) as runtime:
            before = time.perf_counter()
            encoder = learn(job, "text", [_column()], None, job.runtime.threads or 2, None)
            words = time.perf_counter() - before
            model = build(job, table_rows(job, {"text": encoder}), runtime)
            fill_rows(model, job)
            optimizers = Optimizers(model, job, 1)
            drawn = time.perf_counter()
            start_from_vectors(job, {"text": encoder}, model, optimizers, runtime, Path(folder))
            seconds, rows = time.perf_counter() - before, time.perf_counter() - drawn
            (shard,) = weights(model)["text"]
            assert np.isfinite(shard.read()[:: 1 + len(shard.local) // 1000]).all()
            size = shard.local.nbytes + 4 * len(shard.local)
            del model, optimizers, shard
        return seconds, words, rows, size

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        _warm(small, table)
        load(str(small), 8, folder)
        begin = _reset_peak()
        seconds, words, rows, size = load(path, dim, folder)
        peak = _peak() - begin
        return {"seconds": seconds, "words": words, "rows": rows, "beyond": peak - size, "peak": peak}


def _column() -> Any:
    from bigembed.encoders import TextColumn

    return TextColumn(pa.array(["w1 w2"], pa.string()), "text")


def _warm(path: Path, table: str) -> None:
    """Write a small file of the same kind, with which everything is compiled and imported."""
    from bigembed.vectors import WRITERS, Ngrams, write_fasttext
    from bigembed.vectors.blocks import Vectors

    numbers = np.random.default_rng(0).normal(size=(2_000_000 if table == "subword" else 100, 8)).astype(np.float32)
    words = Vectors(numbers, range(100), pa.array([f"w{number:x}" for number in range(100)]))
    with path.open("wb") as file:
        if table == "subword":
            file.writelines(write_fasttext(words, Ngrams(buckets=len(numbers), rows=len(numbers), **NGRAMS), [numbers]))
        else:
            file.writelines(WRITERS["word2vec"](words))


def with_gensim(path: str, binary: bool) -> dict[str, float]:
    """Load a file with gensim."""
    from gensim.models import KeyedVectors

    begin, before = _reset_peak(), time.perf_counter()
    loaded = KeyedVectors.load_word2vec_format(path, binary=binary)
    seconds = time.perf_counter() - before
    return {"seconds": seconds, "peak": _peak() - begin, "beyond": _peak() - begin - loaded.vectors.nbytes}


def with_fasttext(path: str) -> dict[str, float]:
    """Load a file with fastText."""
    import fasttext

    fasttext.FastText.eprint = lambda *_: None
    begin, before = _reset_peak(), time.perf_counter()
    model = fasttext.load_model(path)
    seconds = time.perf_counter() - before
    assert model.get_dimension() == 100
    return {"seconds": seconds, "peak": _peak() - begin}


def copied(path: str) -> dict[str, float]:
    """Copy the file."""
    before = time.perf_counter()
    shutil.copyfile(path, path + ".copy")
    seconds = time.perf_counter() - before
    Path(path + ".copy").unlink()
    return {"seconds": seconds}


def _reset_peak() -> int:
    """Forget the peak, and return what the process has now (bytes)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024


def apart(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Return what ``work`` gives in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--grams", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    a = parser.parse_args()
    os.environ |= {
        "OMP_WAIT_POLICY": "PASSIVE",
        "THP_MEM_ALLOC_ENABLE": "1",
    }  # as the command line does before torch loads
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder), a.rows, a.dim, a.grams)
        works: dict[str, dict[str, tuple[Any, ...]]] = {
            "text": {"bigembed": (ours, files["text"], "vocab", a.dim), "gensim": (with_gensim, files["text"], False)},
            "binary": {
                "bigembed": (ours, files["binary"], "vocab", a.dim),
                "gensim": (with_gensim, files["binary"], True),
                "a copy": (copied, files["binary"]),
            },
            "fasttext": {
                "bigembed": (ours, files["fasttext"], "subword", 100),
                "fasttext": (with_fasttext, files["fasttext"]),
            },
        }
        for name, by in works.items():
            print(f"{name}: {files[name].stat().st_size / MIB:,.0f} MiB")
            best: dict[str, dict[str, float]] = {}
            for _ in range(a.repeats):
                for who, (work, *arguments) in by.items():
                    found = apart(work, *(str(each) if isinstance(each, Path) else each for each in arguments))
                    if who not in best or found["seconds"] < best[who]["seconds"]:
                        best[who] = found
            for who, found in best.items():
                memory = "".join(
                    f", {what} {found[what] / MIB:,.0f} MiB" for what in ("peak", "beyond") if what in found
                )
                parts = ("words", "rows") if "words" in found else ()
                words = "".join(f", {part} {found[part]:.2f} s" for part in parts)
                ratio = (
                    "" if who == "bigembed" else f"   bigembed: {found['seconds'] / best['bigembed']['seconds']:.2f} x"
                )
                print(f"  {who:<10}{found['seconds']:8.2f} s{words}{memory}{ratio}", flush=True)


if __name__ == "__main__":
    main()
