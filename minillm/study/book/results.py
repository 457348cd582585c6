"""The newest committed measurements (benchmarks/results of the checkout), op by op, and fresh ones for --live.

An installed package has no results; the book says so where they would stand.
"""
import json
from functools import cache
from typing import Any, NamedTuple

from .listings import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NONE_HERE = ("This book was built from an installed package, which does not carry the committed measurements. Built in "
             "a checkout of the repository, or with --live, it has them here.")


class NotHere(ValueError):
    """A figure or a table needs measurements that an installed package does not carry."""


class Measured(NamedTuple):
    """Rows of one run: when, on what, what the machine can do, the rows, and what was not timed and why."""
    date: str
    machine: dict[str, Any]
    peaks: dict[str, dict]
    rows: list[dict[str, Any]]
    skipped: tuple[str, ...] = ()

    def where(self) -> str:
        """The machine in a few words."""
        machine = self.machine
        return (f"{machine['cpu']}, {machine['threads']} threads, {machine['minillm_kernels'] or 'no'} kernels, "
                f"NumPy {machine['numpy']}, {self.date}")


@cache
def runs() -> list[Measured]:
    """All committed runs, the newest first; of one day the largest first."""
    found = []
    for path in sorted(RESULTS.glob("*.json")) if RESULTS.is_dir() else []:
        document = json.loads(path.read_text(encoding="utf-8"))
        if {"date", "machine", "peaks", "rows"} <= set(document):
            found.append(Measured(document["date"], document["machine"], document["peaks"], document["rows"]))
    return sorted(found, key=lambda run: (run.date, len(run.rows)), reverse=True)


def newest(op: str) -> Measured | None:
    """The newest run that has the op (or model, such as "step"), with its rows alone; None where there is none."""
    for run in runs():
        if rows := [row for row in run.rows if row.get("op") == op]:
            return run._replace(rows=rows)
    return None


def ladder(op: str) -> Measured | None:
    """The newest run that timed the op's variants against each other, with those rows alone."""
    for run in runs():
        if rows := [row for row in run.rows if row.get("op") == op and row.get("ladder")]:
            return run._replace(rows=rows)
    return None
