"""Rows of the newest committed benchmark results, for figures and tables."""
from typing import Any

from ..results import Measured, NotHere, runs


def newest(op: str) -> Measured:
    """The newest run that has rows of this op, with those of all its ops. Raises NotHere where there is none."""
    for run in runs():
        if any(row.get("op") == op for row in run.rows):
            return run
    raise NotHere(f"there is no committed benchmark result of {op}")


def rows(op: str, **wanted: Any) -> list[dict[str, Any]]:
    """Its rows, those with these values alone."""
    return [row for row in newest(op).rows if row.get("op") == op
            and all(row.get(name) == value for name, value in wanted.items())]
