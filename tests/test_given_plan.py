"""A plan from a file: followed where it is one for these tables and ranks, refused in one sentence where not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import SMALL, bigembed

from bigembed.config.schema import DType, Kernel, Kind
from bigembed.errors import UserError
from bigembed.sharding import plan as plans
from bigembed.sharding.plan import Piece, Plan, TablePlan

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    assert bigembed("plan", *SMALL, "table@tables.text=hashed", f"out={file}") == 0
    return file


def test_a_plan_is_followed(planned: Path, tmp_path: Path) -> None:
    common = ["train", *SMALL, "table@tables.text=hashed"]
    assert bigembed(*common, f"sharding.plan={planned}", f"hydra.run.dir={tmp_path}/given") == 0
    assert bigembed(*common, f"hydra.run.dir={tmp_path}/own") == 0
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("given", "own"))
    assert ours["test"] == theirs["test"]
    assert bigembed("evaluate", f"run={tmp_path}/given") == 0


def table(values: dict[str, Any]) -> dict[str, Any]:
    return values["tables"]["text"]


WRONG: dict[str, tuple[Change, str]] = {
    "another table": (
        lambda values: values["tables"].update(other=values["tables"].pop("text")),
        "is for other tables",
    ),
    "other rows": (lambda values: table(values).update(rows=7), "7 rows"),
    "another dim": (lambda values: table(values).update(dim=12), "× 12"),
    "another dtype": (lambda values: table(values).update(dtype="fp16"), "fp16"),
    "other ranks": (lambda values: values.update(world_size=2), "is for 2 ranks"),
    "another device": (lambda values: values.update(device="cuda"), "on cuda"),
    "another format": (lambda values: values.update(format=99), "format 99"),
    "an unknown kind": (lambda values: table(values).update(kind="diagonal"), "diagonal"),
    "a kind that is refused": (lambda values: table(values).update(kind="column_wise"), "does not go with this job"),
    "a kernel that is refused": (lambda values: table(values).update(kernel="fused_uvm"), "does not go with this job"),
    "no pieces": (lambda values: table(values).update(pieces=[]), "pieces of tables.text"),
    "half a piece": (lambda values: table(values)["pieces"][0].__setitem__(3, 1), "pieces of tables.text"),
    "a piece twice": (
        lambda values: table(values)["pieces"].append(table(values)["pieces"][0]),
        "pieces of tables.text",
    ),
    "an unknown rank": (lambda values: table(values)["pieces"][0].__setitem__(0, 5), "rank 5"),
    "a broken number": (lambda values: table(values)["pieces"][0].__setitem__(0, 0.9), "no whole number"),
    "a short piece": (lambda values: table(values)["pieces"][0].pop(), "is no plan"),
    "no tables": (lambda values: values.pop("tables"), "lacks or does not know 'tables'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plan_that_is_not_for_this_job_is_refused(planned: Path, tmp_path: Path, capsys: Any, wrong: str) -> None:
    change, part = WRONG[wrong]
    values = json.loads(planned.read_text())
    change(values)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(values))
    arguments = ["train", *SMALL, "table@tables.text=hashed", f"sharding.plan={file}", f"hydra.run.dir={tmp_path}/run"]
    assert bigembed(*arguments) == 2
    error = capsys.readouterr().err
    assert part in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"format": 1}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(UserError, match="is no plan"):
        plans.load(file)
    with pytest.raises(UserError, match="cannot be read"):
        plans.load(tmp_path / "none.json")


def layouts() -> list[Plan]:
    """Plans over 4 ranks of 2 hosts, one of every kind, with 10 rows × 8."""
    rows = [(0, 3), (3, 3), (6, 3), (9, 1)]
    pieces = {
        Kind.table_wise: [Piece(2, 0, 0, 10, 8)],
        Kind.row_wise: [Piece(rank, row, 0, count, 8) for rank, (row, count) in enumerate(rows)],
        Kind.column_wise: [Piece(3, 0, 0, 10, 4), Piece(1, 0, 4, 10, 4)],
        Kind.table_column_wise: [Piece(2, 0, 0, 10, 4), Piece(3, 0, 4, 10, 4)],
        Kind.table_row_wise: [Piece(2, 0, 0, 5, 8), Piece(3, 5, 0, 5, 8)],
        Kind.grid: [Piece(2, 0, 0, 5, 4), Piece(3, 5, 0, 5, 4), Piece(0, 0, 4, 5, 4), Piece(1, 5, 4, 5, 4)],
        Kind.data_parallel: [Piece(rank, 0, 0, 10, 8) for rank in range(4)],
    }
    assert set(pieces) == set(Kind) - {Kind.auto}
    return [
        Plan(4, 2, "cpu", {"t": TablePlan(kind, Kernel.fused, 10, 8, DType.fp32, of_kind)})
        for kind, of_kind in pieces.items()
    ]


@given(data=st.data())
def test_only_the_layout_of_its_kind_is_taken(data: st.DataObject) -> None:
    plan = data.draw(st.sampled_from(layouts()))
    plans.check_layout("t", plan, "plan")
    pieces = plan.tables["t"].pieces
    number = data.draw(st.integers(0, len(pieces) - 1))
    field = data.draw(st.sampled_from(["row", "column", "rows", "columns"]))
    changed = getattr(pieces[number], field) + data.draw(st.sampled_from([-3, -1, 1, 2]))
    pieces[number] = plans.replace_fields(pieces[number], **{field: changed})
    with pytest.raises(UserError, match=r"tables\.t"):
        plans.check_layout("t", plan, "plan")
