"""Matrix factorisation of MovieLens 1M: bigembed's alternating least squares beside those of `implicit`, and both libraries' BPR.

    python benchmarks/factorisation.py --data DIR/ml-1m            (needs the extra "peers")
    python benchmarks/factorisation.py --data DIR/ml-1m --python DIR/bin/python     (implicit in an environment of its own)

Asked: seconds until HR@10 among the given negatives of the test part is 0.717; the quality is looked at after every sweep, with the
clock stopped. Both begin with the users and items of all interactions in memory, which each lays out for itself; each run is a
process of its own, imports and compiling (or loading what was compiled) left out. The runs come in turn: ours, implicit's as tuned
(alpha 5, regularization 30), implicit's defaults but for the width. With --steps, the same sweeps and BPR as the command does them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIM, ENOUGH, BATCH = 64, 0.717, 8192
TUNED = {"alpha": 5.0, "regularization": 30.0}
OURS = {"weight": 0.2, "l2": 0.007}
Look = Callable[[Any, Any], None]


def load(data: Path) -> tuple[Any, Any, Any]:
    """Return users and items of the interactions, and for every user the item to be found and its negatives, -1 for none."""
    import numpy as np
    import pyarrow.parquet as pq

    train, test = (pq.read_table(data / f"{part}.parquet") for part in ("train", "test_negatives"))
    candidates = np.empty((test.num_rows, 100), np.int64)
    found = test["item"].to_numpy()
    rows = zip(test["user"].to_pylist(), found.tolist(), test["negatives"].to_pylist(), strict=True)
    for user, item, negatives in rows:  # published lists have the item itself at times: it is none of its negatives
        candidates[user] = [item, *(each if each != item else -1 for each in negatives)]
    return train["user"].to_numpy(), train["item"].to_numpy(), candidates


def hit_rate(users: Any, items: Any, candidates: Any) -> float:
    """Return HR@10."""
    import numpy as np

    scores = np.einsum("ud,ucd->uc", users, items[candidates])
    scores[candidates < 0] = -np.inf
    return float(((scores[:, 1:] >= scores[:, :1]).sum(1) < 10).mean())


class Clock:
    """Seconds of work, and the quality after every sweep, which costs none of them."""

    def __init__(self, candidates: Any) -> None:
        self.candidates, self.out, self.log = candidates, 0.0, []
        self.began = time.perf_counter()

    def look(self, users: Any, items: Any) -> None:
        """Note where the work stands."""
        now = time.perf_counter()
        self.log.append((now - self.began - self.out, hit_rate(users, items, self.candidates)))
        self.out += time.perf_counter() - now


def ours(data: Path, sweeps: int, threads: int, seed: int) -> Clock:
    import numpy as np

    from bigembed.interactions import known
    from bigembed.least_squares import both_sides, improve

    user, item, candidates = load(data)
    counts = int(user.max()) + 1, int(item.max()) + 1

    def fit(user: Any, item: Any, look: Look, sweeps: int) -> None:
        seen = known(user, item, None, *counts).items
        sides = both_sides(seen, counts[1], OURS["weight"], OURS["l2"])
        rng = np.random.default_rng(seed)
        vectors = [rng.uniform(-1 / DIM, 1 / DIM, (count, DIM)).astype(np.float32) for count in counts]
        for _ in range(sweeps):
            for own in (0, 1):
                improve(vectors[own], vectors[1 - own], sides[own], OURS["weight"], threads)
            look(*vectors)

    fit(user[:100], item[:100], lambda *_: None, 1)  # loads the kernels
    clock = Clock(candidates)
    fit(user, item, clock.look, sweeps)
    return clock


def implicit_model(name: str, sweeps: int, threads: int, seed: int) -> Any:
    import implicit

    common = {"factors": DIM, "iterations": sweeps, "num_threads": threads, "random_state": seed}
    if name == "implicit's BPR":
        return implicit.bpr.BayesianPersonalizedRanking(**common)
    return implicit.als.AlternatingLeastSquares(**common, **(TUNED if name == "implicit, tuned" else {}))


def theirs(name: str, data: Path, sweeps: int, threads: int, seed: int) -> Clock:
    import numpy as np
    import scipy.sparse as sparse

    user, item, candidates = load(data)
    model = implicit_model(name, sweeps, threads, seed)
    bpr = "BPR" in name  # its vectors have the item's bias, and a one for it

    def look(*_: Any) -> None:
        clock.look(np.asarray(model.user_factors), np.asarray(model.item_factors))

    clock = Clock(candidates)
    ones = np.ones(len(user), np.float32)
    shape = int(user.max()) + 1, int(item.max()) + 1
    matrix = sparse.csr_matrix((ones, (user, item)), shape)
    model.fit(matrix, show_progress=False, **({} if bpr else {"callback": look}))
    if bpr:
        look()
    return clock


def our_steps(data: Path, folder: Path, threads: int) -> dict[str, float]:
    """Return the seconds and the figure of a command of three epochs of BPR, and those of sweeps from Parquet to figures."""
    from bigembed import cli, trainer  # noqa: F401  (imported before the clock starts)

    found = {}
    narrow = [f"tables.{name}.dim={DIM}" for name in ("user", "item")]
    one_each = ["head.als_sweeps=0", "head.loss=bpr", "head.shared=false", "head.negatives=1"]
    one_each += ["trainer.epochs=3", f"trainer.batch_size={BATCH}", "optim.tables.kind=adagrad"]
    sweeps = [f"head.als_weight={OURS['weight']}", f"head.als_l2={OURS['l2']}", "head.als_sweeps=6"]
    for name, options in (("bpr", one_each), ("sweeps", sweeps)):
        options = [*options, *narrow, f"data.path={data}", f"runtime.threads={threads}", "runtime.tensorboard=false"]
        assert cli.main(["train", "experiment=ml1m_mf", *options, f"hydra.run.dir={folder / name}"]) == 0
        figures = json.loads((folder / name / "metrics.json").read_text())
        found |= {f"{name} hr": figures["test"]["hr@10"], f"{name} train_s": figures["speed"]["train_s"]}
        found |= {f"{name} total_s": figures["speed"]["total_s"]}
    return found


def child(a: argparse.Namespace, name: str, sweeps: int, seed: int) -> list[Any]:
    """Run one measurement in a process of its own; return seconds and HR@10 after every sweep."""
    python = sys.executable if name == "bigembed" else a.python
    command = [python, __file__, "--data", str(a.data), "--one", name, "--sweeps", str(sweeps), "--seed", str(seed)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(a.threads)}
    done = subprocess.run([*command, "--threads", str(a.threads)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def seconds_to(log: list[Any]) -> float:
    """Return the seconds until the quality was enough; infinite where it never was."""
    return next((seconds for seconds, quality in log if quality >= ENOUGH), float("inf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="of an environment that has implicit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sweeps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=Path, help="run the two commands as well, in this folder (new)")
    parser.add_argument("--one", help="one measurement, for this program's own use")
    a = parser.parse_args()
    if a.one:
        work = ours if a.one == "bigembed" else lambda *options: theirs(a.one, *options)
        print(json.dumps(work(a.data, a.sweeps, a.threads, a.seed).log))
        return
    names = ["bigembed", "implicit, tuned", "implicit, defaults"]
    child(a, "bigembed", 1, 0)  # compiles the kernels
    needed: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(a.repeats):  # in turn: the machine's speed drifts
        for name in names:
            log = child(a, name, a.sweeps, repeat)
            needed[name].append(seconds_to(log))
            best = max(quality for _, quality in log)
            print(f"{name}: {needed[name][-1]:.2f} s to {ENOUGH}; {log[-1][0]:.2f} s all, best {best:.4f}", flush=True)
    print(
        f"\n{a.threads} threads, dim {DIM}, seconds to HR@10 {ENOUGH}, medians of {a.repeats}; load {os.getloadavg()[0]:.1f}"
    )
    for name in names:
        print(f"  {name:<20}{statistics.median(needed[name]):.2f}")
    ratios = [mine / other for mine, other in zip(needed["bigembed"], needed["implicit, tuned"], strict=True)]
    print(
        f"  ours / implicit's, tuned: {statistics.median(ratios):.2f} (asked: at most 2), {min(ratios):.2f} to {max(ratios):.2f}"
    )
    seconds, quality = child(a, "implicit's BPR", 100, 0)[-1]
    print(f"  implicit's BPR, 100 epochs: {seconds / 100:.3f} s an epoch, HR@10 {quality:.4f}")
    if a.steps:
        found = our_steps(a.data.resolve(), a.steps, a.threads)
        print(f"  bigembed's BPR, 3 epochs: {found['bpr train_s'] / 3:.3f} s an epoch, HR@10 {found['bpr hr']:.4f}")
        print(
            f"  bigembed train, 6 sweeps: {found['sweeps total_s']:.1f} s from Parquet to figures, HR@10 {found['sweeps hr']:.4f}"
        )


if __name__ == "__main__":
    main()
