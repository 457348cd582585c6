"""Residual addition and layer normalisation as one op, forward and backward.

    s   = x + y                                  the residual stream takes in a sublayer's output
    out = layernorm(s) * weight + bias           the input of the next sublayer

Both s and out go on, so both have a gradient coming back: dsum at s, for what the residual stream carries further, and
dout at out. s reaches the loss along both ways. LayerNorm's own functions are given.
"""
from minillm.ops import layernorm_backward, layernorm_forward

from ..exercise import Exercise


def residual_layernorm_forward(x, y, weight, bias, eps):
    """x (..., C), y (..., C), weight (C,), bias (C,) -> (s, out), both (..., C), cache."""
    s = x + y
    out, cache = layernorm_forward(s, weight, bias, eps)
    return (s, out), cache


def residual_layernorm_backward(douts, cache):
    """douts: the pair (dsum, dout), cache -> dx, dy, both (..., C), dweight (C,), dbias (C,)."""
    dsum, dout = douts
    ds, dweight, dbias = layernorm_backward(dout, cache)
    ds = ds + dsum
    return ds, ds, dweight, dbias


EXERCISE = Exercise(
    __file__, op="residual_layernorm", solve=("residual_layernorm_forward", "residual_layernorm_backward"),
    needs=("residual", "layernorm_backward"),
    hints=(
        "The forward calls layernorm_forward(s, weight, bias, eps) on a fresh s and hands on its cache.",
        "The backward gets a pair: dsum, dout = douts.",
        "s reaches the loss through LayerNorm: layernorm_backward(dout, cache) gives that part of ds, and dweight, "
        "dbias.",
        "s also goes on as it is: dsum is the other part. What is used twice has the sum of both gradients.",
        "x and y reach s with slope 1 each, so dx = dy = ds.",
    ),
    mistakes=(
        ("    ds = ds + dsum\n", "",
         "lacks dsum: s goes on past LayerNorm, too, and what is used twice has the sum of both gradients"),
        ("    ds = ds + dsum\n", "    ds = dsum\n", "is dsum alone: the way through LayerNorm is missing"),
        ("ds = ds + dsum", "ds = (ds + dsum) / 2", "is half of it: a sum does not divide the gradient"),
        ("return (s, out), cache", "return (x, out), cache", "the first result is s = x + y, which goes on"),
        ("layernorm_forward(s, weight", "layernorm_forward(x, weight", "LayerNorm is taken of x, before y is added"),
    ))
