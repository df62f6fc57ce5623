"""The groups of YAML files: which there are, and what each file says of itself in its first line."""

from pathlib import Path

SCHEMA = "schema"  # what stands in Hydra's store under names that begin so is ours, not a choice for users


def conf_dir() -> Path:
    """Return the folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups() -> dict[str, dict[str, str]]:
    """Return the groups by name; of each the choices by name, with the comment that their file begins with."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: {file.stem: _about(file) for file in sorted(folder.glob("*.yaml"))} for folder in folders}


def _about(file: Path) -> str:
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            comments.append(" ".join(line.removeprefix("#").split()))
    return comments[0] if comments else ""
