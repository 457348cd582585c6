"""Muon: one step of the optimizer for a matrix, whose update is made orthogonal. Not a differentiable op.

With gradient g and momentum m (starts at 0), for a weight of R rows and K columns:

    m <- momentum * m + (1 - momentum) * g
    u = momentum * m + (1 - momentum) * g
    w <- w - lr * weight_decay * w - lr * 0.2 * sqrt(max(R, K)) * X

u looks where m is going (Nesterov); X is u with all its singular values brought near 1. u has a few large ones and many
small ones, so that a step along it moves the weight in a few directions. The nearest orthogonal matrix moves it in all
of them alike; and of all steps of spectral norm 1 it is the one along which the loss falls most. Newton-Schulz finds it
by matmuls alone. u is divided by its Frobenius norm, so that no singular value s is above 1; then five times X0 becomes
X1, of which the last is X:

    X0 = u / (norm(u) + eps)          A = X0 @ X0.T
    X1 = a * X0 + (b * A + c * A @ A) @ X0
    s1 = a * s + b * s^3 + c * s^5

The second line does to each singular value what the third says, and leaves the directions alone. a = 3.4445,
b = -4.7750, c = 2.0315 (Jordan et al. 2024): a slope at 0 as steep as may be, at the cost of no fixed point at 1. What
begins above 0.002 of the norm ends between 0.68 and 1.21, which is all a step needs. A wide matrix has the smaller A;
so a tall one is transposed before and after.

The scale: X has rank min(R, K) and singular values near 1, so its root mean square is 1 / sqrt(max(R, K)).
The factor makes that 0.2, about what AdamW's updates have: a learning rate and weight decay found for AdamW then serve
Muon, for every shape (Liu et al. 2025, arXiv 2502.16982, section 2.2).

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Bernstein & Newhouse 2024, arXiv 2409.20325.
"""
import math
from types import SimpleNamespace

import numpy as np

from ..bfloat16 import bfloat16_bits
from ..checks import check_dtype, check_float, check_number, check_shape
from ..linear import linear_forward
from ..projection import projection_forward
from ..spec import CPU, FLOAT32, Spec, normals, on_gpu, wrong
from .adamw import check_bits
from .sum_squares import sum_squares

REFERENCE = SimpleNamespace(linear_forward=linear_forward, projection_forward=projection_forward,
                            sum_squares=sum_squares)
STEPS, COEFFICIENTS, EPS = 5, (3.4445, -4.7750, 2.0315), 1e-7
RMS = 0.2                                   # of an update, at a learning rate of 1


def muon_update(w, grad, m, lr, momentum=0.95, weight_decay=0.0, scale=1.0, bits=None, ops=REFERENCE):
    """One step of Muon, in place on w and m (Jordan et al. 2024).

    w, grad, m: (R, K) of one dtype; scale multiplies the gradient. bits: None, or (R, K) uint16 that receives the new w
    rounded to bfloat16. Or lists of as many of each: matrices that are updated each by itself, side by side where the
    kernel has threads. Raises ValueError for anything else.
    """
    if isinstance(w, list):
        check_lists(w, grad=grad, m=m, bits=[None] * len(w) if bits is None else bits)
        for one in zip(w, grad, m, [None] * len(w) if bits is None else bits):
            muon_update(*one[:3], lr, momentum, weight_decay, scale, one[3], ops)
        return
    check_arguments(w, grad, m, lr, momentum, weight_decay, scale, bits)
    g = grad * scale
    m[:] = momentum * m + (1 - momentum) * g
    u = momentum * m + (1 - momentum) * g
    w *= 1 - lr * weight_decay
    w -= lr * RMS * math.sqrt(max(w.shape)) * orthogonalised(u, ops)
    if bits is not None:
        bits[:] = bfloat16_bits(np.ascontiguousarray(w))


def check_lists(w, **others):
    for name, arrays in others.items():
        if not isinstance(arrays, list) or len(arrays) != len(w):
            raise ValueError(f"{name} must be a list of as many arrays as w: {len(w)}")


def check_arguments(w, grad, m, lr, momentum, weight_decay, scale, bits):
    check_float("w", w)
    check_shape("w", w, (None, None))
    for name, array in (("w", w), ("grad", grad), ("m", m)):
        check_shape(name, array, w.shape)
        check_dtype(name, array, w.dtype)
    if bits is not None:
        check_bits(bits, w)
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("scale", scale)):
        check_number(name, value, lambda value: True, "a number")
    check_number("momentum", momentum, lambda value: 0 <= value < 1, "in [0, 1)")


def orthogonalised(u, ops=REFERENCE):
    """u (R, K) with all singular values brought near 1, by five steps of Newton-Schulz: a fresh array."""
    wide = u.shape[0] <= u.shape[1]
    x = np.ascontiguousarray(u if wide else u.T)
    x = x * (1 / (math.sqrt(ops.sum_squares(x.reshape(-1))) + EPS))
    no_bias = np.zeros(x.shape[1], x.dtype)
    for _ in range(STEPS):
        x = ops.linear_forward(polynomial(x, ops), x, no_bias)[0]                       # (R, R) @ (R, K)
    return x if wide else x.T


def polynomial(x, ops=REFERENCE):
    """a I + b A + c A @ A of A = x @ x.T, which is symmetric: x (R, K) -> (R, R)."""
    a, b, c = COEFFICIENTS
    A = ops.projection_forward(x, x)[0]
    B = b * A + c * ops.projection_forward(A, A)[0]
    B[np.diag_indices(len(B))] += a
    return B


def flops_of(rows, columns):
    """Of one matrix: two matmuls with the larger side and one without in each of five steps; 10 a number more."""
    small, large = min(rows, columns), max(rows, columns)
    return STEPS * (4 * small * small * large + 2 * small ** 3) + 10 * rows * columns


def sample(rng, dtype, d):
    return normals(rng, dtype, w=(d.C, 4 * d.C), grad=(d.C, 4 * d.C), m=(d.C, 4 * d.C)) | {
        "lr": 1e-2, "momentum": 0.95, "weight_decay": 0.1, "scale": 0.5}


def torch_muon(torch, w, grad, m, lr, momentum, weight_decay, scale):
    """The same in eager PyTorch; torch.optim.Muon, which has the same formulas, multiplies in bfloat16 only."""
    w, m, (a, b, c) = w.clone(), m.clone(), COEFFICIENTS

    def update():
        m.lerp_(grad * scale, 1 - momentum)
        x = (grad * scale).lerp(m, momentum)
        x = x if x.shape[0] <= x.shape[1] else x.T
        x = x / (x.norm() + EPS)
        for _ in range(STEPS):
            A = x @ x.T
            x = a * x + (b * A + c * A @ A) @ x
        w.mul_(1 - lr * weight_decay).sub_(x if x.shape == w.shape else x.T,
                                           alpha=lr * RMS * math.sqrt(max(w.shape)))
        return w, m
    return update, lambda: {"w": w, "m": m}


SPEC = Spec(
    "muon", sample, kind="update", differentiable=(), composite=True,
    kernels=CPU | {"cpu/bf16": FLOAT32} | on_gpu(),
    bad=wrong("w", "flatter", "integers") + wrong("grad", "narrower", "other_dtype")
    + wrong("m", "narrower", "other_dtype") + wrong("momentum", 1.0, -0.1, math.nan),
    flops=lambda d: (flops_of(d.C, d.OC or 4 * d.C), 0),
    c=("w[C,OC]+= m[C,OC]+= <- grad[C,OC]; C OC lr momentum weight_decay scale",), torch=torch_muon)
