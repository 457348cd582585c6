"""Spacing of neighbouring numbers, relative to their size, in the formats that a model is kept in."""
import numpy as np

from .svg import Axes, svg

FORMATS = {"float32": (24, -126, 127), "bfloat16": (8, -126, 127), "float16": (11, -14, 15)}     # digits, exponents


def spacing(x: float, digits: int, least: int) -> float:
    """Distance of neighbouring numbers at x, over x; below 2^least they are equally far apart."""
    exponent = max(least, int(np.floor(np.log2(x))))
    return 2.0 ** (exponent - digits + 1) / x


def draw() -> str:
    axes = Axes((1e-42, 1e40), (1e-8, 2), "xy", (56, 12, 346, 160)).frame("size of a number x", "spacing / x")
    for n, (digits, least, most) in enumerate(FORMATS.values()):
        low = 2.0 ** (least - digits + 1)
        sizes = [x for x in np.geomspace(1e-42, 1e40, 500) if low <= x < 2.0 ** (most + 1)]
        axes.line(sizes, [spacing(x, digits, least) for x in sizes], n)
    axes.key(list(FORMATS), 300, 120)
    return svg(__doc__ or "", 208, str(axes))
