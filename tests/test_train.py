"""A job from its configuration to its figures, checkpoints and continued runs."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import SMALL, bigembed, start, tables_of, wait_until, write_reviews


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The small job, run without interruption, with the checkpoints that the interrupted ones write."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert bigembed("train", *SMALL, "trainer.save_every=7", f"hydra.run.dir={run}") == 0
    return run


def test_a_run_folder_holds_configuration_figures_and_checkpoints(undisturbed):
    figures = figures_of(undisturbed)
    assert set(figures) == {"train", "validation", "test", "speed", "checkpoint"}
    assert figures["validation"]["samples"] == 150 and figures["test"]["samples"] == 300
    assert figures["speed"]["words_per_s"] > 0
    lines = lines_of(undisturbed)
    assert [line["step"] for line in lines if line["part"] == "validation"] == [22, 44]
    assert [line["step"] for line in lines if line["part"] == "train"] == [5, 10, 15, 20, 25, 30, 35, 40, 44]
    assert [line["part"] for line in lines][-1] == "test"
    assert (undisturbed / "job.yaml").exists() and (undisturbed / "encoders" / "text").exists()
    assert not list((undisturbed / "checkpoints").glob(".*"))


def test_tensorboard_events_are_written_when_asked_for(tmp_path):
    run = tmp_path / "run"
    assert bigembed("train", *SMALL, "runtime.tensorboard=true", "trainer.steps=3", f"hydra.run.dir={run}") == 0
    assert list((run / "tensorboard").glob("events*"))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(undisturbed, tmp_path):
    for seed in (0, 1):
        assert bigembed("train", *SMALL, f"seed={seed}", f"hydra.run.dir={tmp_path}/{seed}") == 0
    assert tables_of(tmp_path / "0") == tables_of(undisturbed)
    assert tables_of(tmp_path / "1")["text.weight.npy"] != tables_of(undisturbed)["text.weight.npy"]


def test_encoding_on_the_fly_gives_the_same_bytes_as_encoded_data_in_memory(undisturbed, tmp_path):
    assert bigembed("train", *SMALL, "data.cache_mib=0", f"hydra.run.dir={tmp_path}/run") == 0
    assert tables_of(tmp_path / "run") == tables_of(undisturbed)


def test_a_run_killed_at_many_points_ends_as_if_it_had_not_been(undisturbed, tmp_path):
    run = tmp_path / "run"
    arguments = [*SMALL, "trainer.save_every=7", f"hydra.run.dir={run}"]

    def saving(step):
        return lambda: (run / "checkpoints" / f".step-{step:09d}.unfinished").exists()

    def reported(step):
        return lambda: (run / "metrics.jsonl").exists() and f'"step": {step},' in (run / "metrics.jsonl").read_text()

    points = [
        lambda: (run / "job.yaml").exists(),
        lambda: (run / "encoders" / "text").exists(),
        saving(7),
        reported(15),
        saving(22),
        reported(30),
        saving(44),
    ]
    killed = 0
    for point in points:
        process = start("train", *arguments)
        if wait_until(point, process) and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        arguments = [f"resume={run}"]
    assert killed >= 5
    assert bigembed("train", f"resume={run}") == 0
    assert tables_of(run) == tables_of(undisturbed)
    ours, theirs = figures_of(run), figures_of(undisturbed)
    assert {key: ours[key] for key in ("train", "validation", "test")} == {
        key: theirs[key] for key in ("train", "validation", "test")
    }
    judged = [
        [(line["step"], line["loss"]) for line in lines_of(one) if line["part"] == "validation"]
        for one in (run, undisturbed)
    ]
    assert judged[0] == judged[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_with_its_code_and_the_way_on(undisturbed, tmp_path, number, code):
    run, output = tmp_path / "run", tmp_path / "output"
    process = start("train", *SMALL, f"hydra.run.dir={run}", output=output)
    wait_until(
        lambda: (run / "metrics.jsonl").exists() and '"step": 5,' in (run / "metrics.jsonl").read_text(), process
    )
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == code
    last = output.read_text().splitlines()[-1]
    assert "everything is saved" in last and f"bigembed train resume={run}" in last
    assert list((run / "checkpoints").glob("step-*/manifest.json"))
    assert not (run / "metrics.json").exists()
    assert bigembed("train", f"resume={run}") == 0
    assert tables_of(run) == tables_of(undisturbed)


def test_a_finished_run_is_told_again_and_not_changed(undisturbed, capsys):
    before = tables_of(undisturbed)
    assert bigembed("train", f"resume={undisturbed}") == 0
    assert "finished already" in capsys.readouterr().err
    assert tables_of(undisturbed) == before


def test_resuming_with_other_options_names_them(undisturbed, capsys):
    assert bigembed("train", f"resume={undisturbed}", "trainer.batch_size=32", "seed=5") == 2
    error = capsys.readouterr().err
    assert "trainer.batch_size (64 → 32)" in error and "seed (0 → 5)" in error


def flip_labels(data):
    table = pq.read_table(data / "train.parquet")
    labels = pa.array([1 - label for label in table["label"].to_pylist()])
    pq.write_table(table.set_column(1, "label", labels), data / "train.parquet")


def swap_words(data):
    table = pq.read_table(data / "train.parquet")
    texts = [
        text.replace("wonderful", "x").replace("dreadful", "wonderful").replace("x", "dreadful ")
        for text in table["text"].to_pylist()
    ]
    pq.write_table(table.set_column(0, "text", pa.array(texts)), data / "train.parquet")


def shorten_test(data):
    pq.write_table(pq.read_table(data / "test.parquet").slice(1), data / "test.parquet")


@pytest.mark.parametrize("change", [flip_labels, swap_words, shorten_test, lambda data: write_reviews(data, rows=180)])
def test_resuming_on_other_data_is_refused(tmp_path, capsys, change):
    data, run = write_reviews(tmp_path / "data"), tmp_path / "run"
    arguments = [
        "data=files",
        f"data.path={data}",
        "trainer.steps=4",
        "trainer.save_every=2",
        "tables.text.buckets=100",
    ]
    assert bigembed("train", *arguments, "runtime.tensorboard=false", f"hydra.run.dir={run}") == 0
    (run / "metrics.json").unlink()
    change(data)
    assert bigembed("train", f"resume={run}") == 2
    assert "not what the run began with" in capsys.readouterr().err


def test_data_may_move_between_two_parts_of_a_run(tmp_path):
    data, run = write_reviews(tmp_path / "data"), tmp_path / "run"
    arguments = ["data=files", f"data.path={data}", "trainer.steps=4", "tables.text.buckets=100"]
    assert bigembed("train", *arguments, "runtime.tensorboard=false", f"hydra.run.dir={run}") == 0
    (run / "metrics.json").unlink()
    data.rename(tmp_path / "elsewhere")
    assert bigembed("train", f"resume={run}", f"data.path={tmp_path}/elsewhere") == 0


def test_parts_given_as_relative_paths_are_kept_absolute(tmp_path, monkeypatch):
    data, run = write_reviews(tmp_path / "data"), tmp_path / "run"
    monkeypatch.chdir(data)
    arguments = ["data=files", "data.train=train.parquet", "data.test=test.parquet", "tables.text.buckets=100"]
    assert bigembed("train", *arguments, "runtime.tensorboard=false", f"hydra.run.dir={run}") == 0
    monkeypatch.chdir(tmp_path)
    assert bigembed("evaluate", f"run={run}") == 0


def test_a_run_that_is_being_trained_is_left_alone(undisturbed, tmp_path, capsys):
    run = tmp_path / "run"
    process = start("train", *SMALL, f"hydra.run.dir={run}", output=tmp_path / "output")
    wait_until(lambda: (run / "data.json").exists(), process)
    os.kill(process.pid, signal.SIGSTOP)
    assert bigembed("train", f"resume={run}") == 2
    assert "is being trained by another process" in capsys.readouterr().err
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0
    assert tables_of(run) == tables_of(undisturbed)


def test_tables_that_no_memory_holds_are_refused_with_what_is_needed(tmp_path, capsys):
    for option in ("tables.text.buckets=1099511627776", "tables.text.dim=65536"):
        arguments = [entry for entry in SMALL if not entry.startswith(option.split("=")[0])]
        assert (
            bigembed("train", *arguments, "tables.text.buckets=1000000000", option, f"hydra.run.dir={tmp_path}/run")
            == 2
        )
        error = capsys.readouterr().err
        assert "GiB are free" in error and "tables.text" in error and "Traceback" not in error
        assert not (tmp_path / "run").exists()


def test_keep_leaves_the_latest_checkpoints_and_the_best(tmp_path):
    run = tmp_path / "run"
    assert bigembed("train", *SMALL, "trainer.save_every=5", "trainer.keep=3", f"hydra.run.dir={run}") == 0
    steps = [int(path.name.removeprefix("step-")) for path in sorted((run / "checkpoints").glob("step-*"))]
    best = json.loads((run / "checkpoints" / f"step-{44:09d}" / "state.json").read_text())["progress"]["best_step"]
    assert set(steps) == {35, 40, 44} | {best}


def test_early_stop_ends_after_evaluations_without_a_better_one(tmp_path):
    run = tmp_path / "run"
    options = ["trainer.eval_every=2", "trainer.early_stop=2", "optim.tables.lr=0", "optim.dense.lr=0"]
    assert bigembed("train", *SMALL, *options, f"hydra.run.dir={run}") == 0
    assert figures_of(run)["train"]["steps"] == 6


def test_steps_end_the_run_inside_an_epoch_and_schedules_fall_to_it(tmp_path):
    run = tmp_path / "run"
    assert (
        bigembed(
            "train", *SMALL, "trainer.steps=9", "optim.schedule=cosine", "optim.warmup_steps=2", f"hydra.run.dir={run}"
        )
        == 0
    )
    assert figures_of(run)["train"]["steps"] == 9


def test_a_loss_that_is_no_number_names_the_step_and_the_rows_and_keeps_what_was_saved(tmp_path, capsys):
    run = tmp_path / "run"
    options = [
        "trainer.save_every=1",
        "optim.tables.kind=sgd",
        "optim.tables.lr=1e38",
        "optim.dense.kind=sgd",
        "optim.dense.lr=1e38",
    ]
    assert bigembed("train", *SMALL, *options, f"hydra.run.dir={run}") == 2
    error = capsys.readouterr().err
    assert "the loss is" in error and "at step" in error and "training rows" in error
    assert "Traceback" not in error
    for path in (run / "checkpoints").glob("step-*/tables/*.weight.npy"):
        np.load(path)


def test_every_option_of_the_table_and_the_head_changes_the_result(tmp_path):
    brief = [*SMALL, "data.rows=600", "data.test_rows=50", "trainer.epochs=1"]
    variants = [
        "tables.text.init_range=0.5",
        "tables.text.ngrams=1",
        "tables.text.ngrams=3",
        "tables.text.min_count=200",
        "tables.text.max_size=50",
        "tables.text.buckets=100",
        "features.text.pooling=sum",
        "head.hidden=[4]",
        "head.dropout=0.5",
        "optim.tables.kind=adagrad",
        "optim.tables.kind=sgd",
        "optim.tables.lr=0.3",
        "optim.tables.eps=0.1",
        "optim.dense.kind=adam",
        "optim.dense.kind=sgd",
        "optim.dense.lr=0.3",
        "optim.dense.eps=0.1",
        "optim.schedule=constant",
        "optim.schedule=cosine",
        "optim.warmup_steps=4",
        "optim.clip_value=1e-5",
        "trainer.batch_size=32",
        "data.seed=1",
        "data.validation_fraction=0.2",
    ]
    seen = set()
    for number, options in enumerate([[], *([variant] for variant in variants)]):
        assert bigembed("train", *brief, *options, f"hydra.run.dir={tmp_path / str(number)}") == 0
        seen.add(json.dumps(figures_of(tmp_path / str(number))["train"]))
    assert len(seen) == 1 + len(variants)


def test_several_text_columns_classes_and_hidden_layers_train_together(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    words = np.array(["red", "green", "blue"])
    table = pa.table(
        {
            "title": [f"{words[label]} thing" for label in labels],
            "body": [f"a text of no use {number}" for number in range(400)],
            "stars": labels,
        }
    )
    pq.write_table(table.slice(0, 300), tmp_path / "train.parquet")
    pq.write_table(table.slice(300), tmp_path / "test.parquet")
    options = [
        "data=files",
        f"data.path={tmp_path}",
        "head.label=stars",
        "head.classes=3",
        "head.hidden=[16]",
        "features.text.column=title",
        "+feature@features.body=column",
        "features.body.column=body",
        "features.body.table=body",
        "+table@tables.body=hashed",
        "tables.body.buckets=64",
        "tables.text.buckets=64",
        "trainer.epochs=8",
        "trainer.batch_size=16",
        "runtime.tensorboard=false",
        f"hydra.run.dir={tmp_path}/run",
    ]
    assert bigembed("train", *options) == 0
    assert figures_of(tmp_path / "run")["test"]["accuracy"] > 0.95


def test_a_column_and_another_share_a_table(tmp_path):
    data = write_reviews(tmp_path / "data")
    options = [
        "data=files",
        f"data.path={data}",
        "+feature@features.again=column",
        "tables.text.buckets=64",
        f"hydra.run.dir={tmp_path}/run",
    ]
    assert bigembed("train", *options, "runtime.tensorboard=false") == 0
    assert [path.name for path in (tmp_path / "run" / "encoders").iterdir()] == ["text"]


def test_the_best_checkpoint_is_the_one_that_is_judged(tmp_path):
    run = tmp_path / "run"
    assert bigembed("train", *SMALL, "trainer.eval_every=3", "trainer.monitor=loss", f"hydra.run.dir={run}") == 0
    validations = [line for line in lines_of(run) if line["part"] == "validation"]
    best = min(validations, key=lambda line: line["loss"])
    assert figures_of(run)["checkpoint"] == f"step-{best['step']:09d}"
    assert figures_of(run)["validation"]["loss"] == best["loss"]
