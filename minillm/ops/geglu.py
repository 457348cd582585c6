"""GeGLU: swiglu.py with GELU as the gate's activation, as the MLP of Gemma has it.

    out = gelu(gate) * up

GELU and its slope are derived in gelu.py; the rest is the product rule:

    dup = dout * gelu(gate)
    dgate = gelu_backward(dout * up)          at the gate

Each number depends on the two in its place alone. Cached: gate and up.
Source: Shazeer 2020, arXiv 2002.05202, eq. 5.
"""
import numpy as np

from .checks import check_dout, check_dtype, check_float, check_shape, from_cache
from .gelu import gelu_backward, gelu_forward
from .spec import CPU, GPU, Spec, normals, wrong


def geglu_forward(gate, up):
    """gelu(gate) * up (Shazeer 2020, eq. 5): gate (...) of floats, up of the same shape and dtype -> out (...), cache.

    Raises ValueError otherwise.
    """
    check_float("gate", gate)
    check_shape("up", up, gate.shape)
    check_dtype("up", up, gate.dtype)
    return gelu_forward(gate)[0] * up, (gate, up)


def geglu_backward(dout, cache):
    """The gradients of geglu_forward: dout (...), cache -> dgate (...), dup (...)."""
    gate, up = from_cache(cache, gate="...", up="...")
    check_dout(dout, gate.shape, gate.dtype)
    return gelu_backward(np.array(dout * up, subok=True), (gate,)), dout * gelu_forward(gate)[0]


SPEC = Spec(
    "geglu", differentiable=("gate", "up"), bad=wrong("gate", "integers") + wrong("up", "narrower", "other_dtype"),
    kernels=CPU | GPU,
    sample=lambda rng, dtype, d: {name: 2 * array for name, array in normals(
        rng, dtype, gate=(d.B, d.T, 4 * d.C), up=(d.B, d.T, 4 * d.C)).items()},
    flops=lambda d: (4 * 11 * d.B * d.T * d.C, 4 * 23 * d.B * d.T * d.C),
    c=("out[N] <- gate[N] up[N]; N", "dgate[N] dup[N] <- dout[N] gate[N] up[N]; N"),
    torch=lambda torch, gate, up: torch.nn.functional.gelu(gate, approximate="tanh") * up)
