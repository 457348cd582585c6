"""Every exercise of the path: its template fails, its solution passes, its parts fit together."""
import ast
from pathlib import Path

import pytest

from minillm.study.learn import exercises as folder
from minillm.study.learn.exercise import Exercise
from minillm.study.learn.path import PATH, exercise_called, exercise_of, exercises
from tests.study.learn.judging import all_stages, needs_compiler


@pytest.mark.parametrize("name", PATH)
def test_a_blank_template_fails(name, tmp_path):
    exercise = exercise_called(name)
    (stage,) = all_stages(exercise, exercise.template(), tmp_path)
    assert not stage.passed and "`...` still stands there" in stage.message


@pytest.mark.parametrize("name", PATH)
def test_the_solution_passes(name, tmp_path):
    exercise = exercise_called(name)
    needs_compiler(exercise)
    stages = all_stages(exercise, exercise.solution(), tmp_path)
    assert [stage for stage in stages if not stage.passed] == []
    assert len(stages) >= 3


def test_the_stages_of_a_backward(tmp_path):
    exercise = exercise_called("layernorm_backward")
    assert [stage.name for stage in all_stages(exercise, exercise.solution(), tmp_path)] == [
        "written", "runs", "shapes and dtype", "values", "finite differences", "complex step", "contract",
        "large values", "C++ kernel", "speed"]


def test_the_path_is_the_folder():
    assert sorted(PATH) == sorted(path.stem for path in Path(folder.__file__).parent.glob("[!_]*.py"))
    assert len(PATH) == len(set(PATH)) >= 30


@pytest.mark.parametrize("name", PATH)
def test_an_exercise_needs_only_what_came_before(name):
    exercise = exercise_called(name)
    assert set(exercise.needs) <= set(PATH[:PATH.index(name)])
    assert len(exercise.hints) >= 3 and exercise.title


@pytest.mark.parametrize("name", PATH)
def test_a_template_holds_the_task_and_no_solution(name):
    exercise = exercise_called(name)
    template, solution = exercise.template(), exercise.solution()
    assert exercise.task in template and exercise.task in solution
    assert all(len(line) <= 120 for line in (template + solution).splitlines())
    assert "EXERCISE" not in template + solution and "_inputs" not in template
    if exercise.suffix == ".py":
        for function in ast.parse(template).body:
            if getattr(function, "name", "") in exercise.solve:
                assert ast.unparse(function.body[-1]) == "..." and ast.get_docstring(function)


@pytest.mark.parametrize("name", PATH)
def test_known_mistakes_are_of_the_reference(name):
    reference = exercise_called(name).reference()
    for old, new, sentence in exercise_called(name).mistakes:
        assert old in reference and old != new and sentence, old


def test_a_file_says_which_exercise_it_is_for(tmp_path):
    path = tmp_path / "homework.py"
    path.write_text(exercise_called("gelu").template())
    assert exercise_of(path).name == "gelu"
    (tmp_path / "softmax.py").write_text("def softmax_forward(x): ...\n")
    assert exercise_of(tmp_path / "softmax.py").name == "softmax"
    (tmp_path / "anna_online_softmax_forward_2.py").write_text("x = 1\n")
    assert exercise_of(tmp_path / "anna_online_softmax_forward_2.py").name == "online_softmax_forward"
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="^FILE must begin with the line of its template"):
        exercise_of(path)
    with pytest.raises(ValueError, match="^NAME must be an exercise"):
        exercise_called("nonsense")


def test_blank_bodies_keep_signature_and_docstring(tmp_path):
    """Decorators, several lines of arguments, comments between functions."""
    path = tmp_path / "made.py"
    path.write_text('"""A title."""\nimport math\n\nfrom ..exercise import Exercise\n\nK = 1\n_JUDGE = 2\n\n\n'
                    '# about f\ndef f(a,\n      b=2):\n    """What it does."""\n    return a + K  # here\n\n\n'
                    'def g():\n    return 1\n\n\n# for the judge\ndef _inputs(rng):\n    return {}\n\n\n'
                    'EXERCISE = None\n')
    made = Exercise(str(path), solve=("f",), hints=("a", "b"))
    assert made.template() == (
        '"""Exercise made.\n\nA title.\n\n'
        'Write what stands in place of `...`, then:  minillm learn check made.py\n"""\n'
        'import math\n\nK = 1\n\n\n# about f\ndef f(a,\n      b=2):\n    """What it does."""\n    ...\n\n\n'
        'def g():\n    return 1\n')
    assert "# 1. a\n# 2. b\nimport math" in made.solution() and "return a + K  # here" in made.solution()


def test_every_exercise_is_one_record():
    assert [exercise.name for exercise in exercises()] == list(PATH)
