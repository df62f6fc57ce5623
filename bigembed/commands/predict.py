"""``bigembed predict``: labels with probabilities for the lines of standard input, or the rows of a file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigembed.config.arguments import parse
from bigembed.config.schema import FilesData, PredictOptions
from bigembed.errors import UserError
from bigembed.files import replacing

if TYPE_CHECKING:
    from bigembed.inference import Loaded

BLOCK = 4096  # lines worked on at once


def main(arguments: list[str]) -> int:
    """Predict what ``arguments`` ask for; return the exit code."""
    options, others = parse(arguments, PredictOptions)
    if others:
        raise UserError(f"predict takes no options of the job, but got {', '.join(others)}")
    from bigembed.inference import load  # torch from here on

    model = load(options.run, options.checkpoint.name if options.checkpoint else None)
    model.check_predicts()
    tables = _lines(model) if options.input is None else [_rows(Path(options.input), model)]
    answers = (answer for table in tables for answer in model.answers(table))
    if options.output is None:
        for labels, probabilities in answers:
            sys.stdout.write(_text(labels, probabilities))
            sys.stdout.flush()
    else:
        count = _write(Path(options.output), answers)
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
    from bigembed.prepare import columns_of

    return open_part(FilesData(path=str(path)), "test", columns_of(model.job))


def _text(labels: np.ndarray, probabilities: np.ndarray) -> str:
    chosen = probabilities[np.arange(len(labels)), labels]
    return "".join(
        f"{label}\t{probability:.4f}\n" for label, probability in zip(labels.tolist(), chosen.tolist(), strict=True)
    )


def _write(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]]) -> int:
    """Write the answers and return their number: Parquet with all probabilities, or text as on the screen."""
    try:
        with replacing(path) as unfinished:
            return (_write_parquet if path.suffix == ".parquet" else _write_text)(unfinished, answers)
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


def _write_text(path: Path, answers: Iterator[tuple[np.ndarray, np.ndarray]]) -> int:
    count = 0
    with path.open("w") as file:
        for labels, probabilities in answers:
            file.write(_text(labels, probabilities))
            count += len(labels)
    return count
