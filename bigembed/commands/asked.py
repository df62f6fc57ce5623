"""Files that somebody asked a command for by an option."""

from pathlib import Path

from bigembed.errors import UserError
from bigembed.files import replace


def write_asked(option: str, path: str, content: str) -> None:
    """Write the text file that ``option`` names, as a whole or not at all.

    Raises
    ------
    UserError
        When it cannot be written, with the option.
    """
    try:
        replace(Path(path), content.encode())
    except OSError as error:
        raise UserError(f"{option}={path} cannot be written: {error.strerror}") from None


def check_text(output: str | None) -> None:
    """Refuse the ending of a form in which answers are not written.

    Raises
    ------
    UserError
        Naming the forms.
    """
    if output is not None and Path(output).suffix in (".csv", ".json", ".jsonl"):
        raise UserError(
            f"output={output}: answers are written as Parquet (.parquet), or as lines with tabs between their columns (.tsv, .txt)"
        )
