"""A judgement in the test's own process: no time limit and no speed measured, and nothing that the judge sets stays."""
import os
import sys
import warnings
from datetime import date
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from minillm.study.learn import native, pair
from minillm.study.learn.exercise import Exercise
from minillm.study.learn.judge import judge
from minillm.study.learn.path import PATH
from minillm.study.learn.verdict import Stage


def judged(exercise: Exercise, text: str, folder: Path) -> Stage:
    """The last stage of the judgement of a text: the one that refused it, if any did."""
    return all_stages(exercise, text, folder)[-1]


def all_stages(exercise: Exercise, text: str, folder: Path) -> list[Stage]:
    """The whole judgement of a text."""
    path = folder / f"mine_{len(list(folder.iterdir()))}{exercise.suffix}"      # a name that no import remembers
    path.write_text(text, encoding="utf-8")
    with patch.object(pair, "SECONDS", 0.0), patch.object(native, "speed", lambda kernel: "not timed"), \
            patch.object(sys, "dont_write_bytecode", True), \
            np.errstate(all="ignore"), warnings.catch_warnings():
        return list(judge(exercise, path))


def needs_compiler(exercise: Exercise) -> None:
    if exercise.c and native.lacking():
        pytest.skip(native.lacking())
    if exercise.suffix == ".cu" and not todays(exercise.name):
        pytest.skip("each CUDA exercise has its day; MINILLM_CUDA_ZOO=all takes all of them")


def todays(name: str) -> bool:
    """Compiling CUDA for the emulator takes seconds: one exercise a day."""
    turns = [each for each in PATH if each.endswith("_cuda")]
    return os.environ.get("MINILLM_CUDA_ZOO") == "all" or turns[date.today().toordinal() % len(turns)] == name


def some(exercise: Exercise, cases: list) -> list:
    """All wrong solutions, or of a CUDA exercise one of them a day."""
    if exercise.suffix != ".cu" or os.environ.get("MINILLM_CUDA_ZOO") == "all":
        return cases
    return [cases[date.today().toordinal() // 3 % len(cases)]]
