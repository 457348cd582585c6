"""Rows of the newest committed benchmark results, for figures and tables."""
from typing import Any

from ..results import Measured, NotHere, runs


def newest(op: str, *candidates: str, **wanted: Any) -> Measured:
    """The newest run that has rows of this op with these values, of each of these candidates, with all its rows: a
    newer run of other sizes does not stand in its way. Raises NotHere where there is none."""
    for run in runs():
        timed = {row.get("candidate") for row in chosen(run, op, wanted)}
        if timed and timed >= set(candidates):
            return run
    raise NotHere(f"there is no committed benchmark result of {op}")


def rows(op: str, *candidates: str, **wanted: Any) -> list[dict[str, Any]]:
    """Its rows, those with these values alone."""
    return chosen(newest(op, *candidates, **wanted), op, wanted)


def chosen(run: Measured, op: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the op that have these values."""
    return [row for row in run.rows if row.get("op") == op
            and all(row.get(name) == value for name, value in wanted.items())]
