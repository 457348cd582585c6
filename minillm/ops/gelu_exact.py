"""GELU, the exact form: x times the normal CDF at x, which is Phi, element by element.

    p = exp(-x^2 / 2) / sqrt(2 * pi)
    Phi = 0.5 * (1 + erf(x / sqrt(2)))             out = x * Phi

Phi is the integral of the normal density p up to x, so its slope is p itself:

    dout/dx = Phi + x * p                          dx = dout * dout/dx

Each number depends on itself alone, so the Jacobian is diagonal and dx is one multiplication. Only x is cached.
NumPy has no erf. Near 0 its Taylor series does, in the form whose terms all have one sign (Marsaglia 2004, "Evaluating
the normal distribution", section 3); further out Laplace's continued fraction does, which gives the small tail itself:
0.5 - (nearly 0.5) would lose its digits. For a = |x|, Phi at -a is

    0.5 - p * (a + a^3 / 3 + a^5 / (3 * 5) + a^7 / (3 * 5 * 7) and so on)       where a < 3
    p / (a + 1 / (a + 2 / (a + 3 / (a and so on))))                             elsewhere

gelu.py is the tanh form, which differs from it by up to 0.0005; models say which of the two they were trained with.
Source: Hendrycks & Gimpel 2016, arXiv 1606.08415, eq. 1; BERT and the default of PyTorch ("gelu").
"""
import math

import numpy as np

from .checks import check_dout, check_float, from_cache
from .spec import CPU, GPU, Spec, normals, wrong

EDGE = 3.0                              # between the two formulas
SERIES, FRACTION = 34, 56               # terms, with which both are exact in float64 there


def gelu_exact_forward(x):
    """GELU (exact form) of each element: x (...) of floats -> out (...), cache (Hendrycks & Gimpel 2016, eq. 1)."""
    check_float("x", x)
    return x * normal_cdf(x), (x,)


def gelu_exact_backward(dout, cache):
    """The gradient of gelu_exact_forward: dout (...), cache -> dx (...)."""
    (x,) = from_cache(cache, x="...")
    check_dout(dout, x.shape, x.dtype)
    return dout * (normal_cdf(x) + x * density(x))


def density(x):
    """The normal density at each element."""
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def normal_cdf(x):
    """Phi of each element. The real part decides which formula it is by, so that the complex step works."""
    left = x.real < 0
    a = np.where(left, -x, x)
    near, tail = a.real < EDGE, np.array(density(a), subok=True)    # tail: Phi(-a)
    tail[near] = 0.5 - tail[near] * series(a[near])
    tail[~near] /= fraction(a[~near])
    return np.where(left, tail, 1 - tail)


def series(a):
    """a + a^3 / 3 + a^5 / (3 * 5) and so on: from its end, each term is the one before it times a^2 / odd."""
    square, total = a * a, 1
    for odd in range(2 * SERIES + 1, 1, -2):
        total = 1 + square / odd * total
    return a * total


def fraction(a):
    """a + 1 / (a + 2 / (a + 3 / (a and so on))), from its end."""
    total = a
    for k in range(FRACTION, 0, -1):
        total = a + k / total
    return total


SPEC = Spec(
    "gelu_exact", differentiable=("x",), bad=wrong("x", "integers"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"x": 2 * normals(rng, dtype, x=(d.B, d.T, 4 * d.C))["x"]},
    flops=lambda d: (4 * 20 * d.B * d.T * d.C, 4 * 30 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N", "dx[N] <- dout[N] x[N]; N"),
    torch=lambda torch, x: torch.nn.functional.gelu(x))
