"""The stream takes in what a half-block adds, and the next half-block reads it normalised: two lines of GPT-2 as one op.

    s   = x + y                                     the stream goes on
    out = layernorm(s) * weight + bias              what the next half-block reads

Both inputs reach s with slope 1. That is why deep networks train at all (He et al. 2015, arXiv 1512.03385): the
identity path carries the gradient past any block. s in turn reaches the loss along two ways, the stream and the
LayerNorm, so its gradient is their sum, and both inputs get the same:

    ds = dsum + (layernorm's dx for dout)           dx = dy = ds

Nothing else is new; LayerNorm's part is derived in layernorm.py. Done apart, the addition would write s for LayerNorm to
read again, and the sum of gradients likewise: a compiled op does each in one pass. `s` is a fresh array: `x += y`
would overwrite what an earlier op may still hold in its cache.
"""
from .checks import check_dout, check_dtype, check_rows, check_shape
from .layernorm import layernorm_backward, layernorm_forward


def residual_layernorm_forward(x, y, weight, bias, eps=1e-5):
    """x (..., C), y (..., C), weight (C), bias (C), eps > 0 -> (s (..., C), out (..., C)), cache."""
    check_rows("x", x)
    check_shape("y", y, x.shape)
    check_dtype("y", y, x.dtype)
    s = x + y
    out, cache = layernorm_forward(s, weight, bias, eps)
    return (s, out), cache


def residual_layernorm_backward(douts, cache, into=None):
    """douts: (dsum, dout), both (..., C) -> dx, dy, dweight, dbias.

    dsum may be None where nothing else reads the sum. dx and dy are one array, since they are equal. into: dweight and
    dbias to add to instead of fresh arrays.
    """
    dsum, dout = douts
    ds, dweight, dbias = layernorm_backward(dout, cache, into)
    if dsum is not None:
        check_dout(dsum, ds.shape, ds.dtype, "dsum")
        ds += dsum
    return ds, ds, dweight, dbias
