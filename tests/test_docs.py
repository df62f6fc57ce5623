"""What the pages say is so: the commands in them run, the options are those of the schema, the links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import write_reviews
from warm import warm_commands

from bigembed.config import options
from bigembed.config.schema import GeneratedData
from bigembed.data.generated import best_accuracy

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [path for path in [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))] if path.exists()]
RUN = ("bash", "python")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
REASON = re.compile(r"<!--\s*(?P<reason>\S.*?)\s*-->\n\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code on a page; ``reason`` says why it is not run."""

    line: int
    language: str
    exempt: bool
    reason: str
    code: str


def blocks_of(text: str) -> list[Block]:
    """The blocks of shell commands and of Python, in order."""
    found = []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        if language in RUN:
            above = REASON.search(text[: match.start()])
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(line, language, rest.strip() == "notest", above["reason"] if above else "", code))
    return found


def script_of(blocks: list[Block], data: Path) -> str:
    """One shell script of all blocks that are run, as a reader would type them; $BLOCK gets the line of the present one."""
    lines = ["set -euo pipefail"]
    for block in blocks:
        if not block.exempt:
            code = re.sub(r"\bdata\.path=DIR\b", lambda _: f"data.path={shlex.quote(str(data))}", block.code)
            lines.append(f'printf %s {block.line} > "$BLOCK"')
            lines.append(code if block.language == "bash" else f"python - <<'END OF THE BLOCK'\n{code}END OF THE BLOCK")
    return "\n".join(lines) + "\n"


def run_page(text: str, folder: Path, programs: Path = Path(sys.executable).parent) -> tuple[int, str]:
    """Run the blocks of a page in an empty folder; return 0, or the line of the block that failed, and what was printed.

    ``programs`` come before those of the environment.
    """
    work, note = folder / "work", folder / "block"
    work.mkdir()
    note.write_text("0")
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "BLOCK": str(note),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    script = script_of(blocks_of(text), write_reviews(folder / "data"))
    command = ["bash", "-c", script]
    done = subprocess.run(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return (int(note.read_text()) if done.returncode else 0), done.stdout


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of commands that need not import anything: the pages have many of them."""
    with warm_commands(tmp_path_factory.mktemp("warm")) as programs:
        yield programs


def test_there_are_blocks_to_run() -> None:
    assert README in PAGES and len(PAGES) >= 4
    count = {page.name: sum(not block.exempt for block in blocks_of(page.read_text())) for page in PAGES}
    assert count["README.md"] >= 9
    for page in PAGES:  # no fence escapes the reader of fences
        starts = re.findall(rf"^ *```(?:{'|'.join(RUN)})\b", page.read_text(), re.MULTILINE)
        assert len(starts) == len(blocks_of(page.read_text())), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_is_left_out_only_for_a_reason(page: Path) -> None:
    text = page.read_text()
    for block in blocks_of(text):
        assert not block.exempt or len(block.reason) > 20, f"{page.name}:{block.line} is exempt and does not say why"
    infos = [
        match["info"].strip() for match in FENCE.finditer(text) if match["info"].split()[:1] in (["bash"], ["python"])
    ]
    assert set(infos) <= {*RUN, *(f"{language} notest" for language in RUN)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not block.exempt for block in blocks_of(page.read_text()))],
    ids=lambda page: page.name,
)
def test_the_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, warm: Path) -> None:
    line, output = run_page(page.read_text(), tmp_path, warm)
    assert line == 0, f"{page.name}:{line}\n{output}"
    if page == README:
        assert "\nbigembed train hydra.run.dir=runs/first\n" in page.read_text()  # the default job
        figures = json.loads((tmp_path / "work" / "runs" / "first" / "metrics.json").read_text())
        assert figures["test"]["accuracy"] > best_accuracy(GeneratedData()) - 0.03


def test_the_page_of_options_is_the_one_that_the_schema_gives() -> None:
    page = ROOT / "docs" / "options.md"
    made = subprocess.run([sys.executable, "-m", "bigembed.config.options"], cwd=ROOT, capture_output=True, text=True)
    assert made.stdout == options.page()
    assert page.read_text() == made.stdout, "make it again: python -m bigembed.config.options > docs/options.md"


def test_docstrings_are_checked_by_ruff() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "D" in ruff["select"] and ruff["pydocstyle"]["convention"] == "numpy"
    assert {rule for rule in ruff["ignore"] if rule.startswith("D")} <= {"D105", "D208"}
    free = [files for files, rules in ruff["per-file-ignores"].items() if any(rule.startswith("D") for rule in rules)]
    assert sorted(free) == ["benchmarks/**", "tests/**"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_project(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


PAGE = """
Text with ```bash in it.

```bash
kept=here; echo "$kept" > note   # a comment
cat note
bigembed --version
```
```text
false
```
<!-- There is
no such machine. -->

```bash notest
reboot
```
- in a list
  ```bash
  ls data.path=DIR/train.parquet | sed 's/data.path=//' | xargs test -f
  test "$(cat note)" = "$kept"
  ```
```python
import bigembed

if True:
    print(bigembed.__name__, open("note").read())
```
```bash notest
```
"""


def test_blocks_are_read_with_their_place_and_reason() -> None:
    blocks = blocks_of(PAGE)
    assert [(block.line, block.language, block.exempt, block.reason) for block in blocks] == [
        (4, "bash", False, ""),
        (15, "bash", True, "There is\nno such machine."),
        (19, "bash", False, ""),
        (23, "python", False, ""),
        (29, "bash", True, ""),
    ]
    assert blocks[2].code.startswith("ls data.path=DIR/train.parquet")


def test_blocks_share_a_folder_and_a_shell(tmp_path: Path) -> None:
    page = PAGE.replace("ls data.path=DIR/train.parquet |", "echo data.path=DIR |").replace("test -f", "ls")
    line, output = run_page(page, tmp_path)
    assert line == 0, output
    assert "bigembed here" in output and "train.parquet" in output
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["note"]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("```bash\ntrue\n```\n```bash\nfalse\ntrue\n```\n", 4),
        ("```bash\nfalse | true\n```\n", 1),
        ("```bash\necho $nothing\n```\n", 1),
        ("```bash\nbigembed nonsense\n```\n", 1),
        ("```python\nimport bigembed\nraise SystemExit(1)\n```\n", 1),
    ],
)
def test_a_block_that_fails_is_told_by_its_line(wrong: str, line: int, tmp_path: Path) -> None:
    assert run_page(wrong, tmp_path)[0] == line
