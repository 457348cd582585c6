"""Layer normalisation, the forward.

Centre and scale each row, then give it a learned scale and shift.

For one row x of C numbers:

    mean = sum(x) / C        var = sum((x - mean)^2) / C        rstd = 1 / sqrt(var + eps)
    xhat = (x - mean) * rstd                                    out  = xhat * weight + bias

A row is the last axis, however many come before it; weight and bias are (C,).
"""
import numpy as np

from ..exercise import Exercise


def layernorm_forward(x, weight, bias, eps):
    """x (..., C), weight (C,), bias (C,), eps > 0 -> out (..., C), cache: (xhat, rstd, weight)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    var = (centred ** 2).mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(var + eps)                                # (..., 1)
    xhat = centred * rstd
    return xhat * weight + bias, (xhat, rstd, weight)


EXERCISE = Exercise(
    __file__, op="layernorm", solve=("layernorm_forward",), needs=("softmax",),
    hints=(
        "x.mean(axis=-1, keepdims=True) is (..., 1), and so broadcasts back over the rows.",
        "The variance divides by C, not C - 1, as NumPy's var does by itself. Taken from the centred numbers it "
        "cannot lose its digits, as mean(x^2) - mean(x)^2 does where the mean is large.",
        "eps stands inside the root: rstd = 1 / sqrt(var + eps).",
        "weight and bias are (C,): broadcasting gives them to each row. out = xhat * weight + bias.",
    ),
    mistakes=(
        ("(centred ** 2).mean(axis=-1, keepdims=True)",
         "(centred ** 2).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)",
         "the variance is divided by C - 1: here it is C"),
        ("(centred ** 2).mean(axis=-1, keepdims=True)", "(centred ** 2).sum(axis=-1, keepdims=True)",
         "the variance is a sum: divide it by C"),
        ("1 / np.sqrt(var + eps)", "1 / (np.sqrt(var) + eps)", "eps belongs inside the root: 1 / sqrt(var + eps)"),
        ("1 / np.sqrt(var + eps)", "1 / np.sqrt(var)", "eps is left out"),
        ("1 / np.sqrt(var + eps)", "1 / (var + eps)", "it is divided by the variance: its root is missing"),
        ("xhat = centred * rstd", "xhat = x * rstd", "the mean is not taken off"),
        ("(centred ** 2).mean", "(x ** 2).mean", "the variance is that of x with its mean still in it"),
        ("mean(axis=-1, keepdims=True)", "mean(axis=0, keepdims=True)",
         "mean and variance are over axis 0: a row is the last"),
        ("xhat * weight + bias,", "xhat,", "the learned scale and shift are left out"),
        ("xhat * weight + bias,", "xhat * weight,", "the bias is not added"),
    ))
