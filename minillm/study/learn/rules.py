"""Cases of an exercise that is no op pair: a rule in words, what the student's function gave, and what is right.

The cases of an exercise stand in the order in which one would explain a mistake: each tries one rule, on inputs for
which nothing but that rule changes the result. So the first that differs names the mistake.
"""
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .exercise import Wrong

RTOL = 1e-9             # of float64 results that were computed in another order


def tried(cases: Callable[[Any], Iterable[tuple]], returns: bool = True) -> Callable[[Any, Any], str]:
    """A check of an exercise from its cases(yours): (rule, got, want), (rule, got, want, rtol) or (rule, holds).

    returns: whether the learner's functions give a result; without, they change their arguments in place.
    """
    def check(yours: Any, rng: Any) -> str:
        count = 0
        with np.errstate(all="ignore"), judging(yours):
            for rule, got, *rest in cases(Returning(yours) if returns else yours):
                count += 1
                if rest and (problem := difference(got, *rest)):
                    raise Wrong(f"{rule} ({problem})")
                if not rest and not got:
                    raise Wrong(rule)
        return f"right in {count} cases"
    return check


class Returning:
    """The learner's functions, where None instead of a result is told so."""

    def __init__(self, yours: Any) -> None:
        self.yours = yours

    def __getattr__(self, name: str) -> Callable:
        function = getattr(self.yours, name)

        def called(*args: Any, **settings: Any) -> Any:
            result = function(*args, **settings)
            if result is None:
                raise Wrong(f"{name} returns None: is a `return` missing?")
            return result
        return called


@contextmanager
def judging(yours: Any) -> Iterator[None]:
    """An exception that is raised outside the learner's file is about what came out of it."""
    try:
        yield
    except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        if any(frame.filename == yours.__file__ for frame in traceback.extract_tb(error.__traceback__)):
            raise
        raise Wrong(f"a result is not of the kind that the task asks for: {error}") from error


def difference(got: Any, want: Any, rtol: float = RTOL) -> str:
    """How got differs from want, in a few words; nothing where it does not."""
    if isinstance(want, np.ndarray):
        return array_difference(got, want, rtol)
    if isinstance(want, (tuple, list)):
        return sequence_difference(got, want, rtol)
    if isinstance(want, float):
        return "" if is_number(got) and near(float(got), want, rtol) else told(got, want)
    if isinstance(want, (set, Mapping, str, bytes)) or want is None:
        return "" if type(got) is type(want) and got == want else told(got, want)
    return "" if isinstance(got, (int, np.integer, np.bool_)) and got == want else told(got, want)


def array_difference(got: Any, want: np.ndarray, rtol: float) -> str:
    if not isinstance(got, np.ndarray):
        return f"expected an array {want.shape}, got {short(got)}"
    if got.shape != want.shape:
        return f"expected shape {want.shape}, got {got.shape}"
    if got.dtype != want.dtype:
        return f"expected {want.dtype}, got {got.dtype}"
    same = np.array([near(*pair, rtol) for pair in zip(got.ravel().tolist(), want.ravel().tolist())], bool)
    if same.all():
        return ""
    place = tuple(map(int, np.unravel_index(int(np.argmin(same)), want.shape)))
    one = f"element {list(place)} is {got[place]:.6g}, expected {want[place]:.6g}"
    return one if want.size > 8 else told(got, want)


def sequence_difference(got: Any, want: Any, rtol: float) -> str:
    if not isinstance(got, (tuple, list)):
        return f"expected a {type(want).__name__}, got a {type(got).__name__}"
    if len(got) != len(want):
        return f"expected {len(want)} of them, {short(want)}: got {len(got)}, {short(got)}"
    plain = all(isinstance(item, (int, float, str)) for item in want)
    problems = (difference(a, b, rtol) for a, b in zip(got, want))
    return next((told(got, want) if plain else problem for problem in problems if problem), "")


def is_number(value: Any) -> bool:
    """One number: Python's, NumPy's or an array of no axes."""
    return isinstance(value, (int, float, np.number)) or isinstance(value, np.ndarray) and not value.ndim


def near(got: float, want: float, rtol: float) -> bool:
    """Equal to within rtol of the wanted number, or of a tiny one; NaN and infinities to themselves."""
    if not (math.isfinite(got) and math.isfinite(want)):
        return got == want or (got != got and want != want)
    return abs(got - want) <= rtol * max(abs(want), 1e-3)


def told(got: Any, want: Any) -> str:
    return f"expected {short(want)}, got {short(got)}"


def short(value: Any) -> str:
    """A value in at most 80 characters."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)) and all(isinstance(item, (int, float)) for item in value):
        text = ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value)
        return f"[{text}]" if len(text) < 78 else f"[{text[:74]}...]"
    return repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
