"""What a gradient is the sum of: how much of an element came from where.

A backward is linear in dout, so each number of dout sends a share of its own, and the shares add up to the gradient:
for dweight[i, j] of a linear layer they are the products x[n, i] * dout[n, j]. Nothing is derived anew here. With one
number of dout at a time (the others zero), the reference's backward gives its shares of all elements. Where dout is
large, one element is moved in the reference's forward instead (complex step), which gives its shares of all numbers;
and where that is dear, too, dout is split by positions. All in float64, from the recorded inputs.
"""
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...kernels.select import OPS
from ...ops.table import REFERENCE
from ...progress import Report
from .numbers import shortest
from .watch import Record

Array = np.ndarray
TOP = 4                         # terms that are shown
FEW = 2                         # of an array that is dear to explain
MANY = 4096                     # numbers that tell whether two arrays are the same
PAGES = 300                     # FLOPs in whose time a number of a large array is made
CALL = 1e5                      # what a call of the reference costs besides its FLOPs, about
STEP = 1e-30                    # of the complex step
WORK = 1e10                     # FLOPs in all, about


def contributors(seen: Record, same: dict[str, str], first: dict[str, Array], room: int,
                 progress: Report | None = None) -> dict[str, dict]:
    """{key of a gradient: {"by", "arrays", "before", "index", "top", "rest"}}; first: the places that matter most.
    room: elements in all, about."""
    inner = within(seen, same)
    wanted = {}
    for call in seen.calls:
        keys = [output["array"] for output in call["outputs"] if "array" in output and call["phase"] == "backward"]
        keys = [key for key in dict.fromkeys(keys) if key not in inner
                and seen.arrays[same.get(key, key)]["kind"] == "gradient"]
        if keys:
            wanted[call["id"]] = keys
    each = share_of([seen.live[key].size for keys in wanted.values() for key in keys], room)
    found: dict[str, dict] = {}
    for number, keys in wanted.items():
        if progress:
            progress(len(found), sum(map(len, wanted.values())), "what gradients are the sum of")
        places = {key: order(seen.live[key], first.get(same.get(key, key)), each) for key in keys}
        explained = explain(seen, seen.calls[number], places, WORK / len(wanted))
        found |= {same.get(key, key): terms for key, terms in explained.items()}
    return found | {outer: found[same.get(key, key)] for outer, key in inner.items() if same.get(key, key) in found}


def within(seen: Record, same: dict[str, str]) -> dict[str, str]:
    """{gradient that a composite op makes: the same as its parts make it, from nearer}, perhaps rounded otherwise."""
    found = {}
    for call in seen.calls:
        parts = [output["array"] for part in seen.calls if part["parent"] == call["id"] for output in part["outputs"]]
        for output in call["outputs"] if call["phase"] == "backward" else ():
            x = seen.live[output["array"]].ravel()
            for key in parts:
                y = seen.live[key].ravel()
                if x.size == y.size and seen.arrays[key]["kind"] == "gradient" and np.allclose(
                        x[:MANY], y[:MANY], rtol=1e-3, atol=1e-6 * float(np.abs(x[:MANY]).max())):
                    found[output["array"]] = key
    return found


def share_of(sizes: list[int], total: int) -> int:
    """The largest number of elements an array may have so that all of them together have `total`."""
    each = max(sizes, default=1)
    while each > FEW and sum(min(size, each) for size in sizes) > total:
        each = each * 9 // 10
    return each


def order(array: Array, first: Array | None, most: int) -> Array:
    """At most so many places of an array, those that matter before the others."""
    if array.size <= most:
        return np.arange(array.size)
    wanted = [] if first is None else [*first]
    return np.sort(np.fromiter(dict.fromkeys([*wanted, *range(most)]), np.int64)[:most])


def explain(seen: Record, call: dict, places: dict[str, Array], work: float) -> dict[str, dict]:
    """The terms of some elements of the gradients that a call makes: {key of a gradient: places} -> {key: terms}."""
    if call["op"] is None:
        step = {"+": of_sum, "@": of_matmul}.get(call["function"])
        return {key: step(seen, call, index) for key, index in places.items()} if step else {}
    names = {output["array"]: output["name"] for output in reversed(call["outputs"])}
    arrays, forward = [put["array"] for put in call["inputs"] if "array" in put], seen.calls[call["partner"]]
    douts = [seen.live[array].astype(np.float64) for array in arrays]
    count, most = sum(dout.size for dout in douts), max(index.size for index in places.values())
    wanted = {names[key]: index for key, index in places.items()}
    if count * max(call["flops"], CALL) <= work and count * most < 5e6:
        by, shares = "element", one_hot(call, forward, douts, wanted)
    else:
        each = len(places) * 4 * max(forward["flops"], CALL)            # to explain one element of every gradient
        few = max(FEW, int(work / each))
        places = {key: index[:few] for key, index in places.items()}
        wanted = {names[key]: index for key, index in places.items()}
        rows = sum(len(dout.reshape(-1, dout.shape[-1])) for dout in douts)
        splitting = rows * (call["flops"] + PAGES * sum(seen.live[key].size for key in places))
        by, shares = (("element", complex_steps(forward, douts, wanted)) if few * each <= max(work, splitting) else
                      ("position", by_position(call, forward, douts, wanted)))
    found = {}
    for key, index in places.items():
        before = seen.arrays[key].get("before")
        found[key] = listed(by, arrays, index, shares[names[key]],
                            before and (before, seen.live[before].ravel()[index]))
    return found


