"""SwiGLU: one half of an MLP's hidden layer decides, element by element, how much of the other passes.

It stands where mlp.py has gelu.py, between three matrices instead of two: down(silu(gate(x)) * up(x)).

    s = 1 / (1 + exp(-gate))                  the logistic function of the gate
    out = gate * s * up

(gate times s is called silu, or swish.) Along `up` the op is linear. Along `gate` it is the product rule with
ds/dgate = s * (1 - s):

    dup = dout * gate * s
    dgate = dout * up * s * (1 + gate * (1 - s))

Each number depends on the two in its place alone. Cached: gate and up; s costs less to compute again than to keep.
Source: Shazeer 2020, arXiv 2002.05202, eq. 6.
"""
import numpy as np

from .checks import check_dout, check_dtype, check_float, check_shape, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def swiglu_forward(gate, up):
    """silu(gate) * up (Shazeer 2020, eq. 6): gate (...) of floats, up of the same shape and dtype -> out (...), cache.

    Raises ValueError otherwise.
    """
    check_float("gate", gate)
    check_shape("up", up, gate.shape)
    check_dtype("up", up, gate.dtype)
    return gate * logistic(gate) * up, (gate, up)


def swiglu_backward(dout, cache):
    """The gradients of swiglu_forward: dout (...), cache -> dgate (...), dup (...)."""
    gate, up = from_cache(cache, gate="...", up="...")
    check_dout(dout, gate.shape, gate.dtype)
    s = logistic(gate)
    return dout * up * s * (1 + gate * (1 - s)), dout * gate * s


def logistic(x):
    """1 / (1 + exp(-x)), with an exponent that is never above 0, so that nothing overflows and nothing cancels."""
    below = x.real < 0                                               # by real part, so that the complex step works
    e = np.exp(np.where(below, x, -x))
    return np.where(below, e, 1) / (1 + e)


SPEC = Spec(
    "swiglu", differentiable=("gate", "up"), bad=wrong("gate", "integers") + wrong("up", "narrower", "other_dtype"),
    kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {name: 2 * array for name, array in normals(
        rng, dtype, gate=(d.B, d.T, 4 * d.C), up=(d.B, d.T, 4 * d.C)).items()},
    flops=lambda d: (4 * 6 * d.B * d.T * d.C, 4 * 12 * d.B * d.T * d.C),
    c=("out[N] <- gate[N] up[N]; N", "dgate[N] dup[N] <- dout[N] gate[N] up[N]; N"),
    torch=lambda torch, gate, up: torch.nn.functional.silu(gate) * up)
