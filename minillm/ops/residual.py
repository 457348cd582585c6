"""The residual connection: what a layer gives is added to what it was given.

    out = x + y          dout/dx = dout/dy = 1,   so   dx = dy = dout

The gradient reaches both branches whole, which is why deep networks train at all: along the sum of all branches
nothing shrinks it. Where a LayerNorm follows, residual_layernorm does both in one pass. Source: He et al. 2015, arXiv
1512.03385.
"""
import numpy as np

from .checks import check_dout, check_dtype, check_float, check_shape, from_cache
from .spec import GPU, Spec, normals, wrong


def residual_forward(x, y):
    """x + y (He et al. 2015): x (...), y of the same shape and dtype -> out (...), cache. Else ValueError."""
    check_float("x", x)
    check_shape("y", y, x.shape)
    check_dtype("y", y, x.dtype)
    return x + y, (x.shape, x.dtype)


def residual_backward(dout, cache):
    """The gradients of residual_forward: dout (...), cache -> dx (...), dy (...), which are fresh and equal."""
    shape, dtype = from_cache(cache, shape=tuple, dtype=np.dtype)
    check_dout(dout, shape, dtype)
    return dout.copy(), dout.copy()


SPEC = Spec(
    "residual", differentiable=("x", "y"), kernels=GPU,
    bad=wrong("x", "integers") + wrong("y", "narrower", "other_dtype"),
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), y=(d.B, d.T, d.C)),
    flops=lambda d: (d.B * d.T * d.C, 0),
    c=("out[N] <- x[N] y[N]; N", "dx[N] dy[N] <- dout[N]; N"),
    torch=lambda torch, x, y: x + y)
