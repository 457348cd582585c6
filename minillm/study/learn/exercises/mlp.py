"""The MLP of a transformer block, forward and backward.

Expand to F, GELU, project back to C, each token by itself.

    h   = linear(x, fc_weight, fc_bias)              (..., C) -> (..., F)
    a   = gelu(h)                                    (..., F) -> (..., F)
    out = linear(a, proj_weight, proj_bias)          (..., F) -> (..., C)

Nothing new is derived here: you compose what you have. The functions that you wrote before are given.
"""
from minillm.ops import gelu_backward, gelu_forward, linear_backward, linear_forward

from ..exercise import Exercise


def mlp_forward(x, fc_weight, fc_bias, proj_weight, proj_bias):
    """x (..., C), fc_weight (C, F), fc_bias (F,), proj_weight (F, C), proj_bias (C,) -> out (..., C), cache."""
    h, fc_cache = linear_forward(x, fc_weight, fc_bias)
    a, gelu_cache = gelu_forward(h)
    out, proj_cache = linear_forward(a, proj_weight, proj_bias)
    return out, (fc_cache, gelu_cache, proj_cache)


def mlp_backward(dout, cache):
    """dout (..., C), cache -> dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias."""
    fc_cache, gelu_cache, proj_cache = cache
    da, dproj_weight, dproj_bias = linear_backward(dout, proj_cache)
    dh = gelu_backward(da, gelu_cache)
    dx, dfc_weight, dfc_bias = linear_backward(dh, fc_cache)
    return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias


EXERCISE = Exercise(
    __file__, op="mlp", solve=("mlp_forward", "mlp_backward"), needs=("linear_backward", "gelu"),
    hints=(
        "The forward calls three functions, one after the other, and keeps the three caches as a tuple.",
        "A composition f3(f2(f1(x))) is walked back in reverse: the gradient of f3's input is what f2's backward "
        "gets.",
        "The last linear first: da, dproj_weight, dproj_bias = linear_backward(dout, proj_cache).",
        "Then dh = gelu_backward(da, gelu_cache), then the first linear on dh.",
        "Return the gradients in the order of the forward's arguments: dx, dfc_weight, dfc_bias, dproj_weight, "
        "dproj_bias.",
    ),
    mistakes=(
        ("linear_forward(a, proj_weight", "linear_forward(h, proj_weight",
         "GELU is left out: the second layer takes a, not h"),
        ("linear_backward(dh, fc_cache)", "linear_backward(da, fc_cache)",
         "is without GELU's slope: the first layer gets dh = gelu_backward(da)"),
        ("return dx, dfc_weight, dfc_bias, dproj_weight, dproj_bias",
         "return dout, dfc_weight, dfc_bias, dproj_weight, dproj_bias",
         "is dout: it is what the first layer's backward gives"),
        ("dh = gelu_backward(da, gelu_cache)", "dh = gelu_forward(da)[0]",
         "goes through GELU's forward where its backward belongs"),
    ))
