"""Rows of the newest committed benchmark results, for figures."""
import json
from pathlib import Path
from typing import Any

from ..results import NotHere

RESULTS = Path(__file__).parents[4] / "benchmarks" / "results"


def newest(op: str) -> dict[str, Any]:
    """The newest result that has rows of this op; of one day, that of all ops. Raises NotHere where there is none."""
    for path in sorted(RESULTS.glob("*.json"), key=lambda path: (path.name[:10], "all" in path.name), reverse=True):
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(row.get("op") == op for row in found.get("rows", [])):
            return found
    raise NotHere(f"there is no committed benchmark result of {op}: expected one in {RESULTS}")


def rows(op: str, **wanted: Any) -> list[dict[str, Any]]:
    """Its rows, those with these values alone."""
    return [row for row in newest(op)["rows"] if row.get("op") == op
            and all(row.get(name) == value for name, value in wanted.items())]
