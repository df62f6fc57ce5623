"""Matrix factorisation by BPR beside RecBole's trainer: seconds an epoch on the same interactions, in one run.

    pip install --no-deps --target PEERS recbole pandas==2.3.3 scipy scikit-learn joblib threadpoolctl narwhals pytz tzdata \
        colorlog colorama thop texttable tabulate plotly
    python benchmarks/bpr.py --data DIR/ml-1m --peers PEERS

Both have vectors of 64 numbers, one uniform negative for every interaction that its user has not, and two threads. RecBole's side is
its own loader and ``Trainer._train_epoch`` with its defaults (Adam, batches of 2,048); bigembed's is the command, with the batch that
is named. Each run is a process of its own, in turn; the first epoch, which compiles and allocates, is left out. The mean loss of
the last epoch stands beside the speed: an epoch that is quick must teach as much. The load of the machine is told, too.
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

DIM, PEER_BATCH, ASKED = 64, 2048, 5.0
LR = {
    2048: 0.15,
    8192: 0.3,
    32768: 0.6,
}  # of rowwise Adagrad, by the loss after five epochs; others: the nearest batch's


def recbole_run(data: Path, folder: Path, epochs: int, threads: int) -> tuple[list[float], float]:
    """Return the seconds of every epoch, and the mean loss of the last one."""
    import numpy as np

    for name, kind in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        setattr(np, name, kind)  # RecBole 1.2.1 asks numpy 2 for names that it no longer has
    import pyarrow.csv
    import pyarrow.parquet as pq
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.set_num_threads(threads)
    sys.argv, path = sys.argv[:1], folder / "pairs"
    path.mkdir()
    os.chdir(folder)  # it writes its logs beside
    table = pq.read_table(data / "train.parquet", columns=["user", "item"])
    named = table.rename_columns(["user_id:token", "item_id:token"])
    pyarrow.csv.write_csv(
        named,
        path / "pairs.inter",
        pyarrow.csv.WriteOptions(delimiter="\t", quoting_header="none", quoting_style="none"),
    )
    options = {
        "data_path": str(folder),
        "use_gpu": False,
        "embedding_size": DIM,
        "train_batch_size": PEER_BATCH,
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": None, "mode": "full"},
        "state": "WARNING",
    }
    config = Config(model="BPR", dataset="pairs", config_dict=options)
    init_seed(0, True)
    batches, _, _ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, BPR(config, batches._dataset))
    seconds, loss = [], 0.0
    for epoch in range(epochs):
        began = time.perf_counter()
        loss = trainer._train_epoch(batches, epoch)
        seconds.append(time.perf_counter() - began)
    return seconds, loss / len(batches)


def bigembed_run(data: Path, folder: Path, epochs: int, threads: int, batch: int) -> tuple[list[float], float]:
    """Return the same of ours."""
    import pyarrow.parquet as pq

    from bigembed.cli import main

    rows = pq.read_metadata(data / "train.parquet").num_rows
    nearest = min(LR, key=lambda size: abs(size - batch))
    options = ["data=files", f"data.path={data}", "data.test=null", "data.validation_fraction=0", "head=two_tower"]
    options += ["~table@tables.text", "~feature@features.text"]
    for name in ("user", "item"):
        options += [f"+table@tables.{name}=vocab", f"tables.{name}.tokens=whole", f"tables.{name}.ngrams=1"]
        options += [f"tables.{name}.dim={DIM}", f"+feature@features.{name}=column"]
        options += [f"features.{name}.{key}={name}" for key in ("table", "column", "of")]
    options += [
        "head.loss=bpr",
        "head.shared=false",
        "head.in_batch=false",
        "head.negatives=1",
        "head.leave_known=true",
    ]
    options += ["optim.tables.kind=rowwise_adagrad", f"optim.tables.lr={LR[nearest]}", "optim.schedule=constant"]
    options += [f"trainer.batch_size={batch}", f"trainer.epochs={epochs}", f"trainer.report_every={-(-rows // batch)}"]
    assert (
        main(
            [
                "train",
                *options,
                f"runtime.threads={threads}",
                "runtime.tensorboard=false",
                f"hydra.run.dir={folder}/run",
            ]
        )
        == 0
    )
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["part"] == "train"]
    return [rows / line["samples_per_s"] for line in told], told[-1]["loss"]


def child(arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a process of its own: the median seconds of its epochs but for the first, and the last loss."""
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # for both: threads that spin stall each other on shared cores
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def one(a: argparse.Namespace) -> dict[str, float]:
    """Make the measurement that was asked for."""
    data = a.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if a.one == "recbole":
            sys.path.append(str(a.peers.resolve()))
            seconds, loss = recbole_run(data, Path(folder), a.epochs, a.threads)
        else:
            seconds, loss = bigembed_run(data, Path(folder), a.epochs, a.threads, a.batches[0])
        os.chdir("/")
    return {"seconds": statistics.median(seconds[1:]), "loss": loss, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.parquet: user, item")
    parser.add_argument("--peers", type=Path, required=True, help="folder that RecBole was installed into")
    parser.add_argument("--batches", type=int, nargs="+", default=[2048, 8192, 32768], help="bigembed's")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=["recbole", "bigembed"], help="one measurement, for this program's own use")
    a = parser.parse_args()
    if a.one:
        print(json.dumps(one(a)))
        return
    common = ["--data", str(a.data), "--peers", str(a.peers), "--threads", str(a.threads), "--epochs", str(a.epochs)]
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(a.repeats):  # in turn: the machine's speed drifts
        for name, batch in [("recbole", PEER_BATCH), *(("bigembed", batch) for batch in a.batches)]:
            run = child([*common, "--one", name, "--batches", str(batch)])
            runs.setdefault(f"{name}, batches of {batch}", []).append(run)
            print(
                f"{name}, {batch}: {run['seconds']:.2f} s an epoch, loss {run['loss']:.4f}, load {run['load']:.1f}",
                flush=True,
            )
    middle = {name: statistics.median(run["seconds"] for run in each) for name, each in runs.items()}
    slowest = middle[f"recbole, batches of {PEER_BATCH}"]
    for name, seconds in middle.items():
        print(f"{name}: {seconds:.2f} s an epoch, {slowest / seconds:.1f} × RecBole (asked: {ASKED:g})")


if __name__ == "__main__":
    main()
