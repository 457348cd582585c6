"""The judgement of a learner's file: stage after stage, each with its evidence, up to the first that fails.

Runs the learner's code in this process: process.py gives it one of its own.
"""
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from ...workbench.pairs import load
from .cases import Cases
from .exercise import Exercise, Wrong
from .native import stages_in_c
from .pair import Pair
from .reading import read
from .verdict import Stage, told


def judge(exercise: Exercise, path: Path) -> Iterator[Stage]:
    """Every stage in order; the first that fails is the last."""
    for name, check in stages(exercise, path):
        stage = outcome(name, check, path)
        yield stage
        if not stage.passed:
            return


def outcome(name: str, check: Callable[[], str], path: Path) -> Stage:
    """One stage, whatever the learner's code raises."""
    try:
        return Stage(name, True, check())
    except Wrong as wrong:
        return Stage(name, False, str(wrong))
    except BaseException as error:              # noqa: BLE001  SystemExit and KeyboardInterrupt too
        return Stage(name, False, told(error, path))


def stages(exercise: Exercise, path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """(name, check) of each stage; a check returns its evidence, or raises."""
    if exercise.c:
        yield from stages_in_c(exercise, path)
        return
    loaded: list[ModuleType] = []
    yield "written", lambda: read(exercise, path)
    yield "runs", lambda: runs(path, loaded)
    yours = loaded[0]
    pair = Pair(exercise, yours) if exercise.op or exercise.inputs else None
    if pair:
        yield from pair.stages()
    if exercise.cases:
        yield from Cases(exercise, yours).stages()
    for name, check in exercise.checks:
        yield name, partial(check, yours, np.random.default_rng(19))
    if pair:
        yield "speed", pair.speed


def runs(path: Path, loaded: list[ModuleType]) -> str:
    loaded.append(load(path))
    return "the file can be imported"
