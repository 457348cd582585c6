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


class Matrix(NamedTuple):
    """What is to lie in panels: float32 or bits of bfloat16 (K, N); or (N, K), if transposed."""

    numbers: Array
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        K, N = self.numbers.shape
        return (N, K) if self.transposed else (K, N)


def all_in_panels(matrices: dict[str, Matrix], form: str, ops: Ops) -> dict[str, Panels]:
    """Matrices in panels of this form, which holds their numbers exactly."""
    shapes = {name: panels_shape(matrix.shape, form, ops.panel_columns(form)) for name, matrix in matrices.items()}
    dtype, found = np.float32 if form == "float32" else np.uint16, {}
    for (name, matrix), piece in zip(matrices.items(), aligned_pieces(list(map(math.prod, shapes.values())), dtype)):
        panels = piece.reshape(shapes[name])
        ops.fill_panels(*matrix, panels)
        found[name] = Panels(panels, None, *matrix.shape[::-1])
    return found


def panels_shape(matrix: tuple[int, int], form: str, columns: int) -> tuple[int, ...]:
    """Of the panels of a matrix of shape (K, N)."""
    K, N = matrix
    P = -(-N // columns)
    return (P, K, columns) if form == "float32" else (P, -(-K // DEPTH) * DEPTH // 2, columns, 2)


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
