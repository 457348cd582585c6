"""What a gradient is the sum of: how much of an element came from where.

A backward is linear in dout, so each number of dout sends a share of its own, and the shares add up to the gradient:
for dweight[i, j] of a linear layer they are the products x[n, i] * dout[n, j]. Nothing is derived anew here. With one
number of dout at a time (the others zero), the reference's backward gives its shares of all elements. Where dout is
large, one element is moved in the reference's forward instead (complex step), which gives its shares of all numbers;
and where that is dear, too, dout is split by positions. All in float64, from the recorded inputs.
"""
from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels.select import OPS, functions
from ...ops.table import REFERENCE
from .numbers import shortest
from .watch import Record

Array = np.ndarray
TOP = 4                         # terms that are shown
ELEMENTS = 8_000                # explained in all, about
FEW = 8                         # of an array that is dear to explain
GROUPS = 32                     # of positions
STEP = 1e-30                    # of the complex step
WORK = 4e9                      # FLOPs in all, about


def contributors(seen: Record, same: dict[str, str], first: dict[str, Array]) -> dict[str, dict]:
    """{key of a gradient: {"by", "arrays", "before", "index", "top", "rest"}}; first: the places that matter most."""
    backs = [call for call in seen.calls if call["phase"] == "backward"]
    made = {output["array"]: call for call in backs for output in call["outputs"] if "array" in output}
    finer = set(same.values())                                          # made within a composite op, too: from nearer
    grads = [key for key in made if key not in finer and seen.arrays[same.get(key, key)]["kind"] == "gradient"]
    each = share_of([seen.live[key].size for key in grads], ELEMENTS)
    found = {}
    for key in grads:
        target = same.get(key, key)
        index = order(seen.live[key], first.get(target), each)
        if explained := explain(seen, made[key], key, index, WORK / len(grads)):
            found[target] = explained
    return found


def share_of(sizes: list[int], total: int) -> int:
    """The largest number of elements an array may have so that all of them together have `total`."""
    each = max(sizes, default=1)
    while each > FEW and sum(min(size, each) for size in sizes) > total:
        each = each * 9 // 10
    return each


def order(array: Array, first: Array | None, most: int) -> Array:
    """At most so many places of an array, those that matter before the others."""
    places = np.arange(array.size)
    if array.size > most:
        wanted = [] if first is None else [*first]
        places = np.fromiter(dict.fromkeys([*wanted, *range(min(array.size, most))]), np.int64)[:most]
    return np.sort(places)


def explain(seen: Record, call: dict, key: str, index: Array, work: float) -> dict | None:
    """The terms of some elements of one gradient."""
    if call["op"] is None:
        return {"+": of_sum, "@": of_matmul}[call["function"]](seen, call, index) if call["function"] in "+@" else None
    name = next(output["name"] for output in call["outputs"] if output["array"] == key)
    forward = seen.calls[call["partner"]]
    names = [put["array"] for put in call["inputs"] if "array" in put]
    douts = [seen.live[array].astype(np.float64) for array in names]
    count = sum(dout.size for dout in douts)
    if count * max(call["flops"], 1000) <= work and count * index.size < 5e6:
        by, shares = "element", one_hot(call, forward, douts, name, index)
    elif FEW * 4 * max(forward["flops"], seen.live[key].size) <= work and key_of(forward, name):
        by, index = "element", index[:FEW]
        shares = complex_steps(forward, douts, name, index)
    else:
        by, index = "position", index[:FEW]
        shares = by_position(call, forward, douts, name, index)
    before = seen.arrays[key].get("before")
    return listed(by, names, index, shares, before and (before, seen.live[before].ravel()[index]))


def listed(by: str, arrays: list[str], index: Array, shares: Array, before: Any = None) -> dict:
    """shares (places, elements) as data: of each element the largest terms, and what the others add up to."""
    places = np.arange(len(shares))
    if before:
        places, shares = np.append(places, -1), np.vstack([shares, before[1]])
    ranked = np.argsort(-np.abs(shares), axis=0, kind="stable")[:TOP]
    largest = np.take_along_axis(shares, ranked, axis=0)
    counts, rest = (shares != 0).sum(axis=0), shares.sum(axis=0) - largest.sum(axis=0)
    top = []
    for ranks, terms in zip(places[ranked].T.tolist(), largest.T.astype(np.float32)):
        top.append([part for pair in zip(ranks, shortest(terms)) for part in pair if pair[1]])
    further = np.maximum(counts - TOP, 0)
    return {"by": by, "arrays": arrays, "index": index, "top": top, **({"before": before[0]} if before else {}),
            "rest": [[n, s] for n, s in zip(further.tolist(), shortest(np.where(further, rest, 0).astype(np.float32)))]}


