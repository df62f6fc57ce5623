"""Which kinds and kernels a table may have: every refusal with its reason, on both devices, and what is left to the planner."""

import re
from pathlib import Path

import pytest

from bigembed.config import placement
from bigembed.config.placement import (
    IN_HOST_MEMORY,
    cache_load_factor_of,
    check_placement,
    is_sequence,
    kernel_of,
    kernels_of,
    kind_of,
    kinds_of,
    min_partition_of,
)
from bigembed.config.saved import override
from bigembed.config.schema import (
    AttentionHead,
    BagHead,
    FeatureConfig,
    GeneratedData,
    HashedTable,
    Job,
    Kernel,
    Kind,
    ManagedTable,
    Pooling,
    Precision,
    TableOptimizer,
)
from bigembed.errors import UserError

CPU, CUDA = "cpu", "cuda"
BOTH = (CPU, CUDA)


def job_of(options: str = "", sequence: bool = False) -> Job:
    """A job of two tables, a and b, with options of its own; b's rows are a sequence, or change hands ("managed"), if asked for."""
    plain = options.removeprefix("managed ")
    job = Job(
        data=GeneratedData(),
        tables={"a": HashedTable(dim=256), "b": HashedTable(dim=256) if plain == options else ManagedTable(dim=256)},
        features={"a": FeatureConfig("a"), "b": FeatureConfig("b")},
        head=AttentionHead() if sequence else BagHead(),
    )
    if sequence:
        job.features["b"].pooling = Pooling.none
    return override(job, plain.split())


def refusal(job: Job, device: str) -> str | None:
    """What is said against a job on a device; None if nothing is."""
    try:
        check_placement(job, device)
    except UserError as error:
        text = str(error)
        assert text == text.strip() and "\n" not in text and not text.endswith(".")
        return text
    return None


