"""Where did the NaN come from? Run one batch again with every op watched, and name the first that gave one.

The ops a model runs on are a plain namespace, so watching them needs no hooks: wrap each function, check what it
returns, and raise at the first number that is not finite. The parameters an op is given know their names, which say
what layer it is; the backward learns it from the cache.
"""
from collections import namedtuple
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..kernels.select import OPS, Ops, functions
from ..models.packing import Batch


class NonFiniteError(FloatingPointError):
    """A NaN or infinity appeared; the message says in which op, which of its results, and where in the model."""


class DivergenceError(FloatingPointError):
    """Loss or gradient norm are finite, but beyond all that training recovers from."""


Located = namedtuple("Located", "where cache")        # the cache of an op, and the layer that the op worked for


class Named(np.ndarray):
    """A view of a parameter that knows its name."""

    name: str

    def __new__(cls, name: str, array: Any) -> "Named":
        view = array.view(cls)
        view.name = name
        return view

    def __array_finalize__(self, other: Any) -> None:
        """What is computed from it keeps its name: the 1 + w of Gemma's norms."""
        self.name = getattr(other, "name", "")


def find_nonfinite(model: Any, batches: Iterable[Batch], key: tuple[int, int] | None) -> Any:
    """Rerun forward and backward on a list of Batch, and raise NonFiniteError at the first bad number."""
    for name, view in model.params.items():
        if not np.isfinite(view).all():
            raise NonFiniteError(f"{count_bad(view)} in parameter {name} itself, before any op")
    base = getattr(model, "base", model)                        # adapters run on the layers of their base
    watched = model.on(watch(model.ops), {name: Named(name, view) for name, view in base.params.items()})
    for micro, batch in enumerate(batches):
        watched.loss_and_grads(batch.tokens, batch.targets, key=(*key, micro) if key else None,
                               grads=model.params.zeros_like(), lengths=batch.lengths)


def watch(ops: Ops) -> Ops:
    """The same namespace, in which every pair checks its results and knows the layer it works for."""
    last = ["the embedding"]                                    # the layer of the last op that had parameters
    wrapped = {}
    for forward, backward in (functions(spec) for spec in OPS.values() if spec.kind == "pair"):
        wrapped[forward] = watched_forward(getattr(ops, forward), forward, last)
        wrapped[backward] = watched_backward(getattr(ops, backward), backward)
    return ops._replace(**wrapped)


def watched_forward(function: Callable, op: str, last: Any) -> Callable:
    def forward(*args: Any) -> Any:
        layers = [arg.name.removesuffix(".weight") for arg in args if isinstance(arg, Named)]
        last[:] = layers[:1] or last
        where = last[0] if layers else f"after {last[0]}"
        out, cache = function(*(np.asarray(arg) if isinstance(arg, Named) else arg for arg in args))
        check_finite(op, "its output", out, where)
        return out, Located(where, cache)
    return forward


def watched_backward(function: Callable, op: str) -> Callable:
    def backward(dout: Any, located: Any, **into: Any) -> Any:
        check_finite(op, "the gradient it was given", dout, located.where)
        grads = function(dout, located.cache, **into)
        for i, grad in enumerate(grads if isinstance(grads, tuple) else (grads,)):
            check_finite(op, f"gradient {i} of its results", grad, located.where)
        return grads
    return backward


def check_finite(op: str, what: str, array: Any, where: str) -> None:
    """array: one, or a tuple of an op with several outputs; None (a gradient that is not there) is fine."""
    if isinstance(array, tuple):
        for i, part in enumerate(array):
            check_finite(op, f"{what} (number {i})", part, where)
    elif array is not None and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(f"{op}: {count_bad(array)} in {what}, first at {index}, in {where}")


def count_bad(array: np.ndarray) -> str:
    nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    return f"{nan} NaN and {inf} infinite of {array.size} numbers"
