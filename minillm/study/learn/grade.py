"""A folder of many learners' files, for a teacher: each file judged, a row for each learner."""
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...progress import Report, tracked
from .path import PATH, exercise_of
from .process import SECONDS, judged

SUFFIXES = (".py", ".c", ".cu")


def grade(folder: Path, seconds: float = SECONDS, progress: Report | None = None) -> list[dict[str, Any]]:
    """Judge every .py, .c and .cu file: {"student", "passed": exercises, "tried": exercises, "results": a dict a file}.

    A sub-folder is a student with all the files in it; a file beside it is a student of its own. A file that is for no
    exercise has "exercise" null and is counted nowhere. Raises ValueError for a folder without such files.
    """
    if not folder.is_dir():
        raise ValueError(f"FOLDER must be an existing folder: got {folder}")
    files = [(path.relative_to(folder).parts[0], path) for path in sorted(folder.rglob("*"))
             if path.suffix in SUFFIXES and path.is_file() and "__pycache__" not in path.parts]
    if not files:
        raise ValueError(f"FOLDER must hold learners' .py, .c or .cu files, or sub-folders with them: {folder} has "
                         "none")
    rows: dict[str, list[dict[str, Any]]] = {}
    for student, path in tracked(files, progress):
        rows.setdefault(student, []).append(result(path, str(path.relative_to(folder)), seconds))
    return [row(student, results) for student, results in rows.items()]


def result(path: Path, shown: str, seconds: float) -> dict[str, Any]:
    """The verdict on one file: its last stage."""
    try:
        exercise = exercise_of(path)
    except ValueError as error:
        return {"file": shown, "exercise": None, "passed": False, "stage": None, "message": str(error)}
    last = list(judged(exercise, path, seconds))[-1]
    return {"file": shown, "exercise": exercise.name, "passed": last.passed, "stage": last.name,
            "message": last.message}


def row(student: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of two files for one exercise the better counts."""
    tried = {r["exercise"] for r in results if r["exercise"]}
    passed = {r["exercise"] for r in results if r["passed"]}
    return {"student": student, "passed": len(passed), "tried": len(tried), "results": results}


def grade_page(rows: Sequence[dict[str, Any]]) -> str:
    """A line a student, and one for each file that is refused."""
    width = max(7, *(len(row["student"]) for row in rows))
    lines = [f"{'student':<{width}}  passed  tried"]
    for row in rows:
        lines.append(f"{row['student']:<{width}}  {row['passed']:>6}  {row['tried']:>5}")
        lines += [f"    {r['file']}: {r['stage'] or 'not judged'}: {r['message']}" for r in row["results"]
                  if not r["passed"]]
    return "\n".join(lines)


def grade_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A line a student: passed, tried, and for each exercise of anybody 1, 0 or nothing."""
    names = [name for name in PATH if any(r["exercise"] == name for row in rows for r in row["results"])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", "passed", "tried", *names])
    for row in rows:
        marks = {name: max((int(r["passed"]) for r in row["results"] if r["exercise"] == name), default="")
                 for name in names}
        writer.writerow([row["student"], row["passed"], row["tried"], *marks.values()])
    return text.getvalue().rstrip("\n")
