"""A large array of zeros that becomes zeros again without a write: its pages go back to the system, which has more.

The gradients of a step are needed from its backward to its update. Filling their buffer with zeros would keep its memory
through the next forward, just when the activations need as much; given back, the same pages serve both in turn. A small
buffer is filled with zeros after all: faulting its pages in again would take longer, and there is little to give.
"""
import mmap

import numpy as np

CAN_DROP = hasattr(mmap, "MADV_DONTNEED") and hasattr(mmap, "MADV_HUGEPAGE")       # Linux: dropped pages read as zeros
SMALL = 64 << 20               # bytes


def zeros(count, dtype):
    """`count` zeros, and a function () -> None that makes them zeros again."""
    if not CAN_DROP or count * np.dtype(dtype).itemsize < SMALL:
        array = np.zeros(count, dtype)
        return array, lambda: array.fill(0)
    pages = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)               # faulted in by 2 MB at a time
    return np.frombuffer(pages, dtype), lambda: pages.madvise(mmap.MADV_DONTNEED)
