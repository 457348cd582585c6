"""Known mistakes: wrong variants of the reference solution. What a learner got is compared with what each gives, and
each two of them together."""
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from .compare import equal
from .exercise import Exercise

CLOSE = 1e-8


@lru_cache(maxsize=512)
def variant_of(exercise: Exercise, *changes: tuple[str, str]) -> ModuleType:
    """The reference solution as a module, with some texts of it replaced."""
    text = exercise.reference()
    for old, new in changes:
        text = text.replace(old, new)
    module = ModuleType(exercise.name)
    exec(compile(text, f"<{exercise.name} with {len(changes)} changes>", "exec"), vars(module))
    return module


def variants(exercise: Exercise) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """(sentence, changes) of every known mistake, then of every two that can be made at once."""
    for old, new, sentence in exercise.mistakes:
        yield sentence, ((old, new),)
    reference = exercise.reference()
    for (old, new, one), (other_old, other_new, other) in combinations(exercise.mistakes, 2):
        if other_old in reference.replace(old, new) and new not in (other_old, other_new):
            yield f"{one}; and {other}", ((old, new), (other_old, other_new))


def known_mistake(exercise: Exercise, mine: Any, right: Any, result: Callable[[Any], Any]) -> str | None:
    """The sentence of the first variant whose result is the learner's and not the right one."""
    if isinstance(mine, np.ndarray) and mine.dtype.kind == "f" and not np.isfinite(mine).any():
        return None                                                     # as many mistakes give
    for sentence, changes in variants(exercise):
        with np.errstate(all="ignore"):
            try:
                wrong = result(variant_of(exercise, *changes))
            except Exception:       # noqa: BLE001  a variant may fail at these sizes
                continue
            if equal(mine, wrong, CLOSE) and not equal(right, wrong, CLOSE):
                return sentence
    return None
