"""A judgement in the test's own process, where there is no time limit (conftest.py puts back what the judge sets)."""
import shutil
from pathlib import Path

import pytest

from minillm.study.learn.exercise import Exercise
from minillm.study.learn.judge import judge
from minillm.study.learn.verdict import Stage


def judged(exercise: Exercise, text: str, folder: Path) -> Stage:
    """The last stage of the judgement of a text: the one that refused it, if any did."""
    path = folder / f"mine_{len(list(folder.iterdir()))}{exercise.suffix}"      # a name that no import remembers
    path.write_text(text, encoding="utf-8")
    return list(judge(exercise, path))[-1]


def needs_compiler(exercise: Exercise) -> None:
    if exercise.c and not shutil.which("gcc"):
        pytest.skip("no C compiler")
