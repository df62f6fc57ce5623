"""The floors of the house: an import goes down, or stays within its own package; torch is only below a line."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigembed.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bigembed"

# From the lowest floor up. A name of a package stands for all of its modules.
FLOORS = [
    ["errors", "files", "hashing", "ragged", "cores", "shared", "wishes"],
    ["config", "arrays"],
    ["run", "admission"],
    ["encoders", "data", "vectors", "interactions"],
    ["signals", "report", "least_squares"],
    ["weighing", "composed", "layout", "top", "joining"],
    ["pairs"],
    ["examples"],
    ["run_vectors"],
    ["pretrained"],
    ["growth"],
    ["prepare"],
    ["knowing"],
    # ---- torch only from here on
    ["runtime", "batch", "ranks"],
    ["loader", "heads", "metrics", "optim", "agreement", "composition", "managed"],
    ["model", "sharding", "stepping", "retrieving"],
    ["build", "evaluation", "checkpoint", "recommending"],
    ["starting"],
    ["trainer", "inference"],
    ["commands"],
    ["cli"],
    ["__main__", "__init__"],
]
WITHOUT_TORCH = 12  # floors
HEAVY = ("torch", "torchrec", "fbgemm_gpu")
# Attributes of the package itself, which is loaded before any of its modules.
OF_THE_PACKAGE = {"__version__"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``bigembed``; the package itself is ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = modules()


def unit_of(module: str) -> str:
    """The name under which a module stands in the table."""
    return module.partition(".")[0]


def floor_of(module: str) -> int:
    """The floor on which a module lies."""
    (floor,) = [number for number, units in enumerate(FLOORS) if unit_of(module) in units]
    return floor


def imports_of(module: str) -> Iterator[tuple[int, str]]:
    """Line and module of every import of one of our modules, those inside functions included."""
    tree = ast.parse(MODULES[module].read_text())
    here = f"bigembed.{module}" if MODULES[module].name == "__init__.py" else f"bigembed.{module}".rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), here)
            names = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in names:
            if base == "bigembed" and name in OF_THE_PACKAGE:
                continue
            if base == "bigembed" or base.startswith("bigembed."):
                whole = f"{base}.{name}".removeprefix("bigembed.").rstrip(".")
                inside = whole if whole in MODULES else base.removeprefix("bigembed").removeprefix(".")
                yield node.lineno, inside or "__init__"


def test_every_module_stands_in_the_table_once() -> None:
    units = [unit for floor in FLOORS for unit in floor]
    assert len(units) == len(set(units))
    assert {unit_of(module) for module in MODULES} == set(units)
    assert len(MODULES) >= 95
    assert {module for module in MODULES if floor_of(module) >= 0} == set(MODULES)


def test_an_import_goes_down_or_stays_within_its_package() -> None:
    seen, wrong = 0, []
    for module in MODULES:
        for line, imported in imports_of(module):
            seen += 1
            own = unit_of(imported) == unit_of(module) and (PACKAGE / unit_of(module)).is_dir()
            own = own or module == "__init__"  # the package's face names what is inside
            if not own and floor_of(imported) >= floor_of(module):
                wrong.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {imported}")
    assert wrong == []
    assert seen >= 580


def test_no_modules_import_each_other_in_a_circle() -> None:
    needs = {module: {imported for _, imported in imports_of(module)} for module in MODULES if module != "__init__"}
    edges = sum(map(len, needs.values()))
    while True:
        free = {module for module, needed in needs.items() if not needed & needs.keys()}
        if not free:
            break
        needs = {module: needed for module, needed in needs.items() if module not in free}
    assert needs == {}
    assert edges >= 330


def test_only_the_command_line_imports_by_a_computed_name() -> None:
    calls = {}
    for module, path in MODULES.items():
        names = [getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))]
        if {"import_module", "__import__"} & set(names):
            calls[module] = path
    assert list(calls) == ["cli"]


def test_what_lies_above_the_line_loads_no_torch() -> None:
    light = [module for module in MODULES if floor_of(module) < WITHOUT_TORCH]
    light += [
        "cli",
        "__main__",
        "__init__",
        "commands",
        *(f"commands.{command}" for command in COMMANDS),  # what they import later may need torch
    ]
    code = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        f"    loaded[name] = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "print(json.dumps(loaded))\n"
    )
    names = [f"bigembed.{module}".removesuffix(".__init__") for module in light]
    done = subprocess.run([sys.executable, "-c", code, json.dumps(names)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert len(loaded) == len(names) >= 58
    assert {name: heavy for name, heavy in loaded.items() if heavy} == {}


@pytest.mark.parametrize("statement", ["import bigembed", "from bigembed import __version__"])
def test_the_package_itself_loads_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "numpy", "hydra", "numba")
    code = f"{statement}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_rule_would_see_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(text: str, module: str = "data.files") -> list[str]:
        (tmp_path / "module.py").write_text(text)
        monkeypatch.setitem(MODULES, module, tmp_path / "module.py")
        return [name for _, name in imports_of(module)]

    assert imported("def f():\n    from bigembed.trainer import train\n") == ["trainer"]
    assert imported("import bigembed.model as m, os\n") == ["model"]
    assert imported("from bigembed import prepare, __version__, load\n") == ["prepare", "__init__"]
    assert imported("from bigembed.encoders import store, Encoder\n") == ["encoders.store", "encoders"]
    relative = "from . import lines\nfrom .lines import Columns\nfrom .. import cli\n"
    assert imported(relative) == ["data.lines", "data.lines", "cli"]
    assert floor_of("data.files") < floor_of("model") < floor_of("trainer") < floor_of("cli")
    # Where one imports the other today, or must never.
    assert floor_of("shared") < floor_of("arrays.files") < floor_of("run") < floor_of("signals") < floor_of("ranks")
    assert floor_of("runtime") < floor_of("agreement") <= floor_of("optim") < floor_of("sharding.rows")
    assert floor_of("sharding.rows") == floor_of("model") == floor_of("stepping") < floor_of("checkpoint")
