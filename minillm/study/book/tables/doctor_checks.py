"""The classical pitfalls of training, from the doctor's own table of checks."""
from collections.abc import Callable

from ....workbench.doctor import CHECKS, LEARNING


def rows() -> list[list[str]]:
    """Check, what it means, and what it makes unnecessary to report."""
    found = [["check", "what is wrong", "explains"]]
    for check in CHECKS:
        meaning = (check.function.__doc__ or "").split("\n")[0]
        others = [name_of(other) for other in check.explains if other not in LEARNING]
        others += ["all of learning"] * (set(LEARNING) <= set(check.explains))
        others += [name_of(other) for other in check.explains if other in LEARNING and "all of learning" not in others]
        found.append([name_of(check.function), meaning, ", ".join(others) or "-"])
    return found


def name_of(function: Callable) -> str:
    return function.__name__.replace("_", " ")
