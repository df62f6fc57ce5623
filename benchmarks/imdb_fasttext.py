"""From raw Parquet to a trained classifier of words and bigrams: bigembed beside fastText's supervised trainer, in one run.

    python benchmarks/imdb_fasttext.py --data DIR/imdb            (needs the extra "peers")

Both make the same passes over the same reviews at the same width on the same number of threads, and both end with a model on
the disk. fastText wants a text file with its tokens set apart, which is made with Arrow's kernels (the fastest way known to us)
and timed on its own; bigembed reads the Parquet itself. Each run is a process of its own; what is timed begins after the
imports. The learning rate of fastText is the best of those tried (--lr), judged on the test part in its favour.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIM, PASSES, BUCKETS, BATCH = 16, 5, 2_097_152, 1024


def fasttext_run(data: Path, folder: Path, lr: float, threads: int) -> dict[str, float]:
    import fasttext
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def prepare(part: str) -> Path:
        table = pq.read_table(data / f"{part}.parquet", columns=["text", "label"])
        texts = pc.replace_substring_regex(pc.utf8_lower(table["text"]), r"([^\pL\pN\pM'\s])", r" \1 ")
        texts = pc.replace_substring_regex(texts, r"\s+", " ")
        labels = pc.binary_join_element_wise(pa.scalar("__label__"), table["label"].cast(pa.string()), "")
        path = folder / f"{part}.txt"
        path.write_text("\n".join(pc.binary_join_element_wise(labels, texts, " ").to_pylist()) + "\n")
        return path

    began = time.perf_counter()
    train = prepare("train")
    prepared = time.perf_counter()
    model = fasttext.train_supervised(
        str(train), dim=DIM, wordNgrams=2, epoch=PASSES, lr=lr, thread=threads, bucket=BUCKETS, verbose=0
    )
    model.save_model(str(folder / "model.bin"))
    done = time.perf_counter()
    accuracy = model.test(str(prepare("test")))[1]
    return {"prepare": prepared - began, "train": done - prepared, "accuracy": accuracy}


def bigembed_run(data: Path, folder: Path, seed: int, threads: int) -> dict[str, float]:
    os.environ.update(
        OMP_WAIT_POLICY="PASSIVE", THP_MEM_ALLOC_ENABLE="1"
    )  # as the command sets them before torch loads
    from bigembed import cli, trainer  # noqa: F401  (torch and TorchRec are imported before the clock starts)

    run = folder / "run"
    options = [f"data.path={data}", "data.validation_fraction=0", "data.test=null", f"trainer.epochs={PASSES}"]
    options += [
        f"trainer.batch_size={BATCH}",
        f"tables.text.dim={DIM}",
        f"tables.text.buckets={BUCKETS}",
        f"runtime.threads={threads}",
        f"seed={seed}",
    ]
    began = time.perf_counter()
    code = cli.main(["train", "experiment=imdb", *options, "runtime.tensorboard=false", f"hydra.run.dir={run}"])
    done = time.perf_counter()
    assert code == 0
    cli.main(["evaluate", f"run={run}", f"data.path={data / 'test.parquet'}", f"output={folder}/figures.json"])
    figures = json.loads((folder / "figures.json").read_text())
    speed = json.loads((run / "metrics.json").read_text())["speed"]
    return {"train": done - began, "steps": speed["train_s"], "accuracy": figures["test"]["accuracy"]}


def child(arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--one", choices=["fasttext", "bigembed"], help="one measurement, for this program's own use")
    a = parser.parse_args()
    if a.one:
        with tempfile.TemporaryDirectory() as folder:
            data = a.data.resolve()
            seed = int(a.lr[0])
            result = (
                fasttext_run(data, Path(folder), a.lr[0], a.threads)
                if a.one == "fasttext"
                else bigembed_run(data, Path(folder), seed, a.threads)
            )
        print(json.dumps(result))
        return
    common = ["--data", str(a.data), "--threads", str(a.threads)]
    child([*common, "--one", "bigembed", "--lr", "0"])  # compiles the kernels
    tried = {lr: child([*common, "--one", "fasttext", "--lr", str(lr)])["accuracy"] for lr in a.lr}
    best = max(tried, key=lambda lr: tried[lr])
    ours, theirs = [], []
    for repeat in range(a.repeats):  # in turn: the machine's speed drifts
        theirs.append(child([*common, "--one", "fasttext", "--lr", str(best)]))
        ours.append(child([*common, "--one", "bigembed", "--lr", str(repeat)]))
        print(f"fastText {theirs[-1]}\nbigembed {ours[-1]}", flush=True)

    def middle(runs: list[dict[str, float]], *keys: str) -> float:
        return statistics.median(sum(run[key] for key in keys) for run in runs)

    prepare, train, steps = middle(theirs, "prepare"), middle(theirs, "train"), middle(ours, "steps")
    mine = middle(ours, "train")
    print(f"\n{a.threads} threads, dim {DIM}, {PASSES} passes, words + bigrams, medians of {a.repeats}")
    print(
        f"  fastText   preparing the text {prepare:.2f} s, training {train:.2f} s, accuracy {middle(theirs, 'accuracy'):.4f}"
    )
    print(f"             at lr {best}, the best of {tried}")
    print(f"  bigembed   Parquet to model {mine:.2f} s (steps {steps:.2f} s), accuracy {middle(ours, 'accuracy'):.4f}")
    print(f"  ratio from raw Parquet: {(prepare + train) / mine:.2f} × (asked: 1.5)")
    print(f"  ratio with fastText's preparation left out: {train / mine:.2f} ×")


if __name__ == "__main__":
    main()
