"""Rotary position embedding: turn pairs of numbers of a query or key by an angle that grows with its position.

A head of HS numbers is HS / 2 pairs (a, b). Pair i of the token at position t is rotated by the angle t times
theta^(-2 i / HS); with c its cosine and s its sine:

    out_a = a * c - b * s                    out_b = b * c + a * s

A rotation is linear and its transpose turns back, so the gradient is rotated by the
negative angle:

    da = dout_a * c + dout_b * s             db = dout_b * c - dout_a * s

The dot product of two rotated vectors depends on their distance t - s only: that is why queries and keys are rotated
and values are not. Which numbers form a pair is a convention: i and i + HS / 2 (half-split, what Hugging Face's files
of Llama hold), or 2 i and 2 i + 1 (interleaved, as in the paper). `rope_angles` in models/rope.py gives cos and sin.
Source: Su et al. 2021, arXiv 2104.09864, eq. 34. Cached: cos and sin; x is not needed.
"""
import numpy as np

from .checks import check_dout, check_dtype, check_float, check_number, check_shape, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def rope_forward(x, cos, sin, interleaved=0):
    """Rotate the pairs of every head (Su et al. 2021, eq. 34).

    x (B, T, C) with C = NH * HS, cos and sin (T, HS / 2), interleaved 0 or 1 -> out (B, T, C), cache. Raises
    ValueError for other shapes or dtypes.
    """
    check_float("x", x)
    check_shape("x", x, (None, None, None))
    check_float("cos", cos)
    check_shape("cos", cos, (x.shape[1], None))
    check_shape("sin", sin, cos.shape)
    for name, array in (("cos", cos), ("sin", sin)):
        check_dtype(name, array, x.dtype)
    check_number("interleaved", interleaved, lambda i: i in (0, 1), "0 or 1", int)
    if not cos.shape[1] or x.shape[2] % (2 * cos.shape[1]):
        raise ValueError(f"x must have a last axis of whole heads of 2 * {cos.shape[1]} numbers: got {x.shape[2]}")
    return rotated(x, cos, sin, interleaved), (x.shape, cos, sin, int(interleaved))


def rope_backward(dout, cache):
    """The gradient of rope_forward: dout (B, T, C), cache -> dx (B, T, C)."""
    shape, cos, sin, interleaved = from_cache(cache, shape=tuple, cos="TR", sin="TR", interleaved=int)
    check_dout(dout, shape, cos.dtype)
    if len(shape) != 3 or shape[1] != len(cos) or not cos.shape[1] or shape[2] % (2 * cos.shape[1]):
        raise ValueError(f"cached shape must be (B, {len(cos)}, heads of 2 * {cos.shape[1]}): got {shape}")
    return rotated(dout, cos, -sin, interleaved)


def rotated(x, cos, sin, interleaved):
    """The pairs of x (B, T, C) turned by the angle of cos and sin (T, HS / 2): (B, T, C)."""
    B, T, C = x.shape
    half, axis = cos.shape[1], 4 if interleaved else 3               # the axis of the two numbers of a pair
    x = x.reshape(B, T, C // (2 * half), *((half, 2) if interleaved else (2, half)))
    a, b = np.moveaxis(x, axis, 0)                                   # each (B, T, NH, HS / 2)
    cos, sin = cos[:, None], sin[:, None]                            # (T, 1, HS / 2)
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis).reshape(B, T, C)


def sample(rng, dtype, d):
    half = max(1, d.C // d.NH // 2)                                   # HS is even
    args = normals(rng, dtype, x=(d.B, d.T, d.NH * 2 * half), angle=(d.T, half))
    angle = args.pop("angle")
    return args | {"cos": np.cos(angle), "sin": np.sin(angle), "interleaved": 0}


def torch_rope(torch, x, cos, sin, interleaved):
    B, T, C = x.shape
    half = cos.shape[1]
    x = x.view(B, T, -1, half, 2).transpose(3, 4) if interleaved else x.view(B, T, -1, 2, half)
    a, b = x.unbind(3)
    out = torch.stack([a * cos[:, None] - b * sin[:, None], b * cos[:, None] + a * sin[:, None]], 3)
    return (out.transpose(3, 4) if interleaved else out).reshape(B, T, C)


SPEC = Spec(
    "rope", sample, differentiable=("x",), kernels=CPU | GPU,
    bad=wrong("x", "narrower", "flatter") + wrong("cos", "shorter", "other_dtype") + wrong("sin", "shorter")
    + wrong("interleaved", 2),
    flops=lambda d: (3 * d.B * d.T * d.C, 3 * d.B * d.T * d.C),
    c=("out[B,T,C] <- x[B,T,C] cos[T,R] sin[T,R]; B T C R interleaved",
       "dx[B,T,C] <- dout[B,T,C] cos[T,R] sin[T,R]; B T C R interleaved"),
    torch=torch_rope)
