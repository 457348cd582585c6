"""The classical pitfalls of training, from the doctor's own table of checks."""
from ....workbench.doctor import CHECKS


def rows() -> list[list[str]]:
    """Check, what it means, and what it makes unnecessary to report."""
    found = [["check", "what is wrong", "explains"]]
    for check in CHECKS:
        meaning = (check.function.__doc__ or "").split("\n")[0]
        explained = ", ".join(other.__name__.replace("_", " ") for other in check.explains)
        found.append([check.function.__name__.replace("_", " "), meaning, explained or "-"])
    return found
