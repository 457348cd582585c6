"""What a check reports: a Row for each input, and the error that holds them."""
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Row:
    """The worst element of one input: where, what the backward says, what was measured."""

    name: str
    index: tuple[int, ...]  # () for a check along a random direction, and for a breach of contract
    analytic: float
    numeric: float
    error: float            # |analytic - numeric|
    relative: float         # error / max(|analytic|, |numeric|)
    passed: bool
    checked: int            # number of elements (or directions) compared
    bar: float = 0.0        # how far apart the two may be: the error bar of the measurement, and the tolerance
    kinks: int = 0          # elements at a kink whose gradient lies between the two one-sided slopes
    directions: int = 0     # random directions and signed subsets, each through many elements
    note: str = ""          # what is wrong, or remarkable, in a sentence

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        place = f"{self.name}{list(self.index) if self.index else ''}"
        if not self.checked:
            return f"{verdict} {place:<36} {self.note}"
        counts = f"{self.checked:,} checked" + (f" and {self.directions} directions" if self.directions > 1 else "")
        note = f": {self.note}" if self.note else ""
        return (f"{verdict} {place:<36} analytic {self.analytic:+.9e}  numeric {self.numeric:+.9e}  "
                f"error {self.error:.1e}  relative {self.relative:.1e}  ({counts}){note}")


def row_of(name: str, index: tuple, analytic: float, residual: float, bar: float, passed: bool) -> Row:
    """A Row from an analytic value and the residual, numeric minus analytic."""
    numeric = analytic + residual
    error = abs(residual)
    relative = error / max(abs(analytic), abs(numeric)) if 0 < error < float("inf") else error
    return Row(name, tuple(map(int, index)), float(analytic), float(numeric), float(error), float(relative),
               bool(passed), 1, float(bar))


class GradcheckError(AssertionError):
    """A gradient is wrong; the message holds every input's worst element. `.rows` has them as data."""

    def __init__(self, rows: list[Row]):
        self.rows = rows
        super().__init__("gradient check failed\n" + "\n".join(map(str, rows)))


class ContractError(GradcheckError, ValueError):
    """The pair breaks the contract of an op: it writes what it was lent, or gives another answer another time."""


def as_dict(row: Row) -> dict[str, Any]:
    """A Row for JSON."""
    return asdict(row)
