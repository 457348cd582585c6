"""The derivative of a backward, and the Jacobian of a forward, where they are cheap.

A right backward is the gradient g(x) of one scalar L(x) = sum(dout * out(x)), so its own derivative, the Hessian H, is
symmetric: for any directions u and v through all inputs at once,

    H @ v ~ (g(x + h v) - g(x - h v)) / 2h          u . (H @ v) = v . (H @ u)

This needs no forward value: it sees a backward that belongs to no function at all, or one that is right at this x by
luck. Each side has its error bar, from h and h/4, and from rounding; four backwards for each of u and v, times two.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .measure import EPS, flat, norm
from .rows import Row, row_of

STEPS = (2.0 ** -8, 2.0 ** -10)


def check_symmetry(gradients: Callable, inputs: Mapping[str, Any], names: Sequence[str],
                   rng: np.random.Generator) -> Row:
    """Compare u . H v with v . H u for random u and v; a Row named "second order".

    gradients(inputs) -> {name: gradient}, at one fixed dout.
    """
    size = {name: norm(inputs[name].astype(np.float64).ravel()) / inputs[name].size ** 0.5 or 1.0 for name in names}
    u, v = ({name: size[name] * rng.standard_normal(inputs[name].shape) for name in names} for _ in range(2))
    one, bar = curvature(gradients, inputs, v, u)
    other, other_bar = curvature(gradients, inputs, u, v)
    bar += other_bar
    passed = bool(abs(one - other) <= bar)
    row = row_of("second order", (), one, other - one, bar, passed)
    row.note = "" if passed else ("the derivative of backward is not symmetric: u.Hv and v.Hu differ, so backward is "
                                  "the gradient of no function")
    return row


def curvature(gradients: Callable, inputs: Mapping[str, Any], along: Mapping[str, np.ndarray],
              onto: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """(onto . H along, its error bar)."""
    slopes, noise = [], 0.0
    for h in STEPS:
        ends = [gradients({**inputs, **{name: (inputs[name] + t * step).astype(inputs[name].dtype)
                                        for name, step in along.items()}}) for t in (h, -h)]
        terms = [[onto[name] * end[name] for name in end] for end in ends]
        slopes.append(sum(float((up - down).sum()) for up, down in zip(*terms)) / (2 * h))
        eps = max(float(np.finfo(inputs[name].dtype).eps) for name in along)
        noise = 64 * max(eps, EPS) * norm(np.concatenate([part.ravel() for part in terms[0]])) / h
    return (16 * slopes[1] - slopes[0]) / 15, abs(slopes[1] - slopes[0]) + noise


def jacobian(forward: Callable, inputs: Mapping[str, Any], name: str, h: float | None = None) -> np.ndarray:
    """d out / d input, (outputs, elements of the input), by central differences with Richardson's extrapolation: four
    forwards an element. Several outputs of a tuple follow one another."""
    x = inputs[name].astype(np.float64)
    step = (h or STEPS[0]) * (norm(x.ravel()) / x.size ** 0.5 or 1.0)
    columns = []
    for i in range(x.size):
        slopes = []
        for size in (step, step / 4):
            ends = []
            for t in (size, -size):
                moved = x.copy()
                moved.flat[i] += t
                ends.append(flat(forward(*{**inputs, name: moved.astype(inputs[name].dtype)}.values())[0]))
            slopes.append((ends[0] - ends[1]) / (2 * size))
        columns.append((16 * slopes[1] - slopes[0]) / 15)
    return np.stack(columns, axis=1)
