"""``bigembed predict``: labels with probabilities for the lines of standard input, or the rows of a file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.commands.asked import check_text
from bigembed.config.arguments import parse
from bigembed.config.saved import override
from bigembed.config.schema import FilesData, Format, PredictOptions, RankingHead
from bigembed.errors import UserError
from bigembed.files import replacing

if TYPE_CHECKING:
    from bigembed.inference import Loaded

BLOCK = 4096  # lines worked on at once
HEADLESS = (Format.criteo,)  # forms that the ending of a file does not tell
SIDES = ("data.path=", "data.users=", "data.items=")  # where the files of users and items are now


def main(arguments: list[str]) -> int:
    """Predict what ``arguments`` ask for; return the exit code."""
    options, others = parse(arguments, PredictOptions)
    wrong = [text for text in others if not text.startswith(SIDES)]
    if wrong:
        raise UserError(f"predict takes no options of the job but {' '.join(SIDES)}, and got {', '.join(wrong)}")
    from bigembed.inference import load  # torch from here on

    check_text(options.output)
    model = load(options.run, options.checkpoint.name if options.checkpoint else None)
    model.check_predicts()
    model.job = override(model.job, others)
    tables = _lines(model) if options.input is None else [_rows(Path(options.input), model)]
    answers = (answer for table in tables for answer in model.answers(table))
    ranked = model.job.head.labels if isinstance(model.job.head, RankingHead) else []
    if options.output is None:
        for labels, probabilities in answers:
            sys.stdout.write(_scores(probabilities) if ranked else _text(labels, probabilities))
            sys.stdout.flush()
    else:
        count = _write(Path(options.output), answers, ranked)
        print(f"{count:,} answers in {options.output}", file=sys.stderr)
    return 0


def _lines(model: "Loaded") -> Iterator[pa.Table]:
    """Yield the lines of standard input; one by one where a person types them."""
    if sys.stdin is None:
        raise UserError("there is no standard input to read texts from; give input=FILE")
    if len(model.columns) > 1:
        raise UserError(
            f"the model reads the columns {', '.join(model.columns)}, which lines of text do not have; use input=FILE"
        )
    size, texts, first = 1 if sys.stdin.isatty() else BLOCK, [], 1

    def name(text: int) -> str:
        return f"line {first + text} of standard input"

    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            texts.append(line.decode().rstrip("\r\n"))
        except UnicodeDecodeError:
            raise UserError(f"line {number} of standard input is not UTF-8; convert it first") from None
        if len(texts) == size:
            yield model.table(texts, name)
            texts, first = [], number + 1
    if texts:
        yield model.table(texts, name)


def _rows(path: Path, model: "Loaded") -> pa.Table:
    from bigembed.data import open_part
    from bigembed.joining import columns_of

    given = model.job.data.format if isinstance(model.job.data, FilesData) else Format.auto
    form = given if given in HEADLESS else Format.auto
    return open_part(FilesData(path=str(path), format=form), "test", columns_of(model.job))


def _text(labels: np.ndarray, probabilities: np.ndarray) -> str:
    chosen = probabilities[np.arange(len(labels)), labels]
    return "".join(
        f"{label}\t{probability:.4f}\n" for label, probability in zip(labels.tolist(), chosen.tolist(), strict=True)
    )


def _scores(probabilities: np.ndarray) -> str:
    """Return the answers of a ranking head: a line a row, a column a label."""
    return "".join("\t".join(f"{value:.6g}" for value in row) + "\n" for row in probabilities.tolist())


def _write(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]], ranked: list[str]) -> int:
    """Write the answers and return their number: Parquet with all probabilities, or text as on the screen.

    ``ranked`` are the labels of a ranking head.
    """
    try:
        with replacing(path) as unfinished:
            if path.suffix == ".parquet":
                return _write_scores(unfinished, answers, ranked) if ranked else _write_parquet(unfinished, answers)
            return _write_text(unfinished, answers, ranked)
    except OSError as error:
        raise UserError(f"output={path} cannot be written: {error.strerror}") from None


def _write_parquet(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]]) -> int:
    schema = pa.schema({"label": pa.int64(), "probabilities": pa.list_(pa.float32())})
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for labels, probabilities in answers:
            offsets = np.arange(len(labels) + 1, dtype=np.int32) * np.int32(probabilities.shape[1])
            lists = pa.ListArray.from_arrays(offsets, pa.array(probabilities.ravel()))
            writer.write_table(pa.table([pa.array(labels), lists], schema=schema))
            count += len(labels)
    return count


def _write_scores(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]], ranked: list[str]) -> int:
    schema = pa.schema({label: pa.float32() for label in ranked})
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for labels, probabilities in answers:
            writer.write_table(pa.table([pa.array(column) for column in probabilities.T.copy()], schema=schema))
            count += len(labels)
    return count


def _write_text(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]], ranked: list[str]) -> int:
    count = 0
    with path.open("w") as file:
        for labels, probabilities in answers:
            file.write(_scores(probabilities) if ranked else _text(labels, probabilities))
            count += len(labels)
    return count
