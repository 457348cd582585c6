"""Finite differences of the loss, beside the gradients: the same step run again in float64, one number moved at a time.

A parameter is moved in a copy of the model; an activation where it is made, by an op that returns it changed (or takes
it changed, where no op made it). The derivative and its error bar are those of gradcheck/measure.py.
"""
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...gradcheck.measure import EPS, Line, Scalar, measure
from ...kernels.select import OPS, Ops, functions, select
from ...models.packing import Batch
from ...ops.table import REFERENCE
from ...progress import Report
from .numbers import rounded
from .watch import Record

Array = np.ndarray
LIMITS = (0.0, 2.0 ** -18, 0.0)         # of the steps: the smallest one, in sizes of the array; the rest is unused
SMALL = 32                              # numbers of an array that is measured as a whole
SOME = 16                               # elements of a larger one
WORK = 5e10                             # FLOPs in all, about, which is a few seconds
LEAST = 4                               # derivatives, whatever they cost
CALL = 2e6                              # what a forward costs besides its FLOPs
RUNS = 25                               # forwards for a derivative, about


class Place(NamedTuple):
    """Where an activation is: which call of the forward (within which composite op), an output or an input of it."""

    top: int
    inner: int | None
    slot: int
    given: bool = False


def differences(model: Any, seen: Record, same: dict[str, str], shown: dict[str, Array], batch: Batch, key: tuple,
                progress: Report | None = None) -> dict[str, dict]:
    """{key of a gradient: {"index", "values", "bars"}}; shown: the places that can be looked at, of each array."""
    ops = select({"attention": "numpy"})            # a few rows: the compiled one would wait for its threads
    model = model.on(ops, model.params.astype(np.float64))
    wanted, found = choose(seen, same, shown), dict[str, dict]()
    for done, (grad, places) in enumerate(wanted.items()):
        if progress:
            progress(done, len(wanted), "finite differences")
        of = seen.owner(grad) or ""
        of = same.get(of, of)
        if seen.arrays[of]["kind"] == "parameter":
            scalar = of_parameter(model, seen.arrays[of]["name"], batch, key)
        elif (place := place_of(seen, same, of)) is not None:
            scalar = of_activation(model, place, batch, key)
        else:
            continue
        found[grad] = measured(scalar, seen.live[grad].ravel(), places)
    return found


def choose(seen: Record, same: dict[str, str], shown: dict[str, Array]) -> dict[str, Array]:
    """Which elements of which gradients: all of the small ones, of others the largest and some spread over the rest."""
    grads = [grad for grad in seen.arrays if grad not in same and (of := seen.owner(grad))
             and seen.arrays[of].get("gradient") == grad]
    forward = sum(call["flops"] for call in seen.calls if call["phase"] == "forward" and call.get("flops"))
    affordable = max(LEAST, int(WORK / RUNS / (CALL + forward)))
    grads = grads[::-(-len(grads) // affordable)]                       # some of them, if there is no time for all
    each = max(1, min(SOME, affordable // len(grads)))
    small = SMALL if each == SOME else each
    return {grad: shown[grad][some_of(seen.live[grad].ravel()[shown[grad]], small, each)] for grad in grads}


def some_of(values: Array, small: int, count: int) -> Array:
    """Places of up to `count` numbers, of all where there are no more than `small`."""
    if values.size <= small:
        return np.arange(values.size)
    largest = np.argpartition(-np.abs(values), count - count // 2)[:count - count // 2]
    spread = np.linspace(0, values.size - 1, count // 2 + 2).astype(int)[1:-1]
    return np.unique(np.concatenate([largest, spread]))


def measured(scalar: Scalar, grads: Array, places: Array) -> dict:
    """The derivatives at some places, with their error bars."""
    scale = max(float(np.sqrt(np.square(scalar.inputs["x"]).mean())), 1e-2)
    values, bars = [], []
    for place in places:
        line = Line(scalar, "x", np.array([place]), np.ones(1), grads[[place]].astype(np.float64))
        result = measure(line, scale, LIMITS, scale)
        values.append(rounded(line.slope + result.residual))
        bars.append(rounded(result.bar, 2))
    return {"index": places, "values": values, "bars": bars}


def of_parameter(model: Any, name: str, batch: Batch, key: tuple) -> Scalar:
    view = model.params[name]
    before = view.copy()

    def losses(x: Array) -> tuple:
        view[...] = x
        found = model.losses(batch.tokens, batch.targets, key=key)[0]
        view[...] = before
        return (found,)
    return Scalar(losses, {"x": before}, mean_of(batch), EPS)


def of_activation(model: Any, place: Place, batch: Batch, key: tuple) -> Scalar:
    box: list[Array] = []                   # the array as it is, then as it is to be

    def losses(x: Array) -> tuple:
        box[:] = [x]
        return (model.on(changed(model.ops, place, box)).losses(batch.tokens, batch.targets, key=key)[0],)
    model.on(changed(model.ops, place, box)).losses(batch.tokens, batch.targets, key=key)
    return Scalar(losses, {"x": box[0].copy()}, mean_of(batch), EPS)


def mean_of(batch: Batch) -> Array:
    return np.full(batch.targets.size, 1 / batch.learned)


def place_of(seen: Record, same: dict[str, str], array: str) -> Place | None:
    """Where the forward makes an array; else where a single call reads it; else None."""
    forwards = [call for call in seen.calls if call["phase"] == "forward" and call["op"]]
    tops = [call["id"] for call in forwards if call["parent"] is None]

    def at(call: dict, slot: int, given: bool) -> Place:
        if call["parent"] is None:
            return Place(tops.index(call["id"]), None, slot, given)
        inner = [other["id"] for other in forwards if other["parent"] == call["parent"]]
        return Place(tops.index(call["parent"]), inner.index(call["id"]), slot, given)
    made = seen.arrays[array]["made_by"]
    for call in forwards:
        if call["id"] == made:
            return at(call, [output["array"] for output in call["outputs"]].index(array), False)
    reading = [(call, slot) for call in forwards for slot, put in enumerate(call["inputs"])
               if put.get("array") == array]
    return at(*reading[0], True) if len(reading) == 1 else None


def changed(ops: Ops, place: Place, box: list[Array]) -> Ops:
    """The namespace in which the array at `place` is box[0]; an empty box gets what it is."""
    numbers: Iterator[int] = count()
    within = changed(ops, Place(place.inner, None, *place[2:]), box) if place.inner is not None else None

    def forward(name: str) -> Callable:
        function = getattr(ops, name)

        def call(*args: Any) -> Any:
            if next(numbers) != place.top:
                return function(*args)
            if within:
                return REFERENCE[name](*args, ops=SimpleNamespace(**within._asdict()))
            if place.given:
                box[:] = box or [args[place.slot]]
                return function(*args[:place.slot], box[0], *args[place.slot + 1:])
            out, cache = function(*args)
            parts = [*out] if isinstance(out, tuple) else [out]
            box[:] = box or [parts[place.slot]]
            parts[place.slot] = box[0]
            return (tuple(parts) if len(parts) > 1 else parts[0]), cache
        return call
    pairs = [functions(spec)[0] for spec in OPS.values() if spec.kind == "pair"]
    return ops._replace(**{name: forward(name) for name in pairs})
