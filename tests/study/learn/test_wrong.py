"""Wrong solutions are refused with the right words; all of them are judged in this one process."""
import importlib.util
from pathlib import Path

import pytest

from minillm.study.learn.judge import judge
from minillm.study.learn.path import PATH, exercise_called

FOLDER = Path(__file__).parent / "wrong"


def wrong_solutions(name):
    spec = importlib.util.spec_from_file_location(f"wrong_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


CASES = [pytest.param(name, old, new, words, id=f"{name}-{label}") for name in PATH if (FOLDER / f"{name}.py").exists()
         for label, (old, new), words in wrong_solutions(name)]


@pytest.mark.parametrize("name, old, new, words", CASES)
def test_it_is_refused_with_the_right_words(name, old, new, words, tmp_path):
    exercise = exercise_called(name)
    assert old in exercise.reference()
    path = tmp_path / f"{name}{exercise.suffix}"
    path.write_text(exercise.reference().replace(old, new))
    *passed, last = judge(exercise, path)
    assert not last.passed and all(stage.passed for stage in passed)
    assert words in last.message


def test_there_are_many():
    assert len(CASES) >= 100
    for name in PATH:
        assert sum(case.values[0] == name for case in CASES) >= 4, name
