"""AdamW: one step of the optimizer over a flat buffer of parameters. Not a differentiable op, but a hot loop.

With gradient g, first moment m, second moment v (both start at 0) and step number t = 1, 2, ...:

    m = beta1 * m + (1 - beta1) * g                 v = beta2 * v + (1 - beta2) * g^2
    mhat = m / (1 - beta1^t)                        vhat = v / (1 - beta2^t)
    w = w - lr * weight_decay * w                   (decoupled decay, for the first n_decayed numbers only)
    w = w - lr * mhat / (sqrt(vhat) + eps)

mhat and vhat undo the bias towards the zero start: after one step mhat = g exactly. Decay acts on w itself and does
not pass through the moments, which is the W in AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).
`scale` multiplies g first: that is gradient clipping in the same pass over memory. So is `bits`, a copy of w rounded to
bfloat16 for products in that type (AdamW.keep_bits says what for).
"""
import math

import numpy as np

from .bfloat16 import bfloat16_bits
from .checks import check_dtype, check_float, check_shape


def adamw_update(w, grad, m, v, step, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, n_decayed=0, scale=1.0,
                 bits=None):
    """Update w, m, v in place. w, grad, m, v: (P,) of one dtype; step counts from 1; n_decayed in [0, P].

    bits: None, or (P,) uint16 that receives the new w rounded to bfloat16 (to nearest even), w being float32.
    """
    check_float("w", w)
    for name, array in (("w", w), ("grad", grad), ("m", m), ("v", v)):
        check_shape(name, array, (w.size,))
        check_dtype(name, array, w.dtype)
    if bits is not None:
        check_bits(bits, w)
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"beta1 and beta2 must be in [0, 1): got {beta1}, {beta2}")
    if step < 1 or not 0 <= n_decayed <= w.size:
        raise ValueError(f"step must be at least 1 and n_decayed in [0, {w.size}]: got {step}, {n_decayed}")
    g = grad * scale
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    w[:n_decayed] *= 1 - lr * weight_decay
    w -= lr / (1 - beta1 ** step) * m / (np.sqrt(v) * (1 / math.sqrt(1 - beta2 ** step)) + eps)
    if bits is not None:
        bits[:] = bfloat16_bits(w)


def check_bits(bits, w):
    if w.dtype != np.float32:
        raise ValueError(f"bits are of a float32 w: got a w of {w.dtype}")
    if not isinstance(bits, np.ndarray):
        raise ValueError(f"bits must be None or an array of uint16: got {type(bits).__name__}")
    check_shape("bits", bits, (w.size,))
    check_dtype("bits", bits, np.dtype(np.uint16))