def listed(by: str, arrays: list[str], index: Array, shares: Array, before: Any = None) -> dict:
    """shares (places, elements) as data: of each element the largest terms, and what the others add up to."""
    places = np.arange(len(shares))
    if before:
        places, shares = np.append(places, -1), np.vstack([shares, before[1]])
    sizes = np.abs(shares)
    most = np.argpartition(-sizes, min(TOP, len(sizes)) - 1, axis=0)[:TOP]
    ranked = np.take_along_axis(most, np.argsort(-np.take_along_axis(sizes, most, axis=0), axis=0, kind="stable"), 0)
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


def backward_of(call: dict, forward: dict, wanted: dict[str, Array]) -> Callable[[list], dict[str, Array]]:
    """A function: douts -> the wanted elements of the gradients, by the reference."""
    spec, shapes = OPS[call["op"]], forward["shapes"]
    cache = REFERENCE[forward["function"]](**arguments(forward, np.float64))[1]
    present = [put["name"] for put in call["inputs"]]

    def grads(parts: list[Array]) -> dict[str, Array]:
        given = dict(zip(present, parts))
        outs = [f"d{output['name']}" for output in forward["outputs"]]
        shaped = tuple(given.get(out, np.zeros(1)).reshape(shape) if out in given else None
                       for out, shape in zip(outs, shapes))
        found = REFERENCE[call["function"]](shaped if len(shaped) > 1 else shaped[0], cache)
        found = dict(zip([f"d{name}" for name in spec.differentiable], found if isinstance(found, tuple) else (found,)))
        return {name: found[name].ravel()[index] for name, index in wanted.items()}
    return grads


def shares_of(grads: Callable, wanted: dict[str, Array], parts: Iterator[list[Array]]) -> dict[str, Array]:
    """Each part of dout by itself."""
    rows = [grads(part) for part in parts]
    return {name: np.array([row[name] for row in rows]) for name in wanted}


def one_hot(call: dict, forward: dict, douts: list[Array], wanted: dict[str, Array]) -> dict[str, Array]:
    return shares_of(backward_of(call, forward, wanted), wanted, pieces(douts, [1] * len(douts)))


def by_position(call: dict, forward: dict, douts: list[Array], wanted: dict[str, Array]) -> dict[str, Array]:
    widths = [dout.shape[-1] if dout.ndim > 1 else 1 for dout in douts]
    return shares_of(backward_of(call, forward, wanted), wanted, pieces(douts, widths))


def pieces(douts: list[Array], widths: list[int]) -> Iterator[list[Array]]:
    """So many numbers of one dout at a time, all others zero."""
    for which, (dout, width) in enumerate(zip(douts, widths)):
        for start in range(0, dout.size, width):
            parts = [np.zeros_like(other) for other in douts]
            parts[which].ravel()[start:start + width] = dout.ravel()[start:start + width]
            yield parts


def complex_steps(forward: dict, douts: list[Array], wanted: dict[str, Array]) -> dict[str, Array]:
    given, shares = arguments(forward, np.complex128), {}
    for name, index in wanted.items():
        x, rows = given[name[1:]], []
        for place in index:
            x.flat[place] += 1j * STEP
            out = REFERENCE[forward["function"]](**given)[0]
            x.flat[place] = x.flat[place].real
            slopes = [part.imag.ravel() / STEP for part in (out if isinstance(out, tuple) else (out,))][-len(douts):]
            rows.append(np.concatenate([dout.ravel() * slope for dout, slope in zip(douts, slopes)]))
        shares[name] = np.array(rows).T
    return shares


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
    x, y = call["values"].values()
    flat = np.arange(x.size).reshape(-1, seen.live[array].shape[-1])
    flat = flat if x.flags.c_contiguous and x.shape == flat.shape else flat.T
    rows, cols = np.unravel_index(index, (len(x), y.shape[1]))
    shares = x[rows].astype(np.float64) * y[:, cols].T                          # (elements, k)
    found = listed("element", [array], index, shares.T)
    for row, terms in zip(rows, found["top"]):
        terms[::2] = flat[row, terms[::2]].tolist()                             # as a place in the array
    return found
