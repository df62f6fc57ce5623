"""The command as it is typed: answers in processes of their own, quick, in one line, without loading torch."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import SMALL, bigembed

from bigembed import __version__
from bigembed.config import saved
from bigembed.config.schema import BagHead, FeatureConfig, FilesData, Job, VocabTable

SCRIPT = Path(sys.executable).with_name("bigembed")
HEAVY = ("torch", "torchrec", "fbgemm_gpu", "hydra", "numba", "pyarrow", "datasets")
# Python imports this file at its start: what was loaded is told at its end, whichever way it ends.
TELL = """import atexit, os, sys
leave = os._exit
def tell():
    with open(os.environ["LOADED"], "w") as file:
        file.write(" ".join(name for name in {heavy!r} if name in sys.modules))
def tell_and_leave(code):
    tell()
    leave(code)
atexit.register(tell)
os._exit = tell_and_leave
"""


@dataclass
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    loaded: list[str]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty working folder."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """The folder of a run that has been configured and has no checkpoint yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    job = Job(
        data=FilesData(path="data"), tables={"text": VocabTable()}, features={"text": FeatureConfig()}, head=BagHead()
    )
    saved.save(job, folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert bigembed("train", *SMALL, f"hydra.run.dir={folder}") == 0
    return folder


def answer(work: Path, *arguments: str, command: tuple[str, ...] = (str(SCRIPT),)) -> Answer:
    """Run a command in the folder ``work``."""
    tell = work.parent / "tell"
    tell.mkdir(exist_ok=True)
    (tell / "sitecustomize.py").write_text(TELL.format(heavy=HEAVY))
    environment = {**os.environ, "PYTHONPATH": str(tell), "LOADED": str(tell / "loaded")}
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *arguments], cwd=work, env=environment, capture_output=True, text=True, timeout=100
    )
    seconds = time.perf_counter() - began
    return Answer(done.returncode, done.stdout, done.stderr, seconds, (tell / "loaded").read_text().split())


def best(limit: float, work: Path, *arguments: str) -> Answer:
    """The first of at most three answers that came within ``limit`` seconds, else the last."""
    for _ in range(3):
        given = answer(work, *arguments)
        if given.seconds < limit:
            break
    return given


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], []])
def test_help_lists_the_commands_within_half_a_second(arguments: list[str], work: Path) -> None:
    given = best(0.5, work, *arguments)
    assert (given.code, given.err, given.loaded) == (0, "", [])
    assert "usage: bigembed COMMAND" in given.out
    for command in ("train", "plan", "evaluate", "predict", "export"):
        assert f"\n  {command} " in given.out
    assert given.seconds < 0.5


