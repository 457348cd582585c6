"""Known mistakes: wrong variants of the reference solution. What a learner got is compared with what each gives."""
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from .compare import equal
from .exercise import Exercise

CLOSE = 1e-8


@lru_cache(maxsize=256)
def variant_of(exercise: Exercise, old: str = "", new: str = "") -> ModuleType:
    """The reference solution as a module, with one text of it replaced."""
    module = ModuleType(f"{exercise.name} with {new!r}" if old else exercise.name)
    text = exercise.reference()
    exec(compile(text.replace(old, new) if old else text, f"<{module.__name__}>", "exec"), vars(module))
    return module


def known_mistake(exercise: Exercise, mine: Any, right: Any, result: Callable[[Any], Any]) -> str | None:
    """The sentence of the first variant whose result is the learner's and not the right one."""
    if isinstance(mine, np.ndarray) and mine.dtype.kind == "f" and not np.isfinite(mine).any():
        return None                                                     # as many mistakes give
    for old, new, sentence in exercise.mistakes:
        with np.errstate(all="ignore"):
            try:
                wrong = result(variant_of(exercise, old, new))
            except Exception:       # noqa: BLE001  a variant may fail at these sizes
                continue
            if equal(mine, wrong, CLOSE) and not equal(right, wrong, CLOSE):
                return sentence
    return None
