"""Residual addition and LayerNorm as one op: the residual stream takes in a sublayer's output and is normalised.

    s   = x + y                                     the residual stream
    out = layernorm(s)                              the input of the next sublayer, scaled by weight, shifted by bias

Both inputs reach s with slope 1. That is why deep networks train at all (He et al. 2015, arXiv 1512.03385): the
identity path carries the gradient past any block. s in turn reaches the loss along two ways, the residual stream
and the LayerNorm, so its gradient is their sum, and both inputs get the same:

    ds = dsum + layernorm_backward(dout)            dx = dy = ds

Nothing else is new; LayerNorm's part is derived in layernorm.py. Done apart, the addition would write s for LayerNorm
to read again, and the sum of gradients likewise: a compiled op does each in one pass. `s` is a fresh array: `x += y`
would overwrite what an earlier op may still hold in its cache.
"""
from .checks import check_dout, check_dtype, check_rows, check_shape
from .layernorm import NO_EPS, layernorm_backward, layernorm_forward
from .spec import CPU, GPU, Spec, normals, wrong


def residual_layernorm_forward(x, y, weight, bias, eps=1e-5):
    """Add, then normalise: x (..., C), y (..., C), weight (C), bias (C) -> (s (..., C), out (..., C)), cache.

    Raises ValueError for shapes or dtypes that differ and unless 0 < eps < infinity. Source: Radford et al. 2019
    (GPT-2), section 2.3.
    """
    check_rows("x", x)
    check_shape("y", y, x.shape)
    check_dtype("y", y, x.dtype)
    s = x + y
    out, cache = layernorm_forward(s, weight, bias, eps)
    return (s, out), cache


def residual_layernorm_backward(douts, cache, into=None):
    """The gradients of residual_layernorm_forward: douts, cache -> dx, dy, dweight, dbias.

    douts = (dsum, dout), both (..., C). dsum may be None where nothing else reads the sum. dx and dy are one array,
    since they are equal. into: dweight and dbias to add to instead of fresh arrays.
    """
    if not isinstance(douts, tuple) or len(douts) != 2:
        raise ValueError(f"douts must be a pair (dsum, dout): got {type(douts).__name__}")
    dsum, dout = douts
    ds, dweight, dbias = layernorm_backward(dout, cache, into)
    if dsum is not None:
        check_dout(dsum, ds.shape, ds.dtype, "dsum")
        ds += dsum
    return ds, ds, dweight, dbias


def torch_residual_layernorm(torch, x, y, weight, bias, eps):
    s = x + y
    return s, torch.nn.functional.layer_norm(s, weight.shape, weight, bias, eps)


SPEC = Spec(
    "residual_layernorm", differentiable=("x", "y", "weight", "bias"), shared_gradient=("y",), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C), y=(d.B, d.T, d.C), weight=(d.C,),
                                         bias=(d.C,)) | {"eps": 1e-5},
    bad=wrong("y", "narrower", "other_dtype") + wrong("weight", "narrower", "other_dtype")
    + wrong("bias", "narrower", "other_dtype") + wrong("eps", *NO_EPS),
    flops=lambda d: (9 * d.B * d.T * d.C, 13 * d.B * d.T * d.C),
    c=("s[B,T,C] out[B,T,C] mean[B,T] rstd[B,T] <- x[B,T,C] y[B,T,C] weight[C] bias[C]; B T C",
       "dx[B,T,C] dweight[C]+= dbias[C]+= <- dsum[B,T,C] dout[B,T,C] s[B,T,C] weight[C] mean[B,T] rstd[B,T]; B T C"),
    kept=lambda args, cache: {"mean": cache[2][..., 0], "rstd": cache[3][..., 0]},
    torch=torch_residual_layernorm)
