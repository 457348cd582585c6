"""A class's folder: a row a student, whatever lies in it."""
import csv
import io
import json

import pytest

from minillm.study.learn.grade import grade, grade_csv, grade_page
from minillm.study.learn.path import exercise_called


@pytest.fixture
def folder(tmp_path):
    linear, residual = exercise_called("linear_forward"), exercise_called("residual")
    for name in ("anna", "ben", "ben/__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "anna" / "one.py").write_text(linear.solution())
    (tmp_path / "anna" / "first_try.py").write_text(linear.template())
    (tmp_path / "anna" / "residual.py").write_text(residual.solution())
    (tmp_path / "ben" / "linear_forward.py").write_text(linear.reference().replace("+ bias", ""))
    (tmp_path / "ben" / "residual.py").write_text("while True: pass")
    (tmp_path / "ben" / "diary.py").write_text("x = 1")
    (tmp_path / "ben" / "__pycache__" / "x.py").write_text("")
    (tmp_path / "carl_residual.py").write_text(residual.solution())
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def test_rows(folder):
    rows = grade(folder)
    json.dumps(rows)
    assert [(row["student"], row["passed"], row["tried"]) for row in rows] == [
        ("anna", 2, 2), ("ben", 0, 2), ("carl_residual.py", 1, 1)]
    ben = {result["file"]: result for result in rows[1]["results"]}
    assert ben["ben/linear_forward.py"]["stage"] == "values"
    assert "the bias is not added" in ben["ben/linear_forward.py"]["message"]
    assert "there is no function" in ben["ben/residual.py"]["message"]
    assert ben["ben/diary.py"]["exercise"] is None

    table = list(csv.DictReader(io.StringIO(grade_csv(rows))))
    assert table[0] == {"student": "anna", "passed": "2", "tried": "2", "linear_forward": "1", "residual": "1"}
    assert table[1]["linear_forward"] == "0" and table[2]["linear_forward"] == ""
    page = grade_page(rows)
    assert "anna" in page and "ben/linear_forward.py: values: out: the bias is not added" in page


def test_folders_without_files(tmp_path):
    with pytest.raises(ValueError, match="^FOLDER must hold learners'"):
        grade(tmp_path)
    with pytest.raises(ValueError, match="^FOLDER must be an existing folder"):
        grade(tmp_path / "none")
