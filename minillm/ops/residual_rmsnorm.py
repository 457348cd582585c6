"""Residual addition and RMSNorm as one op: the residual stream takes in a sublayer's output and is normalised.

    s   = x + y                                     the residual stream
    out = rmsnorm(s)                                the input of the next sublayer

As in residual_layernorm.py, s reaches the loss along two ways, the residual stream and the norm:

    ds = dsum + rmsnorm_backward(dout)              dx = dy = ds

A compiled op does the addition and the norm in one pass over memory. Source: Touvron et al. 2023, arXiv 2302.13971,
section 2.2 (a norm before each sublayer).
"""
from .checks import check_dout, check_dtype, check_rows, check_shape
from .layernorm import NO_EPS
from .rmsnorm import rmsnorm_backward, rmsnorm_forward, torch_rmsnorm
from .spec import CPU, GPU, Spec, normals, wrong


def residual_rmsnorm_forward(x, y, weight, eps=1e-6):
    """Add, then normalise: x (..., C), y (..., C), weight (C) -> (s (..., C), out (..., C)), cache.

    Raises ValueError for shapes or dtypes that differ and unless 0 < eps < infinity (Touvron et al. 2023).
    """
    check_rows("x", x)
    check_shape("y", y, x.shape)
    check_dtype("y", y, x.dtype)
    s = x + y
    out, cache = rmsnorm_forward(s, weight, eps)
    return (s, out), cache


def residual_rmsnorm_backward(douts, cache, into=None):
    """The gradients of residual_rmsnorm_forward: douts, cache -> dx, dy, dweight.

    douts = (dsum, dout), both (..., C). dsum may be None where nothing else reads the sum. dx and dy are one array,
    since they are equal. into: (dweight,) to add to instead of a fresh array.
    """
    if not isinstance(douts, tuple) or len(douts) != 2:
        raise ValueError(f"douts must be a pair (dsum, dout): got {type(douts).__name__}")
    dsum, dout = douts
    ds, dweight = rmsnorm_backward(dout, cache, into)
    if dsum is not None:
        check_dout(dsum, ds.shape, ds.dtype, "dsum")
        ds += dsum
    return ds, ds, dweight


SPEC = Spec(
    "residual_rmsnorm", differentiable=("x", "y", "weight"), shared_gradient=("y",), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), y=(d.B, d.T, d.C), weight=(d.C,))
    | {"eps": 1e-6},
    bad=wrong("y", "narrower", "other_dtype") + wrong("weight", "narrower", "other_dtype") + wrong("eps", *NO_EPS),
    flops=lambda d: (5 * d.B * d.T * d.C, 9 * d.B * d.T * d.C),
    c=("s[B,T,C] out[B,T,C] rstd[B,T] <- x[B,T,C] y[B,T,C] weight[C]; B T C",
       "dx[B,T,C] dweight[C]+= <- dsum[B,T,C] dout[B,T,C] s[B,T,C] weight[C] rstd[B,T]; B T C"),
    kept=lambda args, cache: {"rstd": cache[2][..., 0]},
    torch=lambda torch, x, y, weight, eps: (x + y, torch_rmsnorm(torch, x + y, weight, eps)))
