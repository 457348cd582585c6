"""Ops on arrays of the device: the one place of the benchmarks that knows how they come and go."""
import numpy as np

from .gpu_runner import NotBuilt


def to_device(module, value):
    """Every NumPy array in it as an array of the device; other things stay."""
    if not hasattr(module, "DeviceArray"):
        raise NotBuilt("the extension has no arrays on the device")
    return each(lambda array: module.from_numpy(array) if isinstance(array, np.ndarray) else array, value)


def to_host(value):
    """The way back."""
    return each(lambda array: array.numpy() if hasattr(array, "numpy") else array, value)


def each(change, value):
    if isinstance(value, dict):
        return {name: each(change, part) for name, part in value.items()}
    return tuple(each(change, part) for part in value) if isinstance(value, tuple) else change(value)


def use_stream(module, driver):
    """The driver's events are recorded where ops are launched: on the default stream."""
    driver.stream = 0
