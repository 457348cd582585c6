"""A gradient buffer whose pages return to the arena: cleared without a write, and its memory lent meanwhile.

The gradients of a step are needed from its backward to its update. Filling their buffer with zeros would keep its
memory through the next forward, just when the activations need as much. So a cleared buffer has no memory: its pages go
to the arena that the kernels' results come from (csrc/memory.h), and come back from there piece by piece, as the
backward drops activations and asks for the gradients that it will add to (Gradients of models/params.py). The same
pages serve both in turn, and the system has nothing to do with it. Without compiled kernels they go back to the system,
which has zeros for whoever writes next.

A small buffer is filled with zeros after all: there is little to lend.
"""
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import select as kernels

CAN_DROP = hasattr(mmap, "MADV_DONTNEED") and hasattr(mmap, "MADV_HUGEPAGE")       # Linux: dropped pages read as zeros
SMALL = 64 << 20               # bytes


class Zeros:
    """`flat`: an array of `count` zeros to write into; `clear()` makes them zeros again."""

    def __init__(self, count: int, dtype: DTypeLike):
        size = count * np.dtype(dtype).itemsize
        self.pages: mmap.mmap | None = None
        self.lender: Any = None
        if CAN_DROP and size >= SMALL:
            self.pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.pages.madvise(mmap.MADV_HUGEPAGE)                                 # faulted in by 2 MB at a time
        self.flat = np.zeros(count, dtype) if self.pages is None else np.frombuffer(self.pages, dtype)

    def clear(self) -> None:
        if self.pages is None:
            self.flat.fill(0)
        elif core := kernels._cpp:
            self.lender = self.lender or core.lend(self.flat)
            core.clear_lent(self.lender)
        else:
            self.pages.madvise(mmap.MADV_DONTNEED)

    def expect(self, begin: int, end: int) -> None:
        """flat[begin:end] will be written now. Not to say so costs new pages from the system, nothing else."""
        if self.lender and kernels._cpp:
            kernels._cpp.expect_lent(self.lender, begin * self.flat.itemsize, end * self.flat.itemsize)
