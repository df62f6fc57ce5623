"""Three headlines, of which two say the same: how they lie under a model trained from scratch to tell clickbait, and under other vectors.

    python benchmarks/headlines.py --data DIR/clickbait --vectors FILE [FILE …] [--picture headlines.html]

DIR/clickbait holds clickbait_data.gz and non_clickbait_data.gz (Chakraborty et al. 2016), one headline a line. The model never sees
the three. FILE is anything that ``bigembed vectors`` reads, a run of ``experiment=autoencoder`` among them. As one third headline
proves little, the same is asked of 98 others of its class, drawn by a seed: with how many of them the two that say the same are
nearer than the two of one class.
"""

import argparse
import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = {"clickbait_data.gz": 1, "non_clickbait_data.gz": 0}
THIRDS = 98
HEADLINES = [  # with their labels
    ("The World's Shortest Man Has Died At 76", 1),
    ("World's oldest living woman dies at age 115", 0),
    ("18 Secrets About Being An Astronaut That NASA Won't Tell You", 1),
]


def write_headlines(data: Path, target: Path) -> int:
    """Write all headlines but the three with their labels as CSV; return how many there are."""
    left_out = {text for text, _ in HEADLINES}
    rows = []
    for name, label in FILES.items():
        with gzip.open(data / name, "rt", encoding="utf-8") as file:
            rows += [(text, label) for line in file if (text := line.strip())]
    missing = left_out - {text for text, _ in rows}
    if missing:
        sys.exit(f"{data} has no headline {missing.pop()!r}")
    rows = [row for row in rows if row[0] not in left_out]
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return len(rows)


def thirds(path: Path) -> list[str]:
    """Return headlines of the class of the first, drawn by a seed."""
    with path.open(newline="", encoding="utf-8") as file:
        same = [row["text"] for row in csv.DictReader(file) if int(row["label"]) == HEADLINES[0][1]]
    return random.Random(0).sample(same, THIRDS)


def call(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "bigembed", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bigembed {' '.join(arguments)} failed")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the two files of headlines")
    parser.add_argument("--vectors", nargs="+", required=True, help="files of pretrained vectors, or runs")
    parser.add_argument("--picture", type=Path, default=Path("headlines.html"))
    parser.add_argument("more", nargs="*", help="more options of the job, e.g. trainer.epochs=1")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write_headlines(a.data, folder / "headlines.csv")
        run, out = folder / "from scratch", folder / "compared.json"
        job = ["data=files", f"data.path={folder / 'headlines.csv'}", "data.test=null", "tables.text.ngrams=1"]
        job += ["tables.text.dim=32", "runtime.tensorboard=false", *a.more]
        call("train", *job, f"hydra.run.dir={run}")
        figures = json.loads((run / "metrics.json").read_text())["validation"]
        of, texts = f"of=[{','.join([str(run), *a.vectors])}]", folder / "texts.txt"
        texts.write_text("\n".join(text for text, _ in HEADLINES))
        print(call("compare", of, f"input={texts}", f"out={out}", f"picture={a.picture}"))
        three = json.loads(out.read_text())["of"]
        texts.write_text("\n".join([text for text, _ in HEADLINES[:2]] + thirds(folder / "headlines.csv")))
        call("compare", of, f"input={texts}", f"out={out}")
        many = json.loads(out.read_text())["of"]
    print(f"from scratch: {count:,} headlines, {figures['accuracy']:.1%} right on a validation part")
    for source, others in zip(three, many, strict=True):
        same_meaning, same_class = source["cosines"][0][1:]
        nearer = sum(others["cosines"][0][1] > other for other in others["cosines"][0][2:])
        print(
            f"{source['path']}: cosine {same_meaning:.3f} by meaning, {same_class:.3f} by class; "
            f"by meaning with {nearer} of {THIRDS} third headlines"
        )


if __name__ == "__main__":
    main()
