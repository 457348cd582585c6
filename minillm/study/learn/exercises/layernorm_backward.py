"""Layer normalisation, the backward.

Each x reaches the loss along three ways.

    mean = sum(x) / C        var = sum((x - mean)^2) / C        rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                    out  = xhat * weight + bias

Given are dout, and xhat, rstd and weight in the cache. dweight and dbias are (C,), sums over all rows. For dx: nudge
x[i] and its own xhat moves, and the mean of the row, and rstd; so every xhat of the row moves.
"""
import numpy as np

from ..exercise import Exercise


def layernorm_forward(x, weight, bias, eps):
    """x (..., C), weight (C,), bias (C,), eps > 0 -> out (..., C), cache."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + eps)
    xhat = centred * rstd
    return xhat * weight + bias, (xhat, rstd, weight)


def layernorm_backward(dout, cache):
    """dout (..., C), cache -> dx (..., C), dweight (C,), dbias (C,)."""
    xhat, rstd, weight = cache
    C = len(weight)
    dweight = (dout * xhat).reshape(-1, C).sum(axis=0)
    dbias = dout.reshape(-1, C).sum(axis=0)
    g = dout * weight                                            # the gradient at xhat
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    return dx, dweight, dbias


EXERCISE = Exercise(
    __file__, op="layernorm", solve=("layernorm_backward",), needs=("layernorm_forward", "linear_backward"),
    hints=(
        "out = xhat * weight + bias is like a linear layer: every row uses the same weight and bias, so their "
        "gradients are sums over rows. dbias = sum of dout, dweight = sum of dout * xhat.",
        "Let g = dout * weight, the gradient at xhat. The rest is about xhat = (x - mean) * rstd, row by row.",
        "Directly: x[i] moves xhat[i] by rstd. That gives g * rstd.",
        "Through the mean: dmean/dx[i] = 1/C, and the mean moves every xhat of the row by -rstd. That gives -rstd * "
        "sum(g) / C = -rstd * mean(g), the same for the whole row.",
        "Through rstd: dvar/dx[i] = 2 (x[i] - mean) / C (the mean inside var adds nothing, since sum(x - mean) = 0), "
        "and drstd/dvar = -rstd^3 / 2. So drstd/dx[i] = -rstd^3 (x[i] - mean) / C = -rstd^2 xhat[i] / C.",
        "rstd moves every xhat[j] by x[j] - mean = xhat[j] / rstd. That gives -rstd * xhat[i] * sum over j of g[j] "
        "xhat[j] / C = -rstd * xhat * mean(g * xhat).",
        "Together: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), with means over the last axis.",
    ),
    mistakes=(
        (" - g.mean(axis=-1, keepdims=True)", "",
         "lacks the mean term: x moves the mean of its row, which moves every xhat; - rstd * mean(g)"),
        (" - xhat * (g * xhat).mean(axis=-1, keepdims=True)", "",
         "lacks the variance term: x moves rstd, which moves every xhat; - rstd * xhat * mean(g * xhat)"),
        ("(g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))", "g",
         "has the direct way alone: the terms of the mean and of rstd are missing"),
        ("dx = rstd * (", "dx = (", "lacks the factor rstd"),
        ("g = dout * weight ", "g = dout ", "lacks the weight: the gradient at xhat is dout * weight"),
        ("xhat * (g * xhat).mean(axis=-1, keepdims=True)", "(g * xhat).mean(axis=-1, keepdims=True)",
         "lacks the factor xhat of the variance term"),
        ("g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(",
         "g.sum(axis=-1, keepdims=True) - xhat * (g * xhat).sum(",
         "has sums over the row where means belong: both come with 1/C"),
        ("- g.mean(axis=-1", "+ g.mean(axis=-1", "has the wrong sign at the mean term"),
        ("- xhat * (g", "+ xhat * (g", "has the wrong sign at the variance term"),
        ("(dout * xhat).reshape(-1, C).sum(axis=0)", "dout.reshape(-1, C).sum(axis=0)",
         "lacks xhat: out moves by xhat where the weight moves by 1"),
        ("(dout * xhat).reshape(-1, C).sum(axis=0)", "(dout * weight * xhat).reshape(-1, C).sum(axis=0)",
         "has the weight in it: out = xhat * weight, so its slope along weight is xhat alone"),
        ("dbias = dout.reshape", "dbias = (dout * weight).reshape",
         "has the weight in it: the bias is added after the weight is multiplied"),
    ))
