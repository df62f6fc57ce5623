"""launch/ and the build: quick when all is there, and one sentence where something is wrong.

The set-up runs for real, with a Python in place of the real one whose venv and pip only write down what they were
asked: what pip does with it needs a network and a minute, and is what `bash launch/test.sh` itself has just shown.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ["launch/setup.sh", "launch/train.sh", "launch/test.sh", ".ci/run"]

FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m venv "*)
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        ;;
    "-m pip install "*)
        echo "$BIGEMBED_BUILD $*" >>"$CALLS"
        [[ -z ${PIP_SECONDS:-} ]] || sleep "$PIP_SECONDS"
        [[ -z ${PIP_SAYS:-} ]] || { printf '%s\\n' "$PIP_SAYS"; exit 1; }
        printf '#!/bin/sh\\npwd\\nprintf "<%%s>" "$@"\\n' >"$(dirname "$0")/bigembed"
        chmod +x "$(dirname "$0")/bigembed"
        ;;
    "-m pip check" | *"import torch"*) ;;
    "-m pytest"*) pwd; shift 2; printf "<%s>" "$@" ;;
    *version_info*) [[ -z ${VERSION:-} ]] && exec REAL "$@"; echo "$VERSION" ;;
    *) exec REAL "$@" ;;
esac
"""


