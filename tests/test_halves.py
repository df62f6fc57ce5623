"""Tables of fp16: trained, saved, evaluated, asked and exported."""

from pathlib import Path

import numpy as np
from running import SMALL, bigembed

from bigembed.inference import load


def test_a_table_of_fp16_trains_is_saved_and_answers(tmp_path: Path, capsys) -> None:
    options = ["tables.text.dtype=fp16", "tables.text.rounding=nearest", f"hydra.run.dir={tmp_path}/run"]
    assert bigembed("train", *SMALL, *options) == 0
    model = load(tmp_path / "run")
    assert model.matrix().dtype == np.float16 and model.vector(model.words()[0]).dtype == np.float32
    labels, probabilities = model.predict(["a b c", ""])
    assert labels.shape == (2,) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    capsys.readouterr()
    assert bigembed("evaluate", f"run={tmp_path}/run") == 0
    assert "accuracy" in capsys.readouterr().out
    assert bigembed("export", f"run={tmp_path}/run", "format=numpy", f"out={tmp_path}/v.npy") == 0
    assert np.load(tmp_path / "v.npy").shape[1] == 8


def test_fp16_on_a_cpu_is_refused_unless_rounding_to_nearest_is_asked_for(tmp_path: Path, capsys) -> None:
    assert bigembed("train", *SMALL, "tables.text.dtype=fp16", f"hydra.run.dir={tmp_path}/run") == 2
    assert "rounding=nearest" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
