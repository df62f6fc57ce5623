"""On a GPU: the same rows, losses and weights as on the CPU, and the same from every kernel that has one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_topology import POOLED, SEQUENCES, compose_job, train_variants, whole

from bigembed.config import saved
from bigembed.prepare import prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

VARIANTS = {
    "fused": ["sharding.kernel=fused"],
    "dense": ["sharding.kernel=dense"],
    "data_parallel": ["sharding.kind=data_parallel"],
    "fused_uvm": ["sharding.kernel=fused_uvm"],
    "fused_uvm_caching": ["sharding.kernel=fused_uvm_caching", "trainer.pipeline=none"],
    "small cache": ["sharding.kernel=fused_uvm_caching", "sharding.cache_load_factor=0.05", "trainer.pipeline=none"],
    "prefetched": ["sharding.kernel=fused_uvm_caching", "trainer.pipeline=prefetch"],
    "sparse_dist": ["sharding.kernel=fused", "trainer.pipeline=sparse_dist"],
}


@pytest.mark.parametrize("options", [POOLED, SEQUENCES], ids=["pooled", "sequences"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad"])
def test_gpu_and_cpu_agree_with_every_kernel(tmp_path: Path, options: list[str], optimizer: str) -> None:
    (tmp_path / "encoders").mkdir()
    kind = [f"optim.tables.kind={optimizer}", *(["optim.tables.eps=null"] if optimizer == "sgd" else [])]
    values = compose_job([*options, *kind, f"hydra.run.dir={tmp_path}/hydra"])
    prepare(saved.from_dict(values), tmp_path)
    on_gpu = [["runtime.device=cuda", *variant] for variant in VARIANTS.values()]
    expected, *results = train_variants(values, str(tmp_path), [["runtime.device=cpu"], *on_gpu])
    assert len(results) == len(VARIANTS) == 8
    before, after = whole([expected], "initial"), whole([expected], "final")
    for name, result in zip(VARIANTS, results, strict=True):
        initial, final = whole([result], "initial"), whole([result], "final")
        for table in after:
            np.testing.assert_array_equal(initial[table], before[table], err_msg=f"{name} {table}")
            np.testing.assert_allclose(final[table], after[table], rtol=1e-4, atol=1e-4, err_msg=f"{name} {table}")
        np.testing.assert_allclose(result["losses"], expected["losses"], rtol=1e-5, err_msg=name)
        assert result["figures"]["accuracy"] == expected["figures"]["accuracy"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_tables_of_sixteen_bits_train_with_stochastic_rounding(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "encoders").mkdir()
    half = [f"tables.{name}.dtype={dtype}" for name in ("text", "hashed")]
    values = compose_job([*POOLED, *half, "runtime.device=cuda", f"hydra.run.dir={tmp_path}/hydra"])
    prepare(saved.from_dict(values), tmp_path)
    whole_numbers = [f"tables.{name}.dtype=fp32" for name in ("text", "hashed")]
    result, exact = train_variants(values, str(tmp_path), [[], whole_numbers])
    assert result["losses"] != exact["losses"]
    np.testing.assert_allclose(result["losses"], exact["losses"], rtol=2e-2)