class Checkout:
    """A copy of what the set-up reads, with the fake Python."""

    def __init__(self, root: Path, home: Path) -> None:
        """Copy into ``root``; what is no part of a checkout goes to ``home``."""
        self.root, self.calls_file, self.python = root, home / "calls", home / "python"
        for name in ("pyproject.toml", "hatch_build.py", "launch"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)
        self.python.write_text(FAKE_PYTHON.replace("REAL", f"'{sys.executable}'"))
        self.python.chmod(0o755)
        self.calls_file.touch()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BIGEMBED_")},
            "PYTHON": str(self.python),
            "CALLS": str(self.calls_file),
            "BIGEMBED_BUILD": "cpu",
        }

    def start(self, *command: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """Start ``bash launch/COMMAND`` in a process group of its own."""
        return subprocess.Popen(
            ["bash", str(self.root / "launch" / command[0]), *command[1:]],
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
        """Run ``bash launch/COMMAND``; the exit code, standard output and standard error."""
        process = self.start(*command, cwd=cwd, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def installs(self) -> list[str]:
        """What pip was asked to install, one line a call, after the build kind."""
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a checkout"
    root.mkdir()
    return Checkout(root, tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_train_keeps_the_callers_folder_and_arguments(checkout: Checkout, tmp_path: Path) -> None:
    code, out, err = checkout.run("train.sh", "data.path=a b", "x=1", cwd=tmp_path)
    assert code == 0, err
    assert out == f"{tmp_path.resolve()}\n<train><data.path=a b><x=1>"
    assert "cpu build" in err


def test_tests_run_in_the_root(checkout: Checkout, tmp_path: Path) -> None:
    code, out, err = checkout.run("test.sh", "-k", "a or b", cwd=tmp_path)
    assert code == 0, err
    assert out == f"{checkout.root.resolve()}\n<-n><2><--dist><loadfile><-k><a or b>"


def test_nothing_is_done_when_all_is_there(checkout: Checkout) -> None:
    assert checkout.run("setup.sh", "test")[0] == 0
    for part in ("test", "runtime"):  # the test part holds the other
        start = time.perf_counter()
        assert checkout.run("setup.sh", part)[0] == 0
        assert time.perf_counter() - start < 2
    assert len(checkout.installs) == 1
    # Nor is a Python started when none is asked for.
    assert checkout.run("setup.sh", "test", PYTHON="", VERSION="3.0")[0] == 0
    assert len(checkout.installs) == 1


def test_each_part_installs_what_it_needs(checkout: Checkout) -> None:
    checkout.run("setup.sh", "runtime")
    checkout.run("setup.sh", "test")
    assert [line.split(" -e ")[1] for line in checkout.installs] == [".", ".[test]"]


@pytest.mark.parametrize("changed", ["pyproject.toml", "launch/constraints.txt", "hatch_build.py"])
def test_a_change_is_installed(checkout: Checkout, changed: str) -> None:
    checkout.run("setup.sh", "runtime")
    (checkout.root / ".venv" / "kept").touch()
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")
    assert checkout.run("setup.sh", "runtime")[0] == 0
    assert len(checkout.installs) == 2
    assert (checkout.root / ".venv" / "kept").exists()


def test_another_build_or_folder_begins_anew(checkout: Checkout) -> None:
    checkout.run("setup.sh", "runtime")
    (checkout.root / ".venv" / "left over").touch()
    code, _, err = checkout.run("setup.sh", "runtime", BIGEMBED_BUILD="cuda")
    assert code == 0 and "anew" in err
    assert not (checkout.root / ".venv" / "left over").exists()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    code, _, err = checkout.run("setup.sh", "runtime", BIGEMBED_BUILD="cuda")
    assert code == 0 and "anew" in err


def test_an_interrupted_setup_is_redone(checkout: Checkout) -> None:
    process = checkout.start("setup.sh", "runtime", PIP_SECONDS="30")
    while not checkout.installs:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (checkout.root / ".venv" / "half a package").touch()
    code, _, err = checkout.run("setup.sh", "runtime")
    assert code == 0 and "interrupted" in err
    assert not (checkout.root / ".venv" / "half a package").exists()
    assert len(checkout.installs) == 2


def test_two_at_once(checkout: Checkout) -> None:
    processes = [checkout.start("setup.sh", "runtime", PIP_SECONDS="1") for _ in range(2)]
    ends = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert len(checkout.installs) == 1
    assert sum("waiting" in end for end in ends) == 1


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="the CPU build is plain there")
def test_the_cpu_build_is_asked_for_by_name(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("setup.sh", "runtime")
    assert checkout.installs[-1].startswith("cpu ") and " torch==2.13.0+cpu " in checkout.installs[-1]
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'GPU 0: something (UUID: 1)'\n")
    driver.chmod(0o755)
    path = f"{driver.parent}:{os.environ['PATH']}"
    _, _, err = checkout.run("setup.sh", "runtime", PATH=path, BIGEMBED_BUILD="auto")
    assert "cuda build" in err
    assert checkout.installs[-1].startswith("cuda ") and "+cpu" not in checkout.installs[-1]
    driver.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    _, _, err = checkout.run("setup.sh", "runtime", PATH=path, BIGEMBED_BUILD="auto")
    assert "cpu build" in err
    assert len(checkout.installs) == 3


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"BIGEMBED_BUILD": "nonsense"}, "BIGEMBED_BUILD is 'nonsense': it can be auto, cpu or cuda"),
        ({"VERSION": "3.10"}, "Python 3.10: bigembed needs 3.11 or 3.12"),
        ({"VERSION": "3.13"}, "Python 3.13: bigembed needs 3.11 or 3.12"),
        ({"PYTHON": "/nowhere/python"}, "PYTHON is '/nowhere/python': that does not run as a Python"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_what_cannot_be_is_refused(checkout: Checkout, environment: dict[str, str], says: str, there: bool) -> None:
    if there:
        checkout.run("setup.sh", "runtime")
    before = len(checkout.installs)
    code, out, err = checkout.run("train.sh", **environment)
    assert code != 0 and out == ""
    assert err.splitlines()[-1].startswith("bigembed: ") and err.splitlines()[-1].endswith(says)
    assert len(checkout.installs) == before


def test_no_supported_python(checkout: Checkout, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("bash", "dirname"):
        (few / name).symlink_to(shutil.which(name) or name)
    code, _, err = checkout.run("train.sh", PYTHON="", PATH=str(few))
    assert code != 0
    assert "no Python 3.11 or 3.12 on the path: install one, or set PYTHON=/path/to/python" in err


def test_a_venv_of_somebody_elses_is_left_alone(checkout: Checkout) -> None:
    theirs = checkout.root / ".venv" / "theirs"
    theirs.parent.mkdir()
    theirs.touch()
    code, _, err = checkout.run("setup.sh", "runtime")
    assert code != 0 and "was not made by this script" in err
    assert theirs.exists()


def test_the_end_of_a_failed_log_is_shown(checkout: Checkout) -> None:
    code, _, err = checkout.run("setup.sh", "runtime", PIP_SAYS="\n".join(f"line {i}" for i in range(100)))
    assert code != 0
    assert "line 99" in err and "line 80\n" not in err
    assert "line 0\n" in (checkout.root / ".venv" / "setup.log").read_text()
    # A pip that has failed by itself leaves .venv usable: the next call goes on from there.
    code, _, err = checkout.run("setup.sh", "runtime")
    assert code == 0 and "anew" not in err


@pytest.mark.parametrize(
    ("pip_says", "says"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "CPU build torch==2.13.0+cpu"),
        ("ERROR: Cannot install torch==2.13.0+cpu because these package", "CPU build torch==2.13.0+cpu"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "could not reach a package index"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="the CPU build is plain there")
def test_known_failures_are_explained(checkout: Checkout, pip_says: str, says: str) -> None:
    code, _, err = checkout.run("setup.sh", "runtime", PIP_SAYS=pip_says)
    assert code != 0
    assert says in err.splitlines()[-1]


def requirements(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Requirement]:
    """What the build writes into the package's metadata, extras included."""
    monkeypatch.setenv("BIGEMBED_BUILD", kind)
    metadata = ProjectMetadata(str(ROOT), PluginManager())
    core = metadata.core
    extras = [one for extra in core.optional_dependencies.values() for one in extra]
    return [Requirement(one) for one in [*core.dependencies, *extras]]


def test_the_build_brings_the_fbgemm_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {kind: {one.name: one for one in requirements(kind, monkeypatch)}["fbgemm-gpu"] for kind in ("cpu", "cuda")}
    stand_in = ROOT / "launch" / "fbgemm-gpu-cpu-only"
    assert found["cpu"].url == stand_in.as_uri()
    assert str(found["cuda"]) == "fbgemm-gpu==1.8.0"
    project = tomllib.loads((stand_in / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["version"]) == ("fbgemm-gpu", "1.8.0")
    assert project["dependencies"] == ["fbgemm-gpu-cpu==1.8.0"]


def test_the_build_refuses_an_unknown_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="BIGEMBED_BUILD is 'nonsense': it can be auto, cpu or cuda"):
        requirements("nonsense", monkeypatch)


def lock() -> dict[str, Version]:
    """The pins of launch/constraints.txt; every line must be one, or a comment."""
    pins = {}
    for line in (ROOT / "launch" / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9-]+)==(\S+)", line)
            assert match, line
            assert match[1] not in pins, f"{match[1]} is pinned twice"
            pins[match[1]] = Version(match[2])
    return pins


def test_the_lock_pins_every_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = lock()
    wanted = requirements("cpu", monkeypatch) + requirements("cuda", monkeypatch)
    assert len(wanted) >= 2 * (13 + 6 + 2)  # runtime, test, peers: a table that is not read is noticed
    for one in wanted:
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), str(one)


def test_the_lock_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow what the installed packages require in turn."""
    pins = lock()
    open_names = {canonicalize_name(one.name) for one in requirements("cpu", monkeypatch)}
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        seen.add(name)
        try:
            further = requires(name) or []
        except PackageNotFoundError:  # the peers are installed for benchmarks only
            continue
        for one in map(Requirement, further):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                open_names |= {canonicalize_name(one.name)} - seen
    assert len(seen) > 60
    assert sorted(seen - pins.keys()) == []


def test_no_index_is_named() -> None:
    """Where packages come from is the business of the machine's pip configuration."""
    files = [ROOT / "pyproject.toml", ROOT / "hatch_build.py", ROOT / ".ci" / "run", *(ROOT / "launch").rglob("*")]
    texts = [file.read_text() for file in files if file.is_file()]
    assert len(texts) >= 8
    assert [text for text in texts if re.search(r"https?://|--(extra-)?index-url|--find-links", text)] == []
