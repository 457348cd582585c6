"""The gradient check of an op for its chapter, run when the book is built, and the picture of error against step."""
from functools import cache

from ...ops.table import OPS
from ...workbench.gradients import check_op, curves_of_op
from .figures.svg import COLORS, DASHES, Axes, path, svg, text


@cache
def checked_rows(op: str) -> list[dict]:
    """The rows of `minillm gradcheck` for the op's reference, by central differences and by the complex step."""
    return [row for method in ("central", "complex") for row in check_op(OPS[op], "numpy", method)]


@cache
def error_picture(op: str) -> str:
    """The curves of all its gradients as an SVG."""
    curves = curves_of_op(op, "numpy")
    steps = [row["h"] for curve in curves.values() for row in curve]
    axes = Axes((min(steps), max(steps)), (1e-17, 1e3), "xy", (56, 22, 346, 170))
    axes.frame("step h", "error")
    place = 56.0
    for n, (name, curve) in enumerate(curves.items()):
        axes.line([row["h"] for row in curve], [row["rounding"] for row in curve], n, 0.7, "1 2")
        seen = [row for row in curve if row["error"] > 0]
        axes.line([row["h"] for row in seen], [row["error"] for row in seen], n, 1.2)
        axes.parts += [path([(place, 8), (place + 18, 8)], COLORS[n], 1.4, DASHES[n]), text(place + 23, 11.5, name)]
        place += 40 + 5 * len(name)
    return svg(f"Error of the central difference of {op} against its step, both logarithmic.", 234, str(axes))
