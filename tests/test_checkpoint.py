"""Checkpoints that are damaged, disks that are full, folders that are taken: one sentence, and nothing lost."""

import json
import os
import random
import shutil
import signal
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import xxhash
from running import SMALL, bigembed, start, tables_of

from bigembed import run
from bigembed.arrays import Manifest
from bigembed.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = ["trainer.save_every=20", "trainer.keep=3", "trainer.test_with=last"]
    assert bigembed("train", *SMALL, *options, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    return tmp_path / "run"


def last_of(folder: Path) -> Path:
    return run.checkpoints(folder)[-1]


def test_a_table_is_a_plain_array_that_anyone_can_map(trained):
    rows = np.load(last_of(trained) / "tables" / "text.weight.npy", mmap_mode="r")
    assert rows.shape[1] == 8 and rows.dtype == np.float32 and np.isfinite(rows).all()


def test_the_manifest_names_every_file_of_a_checkpoint(trained):
    files = json.loads((last_of(trained) / "manifest.json").read_text())["files"]
    on_disk = {str(path.relative_to(last_of(trained))) for path in last_of(trained).rglob("*") if path.is_file()}
    assert set(files) == on_disk - {"manifest.json"} and len(files) == 4
    table = np.load(last_of(trained) / "tables" / "text.weight.npy", mmap_mode="r")
    entry = files["tables/text.weight.npy"]
    assert entry["shape"] == list(table.shape) and entry["dtype"] == "float32"
    assert [block["start"] for block in entry["blocks"]] == [[0, 0]]
    assert entry["blocks"][0]["xxh3_64"] == xxhash.xxh3_64_hexdigest(table.tobytes())
    assert [len(block["shape"]) for block in files["tables/text.momentum1.npy"]["blocks"]] == [1]


def test_a_flipped_bit_of_the_manifest_is_noticed_or_changes_nothing(trained, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(last_of(trained), checkpoint)
    before, content = Manifest.load(checkpoint), (checkpoint / "manifest.json").read_bytes()
    rng, noticed = random.Random(1), 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (checkpoint / "manifest.json").write_bytes(changed)
        try:
            run.verify(checkpoint)
            assert Manifest.load(checkpoint) == before  # a blank more or less
        except UserError:
            noticed += 1
    assert noticed > 150


@pytest.mark.parametrize(
    "file", ["tables/text.weight.npy", "tables/text.momentum1.npy", "dense.safetensors", "state.json"]
)
def test_any_flipped_bit_is_noticed(trained, tmp_path, file):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(last_of(trained), checkpoint)
    content = bytearray((checkpoint / file).read_bytes())
    rng = random.Random(file)
    for place in {0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(20))}:
        content[place] ^= 1 << rng.randrange(8)
        (checkpoint / file).write_bytes(content)
        with pytest.raises(UserError, match=f"{Path(file).name} is not what was written"):
            run.verify(checkpoint)
        (checkpoint / file).write_bytes((last_of(trained) / file).read_bytes())
        content = bytearray((checkpoint / file).read_bytes())
    run.verify(checkpoint)


@pytest.mark.parametrize("harm", ["cut", "missing", "manifest", "state", "no state"])
def test_commands_refuse_a_damaged_checkpoint_in_one_sentence(copied, capsys, harm):
    table = last_of(copied) / "tables" / "text.weight.npy"
    if harm == "cut":
        table.write_bytes(table.read_bytes()[:-100])
    elif harm == "missing":
        table.unlink()
    elif harm == "manifest":
        (last_of(copied) / "manifest.json").write_text("{")
    elif harm == "state":
        (last_of(copied) / "state.json").write_text('{"progress"')
    else:
        (last_of(copied) / "state.json").unlink()
    for command in (
        ["evaluate"],
        ["export", f"out={copied}/v", "format=numpy"],
        ["predict", f"input={copied}/none.csv"],
    ):
        assert bigembed(command[0], f"run={copied}", *command[1:]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and last_of(copied).name in error and "Traceback" not in error


@pytest.mark.parametrize(
    "file",
    ["tables/text.weight.npy", "tables/text.momentum1.npy", "dense.safetensors", "state.json", "manifest.json"],
)
def test_resuming_goes_back_to_the_checkpoint_before_a_damaged_one_and_ends_the_same(trained, copied, capsys, file):
    path = last_of(copied) / file
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert bigembed("train", f"resume={copied}") == 0
    error = capsys.readouterr().err
    assert "warning:" in error and "going back to the checkpoint before" in error and "continuing at step 40" in error
    assert tables_of(copied) == tables_of(trained)


def test_checkpoints_written_while_training_waits_are_the_same(trained, tmp_path):
    options = ["trainer.save_every=20", "trainer.keep=3", "trainer.test_with=last", "trainer.save_memory_mib=0"]
    assert bigembed("train", *SMALL, *options, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert tables_of(tmp_path / "run") == tables_of(trained)
    names = [path.name for path in run.checkpoints(tmp_path / "run")]
    assert names == [path.name for path in run.checkpoints(trained)] and len(names) >= 3


def test_resuming_without_any_whole_checkpoint_is_refused(copied, capsys):
    for path in run.checkpoints(copied):
        (path / "state.json").write_text("{}")
    assert bigembed("train", f"resume={copied}") == 2
    assert "state.json has 2 bytes instead of" in capsys.readouterr().err


def test_a_checkpoint_of_another_format_is_refused_and_not_gone_back_from(copied, capsys):
    manifest = last_of(copied) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 99'))
    for command in (["evaluate", f"run={copied}"], ["train", f"resume={copied}"]):
        assert bigembed(*command) == 2
        error = capsys.readouterr().err
        assert "is a checkpoint of format 99; this bigembed reads format 2" in error and "going back" not in error


def test_a_full_disk_ends_in_one_sentence_and_leaves_earlier_checkpoints(tmp_path):
    folder, output = tmp_path / "run", tmp_path / "output"
    options = [
        "data.rows=1500",
        "data.test_rows=300",
        "data.vocabulary=400",
        "trainer.batch_size=64",
        "runtime.tensorboard=false",
    ]
    table = ["tables.text.dim=64", "tables.text.buckets=20000"]  # 5 MB, where no file may be larger than 1 MB
    process = start("train", *options, *table, f"hydra.run.dir={folder}", output=output, limit=1 << 20)
    process.join(60)
    assert process.exitcode == 2
    last = output.read_text().splitlines()[-1]
    assert last.startswith("bigembed: the checkpoint of step") and "could not be written" in last
    assert "Traceback" not in output.read_text()
    assert not list((folder / "checkpoints").glob("*"))
    assert bigembed("train", f"resume={folder}") == 0  # with room again, from the beginning


def test_a_run_folder_that_is_there_already_is_refused_and_untouched(trained, capsys):
    before = tables_of(trained)
    assert bigembed("train", *SMALL, f"hydra.run.dir={trained}") == 2
    error = capsys.readouterr().err
    assert f"{trained} holds a run already" in error and f"resume={trained}" in error
    assert tables_of(trained) == before


def test_folders_that_are_no_run_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "absent", "is no folder"), (tmp_path / "empty", "holds no job.yaml")):
        for command in ("train", "evaluate", "predict", "export"):
            argument = f"resume={folder}" if command == "train" else f"run={folder}"
            assert bigembed(command, argument, *(["out=x"] if command == "export" else [])) == 2
            error = capsys.readouterr().err
            assert words in error and error.count("\n") == 1


def test_an_unfinished_run_without_checkpoints_cannot_be_asked(tmp_path, capsys):
    folder = tmp_path / "run"
    output = tmp_path / "output"
    process = start(
        "train",
        *SMALL,
        "tables.text.dim=64",
        "tables.text.buckets=20000",
        f"hydra.run.dir={folder}",
        output=output,
        limit=1 << 19,
    )
    process.join(60)
    assert bigembed("evaluate", f"run={folder}") == 2
    assert "no finished checkpoint yet" in capsys.readouterr().err


def test_a_kill_while_a_checkpoint_is_replaced_or_dropped_loses_nothing(trained, copied):
    last = last_of(copied)
    last.rename(last.with_name(f".{last.name}.replaced"))  # the old one has gone, the new one has not come
    (last.with_name(f".{last.name}.unfinished") / "tables").mkdir(parents=True)
    assert bigembed("train", f"resume={copied}") == 0
    assert tables_of(copied) == tables_of(trained)
    assert not list((copied / "checkpoints").glob(".*"))


def test_a_configuration_edited_by_hand_is_told_and_not_used(copied, capsys):
    job = copied / "job.yaml"
    text = job.read_text()
    for before, after in (
        ("pooling: mean", "pooling: sum"),
        ("seed: 0", "seed: 5"),
        ("dim: 8", "dim: 16"),
        ("classes: 2", "classes: 3"),
    ):
        assert before in text
        job.write_text(text.replace(before, after, 1))
        for command in (["evaluate"], ["export", f"out={copied}/v"], ["predict", "input=none.csv"]):
            assert bigembed(command[0], f"run={copied}", *command[1:]) == 2
            error = capsys.readouterr().err
            assert "is not what step-" in error and error.count("\n") == 1
        assert bigembed("train", f"resume={copied}") == 2
        assert "is not what step-" in capsys.readouterr().err


def test_another_vocabulary_in_the_place_of_the_first_is_refused(copied, tmp_path, capsys):
    other = tmp_path / "other"
    assert bigembed("train", *SMALL, "data.seed=3", "trainer.steps=1", f"hydra.run.dir={other}") == 0
    shutil.copy(other / "encoders" / "text", copied / "encoders" / "text")
    capsys.readouterr()
    assert bigembed("evaluate", f"run={copied}") == 2
    assert "encoders/text is not what" in capsys.readouterr().err


def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_the_last(copied, capsys):
    state = last_of(copied) / "state.json"
    best = json.loads(state.read_text())["progress"]["best_step"]
    if run.name_of(best) != last_of(copied).name:
        shutil.rmtree(copied / "checkpoints" / run.name_of(best))
        assert bigembed("evaluate", f"run={copied}", "checkpoint=best") == 2
        assert "is gone; use checkpoint=last" in capsys.readouterr().err
    assert bigembed("evaluate", f"run={copied}", "checkpoint=last") == 0


@pytest.mark.parametrize("content", ["", "{}", "[]", "{"])
def test_damaged_figures_are_told(copied, capsys, content):
    (copied / "metrics.json").write_text(content)
    assert bigembed("train", f"resume={copied}") == 2
    assert "metrics.json is damaged; delete it" in capsys.readouterr().err


def test_damaged_lines_of_figures_are_dropped_with_a_warning(copied, capsys):
    with (copied / "metrics.jsonl").open("ab") as file:
        file.write(b'5\n[]\n{"step": null}\n\xff\n{"part": "train", "step": 1')
    assert bigembed("train", f"resume={copied}") == 0
    assert capsys.readouterr().err.count("dropped a damaged line") == 5
    for line in (copied / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.fixture
def no_room(monkeypatch) -> list[int]:
    """Let writing in the background fail, once; every step waits for it, and is counted."""
    from bigembed import trainer
    from bigembed.arrays import files

    steps, make_step = [], trainer.make_step

    def counted(training, batches):
        make_step(training, batches)
        steps.append(training.progress.step)
        if training.saver._pending is not None:
            futures.wait([training.saver._pending])

    def full(*_):
        monkeypatch.setattr(files.os, "pwrite", pwrite)
        raise OSError(28, "No space left on device")

    pwrite = files.os.pwrite
    monkeypatch.setattr(trainer, "make_step", counted)
    monkeypatch.setattr(files.os, "pwrite", full)
    return steps


def test_a_write_that_failed_in_the_background_ends_the_run_at_the_next_step(no_room, tmp_path, capsys):
    assert bigembed("train", *SMALL, "trainer.save_every=5", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert no_room == [1, 2, 3, 4, 5, 6]
    assert "the checkpoint of step 5 could not be written" in capsys.readouterr().err


def test_a_run_that_is_stopped_does_not_say_that_it_is_saved_when_it_is_not(no_room, tmp_path, capsys, monkeypatch):
    from bigembed import trainer

    counted = trainer.make_step
    monkeypatch.setattr(trainer, "make_step", lambda *a: counted(*a) or os.kill(os.getpid(), signal.SIGTERM))
    assert bigembed("train", *SMALL, f"hydra.run.dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert "the checkpoint of step 1 could not be written" in error and "saved" not in error and no_room == [1]


def test_an_error_of_the_loop_waits_for_the_checkpoint_that_is_being_written(tmp_path, capsys, monkeypatch):
    from bigembed import trainer
    from bigembed.checkpoint import save

    make_step, write, folder = trainer.make_step, save.write, tmp_path / "run"

    def fail(training, batches):
        if training.progress.step == 5:
            raise UserError("the sixth step failed")
        make_step(training, batches)

    monkeypatch.setattr(trainer, "make_step", fail)
    monkeypatch.setattr(save, "write", lambda *a: time.sleep(0.5) or write(*a))
    assert bigembed("train", *SMALL, "trainer.save_every=5", f"hydra.run.dir={folder}") == 2
    assert capsys.readouterr().err.endswith("the sixth step failed\n")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [run.name_of(5)]
    run.verify(last_of(folder))
