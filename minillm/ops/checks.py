"""Checks of an op's inputs: one clear ValueError that names the argument, what was expected and what came."""
import math

import numpy as np


def check_shape(name, array, expected):
    """Raise unless the array has this shape: a tuple of sizes, None where any size will do, e.g. (None, 768)."""
    if not hasattr(array, "shape"):
        raise ValueError(f"{name} must be an array: got {type(array).__name__}")
    shape = array.shape
    if len(shape) != len(expected) or any(e is not None and e != s for e, s in zip(expected, shape)):
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
        raise ValueError(f"{name} must have shape {wanted}: got {shape}")


def check_dtype(name, array, dtype):
    """Every float array of a call has one dtype: mixing float32 and float64 is a bug, not a convenience."""
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}: got {array.dtype}")


def check_dout(dout, shape, dtype, name="dout"):
    """The gradient that comes in has the shape and dtype of what went out."""
    check_shape(name, dout, shape)
    check_dtype(name, dout, dtype)


def check_into(name, arrays, shapes, dtype):
    """Raise unless `arrays`, to which a backward adds, is a tuple of these shapes; None where nobody wants a
    gradient."""
    if not isinstance(arrays, tuple) or len(arrays) != len(shapes):
        raise ValueError(f"{name} must be a tuple of {len(shapes)} arrays: got {type(arrays).__name__}")
    for array, shape in zip(arrays, shapes):
        if array is not None:
            check_shape(name, array, shape)
            check_dtype(name, array, dtype)


def added(into, *grads):
    """The gradients themselves; or the arrays of `into`, a tuple, after adding them there."""
    if into is None:
        return grads
    check_into("into", into, [grad.shape for grad in grads], grads[0].dtype)
    for array, grad in zip(into, grads):
        if array is not None:
            array += grad
    return into


def check_float(name, array):
    """The array that decides the dtype of the call must be an array of floats (or complex, for complex step)."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fc":
        raise ValueError(f"{name} must be an array of floats: got {getattr(array, 'dtype', type(array).__name__)}")


def check_rows(name, array):
    """The same for an op that treats its last axis as a row."""
    check_float(name, array)
    if not array.ndim:
        raise ValueError(f"{name} must have at least one axis: got a single number")


def check_ids(name, ids, size, ignore_index=None):
    """Raise unless ids are integers in [0, size), or equal to ignore_index."""
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be an array of integers: got {getattr(ids, 'dtype', type(ids).__name__)}")
    bad = (ids < 0) | (ids >= size)
    if ignore_index is not None:
        bad &= ids != ignore_index
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be in [0, {size}): got {ids[where]} at {where}")


def rows(x):
    """(..., C) -> (N, C): the view in which every leading axis is just 'more rows'."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])           # not -1, which an empty array leaves open
