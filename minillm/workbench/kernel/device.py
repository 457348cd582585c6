"""Where a CUDA kernel runs, and what its runtime reports beside values: the emulator's findings, or a GPU's errors.

The emulator writes what it finds into a file, a line each, with the user's file and line. An error refuses the kernel;
what is only slow, or not repeatable, is told as a note when all checks are done.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...kernels.own.emulator import Found, findings

ADDRESSES = 2 ** 62             # the emulator and a GPU reserve much more than they use: no limit says anything
CALL_SECONDS = 60.0


@dataclass
class Device:
    """The emulator, or a GPU; with the report of one kernel."""

    name: str                                           # "emulator" or "GPU"
    report: Path
    seen: int = 0                                       # bytes of the report
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)         # {place and kind: (kind, message)}

    def job(self) -> dict[str, Any]:
        """What the child must know beside the library."""
        return {"sized": True, "call_seconds": CALL_SECONDS, "memory": ADDRESSES,
                "environment": {"MINILLM_CUDA_REPORT": str(self.report)}}

    def error(self) -> tuple[str, str] | None:
        """The first error that was reported: (kind, message); notes are kept."""
        if self.name == "GPU" or not self.report.is_file() or self.report.stat().st_size == self.seen:
            return None
        self.seen = self.report.stat().st_size
        found = [finding for finding in findings(self.report)
                 if Path(finding.file).name != "minillm"]                           # of our trampolines
        for finding in found:
            if finding.severity != "error":
                self.notes.setdefault(f"{finding.kind} {place_of(finding)}", (finding.kind, message_of(finding)))
        errors = [finding for finding in found if finding.severity == "error"]
        return (errors[0].kind, message_of(errors[0]) + further(errors[1:])) if errors else None


def place_of(finding: Found) -> str:
    """my.cu:12, or nothing where no line is known."""
    return f"{Path(finding.file).name}:{finding.line}" if finding.line else ""


def message_of(finding: Found) -> str:
    place, slow = place_of(finding), "slow, not wrong: " * (finding.severity == "slow")
    where = f" (thread {comma(finding.thread)} of block {comma(finding.block)})" * bool(finding.thread)
    kernel = f" in {finding.kernel}" * bool(finding.kernel)
    return f"{place}{': ' * bool(place)}{slow}{finding.text}{kernel}{where}"


def comma(index: tuple[int, ...]) -> str:
    return ",".join(map(str, index))


def further(errors: list[Found]) -> str:
    """The other places, in a few words."""
    places = list(dict.fromkeys(f"{error.kind} at {place_of(error)}" for error in errors if place_of(error)))
    return f"; and {', '.join(places[:3])}" * bool(places) + f" and {len(places) - 3} more" * (len(places) > 3)
