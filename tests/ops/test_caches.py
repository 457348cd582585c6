"""A backward trusts nothing of its cache: whatever stands in the places of what its forward left, there is a result or
one ValueError that names it, on every backend; never a crash, and no number from outside of an array.
"""
import re

import numpy as np
import pytest
from cases import USUAL, cases, each, pair, sample, strided
from tolerances import assert_same_bits

from minillm.ops.table import OPS, Dims

NO_CACHES = [None, (), [], "cache", 3, np.ones((2, 3), "float32"), {}, (None,), ("x", "weight"), (1.5,) * 9,
             (np.ones(3, "float32"),) * 3]
NO_ITEMS = [None, "text", object(), [], {}, np.array("text"), np.array(None)]
NUMBERS = [-1, 0, 3, 2 ** 31, 2 ** 62, 2 ** 64, 10 ** 30, 1.5, float("nan"), float("inf"), 1j, (), (1,),
           (-1, 2 ** 70, 1), ("a", 1, None), "float64", np.dtype("float64"), np.float32(2)]
ARRAYS = {
    "no axis": lambda a: np.resize(a, ()), "nothing": lambda a: a.reshape(-1)[:0], "no rows": lambda a: a[:0],
    "empty rows": lambda a: a[..., :0].copy(), "one more axis": lambda a: a[None], "columns": lambda a: a[..., None],
    "flat": lambda a: a.reshape(-1), "shorter": lambda a: a[:-1].copy(), "twice": lambda a: np.concatenate([a, a]),
    "narrower": lambda a: a[..., :-1].copy(), "wider": lambda a: np.concatenate([a, a], -1),
    "gaps": strided, "backwards": lambda a: a[::-1],
    "one number for all": lambda a: np.broadcast_to(np.resize(a, ()), a.shape),
    "other bytes first": lambda a: a.astype(a.dtype.newbyteorder()),
    "between addresses": lambda a: np.frombuffer(bytearray(1) + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    **{dtype: lambda a, dtype=dtype: a.astype(dtype) for dtype in (
        "float16", "float32", "float64", "complex64", "int8", "int64", "uint16", "uint64", "bool", "object", "str")},
    "huge": lambda a: np.full_like(a, np.finfo(a.dtype).max if a.dtype.kind == "f" else 1 if a.dtype.kind == "b"
                                   else np.iinfo(a.dtype).max),
    "lowest": lambda a: np.full_like(a, -np.inf if a.dtype.kind == "f" else 0 if a.dtype.kind == "b"
                                     else np.iinfo(a.dtype).min),
}
SHAPES = ("no axis", "one more axis", "columns", "object", "str")       # that no array of a cache may have instead
every_pair = pytest.mark.parametrize("op, backend, dtype", cases())


def left(op, backend, dtype, dims=USUAL):
    """(backward, a dout, what the forward left)."""
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype, dims))
    dout = each(np.ones_like, out)
    backward(dout, cache)
    return backward, dout, cache


def refused(backward, dout, cache):
    """Call it: was it refused? If so, in words that name an item of the cache, or what does not fit to it."""
    try:
        with np.errstate(all="ignore"):
            backward(dout, cache)
    except ValueError as error:
        assert re.search(r"\b(cache|cached|dout|dsum|douts)\b", str(error)) or named(error), str(error)
        return True
    return False


def named(error):
    names = {name for spec in OPS.values() for name in sample(spec.name, "float32")} | {"block_size", "out", "lse"}
    return re.match(rf"({'|'.join(names)})\b", str(error))


def places(cache):
    """The ways to each item of a cache, which may hold caches of other ops."""
    for i, item in enumerate(cache):
        yield (i,)
        if isinstance(item, tuple) and item and isinstance(item[0], np.ndarray):
            yield from ((i, *rest) for rest in places(item))


def at(cache, way):
    return at(cache[way[0]], way[1:]) if way else cache


def replaced(cache, way, item):
    if not way:
        return item
    return (*cache[:way[0]], replaced(cache[way[0]], way[1:], item), *cache[way[0] + 1:])


@every_pair
def test_no_cache(op, backend, dtype):
    backward, dout, cache = left(op, backend, dtype)
    turned = [cache[::-1]] if len({getattr(a, "shape", None) for a in cache}) > 1 else []
    for wrong in [*NO_CACHES, list(cache), cache[:-1], cache[1:], *turned, (*cache, None)]:
        longer = isinstance(wrong, tuple) and len(wrong) > len(cache) and backend != "numpy"  # kernels read the first
        assert refused(backward, dout, wrong) or longer or len(cache) == 1, wrong


@every_pair
def test_any_item(op, backend, dtype):
    backward, dout, cache = left(op, backend, dtype)
    for way in places(cache):
        for wrong in NO_ITEMS:
            assert refused(backward, dout, replaced(cache, way, wrong)), (way, wrong)
        for number in NUMBERS:
            refused(backward, dout, replaced(cache, way, number))


@every_pair
def test_any_array(op, backend, dtype):
    """Some changes leave a cache that a forward could have left; the others are refused."""
    backward, dout, cache = left(op, backend, dtype)
    for way in places(cache):
        if isinstance(at(cache, way), np.ndarray):
            for label, change in ARRAYS.items():
                was_refused = refused(backward, dout, replaced(cache, way, change(at(cache, way))))
                assert was_refused or label not in SHAPES, (way, label)


@every_pair
def test_items_of_another_call(op, backend, dtype):
    backward, dout, cache = left(op, backend, dtype)
    for dims in (Dims(B=3), Dims(T=4), Dims(C=10), Dims(NH=4), Dims(V=7), Dims(B=1, T=10)):
        other = left(op, backend, dtype, dims)[2]
        for way in places(cache):
            refused(backward, dout, replaced(cache, way, at(other, way)))


@every_pair
def test_the_cache_of_another_op(op, backend, dtype):
    backward, dout, _ = left(op, backend, dtype)
    for other in OPS:
        if other != op and OPS[other].kind == "pair":
            refused(backward, dout, left(other, "numpy", dtype)[2])


@pytest.mark.parametrize("op, backend, dtype", [
    case for case in cases() if {"targets", "tokens"} & sample(case.values[0], "float32").keys()])
def test_ids_are_the_caches_own_and_checked_again(op, backend, dtype):
    """Compiled ops copy them: whoever writes to his array changes no gradient. In the cache they are not trusted."""
    args = sample(op, dtype)
    ids = args["tokens" if "tokens" in args else "targets"]
    ids[...] = ids.astype("int64")
    forward, backward = pair(op, backend)
    out, cache = forward(**args)
    dout = each(np.ones_like, out)
    want = backward(dout, cache)
    for way in places(cache):
        item = at(cache, way)
        if isinstance(item, np.ndarray) and item.dtype.kind in "iu" and item.shape == ids.shape:
            for wrong in (10 ** 6, -2, 2 ** 62, -2 ** 62):
                changed = item.copy()
                changed[...] = wrong
                assert refused(backward, dout, replaced(cache, way, changed)), wrong
    if backend != "numpy":
        ids[...] = 10 ** 12
        assert_same_bits(backward(dout, cache), want)
