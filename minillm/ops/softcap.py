"""Logit soft-cap: numbers are squeezed into (-cap, cap), and small ones hardly change.

    out = cap * tanh(x / cap)
    dout/dx = 1 - tanh(x / cap)^2 = 1 - (out / cap)^2,     dx = dout * (1 - (out / cap)^2)

Logits that cannot grow without bound keep softmax from saturating, where its gradient vanishes. Gemma 2 caps its output
logits at 30; the scores of attention, at 50, are capped within grouped_attention.py. The slope is 1 at 0 and falls
to 0 at both ends. Cached: out, from which the slope follows without another tanh.
Source: Gemma Team 2024 (Gemma 2), arXiv 2408.00118, section 2; first by Bello et al. 2016, arXiv 1611.09940.
"""
import math

import numpy as np

from .checks import check_dout, check_float, check_number, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def softcap_forward(x, cap):
    """cap * tanh(x / cap) of each element (Gemma Team 2024): x (...) of floats, cap above 0 -> out (...), cache."""
    check_float("x", x)
    check_cap("cap", cap)
    out = np.array(capped(x, float(cap)), subok=True)                # of a single number, too
    return out, (out, float(cap))


def softcap_backward(dout, cache):
    """The gradient of softcap_forward: dout (...), cache -> dx (...)."""
    out, cap = from_cache(cache, out="...", cap=float)
    check_cap("cached cap", cap)
    check_dout(dout, out.shape, out.dtype)
    return dout * slope_at(out, cap)


def capped(x, cap):
    return cap * np.tanh(x / cap)


def slope_at(out, cap):
    """d out / d x, from the capped number."""
    return 1 - (out / cap) * (out / cap)


def check_cap(name, cap):
    check_number(name, cap, lambda c: 0 < c < math.inf, "a number above 0")


SPEC = Spec(
    "softcap", differentiable=("x",), bad=wrong("x", "integers") + wrong("cap", 0.0, -1.0), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {"x": 3 * normals(rng, dtype, x=(d.B, d.T, 4 * d.C))["x"], "cap": 2.5},
    flops=lambda d: (4 * 3 * d.B * d.T * d.C, 4 * 4 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N cap", "dx[N] <- dout[N] out[N]; N cap"),
    torch=lambda torch, x, cap: cap * torch.tanh(x / cap))
