"""Is my backward right? RMSNorm with a plausible mistake, and what gradcheck says about it.

    out = x * r,   r = 1 / sqrt(mean(x^2) + eps)
    dx  = r * (dout - x * r^2 * mean(dout * x))
"""
import numpy as np

from minillm import gradcheck


def rmsnorm_forward(x, eps=1e-5):
    r = (np.mean(x * x, axis=-1, keepdims=True) + eps) ** -0.5       # (N, 1)
    return x * r, (x, r)


def forgetful_backward(dout, cache):
    """r depends on x, too: this one treats it as a constant."""
    x, r = cache
    return dout * r


def rmsnorm_backward(dout, cache):
    x, r = cache
    return r * (dout - x * r * r * np.mean(dout * x, axis=-1, keepdims=True))


x = np.random.default_rng(0).standard_normal((4, 6))                # float64: finite differences need it
for backward in (forgetful_backward, rmsnorm_backward):
    for method in ("central", "complex"):
        (row,) = gradcheck(rmsnorm_forward, backward, {"x": x}, method=method, raise_exception=False)
        print(f"{backward.__name__:<20} {method:<8} {row}")