ADAGRAD = "optim.tables.kind=adagrad"  # its state is one number an entry, so that columns may be cut
# The options, whether b is a sequence, the devices that refuse them, and parts of what is said. The other device takes them.
REFUSED: list[tuple[str, bool, tuple[str, ...], tuple[str, ...]]] = [
    # dtypes
    ("tables.b.dtype=bf16", False, (CPU,), ("tables.b.dtype=bf16", "no bf16 table on a CPU", "fp32 or fp16")),
    ("tables.b.dtype=bf16 tables.b.rounding=nearest", False, (CPU,), ("tables.b.dtype=bf16", "use fp32 or fp16")),
    ("tables.b.dtype=fp16", False, (CPU,), ("tables.b.dtype=fp16", "nearest on a CPU", "rounding=nearest")),
    (
        "tables.b.dtype=fp16 sharding.kernel=dense",
        False,
        BOTH,
        ("tables.b.dtype=fp16", "are rounded to the nearest", "rounding=nearest"),
    ),
    (
        "tables.b.dtype=fp16 tables.b.sharding.kind=data_parallel",  # whose kernel is dense
        False,
        BOTH,
        ("tables.b.dtype=fp16", "are rounded to the nearest", "rounding=nearest"),
    ),
    # kernels
    ("sharding.kernel=key_value", False, BOTH, ("tables.a has the kernel key_value", "SSD", "use fused_uvm")),
    ("tables.b.sharding.kernel=key_value", False, BOTH, ("tables.b has the kernel key_value",)),
    ("tables.b.sharding.kernel=fused_uvm", False, (CPU,), ("tables.b has the kernel fused_uvm:", "no GPU; use fused")),
    ("sharding.kernel=fused_uvm_caching", False, (CPU,), ("tables.a has the kernel fused_uvm_caching:", "use fused")),
    ("sharding.kernel=dense optim.clip_value=1", False, BOTH, ("tables.a has the kernel dense:", "clip_value")),
    ("tables.b.sharding.kernel=dense", True, (CPU,), ("tables.b has the kernel dense:", "wrong sizes on a CPU")),
    # kinds
    (
        "tables.b.sharding.kind=data_parallel sharding.kernel=fused",
        False,
        BOTH,
        ("tables.b is sharded data_parallel:", "whose kernel is dense, not fused"),
    ),
    ("sharding.kind=data_parallel optim.clip_value=1", False, BOTH, ("tables.a", "dense", "clip_value")),
    ("tables.b.sharding.kind=data_parallel", True, (CPU,), ("tables.b", "dense", "wrong sizes on a CPU")),
    *(
        (
            f"{ADAGRAD} tables.b.sharding.kind={kind}",
            True,
            BOTH,
            (f"tables.b is sharded {kind}:", "pooled features only", "use table_wise, row_wise or column_wise"),
        )
        for kind in ("table_row_wise", "table_column_wise", "grid")
    ),
    *(
        (
            f"tables.b.sharding.kind={kind}",
            False,
            BOTH,
            (
                f"tables.b is sharded {kind}:",
                "another optimizer than rowwise_adagrad",
                "optim.tables.kind=adagrad or sgd",
            ),
        )
        for kind in ("column_wise", "table_column_wise", "grid")
    ),
    *(
        (
            f"{ADAGRAD} sharding.kind={kind} {options}",
            False,
            BOTH,
            (
                f"tables.{name} is sharded {kind}:",
                f"its dim {dim} is too small",
                f"pieces of {width} columns",
                "min_partition",
            ),
        )
        for kind, options, name, dim, width in (
            ("column_wise", "sharding.min_partition=132", "a", 256, 132),
            ("table_column_wise", "tables.b.sharding.min_partition=160", "b", 256, 160),
            ("grid", "tables.b.dim=252", "b", 252, 128),
            ("column_wise", "tables.b.dim=4 tables.b.sharding.min_partition=4", "b", 4, 4),
        )
    ),
    *(
        (
            f"{ADAGRAD} sharding.kind={kind} sharding.{way}=int8",
            False,
            BOTH,
            (f"tables.a is sharded {kind}:", f"sharding.{way}=int8 {reason}", "use fp16, bf16"),
        )
        for kind, way, reason in (
            ("row_wise", "forward", "cannot add up"),
            ("table_row_wise", "backward", "cannot add up"),
            ("grid", "forward", "cannot add up"),
            ("column_wise", "backward", "is scaled in blocks"),
            ("table_column_wise", "forward", "is scaled in blocks"),
        )
    ),
    (
        "managed tables.b.sharding.kernel=dense",
        False,
        BOTH,
        ("tables.b has the kernel dense:", "begin anew", "use fused"),
    ),
    (
        "managed tables.b.sharding.kind=table_wise",
        False,
        BOTH,
        ("tables.b is sharded table_wise:", "it is managed", "row_wise"),
    ),
    # what does not go together, or has no effect
    (
        "sharding.forward=int8 tables.b.dim=48",
        False,
        BOTH,
        ("sharding.forward=int8", "tables.b.dim is 48", "multiple of 32"),
    ),
    ("sharding.backward=int8 tables.a.dim=4", False, BOTH, ("sharding.backward=int8", "tables.a.dim is 4")),
    (
        "tables.b.sharding.min_partition=32 sharding.kind=row_wise",
        False,
        BOTH,
        ("tables.b.sharding.min_partition has no meaning", "sharded row_wise"),
    ),
    (
        "tables.b.sharding.cache_load_factor=0.5 sharding.kernel=fused",
        False,
        BOTH,
        ("tables.b.sharding.cache_load_factor has no meaning", "kernel fused"),
    ),
    (
        "tables.b.sharding.cache_load_factor=0.5 tables.b.sharding.kind=data_parallel",
        False,
        BOTH,
        ("tables.b.sharding.cache_load_factor has no meaning", "kernel dense"),
    ),
]


@pytest.mark.parametrize("device", BOTH)
@pytest.mark.parametrize(("options", "sequence", "devices", "parts"), REFUSED)
def test_what_cannot_be_is_refused_with_its_reason_where_it_cannot(
    options: str, sequence: bool, devices: tuple[str, ...], parts: tuple[str, ...], device: str
) -> None:
    text = refusal(job_of(options, sequence), device)
    if device not in devices:
        assert text is None
        return
    assert text is not None
    for part in parts:
        assert part in text


