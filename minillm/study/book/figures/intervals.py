"""How often 95% intervals of a share hold the true one, exactly: Wilson's score, and the normal approximation."""
import math
from collections.abc import Callable

import numpy as np

from ....evaluate.statistics import Z, share_interval
from .svg import Axes, svg

ITEMS = 20


def wald(count: int, total: int) -> tuple[float, float]:
    """The normal approximation: share plus and minus Z deviations."""
    share = count / total
    half = Z * math.sqrt(share * (1 - share) / total)
    return share - half, share + half


def coverage(interval: Callable, share: float) -> float:
    """Probability that the interval from ITEMS draws holds `share`."""
    held = 0.0
    for count in range(ITEMS + 1):
        low, high = interval(count, ITEMS)
        held += (low <= share <= high) * math.comb(ITEMS, count) * share ** count * (1 - share) ** (ITEMS - count)
    return held


def draw() -> str:
    shares = np.linspace(0.005, 0.995, 199)
    axes = Axes((0, 1), (0.5, 1), place=(52, 12, 350, 150)).frame("true share", "probability that it is inside")
    axes.level(0.95, "")
    for n, interval in enumerate((share_interval, wald)):
        axes.line(shares, [coverage(interval, float(share)) for share in shares], n, dash="" if n == 0 else "3 2")
    axes.key([f"Wilson's score interval, n = {ITEMS}", "normal approximation"], 150, 132)
    return svg(__doc__ or "", 196, str(axes))
