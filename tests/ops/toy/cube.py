"""The cube of each number: the smallest op there is, to see what an op's file holds (tests/ops/test_toy_op.py adds it).

    out = x^3          dout/dx = 3 x^2,   dx = dout * 3 x^2
"""
from .checks import check_dout, check_float
from .spec import CPU, Spec, normals, wrong


def cube_forward(x):
    """x^3 of each number: x (...) of floats -> out (...), cache."""
    check_float("x", x)
    return x * x * x, (x,)


def cube_backward(dout, cache):
    """The gradient of cube_forward: dout (...), cache -> dx (...)."""
    (x,) = cache
    check_dout(dout, x.shape, x.dtype)
    return dout * (3 * x * x)


SPEC = Spec(
    "cube", differentiable=("x",), bad=wrong("x", "integers"), kernels=CPU,
    sample=lambda rng, dtype, d: {"x": normals(rng, dtype, x=(d.B, d.T, d.C))["x"] / 2},
    flops=lambda d: (2 * d.B * d.T * d.C, 3 * d.B * d.T * d.C),
    c=("out[N] <- x[N]; N", "dx[N] <- dout[N] x[N]; N"),
    torch=lambda torch, x: x ** 3)
