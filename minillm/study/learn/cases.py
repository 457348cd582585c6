"""The stages for plain functions: results on given arguments beside the reference solution's."""
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np

from .compare import check_kind, difference, equal
from .exercise import Exercise, Wrong
from .mistakes import known_mistake, variant_of


class Cases:
    """The learner's functions, the reference's, and the arguments of each call."""

    def __init__(self, exercise: Exercise, yours: Any) -> None:
        assert exercise.cases is not None
        self.exercise, self.yours, self.right = exercise, yours, variant_of(exercise)
        cases = exercise.cases(np.random.default_rng(19))
        self.calls = [(name, args) for name, all_args in cases.items() for args in all_args]

    def stages(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "shapes and types", self.shapes
        yield "values", self.values
        yield "contract", self.contract

    def shapes(self) -> str:
        for name, args in self.calls:
            check_kind(f"what {name} returns", getattr(self.yours, name)(*deepcopy(args)),
                       getattr(self.right, name)(*deepcopy(args)))
        return f"as the reference's, in {len(self.calls)} calls"

    def values(self) -> str:
        for name, args in self.calls:
            def result(functions: Any, name: str = name, args: tuple = args) -> Any:
                return getattr(functions, name)(*deepcopy(args))

            mine, right = result(self.yours), result(self.right)
            if not equal(mine, right):
                if known := known_mistake(self.exercise, mine, right, result):
                    raise Wrong(f"{name}: {known}")
                raise Wrong(f"{name}({', '.join(map(brief, args))}): {told_apart(name, mine, right)}")
        return f"equal to the reference's in {len(self.calls)} calls"

    def contract(self) -> str:
        for name, args in self.calls:
            given = deepcopy(args)
            first = deepcopy(getattr(self.yours, name)(*given))
            if not equal(given, args, 0):
                raise Wrong(f"{name} writes into its arguments: return fresh results and leave them as they are")
            if not equal(getattr(self.yours, name)(*deepcopy(args)), first, 0):
                raise Wrong(f"{name} gives another result the second time for the same arguments")
        return "arguments left alone, the same result twice"


def told_apart(name: str, mine: Any, right: Any) -> str:
    """Where two results differ."""
    if isinstance(right, (np.ndarray, float, np.floating)):
        return difference("the result", mine, right)
    if isinstance(right, (tuple, list)) and len(mine) == len(right):
        i = next(i for i, (a, b) in enumerate(zip(mine, right)) if not equal(a, b))
        if isinstance(right[i], (np.ndarray, float, np.floating, tuple, list)) and len(right) <= 8:
            return f"in result {i}, {told_apart(name, mine[i], right[i])}"
        return f"position {i} is {brief(mine[i])}, right is {brief(right[i])}"
    return f"the result is {brief(mine)}, right is {brief(right)}"


def brief(value: Any) -> str:
    """A value in at most 60 characters."""
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=3, threshold=6, edgeitems=2).replace("\n", "") if value.ndim == 1 else (
            f"array of shape {value.shape}")
    else:
        text = f"a dict of {len(value)}" if isinstance(value, dict) and len(value) > 4 else repr(value)
    return text if len(text) <= 60 else f"{text[:45]} ... {text[-10:]}"