# ---- shares (places of dout, elements) ----

def arguments(call: dict, dtype: type) -> dict[str, Any]:
    """What a recorded forward was given, in another dtype."""
    return {name: value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
            for name, value in call["values"].items()}


def backward_of(call: dict, forward: dict, name: str) -> Callable[[list], Array]:
    """A function: douts -> the gradient `name`, flat, by the reference."""
    spec, shapes = OPS[call["op"]], forward["shapes"]
    cache = REFERENCE[forward["function"]](**arguments(forward, np.float64))[1]
    place = [f"d{argument}" for argument in spec.differentiable].index(name)

    def grad(parts: list[Array]) -> Array:
        shaped = tuple(part.reshape(shape) for part, shape in zip(padded(parts, call, shapes), shapes))
        found = REFERENCE[functions(spec)[1]](shaped if len(shaped) > 1 else shaped[0], cache)
        return (found[place] if isinstance(found, tuple) else found).ravel()
    return grad


def padded(parts: list[Array], call: dict, shapes: list) -> list[Array]:
    """Zeros for the outputs of a forward that nothing read."""
    given = iter(parts)
    present = [put["name"] for put in call["inputs"]]
    names = present if len(present) == len(shapes) else ["ds", "dout"]
    return [next(given) if name in present else np.zeros(shape) for name, shape in zip(names, shapes)]


def one_hot(call: dict, forward: dict, douts: list[Array], name: str, index: Array) -> Array:
    grad, shares = backward_of(call, forward, name), []
    for which, dout in enumerate(douts):
        for place in range(dout.size):
            parts = [np.zeros_like(other) for other in douts]
            parts[which].flat[place] = dout.flat[place]
            shares.append(grad(parts)[index])
    return np.array(shares)


def by_position(call: dict, forward: dict, douts: list[Array], name: str, index: Array) -> Array:
    """Rows of dout, at most GROUPS of them: the last ones, and all before as one."""
    grad, shares = backward_of(call, forward, name), []
    for which, dout in enumerate(douts):
        width = dout.shape[-1] if dout.ndim > 1 else 1
        rows = dout.size // width
        for row in range(rows):
            parts = [np.zeros_like(other) for other in douts]
            part = slice(row * width, (row + 1) * width)
            parts[which].ravel()[part] = dout.ravel()[part]
            shares.append(grad(parts)[index] if rows <= GROUPS or row >= rows - GROUPS else np.zeros(len(index)))
    return np.array(shares)


def key_of(forward: dict, name: str) -> bool:
    return any(f"d{put['name']}" == name and "array" in put for put in forward["inputs"])


def complex_steps(forward: dict, douts: list[Array], name: str, index: Array) -> Array:
    given, shares = arguments(forward, np.complex128), []
    x = given[name[1:]]
    for place in index:
        x.flat[place] += 1j * STEP
        out = REFERENCE[forward["function"]](**given)[0]
        slopes = [part.imag.ravel() / STEP for part in (out if isinstance(out, tuple) else (out,))]
        x.flat[place] = x.flat[place].real
        slopes = slopes[-len(douts):]
        shares.append(np.concatenate([dout.ravel() * slope for dout, slope in zip(douts, slopes)]))
    return np.array(shares).T


# ---- steps that are no ops ----

def of_sum(seen: Record, call: dict, index: Array) -> dict:
    """x + y: two terms."""
    arrays = [put["array"] for put in call["inputs"]]
    size, (x, y) = seen.live[arrays[0]].size, (seen.live[array].ravel()[index] for array in arrays)
    top = [[int(place), a, int(place) + size, b] for place, a, b in zip(index, shortest(x), shortest(y))]
    return {"by": "element", "arrays": arrays, "index": index, "top": top, "rest": [[0, 0.0]] * len(top)}


def of_matmul(seen: Record, call: dict, index: Array) -> dict:
    """x @ y: the products x[n, k] * y[k, m], by the elements of x."""
    array = call["inputs"][0]["array"]
    flat = np.arange(call["values"]["x"].size).reshape(seen.live[array].reshape(-1, seen.live[array].shape[-1]).shape)
    flat = flat if call["values"]["x"].flags.c_contiguous else flat.T
    x, y = (operand.astype(np.float64) for operand in call["values"].values())
    rows, cols = np.unravel_index(index, (len(x), y.shape[1]))
    shares = x[rows] * y[:, cols].T                                             # (elements, k)
    found = listed("element", [array], index, shares.T)
    for row, terms in zip(rows, found["top"]):
        terms[::2] = flat[row, terms[::2]].tolist()                             # as a place in the array
    return found
