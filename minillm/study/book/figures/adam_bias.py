"""AdamW's first steps with and without the correction of its moments' bias: length of an update, in learning rates."""
import numpy as np

from ....ops.optimizer.adamw import adamw_update
from .svg import Axes, svg

STEPS, BETAS = 60, (0.9, 0.999)


def updates(corrected: bool) -> list[float]:
    """Root mean square of the update of 4,096 numbers whose gradients are normal, by step."""
    rng, size, found = np.random.default_rng(0), 4096, []
    w, m, v = (np.zeros(size) for _ in range(3))
    for step in range(1, STEPS + 1):
        before = w.copy()
        adamw_update(w, rng.standard_normal(size), m, v, step if corrected else 10 ** 9, 1.0, *BETAS)
        found.append(float(np.sqrt(np.mean((w - before) ** 2))))
    return found


def draw() -> str:
    axes = Axes((0, STEPS), (0, 4), place=(52, 12, 350, 150)).frame("step", "update / learning rate")
    for n, corrected in enumerate((True, False)):
        axes.line(range(1, STEPS + 1), updates(corrected), n)
    axes.key(["with bias correction", "without"], 290, 28)
    return svg(__doc__ or "", 196, str(axes))
