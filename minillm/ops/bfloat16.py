"""Rounding to bfloat16, the upper half of a float32: its range with 8 bits of precision. Its bits are kept as uint16.

Rounding is to nearest, ties to even: adding just under half of the last kept bit, and a whole half if that bit is odd,
carries into it exactly when it must. Numbers under 2^-126 are rounded like all others. The instruction that rounds
floats inside a matmul (VCVTNE2PS2BF16) makes zeros of them; so do those that multiply, so that results are the same,
but for float32 from 2^-126 (1 - 2^-8) on: here they round up to 2^-126. No weight of that size affects a result.
"""
import numpy as np


def bfloat16_bits(x):
    """Round to the nearest bfloat16: x float32 -> its bits as uint16 of the same shape; a NaN stays one."""
    bits = x.view(np.uint32)
    rounded = np.where(np.isnan(x), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1))
    return (rounded >> 16).astype(np.uint16)
