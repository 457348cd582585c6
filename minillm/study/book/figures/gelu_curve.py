"""GELU and its derivative, by the op's own functions, beside ReLU."""
import numpy as np

from ....ops.gelu import gelu_backward, gelu_forward
from .svg import Axes, svg


def draw() -> str:
    x = np.linspace(-4, 2.5, 131)
    out, cache = gelu_forward(x)
    axes = Axes((-4, 2.5), (-0.4, 2.5), place=(52, 12, 350, 160)).frame("x", "value")
    axes.line(x, np.maximum(x, 0), 2, width=1.1).line(x, out, 0).line(x, gelu_backward(np.ones_like(x), cache), 1)
    axes.key(["GELU(x)", "its derivative", "max(0, x)"], 66, 30)
    return svg(__doc__ or "", 206, str(axes))
