"""The arrays of a call as shared memory that the parent owns: inputs in one file, results in another.

Each array has whole pages to itself, and lies at their end or at their beginning, so that one step beyond it on that
side is a guard page of the child. What is left of its pages is filled with a pattern, which must be there after the
call.
"""
import mmap
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .child import PAGE

POISON, PATTERN = 0xFF, 0xA5            # bytes: POISON is a NaN in float32 and float64, so what nobody writes shows


class Region(NamedTuple):
    """Where an array lies: file, first page, and place within its pages."""

    name: str
    written: bool
    offset: int                         # of its pages, in bytes
    pages: int
    inside: int                         # of the array, within its pages
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def asked(self) -> dict[str, Any]:
        """What the child must know to map it."""
        return self._asdict() | {"nbytes": self.nbytes}


class Shared:
    """Two growing files of shared memory: [0] inputs, which the child can only read, [1] results."""

    def __init__(self) -> None:
        self.files = [os.memfd_create("inputs"), os.memfd_create("results")]
        self.maps: list[Any] = [None, None]
        self.used = [0, PAGE]                           # the first page of results is the note of a fault
        self.grow(1, PAGE)
        readable = os.open(f"/proc/self/fd/{self.files[0]}", os.O_RDONLY)
        self.passed = [readable, self.files[1]]         # what the child is given

    def clear(self) -> None:
        self.used = [0, PAGE]

    def grow(self, which: int, size: int) -> None:
        if self.maps[which] is None or len(self.maps[which]) < size:
            os.ftruncate(self.files[which], size)
            self.maps[which] = mmap.mmap(self.files[which], size)

    def place(self, name: str, array: np.ndarray, written: bool, at_end: bool = True) -> Region:
        """Room for an array, and the array in it."""
        pages = max(1, -(-array.nbytes // PAGE))
        region = Region(name, written, self.used[written], pages, (pages * PAGE - array.nbytes) * at_end, array.shape,
                        array.dtype.name)
        self.used[written] += pages * PAGE
        self.grow(written, self.used[written])
        self.bytes(region)[:] = PATTERN
        self.array(region)[...] = array
        return region

    def bytes(self, region: Region) -> np.ndarray:
        """All bytes of its pages."""
        return np.frombuffer(self.maps[region.written], np.uint8, region.pages * PAGE, region.offset)

    def array(self, region: Region) -> np.ndarray:
        count = int(np.prod(region.shape))
        return np.frombuffer(self.maps[region.written], region.dtype, count,
                             region.offset + region.inside).reshape(region.shape)

    def strayed(self, region: Region) -> bool:
        """Did anybody write beside the array, in its own pages?"""
        pages = self.bytes(region)
        return bool((pages[:region.inside] != PATTERN).any()
                    or (pages[region.inside + region.nbytes:] != PATTERN).any())

    def note(self) -> list[int]:
        """[signal, address, 1 if it wrote] of a fault; zeros if there was none."""
        return np.frombuffer(self.maps[1], np.int64, 3).tolist()

    def close(self) -> None:
        for file in (*self.files, self.passed[0]):
            os.close(file)


def poisoned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array that nobody has written: all NaN."""
    return np.frombuffer(bytes([POISON]) * (int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
