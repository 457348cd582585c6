"""Dropout: zero each number with probability p, and scale the rest so that the mean stays.

    keep[i] = 1 if u[i] >= p else 0         with u uniform in [0, 1)
    out = x * keep / (1 - p)                dx = dout * keep / (1 - p)

The mask does not depend on x, so the op is linear in x and its backward is itself.

u is a pure function of (seed, step, site, i): the Philox 4x64-10 block cipher (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") encrypts a counter under a key. Nothing is stored and nothing is drawn in order: the
backward draws the mask again, resuming at step n needs no generator state, and any backend on any number of threads
gets the same mask. The counter's words hold (block, step, site, 0) and the key is (seed, 0). Each block gives four
64-bit words, which serve eight elements, low half first; element i is kept when its 32 bits are at least
ceil(p * 2^32) as an integer: exact, no float rounding.
Source: Srivastava et al. 2014, JMLR 15.
"""
import math
from numbers import Integral

import numpy as np

from .checks import check_dout, check_float, check_number, from_cache
from .spec import CPU, GPU, Spec, normals, wrong


def dropout_forward(x, p, key):
    """Zero each number with probability p and scale the others by 1 / (1 - p) (Srivastava et al. 2014).

    x (...), 0 <= p < 1, key = (seed, step, site), integers -> out (...), cache. site tells layers apart. Raises
    ValueError for another p, and for a key that is not three words of 64 bits.
    """
    check_float("x", x)
    check_mask(p, key)
    return scaled(x, p, key), (p, tuple(key), x.shape, x.dtype)


def dropout_backward(dout, cache):
    """The gradient of dropout_forward, by the same mask: dout (...), cache -> dx (...)."""
    p, key, shape, dtype = from_cache(cache, p=float, key=tuple, shape=tuple, dtype=np.dtype)
    check_mask(p, key)
    check_dout(dout, shape, dtype)
    return scaled(dout, p, key)


def check_mask(p, key, name="key"):
    """Raise unless p and the key of this name can make a mask."""
    check_number("p", p, lambda p: 0 <= p < 1, "a number with 0 <= p < 1")
    words = key if isinstance(key, (tuple, list)) else ()
    if len(words) != 3 or not all(isinstance(word, Integral) and 0 <= word < 2 ** 64 for word in words):
        raise ValueError(f"{name} must be (seed, step, site), integers in [0, 2^64): got {key}")


def scaled(x, p, key):
    return np.where(keep_mask(x.size, p, key).reshape(x.shape), x * (1 / (1 - p)), 0).astype(x.dtype, copy=False)


def keep_mask(size, p, key):
    """(size,) bool: which elements stay."""
    return random_bits(size, key) >= math.ceil(p * 2 ** 32)


def random_bits(size, key):
    """(size,) uint32, a pure function of key = (seed, step, site) and the element's index."""
    seed, step, site = key
    # NumPy's generator adds one to the counter before its first block: block 0 of ours is counter word 1 of Philox.
    generator = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=np.array([0, step, site, 0], np.uint64))
    return generator.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]


SPEC = Spec(
    "dropout", differentiable=("x",), bad=wrong("p", 1.0, -0.1), kernels=CPU | GPU,
    sample=lambda rng, dtype, d: normals(rng, dtype, x=(d.B, d.T, d.C)) | {"p": 0.25, "key": (3, 2 ** 40 + 1, 7)},
    flops=lambda d: (d.B * d.T * d.C, d.B * d.T * d.C),
    c=("out[N] <- x[N] key[3]:uint64; N p", "dx[N] <- dout[N] key[3]:uint64; N p"),
    torch=lambda torch, x, p, key: torch.nn.functional.dropout(x, p))
