"""The gradient check of an op for its chapter, run when the book is built, and the picture of error against step."""
from functools import cache

from ...ops.table import OPS
from ...workbench.gradients import check_op, curves_of_op
from .svg import COLOURS, Axes, legend, picture


@cache
def checked_rows(op: str) -> list[dict]:
    """The rows of `minillm gradcheck` for the op's reference, by central differences and by the complex step."""
    return [row for method in ("central", "complex") for row in check_op(OPS[op], "numpy", method)]


@cache
def error_picture(op: str) -> str:
    """The curves of all its gradients as an SVG."""
    curves = curves_of_op(op, "numpy")
    steps = [row["h"] for curve in curves.values() for row in curve]
    axes = Axes((min(steps), max(steps)), (1e-17, 1e3), "xy", "step h", "error", box=(48, 20, 350, 170))
    body = axes.frame()
    for colour, curve in zip(COLOURS, curves.values()):
        body += axes.curve([(row["h"], row["rounding"]) for row in curve], colour, 0.8, "1.5 2")
        seen = [(row["h"], row["error"]) for row in curve if row["error"] > 0]
        body += axes.curve(seen, colour, 1.1) + axes.dots(seen, colour)
    return picture(f"Error of the central difference of {op} against its step, log-log.",
                   body + legend(56, 10, list(zip(curves, COLOURS)), across=True))
