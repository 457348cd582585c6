"""The sum of squares of a flat buffer, in float64: the gradient's norm before clipping is its root.

    out = sum over i of x[i]^2

float32 would not do: its squares overflow from 1.8e19 on, and a sum over 124 million of them loses its last digits.
Summed in fixed pieces, and the pieces in order, so that the result does not depend on the number of threads. Not
differentiable.
"""
import numpy as np

from ..checks import check_float, check_shape
from ..spec import CPU, GPU, Spec, normals, wrong

PIECE = 2 ** 16     # numbers converted to float64 at a time: they stay in L2


def sum_squares(x):
    """The sum of x[i]^2: x (P,) of real floats -> float; NaN or infinity in x gives NaN or infinity."""
    check_float("x", x)
    check_shape("x", x, (None,))
    if x.dtype.kind == "c":
        raise ValueError(f"x must be an array of real numbers: got {x.dtype}")
    pieces = (x[start:start + PIECE].astype(np.float64) for start in range(0, x.size, PIECE))
    return sum(float(np.square(piece, out=piece).sum()) for piece in pieces)


SPEC = Spec(
    "sum_squares", kind="reduce", differentiable=(), bad=wrong("x", "integers"), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=12 * d.C * d.C), flops=lambda d: (2 * (d.N or 12 * d.C ** 2), 0),
    c=("out[1]:double <- x[N]; N",))
