"""Memory of a device: which module it belongs to, arrays on either side, and steps that are recorded and replayed.

A device is the extension of "cuda" or, on the emulator, of "cudasim"; None stands for NumPy's memory. Its DeviceArray
(csrc/python/device_array.cpp) is what ops of that backend take and give without a copy. Nothing goes from one side to
the other but by `from_numpy`, `numpy()` and `copy_from`, or by the functions here that say so.
"""
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..ops.table import OPS
from . import select as kernels

Array = np.ndarray


def device_of(backend: str) -> Any:
    """The module in whose memory models of this backend live: of "cuda", "cudasim" and their variants; else None."""
    name = backend.partition("/")[0]
    return kernels.cuda(name) if name in ("cuda", "cudasim") else None


def missing(backend: str, ops: Sequence[str]) -> list[str]:
    """Those of the ops that the table has no kernel of this backend for."""
    return [op for op in ops if backend not in OPS[op].kernels]


def on_host(x: Any) -> Array:
    """An array for NumPy: x itself, or a copy of one on a device, which is waited for."""
    return x if isinstance(x, np.ndarray) else x.numpy()


def full_like(x: Any, value: float) -> Any:
    """An array of one number, with the shape and the dtype of x, on its side."""
    if isinstance(x, np.ndarray):
        return np.full(x.shape, value, x.dtype)
    full = sys.modules[type(x).__module__].zeros(x.shape, x.dtype)
    full.fill(value)
    return full


def write(x: Any, array: Any) -> None:
    """Into x, on either side, the numbers of an array of NumPy's or of x's own side."""
    if isinstance(x, np.ndarray):
        x[...] = array
    else:
        x.copy_from(array)


def side_of(x: Any) -> str:
    """"NumPy" or "the device", for messages; "" if it is no array."""
    return "NumPy" if isinstance(x, np.ndarray) else "the device" if hasattr(x, "copy_from") else ""


class DeviceZeros:
    """As Zeros of arrays.py: `flat`, an array of zeros on a device, and `clear()`. Its memory is never lent."""

    lender = None

    def __init__(self, count: int, dtype: DTypeLike, device: Any):
        self.flat = device.zeros(count, dtype)
        self.clear = self.flat.clear


class Replay:
    """A function of device arrays, called with NumPy's: in the second call its launches are recorded, and replayed then
    and from then on (on a GPU, as a CUDA graph: one launch for all of them).

    The function must do the same work each time, on arrays of the same shapes and of memory that it does not give back,
    and neither copy to or from the host nor wait. Its first call is an ordinary one, which leaves the memory to the
    arena that the recorded one takes. What it returns holds until any recording is replayed again.
    """

    def __init__(self, device: Any, function: Callable):
        self.device, self.function = device, function
        self.inputs: list[Any] = []
        self.recording: Any = None
        self.result: Any = None

    def __call__(self, *arrays: Array) -> Any:
        if not self.inputs:
            self.inputs = [self.device.from_numpy(array) for array in arrays]
            return self.function(*self.inputs)
        for mine, array in zip(self.inputs, arrays, strict=True):
            mine.copy_from(array)
        if self.recording is None:
            self.record()
        self.recording.replay()
        return self.result

    def record(self) -> None:
        self.device.begin_recording()
        try:
            self.result = self.function(*self.inputs)
            self.recording = self.device.end_recording()
        finally:
            if self.recording is None:
                self.device.give_up_recording()
