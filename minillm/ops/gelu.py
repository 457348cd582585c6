"""GELU, the tanh form: x times the normal CDF at x, which is Phi, element by element.

    k = sqrt(2 / pi)                a = 0.044715
    u = k * (x + a * x^3)           t = tanh(u)
    Phi(x) ~ (1 + t) / 2            out = 0.5 * x * (1 + t) ~ x * Phi(x)

Backward, by the product rule and the chain rule:

    dt/du = 1 - t^2                 du/dx = k * (1 + 3 * a * x^2)
    dout/dx = 0.5 * (1 + t) + 0.5 * x * (1 - t^2) * k * (1 + 3 * a * x^2)
    dx = dout * dout/dx

Each number depends on itself alone, so the Jacobian is diagonal and dx is one multiplication. Only x is cached: t costs
less to recompute than to keep (4*C numbers a token).
Source: Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2; GPT-2 uses this form ("gelu_new").
"""
import math

import numpy as np

from .checks import check_dout, check_float, from_cache
from .spec import CPU, GPU, Spec, normals, wrong

K = math.sqrt(2 / math.pi)      # a Python float: np.sqrt would give a float64 scalar, which promotes float32
A = 0.044715


def gelu_forward(x):
    """GELU (tanh form) of each element: x (...) of floats -> out (...), cache (Hendrycks & Gimpel 2016, section 2)."""
    check_float("x", x)
    t = np.tanh(K * (x + A * x * x * x))
    return 0.5 * x * (1 + t), (x,)


def gelu_backward(dout, cache):
    """The gradient of gelu_forward: dout (...), cache -> dx (...)."""
    (x,) = from_cache(cache, x="...")
    check_dout(dout, x.shape, x.dtype)
    t = np.tanh(K * (x + A * x * x * x))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (K * (1 + 3 * A * x * x))
    return dout * slope


SPEC = Spec(
    "gelu", differentiable=("x",), bad=wrong("x", "integers"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"x": 2 * normals(rng, dtype, x=(d.B, d.T, 4 * d.C))["x"]},
    flops=lambda d: (4 * 10 * d.B * d.T * d.C, 4 * 20 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N", "dx[N] <- dout[N] x[N]; N"),
    torch=lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"))
