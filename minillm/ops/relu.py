"""ReLU, element by element: the activation of OPT's MLPs, and of a GPT-2 whose config.json says relu.

    out = max(x, 0)          dout/dx = 1[x > 0],     dx = dout * 1[x > 0]

The slope, 1 where x is positive and else 0, jumps at 0: there it is taken to be 0, as everyone does. Cached: x.
Source: Nair & Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".
"""
import numpy as np

from .checks import check_dout, check_float, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def relu_forward(x):
    """max(x, 0) of each element: x (...) of floats -> out (...), cache (Nair & Hinton 2010)."""
    check_float("x", x)
    return np.where(x.real <= 0, 0, x).astype(x.dtype), (x,)     # by real part, for the complex step; NaN stays NaN


def relu_backward(dout, cache):
    """The gradient of relu_forward: dout (...), cache -> dx (...)."""
    (x,) = from_cache(cache, x="...")
    check_dout(dout, x.shape, x.dtype)
    return dout * (~(x.real <= 0)).astype(x.dtype)


SPEC = Spec(
    "relu", differentiable=("x",), bad=wrong("x", "integers"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"x": 2 * normals(rng, dtype, x=(d.B, d.T, 4 * d.C))["x"]},
    flops=lambda d: (4 * d.B * d.T * d.C, 4 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N", "dx[N] <- dout[N] x[N]; N"),
    torch=lambda torch, x: torch.nn.functional.relu(x))