def test_every_refusal_of_the_source_is_tried() -> None:
    source = Path(placement.__file__).read_text()
    said = [refusal(job_of(options, sequence), device) for options, sequence, on, _ in REFUSED for device in on]
    assert len(REFUSED) == 36 and len(said) == 65
    # By function: a refusal is raised, or returned as a reason that check_placement raises.
    assert source.count("raise UserError(") == 7
    functions = {found[1]: found[0] for found in re.finditer(r"def (\w+)\(.*?(?=\ndef |\Z)", source, re.DOTALL)}
    assert {
        name: len(re.findall(r"return (?!None|wrong_kernel)", functions[name])) for name in functions if "wrong" in name
    } == {
        "wrong_kernel": 5,
        "wrong_kind": 7,
        "wrong_dtype": 2,
    }
    # Every reason once or more, by words that only it has; `can be sharded in no way` has a test of its own.
    reasons = {
        "wrong_kernel": ["on SSD", "there is no GPU", "clip_value", "wrong sizes on a CPU", "begin anew"],
        "wrong_kind": [
            "holds the whole table",
            "pooled features only",
            "another optimizer",
            "too small to be cut",
            "cannot add up",
            "is scaled in blocks",
            "gives out rows",
        ],
        "wrong_dtype": ["trains no bf16", "rounded to the nearest"],
        "_check_options": ["travels in blocks", "min_partition has no meaning", "cache_load_factor has no meaning"],
    }
    for function, all_words in reasons.items():
        for words in all_words:
            assert words in functions[function]
            assert any(text is not None and words in text for text in said), words


def test_a_table_without_any_way_is_refused_with_all_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "wrong_kind", lambda job, name, kind, device: f"{name} is never {kind.name}")
    text = refusal(job_of(), CPU)
    assert text is not None and text.startswith("tables.a can be sharded in no way: a is never column_wise; ")
    assert text.count("a is never") == len(Kind) - 1


@pytest.mark.parametrize(
    ("options", "sequence"),
    [
        ("", False),
        ("", True),
        ("sharding.kind=table_wise sharding.forward=int8 sharding.backward=int8", False),
        ("sharding.kind=row_wise sharding.forward=fp16 sharding.backward=bf16", True),
        (f"{ADAGRAD} sharding.kind=column_wise sharding.forward=bf16 sharding.min_partition=32", False),
        (f"{ADAGRAD} sharding.kind=grid sharding.min_partition=128", False),
        (f"{ADAGRAD} sharding.kind=column_wise", True),
        ("optim.tables.kind=sgd sharding.kind=grid tables.b.dim=8 tables.b.sharding.min_partition=4", False),
        ("sharding.kind=data_parallel", False),
        ("sharding.kernel=dense", False),
        ("sharding.kernel=dense sharding.kind=row_wise", False),
        ("tables.a.dtype=fp16 tables.a.rounding=nearest", False),
        ("tables.a.dtype=fp16 tables.a.rounding=nearest sharding.kind=data_parallel", False),
        ("sharding.min_partition=196", False),  # no columns are cut
        ("sharding.kind=row_wise sharding.min_partition=32", False),  # a general option need not suit every table
        ("sharding.kernel=fused sharding.cache_load_factor=0.5", False),
        ("tables.a.sharding.cache_load_factor=0.5", False),
    ],
)
def test_what_can_be_is_taken_on_both_devices(options: str, sequence: bool) -> None:
    job = job_of(options, sequence)
    for device in BOTH:
        assert refusal(job, device) is None
        for name in job.tables:
            assert kinds_of(job, name, device) and kernels_of(job, name, device)


ROWS = [Kind.table_wise, Kind.row_wise, Kind.table_row_wise]
COLUMNS = [Kind.column_wise, Kind.table_column_wise]


@pytest.mark.parametrize("device", BOTH)
@pytest.mark.parametrize(
    ("options", "sequence", "kinds"),
    [
        ("", False, ROWS),
        ("", True, [Kind.table_wise, Kind.row_wise]),
        (ADAGRAD, False, [*ROWS, *COLUMNS, Kind.grid]),
        ("optim.tables.kind=sgd", True, [Kind.table_wise, Kind.row_wise, Kind.column_wise]),
        (f"{ADAGRAD} sharding.min_partition=132", False, ROWS),
        (f"{ADAGRAD} tables.b.dim=64", False, ROWS),
        (f"{ADAGRAD} tables.b.dim=64 tables.b.sharding.min_partition=32", False, [*ROWS, *COLUMNS, Kind.grid]),
        (f"{ADAGRAD} sharding.forward=int8", False, [Kind.table_wise]),
        ("sharding.backward=int8", True, [Kind.table_wise]),
        ("sharding.kernel=dense", False, [*ROWS, Kind.data_parallel]),
        ("sharding.kernel=fused", False, ROWS),
        ("sharding.kind=row_wise", True, [Kind.row_wise]),
        ("sharding.kind=data_parallel", False, [Kind.data_parallel]),
        ("sharding.kind=grid", False, []),  # refused by check_placement
    ],
)
def test_kinds_that_the_planner_may_choose_from(options: str, sequence: bool, kinds: list[Kind], device: str) -> None:
    found = kinds_of(job_of(options, sequence), "b", device)
    assert set(found) == set(kinds) and len(found) == len(kinds)


