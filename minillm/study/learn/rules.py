"""Cases of an exercise that is no op pair: a rule in words, what the learner's function gave, and what is right.

The cases of an exercise stand in the order in which one would explain a mistake: each tries one rule, on inputs for
which nothing but that rule changes the result. So the first that differs names the mistake.
"""
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np

from .cases import brief, told_apart
from .compare import EXACT, check_kind, equal
from .exercise import Wrong

Cases = Any            # a function: yours -> iterable of cases
Check = Callable[[Any, Any], str]


def by_cases(cases: Cases, in_place: bool = False, returns: bool = True,
             kernel: Check | None = None) -> tuple[tuple[str, Check], ...]:
    """The stages of an exercise from its cases(yours): (rule, got, want), (rule, got, want, tolerance), (rule, holds).

    in_place: the learner's functions may write into their arguments. returns: they give a result. kernel: a check of
    them beside a compiled kernel.
    """
    def values(yours: Any, rng: Any) -> str:
        count = 0
        watched = Watched(yours, returns)
        with np.errstate(all="ignore"), judging(watched):
            for rule, got, *rest in cases(watched):
                count += 1
                if rest and (problem := difference(got, *rest)):
                    raise Wrong(f"{rule} ({problem})")
                if not rest and not got:
                    raise Wrong(rule)
        return f"right in {count} cases"

    def contract(yours: Any, rng: Any) -> str:
        for name, args, settings in calls_of(cases, yours, returns):
            given, again = deepcopy((args, settings)), deepcopy((args, settings))
            results = [getattr(yours, name)(*each[0], **each[1]) for each in (given, again)]
            if not equal([results[0], arrays(given)], [results[1], arrays(again)], 0):
                raise Wrong(f"{name} gives another result the second time, for the same arguments: it remembers "
                            "something")
            if not in_place and not equal(arrays(given), arrays((args, settings)), 0):
                raise Wrong(f"{name} writes into its arguments: return fresh results and leave them as they are")
        return "the same result twice" + ("" if in_place else ", arguments left alone")

    def speed(yours: Any, rng: Any) -> str:
        """No verdict."""
        calls = calls_of(cases, yours, returns)
        mine, right = (best_time(calls, named) for named in (vars(yours), cases.__globals__))
        return f"{len(calls)} calls: yours {1e3 * mine:.3g} ms, the reference {1e3 * right:.3g} ms"

    beside: tuple[tuple[str, Check], ...] = (("C++ kernel", kernel),) if kernel else ()
    return ("values", values), ("contract", contract), *beside, ("speed", speed)


def calls_of(cases: Cases, yours: Any, returns: bool) -> list[tuple[str, tuple, dict]]:
    """Every call that the cases make: (function, arguments, settings), as they were before it."""
    watched = Watched(yours, returns)
    with np.errstate(all="ignore"):
        deque(cases(watched), maxlen=0)
    return watched.calls


def best_time(calls: Sequence[tuple[str, tuple, dict]], functions: Mapping[str, Callable]) -> float:
    """Seconds of all calls, the best of three times."""
    times = []
    for _ in range(3):
        fresh = deepcopy(calls)
        start = time.perf_counter()
        with np.errstate(all="ignore"):
            for name, args, settings in fresh:
                functions[name](*args, **settings)
        times.append(time.perf_counter() - start)
    return min(times)


def arrays(call: tuple[tuple, dict]) -> list:
    """The arguments of a call that can be compared."""
    return [value for value in (*call[0], *call[1].values()) if not callable(value)]


class Watched:
    """The learner's functions: what they are called with is kept, and None instead of a result is told so."""

    def __init__(self, yours: Any, returns: bool = True) -> None:
        self.yours, self.returns = yours, returns
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str) -> Callable:
        function = getattr(self.yours, name)

        def called(*args: Any, **settings: Any) -> Any:
            self.calls.append((name, *deepcopy((args, settings))))
            result = function(*args, **settings)
            if result is None and self.returns:
                raise Wrong(f"{name} returns None: is a `return` missing?")
            return result
        return called


@contextmanager
def judging(watched: Watched) -> Iterator[None]:
    """An exception that is raised outside the learner's file is about what came out of it."""
    try:
        yield
    except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        if any(frame.filename == watched.yours.__file__ for frame in traceback.extract_tb(error.__traceback__)):
            raise
        raise Wrong(f"what {watched.calls[-1][0]} returns is not what the task asks for: {error}") from error


def blame(got: Any, known: Mapping[str, Any], rule: str) -> str:
    """The sentence of the known mistake that gives just this result; else the rule."""
    return next((sentence for sentence, wrong in known.items() if equal(got, wrong)), rule)


def difference(got: Any, want: Any, tolerance: float = EXACT) -> str:
    """How a result differs from the right one, in a few words; nothing where it does not."""
    try:
        check_kind("the result", got, want)
    except Wrong as wrong:
        return f"{wrong}; it is {brief(got)}, right is {brief(want)}" if isinstance(want, (list, tuple)) else str(wrong)
    return "" if equal(got, want, tolerance) else told_apart("the result", got, want)
