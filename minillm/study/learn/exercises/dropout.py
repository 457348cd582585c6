"""Dropout, forward and backward.

Zero each number with probability p, and scale the rest so that the mean stays.

    out = x * keep / (1 - p),    keep[i] = 1 with probability 1 - p, else 0

The mask is a function of a key (seed, step, site), given below: nothing is drawn in order and nothing is stored, so
that the backward can make the very same mask again, and a resumed run, too.
"""
import math

import numpy as np

from ..exercise import Exercise


def keep_mask(size, p, key):
    """(size,) bool: which elements stay. The same key gives the same mask."""
    seed, step, site = key
    generator = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=np.array([0, step, site, 0], np.uint64))
    bits = generator.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]
    return bits >= math.ceil(p * 2 ** 32)


def dropout_forward(x, p, key):
    """x (...), 0 <= p < 1, key: (seed, step, site) -> out (...), cache."""
    keep = keep_mask(x.size, p, key).reshape(x.shape)
    return x * keep * (1 / (1 - p)), (p, key)


def dropout_backward(dout, cache):
    """dout (...), cache -> dx (...)."""
    p, key = cache
    keep = keep_mask(dout.size, p, key).reshape(dout.shape)
    return dout * keep * (1 / (1 - p))


EXERCISE = Exercise(
    __file__, op="dropout", solve=("dropout_forward", "dropout_backward"), needs=("gelu",),
    hints=(
        "keep_mask gives x.size booleans in the order of the flat array: reshape them to x.shape, and multiply.",
        "Of many numbers 1 - p of them stay, so their sum shrinks by that factor: divide by 1 - p to make up for it.",
        "Cache p and key, two numbers and a tuple instead of a mask as large as x.",
        "The mask does not depend on x, so the op is linear in x, with slope keep / (1 - p): the backward is the "
        "forward, on dout, with the same key.",
    ),
    mistakes=(
        ("x * keep * (1 / (1 - p))", "x * keep", "the numbers that stay are not scaled by 1 / (1 - p)"),
        ("x * keep * (1 / (1 - p))", "x * keep * (1 - p)", "it is multiplied by 1 - p, where it is divided"),
        ("x * keep * (1 / (1 - p))", "x * keep * (1 / p)",
         "it is divided by p: that is the probability to go, 1 - p to stay"),
        ("x * keep *", "x * ~keep *", "the mask is the wrong way round: keep is True for what stays"),
        ("dout * keep * (1 / (1 - p))", "dout * keep", "lacks the scale 1 / (1 - p) of the forward"),
        ("dout * keep * (1 / (1 - p))", "dout * (1 / (1 - p))", "lacks the mask: what went to 0 has gradient 0"),
        ("dout * keep * (1 / (1 - p))", "dout", "is dout itself: neither mask nor scale"),
        ("keep_mask(dout.size, p, key)", "keep_mask(dout.size, p, (key[0], key[1] + 1, key[2]))",
         "has another mask than the forward: it takes the same key"),
    ))
