"""The judgement of a learner's file: stage after stage, each with its evidence, up to the first that fails.

Runs the learner's code in this process: process.py gives it one of its own.
"""
import sys
import warnings
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
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")                                     # nan and inf are judged, not warned of
    for name, check in stages(exercise, path):
        try:
            yield Stage(name, True, check())
        except Wrong as wrong:
            yield Stage(name, False, str(wrong))
            return
        except BaseException as error:              # noqa: BLE001  learners' code raises what it likes, SystemExit too
            yield Stage(name, False, told(error, path))
            return


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
