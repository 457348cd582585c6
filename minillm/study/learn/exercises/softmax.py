"""Softmax of each row, forward and backward.

Positive numbers that sum to 1, the larger the larger x is.

    out[i] = exp(x[i]) / sum over j of exp(x[j])

exp(710) is more than a float64 can hold, and scores of 1000 are allowed: find what may be taken from a whole row
without changing out. The backward needs no matrix for each row, though the Jacobian is one:
dp[i]/dx[j] = p[i] (1[i = j] - p[j]).
"""
import numpy as np

from ..exercise import Exercise


def softmax_forward(x):
    """x (..., V) -> out (..., V), cache."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, (p,)


def softmax_backward(dout, cache):
    """dout (..., V), cache -> dx (..., V)."""
    (p,) = cache
    return p * (dout - (dout * p).sum(axis=-1, keepdims=True))


EXERCISE = Exercise(
    __file__, op="softmax", solve=("softmax_forward", "softmax_backward"), needs=("gelu",),
    hints=(
        "A constant c taken from a row divides every exp by exp(c), above and below the line: out stays the same. "
        "Take the row's maximum: the largest exp is then 1, and nothing overflows.",
        "Sums and maxima along the last axis with keepdims=True broadcast back over the row.",
        "Cache p, the output: the slope of exp is exp, so the backward can be said in p alone.",
        "dp[i]/dx[j] = p[i] (1[i = j] - p[j]): the first part from the numerator, the second from the sum below the "
        "line.",
        "dx[j] = sum over i of dout[i] p[i] (1[i = j] - p[j]) = p[j] dout[j] - p[j] * (sum over i of dout[i] p[i]).",
        "dx = p * (dout - (dout * p).sum(axis=-1, keepdims=True)). Its rows sum to 0, as they must.",
    ),
    mistakes=(
        ("np.exp(x - x.max(axis=-1, keepdims=True))", "np.exp(x)", "exp overflows: take the row's maximum off first"),
        ("e.sum(axis=-1, keepdims=True)", "e.sum()",
         "the sum is over all rows together: it is over each row, axis -1"),
        ("e.sum(axis=-1, keepdims=True)", "e.sum(axis=0, keepdims=True)",
         "the sum is over axis 0: it is over the last"),
        ("e / e.sum(axis=-1, keepdims=True)", "e", "it is not divided by the row's sum"),
        ("p * (dout - (dout * p).sum(axis=-1, keepdims=True))", "p * (1 - p) * dout",
         "has the diagonal of the Jacobian alone, p (1 - p): every out of a row depends on every x of it, through "
         "the sum"),
        (" - (dout * p).sum(axis=-1, keepdims=True)", "",
         "lacks the term of the sum below the line, - p * sum(dout * p)"),
        ("(dout * p).sum", "dout.sum", "has the sum of dout where that of dout * p belongs"),
        ("(dout * p).sum", "(dout * p).mean", "has a mean where the sum of dout * p belongs"),
        ("return p * (dout", "return (dout", "lacks the factor p in front"),
    ))
