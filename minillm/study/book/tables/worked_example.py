"""One forward and backward with small numbers: linear, GELU, cross-entropy, beside difference quotients."""
from collections.abc import Iterator

import numpy as np

from ....ops.gelu import gelu_backward, gelu_forward
from ....ops.linear import linear_backward, linear_forward
from ....ops.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward

X = np.array([[1.0, -0.5]])
WEIGHT = np.array([[0.2, -0.4, 0.6], [0.5, 0.1, -0.3]])
BIAS = np.array([0.1, 0.0, -0.1])
TARGET, H = np.array([2]), 1e-5


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[dict[str, np.ndarray], tuple]:
    """Every array by its name, and the caches."""
    h, linear = linear_forward(x, weight, bias)
    z, gelu = gelu_forward(h)
    loss, head = cross_entropy_forward(z, TARGET)
    return {"x": x, "weight": weight, "bias": bias, "h": h, "z": z, "loss": loss}, (linear, gelu, head)


def backward(caches: tuple) -> dict[str, np.ndarray]:
    """The gradient of every array, from the loss back to x."""
    linear, gelu, head = caches
    dz = cross_entropy_backward(np.ones(1), head)
    dh = gelu_backward(dz, gelu)
    dx, dweight, dbias = linear_backward(dh, linear)
    return {"loss": np.ones(1), "z": dz, "h": dh, "bias": dbias, "weight": dweight, "x": dx}


def numeric(name: str, place: int) -> float:
    """The central difference of the loss at one number of x, weight or bias."""
    losses = []
    for step in (H, -H):
        moved = {"x": X.copy(), "weight": WEIGHT.copy(), "bias": BIAS.copy()}
        moved[name].flat[place] += step
        losses.append(float(forward(**moved)[0]["loss"][0]))
    return (losses[0] - losses[1]) / (2 * H)


def lines() -> Iterator[tuple[str, float, float, float | None]]:
    """(name of a number, its value, its gradient, the difference quotient) from the input to the loss."""
    values, caches = forward(X, WEIGHT, BIAS)
    for name, array in values.items():
        for place, (value, grad) in enumerate(zip(array.ravel(), backward(caches)[name].ravel())):
            index = ", ".join(map(str, np.unravel_index(place, array.shape)))
            moves = name in ("x", "weight", "bias")
            yield f"{name}[{index}]", float(value), float(grad), numeric(name, place) if moves else None


def rows() -> list[list[str]]:
    """As text."""
    return [["number", "value", "gradient", "difference quotient"]] + [
        [f"`{name}`", f"{value:.6f}", f"{grad:.6f}", "-" if check is None else f"{check:.6f}"]
        for name, value, grad, check in lines()]
