"""Linear layers with int8 or int4 weights in integer arithmetic: activations are rounded to int8 on the way, too.

A weight is W[k, n] ~ w[g, n] Q[k, n] (quantized.py). A row of activations is cut into blocks of BLOCK inputs of a
group, or what there is left of it, and each block x is rounded by a scale of its own, found as it comes
("dynamically"):

    s = max(|x|) / 127          q = round(x / s)

The block adds w[g, n] * (s * (q @ Q)[n]) to output n, where g is its group. The sum over its inputs is of integers,
exact in any order; that over blocks is of float32, in order, each product rounded by itself and none fused into the
sum. Where there is but one group, its w is taken out of the sum. So
every path gives the same bits: a row alone or in a batch, a prompt at once or token by token, any number of threads,
any instruction set, and this file. (Only what other ops put into x may differ from backend to backend.)

How much does it change? |x - s q| <= s / 2, so relative to the block's largest activation 1/254 at most; such errors
are random, and so a sum of K of them is off by about sqrt(K) / 440 of the largest product. Blocks are small since some
inputs of a trained model are far larger than others (Dettmers et al. 2022, arXiv 2208.07339, section 3): with one scale
for a whole row, these few would leave nothing of the rest.
"""
from typing import Any

import numpy as np

Array = np.ndarray
BLOCK = 128                 # inputs that share a scale of an activation (csrc/cpu/gemm/integer.h)
LEAST = np.float32(2) ** -100       # scales below it count as 0: their reciprocal may be infinite


def blocks_of(K: int, groups: int) -> list[tuple[int, slice]]:
    """(group, inputs) of each block of a matrix with K inputs in `groups` groups."""
    size = K // groups
    return [(g, slice(start, min(start + BLOCK, (g + 1) * size)))
            for g in range(groups) for start in range(g * size, (g + 1) * size, min(size, BLOCK) or 1)]


def rounded_rows(x: Array) -> tuple[Array, Array]:
    """A block of activations (M, n) float32 -> whole numbers in [-127, 127] (M, n) as float64, and scales (M,).

    The scale of a row with NaN or infinity is NaN, and so is what comes of it.
    """
    most = np.abs(x).max(axis=1)
    scales = most / np.float32(127)
    used = np.isfinite(most) & (scales >= LEAST)
    inverse = np.where(used, np.float32(127) / np.where(used, most, np.float32(1)), np.float32(0))
    whole = np.rint(np.where(used[:, None], x, np.float32(0)) * inverse[:, None])
    return whole.astype(np.float64), np.where(np.isfinite(most), np.where(used, scales, np.float32(0)),
                                              np.float32(np.nan))


def integer_product(x: Array, values: Array, scales: Array) -> Array:
    """x (M, K) float32 times what values (K, N), whole numbers, and scales (G, N) stand for -> (M, N) float32."""
    total = np.zeros((len(x), values.shape[1]), np.float32)
    for g, inputs in blocks_of(len(values), len(scales)):
        q, s = rounded_rows(x[:, inputs])
        whole = q @ values[inputs].astype(np.float64)                       # exact: far below 2^53
        part = whole.astype(np.float32) * s[:, None]
        total += part if len(scales) == 1 else part * scales[g]
    return total * scales[0] if len(scales) == 1 else total


def integer_linear(x: Array, weight: Any, bias: Array | None = None) -> Array:
    """x (..., K) @ the Quantized weight (K, N), and a bias (N), if any: what csrc/cpu/integer_linear.cpp gives."""
    values = weight.values if weight.values.dtype == np.int8 else unpacked(weight.values)
    out = integer_product(x.reshape(-1, x.shape[-1]), values, weight.scales).reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def unpacked(values: Array) -> Array:
    """int4 numbers, two of a column in a byte (K / 2, N) uint8 -> (K, N) int8, with their signs."""
    return (np.stack([values << 4, values], axis=1).view(np.int8) >> 4).reshape(-1, values.shape[1])
