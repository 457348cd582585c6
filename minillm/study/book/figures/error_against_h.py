"""The error of a central difference against its step h: LayerNorm's gradient, right and with a dropped term."""
import numpy as np

from ....gradcheck.curve import error_curve
from ....ops.layernorm import layernorm_backward, layernorm_forward
from ....ops.table import OPS, Dims
from .svg import Axes, svg


def wrong_backward(dout: np.ndarray, cache: tuple) -> tuple:
    """LayerNorm's backward with dx a millionth too large."""
    dx, dweight, dbias = layernorm_backward(dout, cache)
    return dx * (1 + 1e-6), dweight, dbias


def curves() -> list[list[dict[str, float]]]:
    """The right one in float64, the wrong one in float64, the right one in float32."""
    found = []
    for backward, dtype in ((layernorm_backward, "float64"), (wrong_backward, "float64"),
                            (layernorm_backward, "float32")):
        inputs = OPS["layernorm"].sample(np.random.default_rng(0), dtype, Dims(2, 3, 16, 2, 11))
        names = list(OPS["layernorm"].differentiable)
        found.append(error_curve(layernorm_forward, backward, inputs, names, "x"))
    return found


def draw() -> str:
    axes = Axes((1e-14, 30), (1e-13, 30), "xy", (56, 12, 346, 196))
    axes.frame("step h", "|difference quotient − gradient|")
    for n, curve in enumerate(curves()):
        drawn = [row for row in curve if row["h"] >= 1e-14 and row["error"] > 0]
        axes.line([row["h"] for row in drawn], [row["error"] for row in drawn], n)
    axes.key(["float64", "float64, gradient 10⁻⁶ too large", "float32"], 62, 176)
    axes.write(1e-13, 1, "rounding ~ ε / h").write(0.05, 1e-6, "truncation ~ h²", dx=4)
    return svg(__doc__ or "", 244, str(axes))
