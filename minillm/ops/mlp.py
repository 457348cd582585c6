"""The MLP of a transformer block: widen to 4C, gate, come back. Each token by itself.

    h = x @ fc_weight + fc_bias            (N, C)  -> (N, 4C)     `linear`
    a = gelu(h)                            (N, 4C) -> (N, 4C)     `gelu`
    out = a @ proj_weight + proj_bias      (N, 4C) -> (N, C)      `linear`

A composition f3(f2(f1(x))) is walked back in reverse, each step handing its input's gradient to the one before:

    da, dproj_weight, dproj_bias = linear_backward(dout)
    dh                           = gelu_backward(da)
    dx, dfc_weight, dfc_bias     = linear_backward(dh)

Nothing new is derived here; that is the point of backpropagation. `ops` is the namespace the two smaller ops are
taken from, so the same page serves every backend.
"""
from types import SimpleNamespace

from . import gelu, linear
from .checks import check_dtype, check_rows, check_shape

REFERENCE = SimpleNamespace(**{**vars(linear), **vars(gelu)})


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias, ops=REFERENCE):
    """x (..., C), fc_weight (C, F), fc_bias (F), proj_weight (F, C), proj_bias (C) -> out (..., C), cache."""
    check_rows("x", x)
    check_shape("fc_weight", fc_weight, (x.shape[-1], None))
    check_shape("fc_bias", fc_bias, (fc_weight.shape[1],))
    check_shape("proj_weight", proj_weight, (fc_weight.shape[1], None))
    check_shape("proj_bias", proj_bias, (proj_weight.shape[1],))
    for name, array in (("fc_weight", fc_weight), ("fc_bias", fc_bias), ("proj_weight", proj_weight),
                        ("proj_bias", proj_bias)):
        check_dtype(name, array, x.dtype)
    h, fc_cache = ops.linear_forward(x, fc_weight, fc_bias)              # (..., F)
    a, gelu_cache = ops.gelu_forward(h)                                  # (..., F)
    out, proj_cache = ops.linear_forward(a, proj_weight, proj_bias)      # (..., C)
    return out, (fc_cache, gelu_cache, proj_cache)


def mlp_backward(dout, cache, into=None, ops=REFERENCE):
    """dout (..., C) -> dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias. into: the last four, to add to."""
    fc_cache, gelu_cache, proj_cache = cache
    da, dproj_weight, dproj_bias = ops.linear_backward(dout, proj_cache, into=into and into[2:])
    dh = ops.gelu_backward(da, gelu_cache)
    dx, dfc_weight, dfc_bias = ops.linear_backward(dh, fc_cache, into=into and into[:2])
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias
