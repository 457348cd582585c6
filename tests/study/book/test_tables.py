"""Generated tables: rows of equal length, from the tables of the package and the newest results."""
from importlib import import_module
from pathlib import Path

import pytest

import minillm.study.book.tables as tables
from minillm.data.cleaning.filters import SCORES
from minillm.study.book.tables import (
    doctor_checks,
    flops_124m,
    parameters_124m,
    planted_errors,
    quality_scores,
    worked_example,
)
from minillm.workbench.doctor import CHECKS

FOLDER = Path(tables.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_a_rectangle_of_text_and_stands_in_a_chapter(name):
    rows = import_module(f"minillm.study.book.tables.{name}").rows()
    assert len(rows) > 2 and len({len(row) for row in rows}) == 1
    assert all(isinstance(cell, str) for row in rows for cell in row)
    chapters = "".join(path.read_text(encoding="utf-8") for path in (FOLDER.parent / "chapters").glob("*.md"))
    assert f"{{table:{name} " in chapters


def test_tables_hold_all_that_they_are_made_from():
    assert len(doctor_checks.rows()) == len(CHECKS) + 1 and len(quality_scores.rows()) == len(SCORES) + 1
    assert sum(size for *_, size in parameters_124m.counts()) == 124_439_808
    assert planted_errors.rows()[-1][:3] == ["all", "1,059", "1,059"]
    assert sum(float(row[-1]) for row in flops_124m.rows()[1:-1]) == pytest.approx(100, abs=0.5)


def test_gradients_of_the_worked_example_are_its_difference_quotients():
    found = list(worked_example.lines())
    assert all(check is None or abs(grad - check) < 1e-9 for _, _, grad, check in found)
    grads = {name: grad for name, _, grad, _ in found}
    assert abs(sum(grads[f"z[0, {i}]"] for i in range(3))) < 1e-12 and grads["z[0, 2]"] < 0
    assert all(abs(grads[f"weight[1, {j}]"] + grads[f"weight[0, {j}]"] / 2) < 1e-12 for j in range(3))
