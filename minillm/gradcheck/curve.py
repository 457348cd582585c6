"""How the error of a difference quotient depends on its step, as numbers: slope 2 of truncation, then rounding."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .contract import matched, random_like, results
from .measure import Line, Scalar, flat


def error_curve(forward: Callable, backward: Callable, inputs: Mapping[str, Any], names: list[str], name: str,
                index: tuple[int, ...] | None = None, seed: int = 0) -> list[dict[str, float]]:
    """For steps h from 10 to 1e-14 times the size of x: {"h", "error", "rounding"} of the central difference at one
    element (default: that of the largest gradient).

    error: its difference from `backward`; where that is right, the truncation error ~ h^2 on the right, which meets
    the rounding error ~ eps / h coming from the left. A wrong gradient shows as a level that no step goes below.
    names: the inputs that have a gradient, in the order of backward's results.
    """
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}: got {name!r}")
    out, cache = results(forward(*inputs.values()))
    dout = random_like(out, np.random.default_rng([seed, 1]))
    grad = matched(backward(dout, cache), names, inputs)[name].astype(np.float64)
    if index is not None and (len(index) != grad.ndim or not all(-n <= i < n for i, n in zip(index, grad.shape))):
        raise ValueError(f"index must lie within {name}, which has shape {grad.shape}: got {index}")
    place = int(np.abs(grad).argmax() if index is None else np.arange(grad.size).reshape(grad.shape)[index])
    x = inputs[name].ravel().astype(np.float64)
    scalar = Scalar(forward, inputs, flat(dout), float(np.finfo(inputs[name].dtype).eps))
    line = Line(scalar, name, np.array([place]), np.ones(1), grad.ravel()[[place]])
    scale = max(abs(x[place]), float(np.sqrt(np.mean(x * x)))) or 1.0
    levels = [line.level(scale * 10.0 ** (exponent / 4)) for exponent in range(4, -57, -1)]
    return [{"h": float(level.h), "error": abs(level.centre), "rounding": level.noise} for level in levels
            if np.isfinite(level.centre)]
