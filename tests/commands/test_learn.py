"""`minillm learn` as a learner uses it."""
import json

import pytest

from minillm.__main__ import main
from minillm.study.learn.path import PATH, exercise_called
from minillm.study.learn.progress import NAME


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *words):
    code = main(["learn", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_from_the_list_to_a_solved_exercise(home, capsys):
    code, out, _ = said(capsys)
    assert code == 0 and all(name in out for name in PATH)
    assert f"0 of {len(PATH)} solved; next: minillm learn {PATH[0]}" in out and f"progress is kept in {NAME}" in out
    assert not (home / NAME).exists()

    assert said(capsys, "gelu")[1].startswith("wrote gelu.py; fill it in, then: minillm learn check gelu.py")
    code, out, _ = said(capsys, "check", "gelu.py")
    assert code == 1 and "FAIL written" in out and "minillm learn hint gelu" in out

    (home / "gelu.py").write_text(exercise_called("gelu").reference())
    code, out, _ = said(capsys, "check", "gelu.py")
    assert code == 0 and "gelu: solved. 1 of" in out and "ok   complex step" in out
    row = json.loads((home / NAME).read_text())["gelu"]
    assert row["tries"] == 2 and row["passed"]
    rows = {row["name"]: row for row in json.loads(said(capsys, "--json")[1])}
    assert rows["gelu"]["passed"] and not rows["residual"]["passed"] and rows["gelu"]["needs"] == ["linear_backward"]

    (home / "gelu.py").write_text(exercise_called("gelu").template())
    said(capsys, "check", "gelu.py")
    assert json.loads((home / NAME).read_text())["gelu"]["passed"] == row["passed"]      # once solved stays solved


def test_a_file_is_never_overwritten_unless_forced(home, capsys):
    (home / "gelu.py").write_text("mine")
    code, _, err = said(capsys, "gelu")
    assert code == 1 and "exists already" in err and (home / "gelu.py").read_text() == "mine"
    assert said(capsys, "gelu", "--force")[0] == 0 and (home / "gelu.py").read_text() != "mine"
    assert said(capsys, "gelu", "-o", "other.py")[0] == 0 and (home / "other.py").exists()


def test_one_more_hint_at_each_call(home, capsys):
    hints = exercise_called("residual").hints
    for number, hint in enumerate(hints, 1):
        words = " ".join(said(capsys, "hint", "residual")[1].split())
        assert words.startswith(f"step {number} of {len(hints)}: {hint}")
    assert "minillm learn solution residual" in said(capsys, "hint", "residual")[1]
    assert said(capsys, "hint", "residual.py", "--step", "1")[1].startswith("step 1 of")
    assert said(capsys, "hint", "residual", "--all")[1].count("step ") == len(hints)
    code, _, err = said(capsys, "hint", "residual", "--step", "99")
    assert code == 1 and "--step must be at most" in err
    assert "hints" in said(capsys)[1]


def test_a_solution_is_a_file_that_passes(home, capsys):
    text = said(capsys, "solution", "residual")[1]
    assert all(hint.split(":")[0] in text for hint in exercise_called("residual").hints)
    (home / "answer.py").write_text(text)
    code, out, _ = said(capsys, "check", "answer.py", "--json")
    verdict = json.loads(out)
    assert code == 0 and verdict["exercise"] == "residual" and verdict["passed"]
    assert [stage["name"] for stage in verdict["stages"]][:3] == ["written", "runs", "shapes and dtype"]


@pytest.mark.parametrize("words, code, message", [
    (["nonsense"], 1, "NAME must be an exercise"),
    (["check"], 1, "check takes one FILE"),
    (["check", "none.py"], 2, "FILE must be an existing file: got none.py"),
    (["hint", "nonsense"], 1, "NAME must be an exercise"),
    (["gelu", "residual"], 1, "the first word must be"),
    (["grade", "none"], 1, "FOLDER must be an existing folder"),
])
def test_wrong_words(words, code, message, home, capsys):
    got, _, err = said(capsys, *words)
    assert got == code and message in err


def test_a_damaged_record_does_not_stop_a_verdict(home, capsys):
    (home / NAME).write_text("[1, 2]")
    (home / "residual.py").write_text(exercise_called("residual").template())
    code, out, _ = said(capsys, "check", "residual.py")
    assert code == 1 and "progress is not kept" in out
    code, _, err = said(capsys)
    assert code == 1 and "is no record of progress" in err


def test_grade_prints_a_table_or_csv_or_json(home, capsys):
    (home / "residual.py").write_text(exercise_called("residual").template())
    assert "residual.py: written: " in said(capsys, "grade", ".")[1]
    assert said(capsys, "grade", ".", "--csv")[1] == "student,passed,tried,residual\nresidual.py,0,1,0\n"
    assert json.loads(said(capsys, "grade", ".", "--json")[1])[0]["passed"] == 0
