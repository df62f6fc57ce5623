"""The peak memory of a training run beyond its tables and their optimizer's state.

python benchmarks/memory.py --data DIR/imdb
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ALLOWED = 1.5 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="further options of the job, e.g. tables.text.dim=64")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ["experiment=imdb", f"data.path={a.data.resolve()}", f"hydra.run.dir={folder}/run", *a.overrides]
        subprocess.run([sys.executable, "-m", "bigembed", "train", *options], check=True, stdout=subprocess.DEVNULL)
        tables = sum(path.stat().st_size for path in next(Path(folder).glob("run/checkpoints/step-*/tables")).iterdir())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    mib = 2**20
    print(f"peak {peak / mib:,.0f} MiB, tables and their state {tables / mib:,.0f} MiB")
    print(f"beyond the tables {(peak - tables) / mib:,.0f} MiB (asked: at most {ALLOWED / mib:,.0f})")


if __name__ == "__main__":
    main()