@pytest.mark.parametrize("command", ["train", "plan", "evaluate", "predict", "export"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command(command: str, flag: str, work: Path) -> None:
    given = best(0.5, work, command, "anything=1", flag)
    assert (given.code, given.err, given.loaded) == (0, "", [])
    assert given.out.startswith(f"usage: bigembed {command} ")
    assert given.seconds < 0.5


def test_version(work: Path) -> None:
    given = answer(work, "--version")
    assert (given.code, given.out, given.err, given.loaded) == (0, f"bigembed {__version__}\n", "", [])


@pytest.mark.parametrize("arguments", [["--help"], ["train", "trainer.epochz=2"], ["evaluate"]])
def test_python_m_bigembed_is_the_same_command(arguments: list[str], work: Path) -> None:
    one, other = answer(work, *arguments), answer(work, *arguments, command=(sys.executable, "-m", "bigembed"))
    assert (one.code, one.out, one.err) == (other.code, other.out, other.err)


WRONG = {
    "train trainer.epochz=2": ["'trainer.epochz'", "did you mean 'epochs'?", "batch_size"],
    "train trainer.epochs=many": ["trainer.epochs=many"],
    "train trainer.epochs=0": ["trainer.epochs is 0, so that nothing is trained"],
    "train optim.tables.kind=adam": ["optim.tables.kind=adam", "rowwise_adagrad"],
    "train data=nope": ["'nope'", "'data'", "files, generated, imdb"],
    "train tables.text.dim=6": ["tables.text.dim is 6", "multiple of 4"],
    "train --epochs 3": ["--epochs", "key=value"],
    "train epochs": ["'epochs' is not an override of the form key=value"],
    "train trainer.epochs=1,2": ["-m"],
    "train hydra.run.dir=/proc/nowhere": ["/proc/nowhere", "hydra.run.dir=DIR"],
    "train hydra.run.dir=/etc/passwd/below": ["/etc/passwd/below", "hydra.run.dir=DIR"],
    "train -m hydra.sweep.dir=/proc/nowhere seed=1,2": ["/proc/nowhere", "hydra.sweep.dir=DIR"],
    "train resume=nowhere": ["nowhere is no folder"],
    "train resume=RUN trainer.epochs=9": ["resume=", "trainer.epochs (5 → 9)", "leave them out"],
    "train resume=RUN trainer.epochz=9": ["no option 'trainer.epochz'"],
    "train resume=RUN runtime.threads=0": ["runtime.threads is 0; it must be at least 1"],
    "train sharding.kind=rows": ["sharding.kind=rows", "row_wise"],
    "train sharding.kernel=key_value": ["tables.text has the kernel key_value", "fused_uvm"],
    "train runtime=cpu sharding.kernel=fused_uvm": ["fused_uvm", "there is no GPU; use fused"],
    "train -m hydra.run.dir=x seed=1,2": ["hydra.sweep.dir=DIR"],
    "plan plan.world_size=0": ["plan.world_size is 0; it must be at least 1"],
    "plan plan=h10": ["'h10'", "'plan'", "h100"],
    "plan -m seed=1,2": ["-m is for bigembed train"],
    "plan resume=RUN": ["is for bigembed train"],
    "plan hydra.run.dir=x": ["hydra.run.dir=x is for bigembed train"],
    "evaluate": ["run= is missing"],
    "evaluate run=nowhere": ["nowhere is no folder"],
    "evaluate run=.": ["holds no job.yaml"],
    "evaluate run=RUN": ["has no finished checkpoint yet", "resume="],
    "evaluate ran=RUN": ["no option 'ran'", "run, output, picture, checkpoint"],
    "evaluate RUN": ["is not of the form key=value"],
    "evaluate --run RUN": ["'--run' is not of the form key=value"],
    "evaluate run=RUN checkpoint=first": ["checkpoint", "first", "best, last"],
    "evaluate run=TRAINED trainer.epochs=3": ["trainer.epochs=3 cannot be changed for bigembed evaluate", "data."],
    "evaluate run=TRAINED data.pith=x": ["no option 'data.pith'"],
    "evaluate run=TRAINED runtime.device=tpu": ["runtime.device", "tpu", "auto, cpu, cuda"],
    "predict": ["run= is missing"],
    "predict run=RUN in=x": ["no option 'in'", "run, input, output, checkpoint"],
    "predict run=RUN checkpoint=first": ["checkpoint", "first", "best, last"],
    "predict run=RUN data.train=x": ["predict takes no options of the job", "data.train=x"],
    "export": ["run= is missing"],
    "export run=RUN": ["out= is missing"],
    "export run=RUN out=x formt=numpy": ["no option 'formt'", "run, out, format, table, words, checkpoint"],
    "export run=RUN out=x format=csv": ["no format 'csv'", "word2vec, word2vec-binary, glove, fasttext"],
    "export run=RUN out=x data.path=y": ["export takes no options of the job", "data.path=y"],
    "export run=TRAINED out=x table=words": ["table= must name one of the tables of the run: text"],
    "export run=RUN out=x": ["has no finished checkpoint yet"],
    "export run=nowhere out=x": ["nowhere is no folder"],
    "trian": ["no command 'trian'", "train, plan, evaluate, predict, recommend, export"],
    "--foo": ["no command '--foo'", "train, plan, evaluate, predict, recommend, export"],
}


@pytest.mark.parametrize("arguments", WRONG)
def test_what_is_typed_wrong_is_answered_in_one_line_before_torch_is_loaded(
    arguments: str, work: Path, run_folder: Path, trained: Path
) -> None:
    typed = arguments.replace("TRAINED", str(trained)).replace("RUN", str(run_folder))
    given = best(1.5, work, *typed.split())
    assert given.code == 2 and given.out == ""
    (line,) = given.err.splitlines()
    assert line.startswith("bigembed: ") and "Traceback" not in line
    for part in WRONG[arguments]:
        assert part in line
    assert not {"torch", "torchrec", "fbgemm_gpu", "datasets"} & set(given.loaded)
    assert given.seconds < 1.5
    left = [path.name for path in work.iterdir()]
    assert left == []
    assert [path.name for path in run_folder.iterdir()] == ["job.yaml"]


def test_wrong_arguments_of_every_command_are_tried() -> None:
    commands = [arguments.partition(" ")[0] for arguments in WRONG]
    assert [commands.count(name) for name in ("train", "plan", "evaluate", "predict", "export")] == [20, 5, 11, 4, 8]


@pytest.mark.parametrize("command", ["plan", "predict", "export"])
def test_what_is_the_work_of_one_process_is_refused_under_torchrun(
    command: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = answer(work, command, "run=nowhere")
    assert (given.code, given.out, given.loaded) == (2, "", [])
    assert given.err == f"bigembed: {command} is the work of one process; start it without torchrun\n"
    assert answer(work, command, "--help").code == 0
    assert answer(work, "--version").code == 0


def test_what_was_loaded_is_really_seen(work: Path) -> None:
    code = (sys.executable, "-c", "import pyarrow, hydra")
    assert answer(work, command=code).loaded == ["hydra", "pyarrow"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run([SCRIPT, *arguments], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")
