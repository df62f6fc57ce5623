"""The package as others get it: a wheel, installed away from the checkout, run from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed; its standard output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["BIGEMBED_BUILD"] = "cpu"
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the tools that are installed here, so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that has the wheel of its own and everything else from the present one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    # The lines of a .pth are folders: the .pth files in them, one of which leads to the checkout, are not read.
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    present = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "present.pth").write_text("\n".join(present) + "\n")
    return folder / "bin"


def test_the_wheel_holds_the_package_and_its_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "bigembed/conf/train.yaml" in names
    files = {file.relative_to(ROOT) for file in (ROOT / "conf").rglob("*.yaml")}
    assert files and {f"bigembed/{file.as_posix()}" for file in files} <= names
    outside = {name for name in names if not name.startswith(("bigembed/", "bigembed-"))}
    assert outside == set()


def test_an_editable_install_has_no_copy_of_the_configuration(tmp_path: Path) -> None:
    run(sys.executable, "-c", "import sys, hatchling.build as b; b.build_editable(sys.argv[1])", tmp_path, cwd=ROOT)
    (built,) = tmp_path.iterdir()
    with zipfile.ZipFile(built) as archive:
        assert [name for name in archive.namelist() if "conf/" in name] == []


def test_it_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import bigembed; print(bigembed.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    for command in ([installed / "bigembed"], [installed / "python", "-m", "bigembed"]):
        assert "usage: bigembed" in run(*command, "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
