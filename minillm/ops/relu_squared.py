"""The square of ReLU, element by element: an activation in the place of gelu.py's that costs two multiplications.

    out = max(x, 0)^2          dout/dx = 2 * max(x, 0),     dx = dout * 2 * max(x, 0)

The slope is continuous at 0, where ReLU's jumps. Cached: x.
Source: So et al. 2021 (Primer), arXiv 2109.08668, section 4.
"""
import numpy as np

from .checks import check_dout, check_float, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def relu_squared_forward(x):
    """max(x, 0)^2 of each element: x (...) of floats -> out (...), cache (So et al. 2021)."""
    check_float("x", x)
    positive = relu(x)
    return positive * positive, (x,)


def relu_squared_backward(dout, cache):
    """The gradient of relu_squared_forward: dout (...), cache -> dx (...)."""
    (x,) = from_cache(cache, x="...")
    check_dout(dout, x.shape, x.dtype)
    return dout * (2 * relu(x))


def relu(x):
    """max(x, 0), by real part, so that the complex step works; NaN stays NaN."""
    return np.where(x.real <= 0, 0, x).astype(x.dtype)


SPEC = Spec(
    "relu_squared", differentiable=("x",), bad=wrong("x", "integers"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"x": 2 * normals(rng, dtype, x=(d.B, d.T, 4 * d.C))["x"]},
    flops=lambda d: (4 * 2 * d.B * d.T * d.C, 4 * 3 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N", "dx[N] <- dout[N] x[N]; N"),
    torch=lambda torch, x: torch.nn.functional.relu(x).square())
