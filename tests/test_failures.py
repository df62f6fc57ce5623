"""When a rank fails, is killed or is asked to stop: the job ends with the rank's own error, or goes on to the same end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_commands
from running import SMALL, tables_of

# 308 steps: whoever sees the checkpoint of step 160 has time to kill.
LONG = [*SMALL, "trainer.epochs=14", "trainer.save_every=20", "trainer.eval_every=100", "runtime.threads=1"]


def torchrun(folder: Path, *arguments: str, ranks: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """Start ``bigembed train`` on several ranks as a user does; what they say goes to folder.log."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [f"--max-restarts={restarts}", "-m", "bigembed", "train", f"hydra.run.dir={folder}", *arguments]
    with log_of(folder).open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=folder.parent)


def log_of(folder: Path) -> Path:
    return folder.with_suffix(".log")


def finished(process: subprocess.Popen[str], folder: Path, seconds: float = 200) -> int:
    """The exit code; what was said, where it does not come in time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"torchrun did not end; it said:\n{log_of(folder).read_text()}")


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The ranks that torchrun has started, by their process numbers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in children.read_text().split()] if children.exists() else []


def wait_for(folder: Path, steps: int, process: subprocess.Popen[str], seconds: float = 100) -> None:
    """Wait until a checkpoint of so many steps or more is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if any(int(path.parent.name[5:]) >= steps for path in folder.glob("checkpoints/step-*/manifest.json")):
            return
        time.sleep(0.02)
    pytest.fail(f"there was no such checkpoint; torchrun said:\n{log_of(folder).read_text()}")


def assert_same_tables(run: Path, reference: Path) -> None:
    ours, theirs = tables_of(run), tables_of(reference)
    assert ours.keys() == theirs.keys() and len(ours) >= 3
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = torchrun(folder, *LONG)
    assert finished(process, folder) == 0, log_of(folder).read_text()
    return folder


def test_killed_ranks_are_started_again_and_reach_the_same_end(tmp_path: Path, undisturbed: Path) -> None:
    folder, chance, killed = tmp_path / "run", random.Random(7), 0
    process = torchrun(folder, *LONG, restarts=20)
    steps = 40
    while steps < 250 and killed < 3:
        wait_for(folder, steps, process)
        time.sleep(chance.random() * 0.3)
        ranks = workers_of(process)
        if ranks:
            os.kill(chance.choice(ranks), signal.SIGKILL)
            killed += 1
        steps += 60
    assert finished(process, folder) == 0, log_of(folder).read_text()
    text = log_of(folder).read_text()
    assert killed == 3 and text.count("continuing at step") >= 2
    assert "terminate called" not in text and "Traceback (most recent call last)" not in text.replace(
        "torch/distributed", ""
    )
    assert_same_tables(folder, undisturbed)


def test_sigterm_saves_on_all_ranks_and_another_number_of_ranks_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "run"
    process = torchrun(folder, *LONG)
    wait_for(folder, 40, process)
    process.send_signal(signal.SIGTERM)
    assert finished(process, folder) != 0
    text = log_of(folder).read_text()
    assert text.count("everything is saved") == 1, text
    again = torchrun(folder, *LONG, "resume=auto", ranks=3)
    assert finished(again, folder) == 0, log_of(folder).read_text()
    assert "continuing at step" in log_of(folder).read_text()
    for name, reference in arrays_of(undisturbed).items():
        np.testing.assert_allclose(arrays_of(folder)[name], reference, rtol=1e-4, atol=1e-4, err_msg=name)


def arrays_of(run: Path) -> dict[str, np.ndarray]:
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    return {path.name: np.load(path) for path in sorted((last / "tables").iterdir())}


def test_a_single_rank_goes_on_in_the_dated_folder_that_it_had(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=1"]
    with (tmp_path / "log").open("w") as log:
        command += ["-m", "bigembed", "train", *LONG]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=tmp_path)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/*/*/checkpoints/step-*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    assert process.wait(100) == 0, (tmp_path / "log").read_text()
    assert "continuing at step" in (tmp_path / "log").read_text()
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


class Failing:
    """Puts an error into a function of the trainer on one rank."""

    def __init__(self, failing: int, where: str, note: Path) -> None:
        self.failing, self.where, self.note = failing, where, note

    def __call__(self, rank: int) -> None:
        import bigembed.trainer as trainer

        make, calls = getattr(trainer, self.where), []

        def failing_call(*given: Any, **named: Any) -> Any:
            calls.append(0)
            if rank == self.failing and len(calls) == 12:
                self.note.write_text(str(time.time()))
                raise RuntimeError("row 17 is not what it should be")
            return make(*given, **named)

        setattr(trainer, self.where, failing_call)


@pytest.mark.parametrize(("failing", "where"), [(0, "make_step"), (1, "make_step"), (2, "collate")])
def test_an_error_on_one_rank_ends_all_and_is_the_one_that_is_shown(tmp_path: Path, failing: int, where: str) -> None:
    note = tmp_path / "note"
    commands = [["train", *LONG, f"hydra.run.dir={tmp_path}/run"]] * 3
    codes, texts = run_commands(commands, tmp_path / "log", Failing(failing, where, note))
    assert codes == [1, 1, 1], texts
    assert time.time() - float(note.read_text()) < 10
    sentence = f"rank {failing} on {os.uname().nodename}: RuntimeError: row 17 is not what it should be"
    assert sentence in texts[failing]
    assert sentence in texts[0]
    assert all("terminate called" not in text for text in texts)
    assert all("Traceback" not in text for rank, text in enumerate(texts) if rank != failing), texts


def test_ranks_that_were_started_differently_are_told_so(tmp_path: Path) -> None:
    commands = [["train", *SMALL, f"hydra.run.dir={tmp_path}/run"], ["train", *SMALL, "trainer.epochs=3"]]
    codes, texts = run_commands(commands, tmp_path / "log")
    assert codes == [2, 1]
    assert "rank 1 on" in texts[0] and "differs from rank 0" in texts[0] and "trainer.epochs=3" in texts[0]
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_the_options_is_one_sentence_and_ends_all_ranks(tmp_path: Path) -> None:
    codes, texts = run_commands([["train", "trainer.epochs=0", f"hydra.run.dir={tmp_path}/run"]] * 2, tmp_path / "log")
    assert codes == [2, 1]
    assert "trainer.epochs is 0, so that nothing is trained" in texts[0] and "Traceback" not in texts[0]
