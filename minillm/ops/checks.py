"""Checks of an op's inputs: one clear ValueError that names the argument, what was expected and what came."""
import math
from numbers import Integral, Real

import numpy as np

NUMBERS = {int: Integral, float: Real}      # NumPy's scalars, too


def check_number(name, value, fits, wanted, kind=float):
    """Raise unless the value is a number of this kind (int, float) for which fits(value) is true; `wanted` in words."""
    if not isinstance(value, NUMBERS[kind]) or not fits(value):
        raise ValueError(f"{name} must be {wanted}: got {value}")


def is_array(value):
    """Whether it is an array of NumPy's: a matrix multiplies otherwise, a mask is known to no kernel."""
    return isinstance(value, np.ndarray) and not isinstance(value, (np.matrix, np.ma.MaskedArray))


def check_shape(name, array, expected):
    """Raise unless the array has this shape: a tuple of sizes, None where any size will do, e.g. (None, 768)."""
    if not is_array(array):
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


def from_cache(cache, **kinds):
    """What a forward left for its backward, checked: the items of the cache, a tuple, in the order of `kinds`.

    A kind is a type; or an array's shape by letters, each of which is one size throughout: "NV", "...C". Its dtype is
    that of the first array, if no other is named: "N:int", "N:bool". Raises ValueError naming the item.
    """
    if not isinstance(cache, tuple) or len(cache) != len(kinds):
        got = f"{len(cache)} items" if isinstance(cache, tuple) else type(cache).__name__
        raise ValueError(f"cache must be what this op's forward returned ({', '.join(kinds)}): got {got}")
    sizes = {"": (), "1": 1}
    for (name, kind), item in zip(kinds.items(), cache):
        if isinstance(kind, str):
            check_letters(f"cached {name}", item, *kind.partition(":")[::2], sizes)
        elif not isinstance(item, NUMBERS.get(kind, kind)):
            raise ValueError(f"cached {name} must be of type {kind.__name__}: got {type(item).__name__}")
    return cache


def check_letters(name, array, letters, dtype, sizes):
    """Raise unless the array has this dtype and this shape; sizes: of the letters so far, which it adds to."""
    if dtype:
        if not is_array(array) or array.dtype.kind not in {"int": "iu", "bool": "b"}[dtype]:
            raise ValueError(f"{name} must be an array of {dtype}: got {getattr(array, 'dtype', type(array).__name__)}")
    else:
        check_float(name, array)
        first = sizes.setdefault("dtype", array.dtype)
        if array.dtype not in (first, np.zeros(0, first).real.dtype):          # a maximum has no imaginary part
            check_dtype(name, array, first)
    last = letters.removeprefix("...")
    leading = array.shape[:max(0, array.ndim - len(last))]
    found = [(letters.removesuffix(last), leading), *zip(last, array.shape[len(leading):])]
    expected = [sizes.setdefault(letter, size) for letter, size in found]
    if array.ndim < len(last) or [size for _, size in found] != expected:
        raise ValueError(f"{name} must have shape ({letters}), as the rest of the cache: got {array.shape}")


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
    if not is_array(array) or array.dtype.kind not in "fc":
        if hasattr(array, "copy_from"):
            raise ValueError(f"{name} must be an array of NumPy: got one on the device (its numpy() is a copy)")
        raise ValueError(f"{name} must be an array of floats: got {getattr(array, 'dtype', type(array).__name__)}")
    if not array.dtype.isnative:
        raise ValueError(f"{name} must have this machine's order of bytes: got {array.dtype}")


def check_rows(name, array):
    """The same for an op that treats its last axis as a row."""
    check_float(name, array)
    if not array.ndim:
        raise ValueError(f"{name} must have at least one axis: got a single number")


def check_ids(name, ids, size, *ignored):
    """Raise unless ids are integers in [0, size), or equal to `ignored`, an ignore_index if there is one: an integer of
    64 bits, also where there are no ids."""
    for ignore_index in ignored:
        check_number("ignore_index", ignore_index, lambda i: -2 ** 63 <= i < 2 ** 63, "an integer of 64 bits", int)
    if not is_array(ids) or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be an array of integers: got {getattr(ids, 'dtype', type(ids).__name__)}")
    bad = (ids < 0) | (ids >= size)
    for ignore_index in ignored:
        bad &= ids != ignore_index
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be in [0, {size}): got {ids[where]} at {where}")


def rows(x):
    """(..., C) -> (N, C): the view in which every leading axis is just 'more rows'."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])           # not -1, which an empty array leaves open
