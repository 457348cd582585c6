"""Weights in panels: float32 and bfloat16 matrices as decoding reads them at the speed of memory.

A row of a matrix (K, N) and the next are pages apart, and a thread that sums some of the N columns reads a piece here,
a piece there. A panel holds a few columns and all of K, one row after the other, and so is read from end to end. It is
the arrangement into which every GEMM packs its right-hand factor anyway (csrc/cpu/gemm/panels.h), so that prompts
multiply by the same panels and no second copy is needed. What is multiplied is the same, to the last bit; the width of
a panel suits the machine, so panels are never written to a file.
"""
import math
from typing import Any, NamedTuple

import numpy as np

from ..kernels.select import Ops

Array = np.ndarray
LINE = 64               # bytes of a line of the caches
DEPTH = 32              # rows of a panel of bfloat16: a multiple of this, since AMX takes so many at a time


class Panels(NamedTuple):
    """A matrix (K, N): float32 (P, K, columns); or the bits of bfloat16 as uint16 (P, K / 2, columns, 2), two
    neighbours in K side by side, with K rounded up to DEPTH. Zeros after N, and after K."""

    panels: Array
    scales: None            # as Quantized has
    outputs: int            # N
    inputs: int             # K

    @property
    def form(self) -> str:
        return "float32" if self.panels.dtype == np.float32 else "bfloat16"


def panels_of(matrix: Array, columns: int, buffer: Array | None = None) -> Panels:
    """A matrix (K, N), float32 or bits of bfloat16, in panels of so many columns. buffer: where they go."""
    K, N = matrix.shape
    shape = shape_of((K, N), matrix.dtype, columns)
    panels = np.empty(shape, matrix.dtype) if buffer is None else buffer.reshape(shape)
    panels[-1:] = 0
    for p in range(len(panels)):
        part = matrix[:, p * columns:(p + 1) * columns]
        if matrix.dtype == np.uint16:                                       # (K, n) -> (K / 2, n, 2)
            panels[p, K // 2:] = 0
            panels[p, :(K + 1) // 2, :part.shape[1], 0] = part[::2]
            panels[p, :K // 2, :part.shape[1], 1] = part[1::2]
        else:
            panels[p, :, :part.shape[1]] = part
    return Panels(panels, None, N, K)


def shape_of(matrix: tuple[int, int], dtype: np.dtype, columns: int) -> tuple[int, ...]:
    """Of the panels of a matrix of shape (K, N)."""
    K, N = matrix
    P = -(-N // columns)
    return (P, K, columns) if dtype != np.uint16 else (P, -(-K // DEPTH) * DEPTH // 2, columns, 2)


def all_in_panels(matrices: dict[str, np.ndarray], ops: Ops) -> dict[str, Panels]:
    """Matrices of one dtype in panels."""
    dtype = next(iter(matrices.values())).dtype
    columns = ops.panel_columns("bfloat16" if dtype == np.uint16 else "float32")
    sizes = [math.prod(shape_of(matrix.shape, dtype, columns)) for matrix in matrices.values()]
    return {name: panels_of(matrix, columns, piece)
            for (name, matrix), piece in zip(matrices.items(), aligned_pieces(sizes, dtype))}


def aligned_pieces(sizes: list[int], dtype: Any) -> list[np.ndarray]:
    """Arrays of so many numbers each, in one piece of memory, which the system maps by large pages where it is large.
    It begins where a line of the caches does, and so do panels, of whole vectors: none of those is in two lines."""
    memory = np.empty(sum(sizes) + LINE, dtype)
    first = -memory.ctypes.data % LINE // memory.itemsize
    return np.split(memory[first:first + sum(sizes)], np.cumsum(sizes)[:-1])


def columns_of(weight: Panels, columns: slice | Array = slice(None)) -> Array:
    """Some columns (K, n) of the matrix, or all of it."""
    wanted = np.arange(weight.outputs)[columns]
    panel, lane = np.divmod(wanted, weight.panels.shape[2])
    if weight.form == "float32":
        return np.ascontiguousarray(weight.panels[panel, :, lane].T)        # (n, K) -> (K, n)
    bits = weight.panels[panel, :, lane].reshape(len(wanted), -1)           # (n, K / 2, 2) -> (n, K)
    return (np.ascontiguousarray(bits[:, :weight.inputs].T).astype(np.uint32) << 16).view(np.float32)
