"""What a learner has solved, and which hints were given: one small file in the folder of the learner's own files."""
import json
import time
from pathlib import Path
from typing import Any

from ...storage.atomic import write_json
from .path import PATH

NAME = "minillm-learn.json"


def progress_of(folder: Path) -> dict[str, Any]:
    """{exercise: {"passed": date or "", "tries": n, "hints": n}}; ValueError for a file that is none of ours."""
    file = folder / NAME
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {name: {"passed": str(row["passed"]), "tries": int(row["tries"]), "hints": int(row["hints"])}
                for name, row in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no record of progress ({error}): delete it to begin anew") from None


def note(folder: Path, exercise: str, **changes: Any) -> None:
    """Change the row of an exercise; passed=True keeps the date on which it first did."""
    progress = progress_of(folder)
    row = progress.setdefault(exercise, {"passed": "", "tries": 0, "hints": 0})
    row["tries"] += changes.get("tries", 0)
    row["hints"] = changes.get("hints", row["hints"])
    if changes.get("passed") and not row["passed"]:
        row["passed"] = time.strftime("%Y-%m-%d")
    write_json(folder / NAME, {name: progress[name] for name in [*PATH, *progress] if name in progress}, "\n",
               indent=1)


def next_exercise(progress: dict[str, Any]) -> str:
    """The first of the path that is not solved, "" where all are."""
    return next((name for name in PATH if not progress.get(name, {}).get("passed")), "")


def status(row: dict[str, Any]) -> str:
    """One row in words."""
    if row["passed"]:
        return f"solved {row['passed']}"
    parts = [f"{row[what]} {what[:-1] if row[what] == 1 and what == 'hints' else what}" for what in ("tries", "hints")
             if row[what]]
    return ", ".join(parts).replace("1 tries", "1 try") or "-"
