"""Wrong solutions are refused, each by a diagnosis that names its mistake.

wrong/NAME.py holds the wrong solutions of an exercise: what is wrong, a text of the reference solution, what stands in
its place, and words that the diagnosis must hold. Judged in this process, where there is no time limit: a wrong
solution that never ends is process.py's to stop, and test_process.py's to try.
"""
import runpy
from pathlib import Path

import pytest

from minillm.study.learn.path import PATH, exercise_called
from tests.study.learn.judging import judged, needs_compiler, some

FILES = sorted((Path(__file__).parent / "wrong").glob("*.py"))
WRONG = {path.stem: runpy.run_path(str(path))["WRONG"] for path in FILES}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_solution_is_told_its_mistake(name, tmp_path):
    exercise = exercise_called(name)
    needs_compiler(exercise)
    reference, told = exercise.reference(), []
    for label, old, new, words in some(exercise, WRONG[name]):
        assert old in reference, f"{label}: the reference has no {old!r}"
        stage = judged(exercise, reference.replace(old, new), tmp_path)
        if stage.passed or not all(word in stage.message for word in ([words] if isinstance(words, str) else words)):
            told.append(f"{label}: {stage}")
    assert not told, "\n".join(told)


def test_there_are_enough_wrong_solutions():
    assert set(WRONG) == set(PATH)
    assert all(len(cases) >= 4 for cases in WRONG.values())
    assert all(words for cases in WRONG.values() for *_, words in cases)
    assert sum(map(len, WRONG.values())) >= 200
