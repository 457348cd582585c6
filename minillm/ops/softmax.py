"""Softmax of each row: positive numbers that sum to 1, the larger the larger x is.

    top = max(x)        out[i] = exp(x[i] - top) / sum over j of exp(x[j] - top)

Any constant may be taken from a row without changing out, and the maximum keeps exp from overflowing. The derivative is
a matrix for each row; times dout it needs no matrix:

    p = out             dp[i]/dx[j] = p[i] * (1[i = j] - p[j])
    dx = p * (dout - sum over j of dout[j] * p[j])

So the gradient of a row sums to 0, as it must: adding a constant to the row changes nothing. In the model attention
and the loss each have their own, which never keep p. Source: Bridle 1990 (NATO ASI F68, 227).
"""
import numpy as np

from .checks import check_dout, check_rows, from_cache
from .spec import GPU, Spec, normals, wrong


def softmax_forward(x):
    """exp(x) of each row, scaled to sum 1: x (..., V) -> out (..., V), cache. Raises ValueError for empty rows."""
    check_rows("x", x)
    if not x.shape[-1]:
        raise ValueError(f"x must have at least one number a row: got {x.shape}")
    out = np.exp(x - x.real.max(axis=-1, keepdims=True))             # by real part, so that the complex step works
    out /= out.sum(axis=-1, keepdims=True)
    return out, (out.copy(),)


def softmax_backward(dout, cache):
    """The gradient of softmax_forward: dout (..., V), cache -> dx (..., V)."""
    (p,) = from_cache(cache, p="...V")
    check_dout(dout, p.shape, p.dtype)
    return p * (dout - (dout * p).sum(axis=-1, keepdims=True))


SPEC = Spec(
    "softmax", differentiable=("x",), bad=wrong("x", "integers"), kernels=GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.V)),
    flops=lambda d: (4 * d.B * d.T * d.V, 4 * d.B * d.T * d.V),
    c=("out[B,T,V] <- x[B,T,V]; B T V", "dx[B,T,V] <- dout[B,T,V] out[B,T,V]; B T V"),
    torch=lambda torch, x: torch.nn.functional.softmax(x, dim=-1))
