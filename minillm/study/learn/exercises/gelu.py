"""GELU in its tanh form, forward and backward.

A smooth gate, element by element.

    t = tanh(u),    u = k * (x + a * x^3),    k = sqrt(2 / pi),    a = 0.044715
    out = 0.5 * x * (1 + t)

Each number depends on itself alone, so the backward is one multiplication: dx = dout * dout/dx. Known is
tanh'(u) = 1 - tanh(u)^2; the rest is the product rule and the chain rule.
"""
import math

import numpy as np

from ..exercise import Exercise

K = math.sqrt(2 / math.pi)          # a Python float: np.sqrt would give a float64 scalar, which promotes float32
A = 0.044715


def gelu_forward(x):
    """x (...) -> out (...), cache: what the backward needs."""
    t = np.tanh(K * (x + A * x * x * x))
    return 0.5 * x * (1 + t), (x,)


def gelu_backward(dout, cache):
    """dout (...), cache -> dx (...)."""
    (x,) = cache
    t = np.tanh(K * (x + A * x * x * x))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * K * (1 + 3 * A * x * x)
    return dout * slope


EXERCISE = Exercise(
    __file__, op="gelu", solve=("gelu_forward", "gelu_backward"), needs=("linear_backward",),
    hints=(
        "The forward is the formula as it stands; NumPy works element by element (x * x * x is many times as fast as "
        "x ** 3, which calls pow). Cache x alone: t costs less to compute again than to keep.",
        "x stands twice in 0.5 * x * (1 + t): outside, and inside t. The product rule gives two terms: 0.5 * (1 + t) "
        "+ 0.5 * x * dt/dx.",
        "t = tanh(u), so dt/dx = (1 - t^2) * du/dx.",
        "u = k * (x + a * x^3), so du/dx = k * (1 + 3 * a * x^2).",
        "Together: dx = dout * (0.5 * (1 + t) + 0.5 * x * (1 - t^2) * k * (1 + 3 * a * x^2)).",
    ),
    mistakes=(
        ("K * (x + A * x * x * x)", "K * x", "lacks the cubic term: u = k * (x + a * x^3)"),
        ("K * (x + A * x * x * x)", "x + A * x * x * x", "lacks the factor k inside tanh"),
        ("0.5 * x * (1 + t), (x,)", "x * (1 + t), (x,)", "lacks the factor 0.5"),
        ("0.5 * x * (1 + t), (x,)", "x / (1 + np.exp(-1.702 * x)), (x,)",
         "is the sigmoid form of GELU, x * s(1.702 x): the tanh form is asked for"),
        (" + 0.5 * x * (1 - t * t) * K * (1 + 3 * A * x * x)", "",
         "lacks the second term of the product rule: x stands inside tanh, too"),
        ("slope = 0.5 * (1 + t) + ", "slope = ", "lacks the first term of the product rule, 0.5 * (1 + t)"),
        ("1 - t * t", "1 - t", "has a wrong tanh': it is 1 - t^2"),
        (" * K * (1 + 3", " * (1 + 3", "lacks the factor k of du/dx"),
        (" * (1 + 3 * A * x * x)", "", "lacks du/dx of the cube: du/dx = k * (1 + 3 * a * x^2)"),
        ("1 + 3 * A * x * x", "1 + A * x * x", "has a wrong derivative of the cube: that of a * x^3 is 3 * a * x^2"),
        ("dout * slope", "slope", "is the slope alone: dout is ignored"),
    ))