def test_kinds_of_auto_are_those_that_could_be_asked_for() -> None:
    compared = 0
    for device in BOTH:
        for sequence in (False, True):
            for optimizer in TableOptimizer:
                for forward in (Precision.fp32, Precision.int8):
                    options = f"optim.tables.kind={optimizer.name} sharding.forward={forward.name}"
                    job = job_of(options, sequence)
                    free = set(kinds_of(job, "b", device))
                    for kind in set(Kind) - {Kind.auto, Kind.data_parallel}:
                        alone = job_of(f"{options} tables.b.sharding.kind={kind.name}", sequence)
                        assert (refusal(alone, device) is None) == (kind in free)
                        assert kinds_of(alone, "b", device) == ([kind] if kind in free else [])
                        compared += 1
    assert compared == 2 * 2 * 3 * 2 * 6


@pytest.mark.parametrize(
    ("options", "on_cpu", "on_cuda"),
    [
        ("", [Kernel.fused], [Kernel.fused, *IN_HOST_MEMORY]),
        ("sharding.kind=row_wise", [Kernel.fused], [Kernel.fused, *IN_HOST_MEMORY]),
        ("sharding.kind=data_parallel", [Kernel.dense], [Kernel.dense]),
        ("sharding.kernel=dense", [Kernel.dense], [Kernel.dense]),
        ("sharding.kernel=fused_uvm", [Kernel.fused_uvm], [Kernel.fused_uvm]),
    ],
)
def test_kernels_that_the_planner_may_choose_from(options: str, on_cpu: list[Kernel], on_cuda: list[Kernel]) -> None:
    assert kernels_of(job_of(options), "b", CPU) == on_cpu
    assert kernels_of(job_of(options), "b", CUDA) == on_cuda


def test_a_tables_own_options_go_before_those_of_all() -> None:
    general = (
        f"{ADAGRAD} sharding.kind=row_wise sharding.kernel=fused sharding.min_partition=32 "
        "sharding.cache_load_factor=0.25"
    )
    own = (
        "tables.b.sharding.kind=column_wise tables.b.sharding.kernel=fused_uvm_caching tables.b.sharding.min_partition=16 "
        "tables.b.sharding.cache_load_factor=0.75"
    )
    job = job_of(f"{general} {own}")
    functions = (kind_of, kernel_of, min_partition_of, cache_load_factor_of)
    assert [function(job, "a") for function in functions] == [Kind.row_wise, Kernel.fused, 32, 0.25]
    assert [function(job, "b") for function in functions] == [Kind.column_wise, Kernel.fused_uvm_caching, 16, 0.75]
    assert (kinds_of(job, "a", CUDA), kernels_of(job, "a", CUDA)) == ([Kind.row_wise], [Kernel.fused])
    assert (kinds_of(job, "b", CUDA), kernels_of(job, "b", CUDA)) == ([Kind.column_wise], [Kernel.fused_uvm_caching])
    assert refusal(job, CUDA) is None
    assert refusal(job, CPU) is not None

    # Also back to auto, and where all tables may have what one may not.
    job = job_of(f"{general} tables.b.sharding.kind=auto tables.b.sharding.kernel=auto")
    assert kinds_of(job, "a", CUDA) == [Kind.row_wise] and len(kinds_of(job, "b", CUDA)) == 6
    assert len(kernels_of(job, "b", CUDA)) == 3
    assert (
        refusal(job_of("sharding.kind=grid tables.a.sharding.kind=row_wise tables.b.sharding.kind=table_wise"), CPU)
        is None
    )
    assert (
        refusal(job_of("sharding.kernel=key_value tables.a.sharding.kernel=fused tables.b.sharding.kernel=dense"), CPU)
        is None
    )


def test_a_table_is_a_sequence_if_its_features_are() -> None:
    assert [is_sequence(job_of(sequence=True), name) for name in ("a", "b")] == [False, True]
    assert not is_sequence(job_of(), "b")
