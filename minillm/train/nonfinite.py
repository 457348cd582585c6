"""Where did the NaN come from? Run one batch again with every op watched, and name the first that gave one.

The ops a model runs on are a plain namespace, so watching them needs no hooks: wrap each function, check what it
returns, and raise at the first number that is not finite. The parameters an op was given say which layer it is.
"""
import numpy as np

from ..kernels.select import OPS, Ops, functions


class NonFiniteError(FloatingPointError):
    """A NaN or infinity appeared; the message says in which op, which of its results, and where in the model."""


def find_nonfinite(model, batches, key):
    """Rerun forward and backward on [(tokens, targets), ...], or with lengths (see GPT.losses), and raise NonFiniteError
    at the first bad number."""
    for name, view in model.params.items():
        if not np.isfinite(view).all():
            raise NonFiniteError(f"{count_bad(view)} in parameter {name} itself, before any op")
    watched = type(model)(model.config, ops=watch(model.ops, model.params), params=model.params)
    for micro, (tokens, targets, *lengths) in enumerate(batches):
        watched.loss_and_grads(tokens, targets, -1, (*key, micro) if key else None, None, None, *lengths)


def watch(ops, params):
    """The same namespace, in which every pair checks its results and knows the layer it works for."""
    names = {id(view): name for kept in (params, params.bits) if kept for name, view in kept.items()}
    place = {"layer": "the embedding"}             # what the last op that had parameters belonged to
    labels = {}                                    # id of a cache -> where it was made; the backward looks it up
    wrapped = {}
    for spec in OPS.values():
        if spec.kind != "pair":
            continue
        forward, backward = functions(spec)
        wrapped[forward] = watched_forward(getattr(ops, forward), forward, names, place, labels)
        wrapped[backward] = watched_backward(getattr(ops, backward), backward, labels)
    return Ops(**{**ops._asdict(), **wrapped})


def watched_forward(function, name, names, place, labels):
    def forward(*args):
        known = [names[id(arg)] for arg in args if id(arg) in names]
        if known:
            place["layer"] = known[0].removesuffix(".weight")
        out, cache = function(*args)
        where = place["layer"] if known else f"after {place['layer']}"
        labels[id(cache)] = where
        check_finite(name, "its output", out, where)
        return out, cache
    return forward


def watched_backward(function, name, labels):
    def backward(dout, cache, **into):
        where = labels.get(id(cache), "an unknown layer")
        check_finite(name, "the gradient it was given", dout, where)
        grads = function(dout, cache, **into)
        for i, grad in enumerate(grads if isinstance(grads, tuple) else (grads,)):
            check_finite(name, f"gradient {i} of its results", grad, where)
        return grads
    return backward


def check_finite(op, what, array, where):
    """array: one, or a tuple of an op with several outputs; None (a gradient that is not there) is fine."""
    if isinstance(array, tuple):
        for i, part in enumerate(array):
            check_finite(op, f"{what} (number {i})", part, where)
    elif array is not None and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(f"{op}: {count_bad(array)} in {what}, first at {index}, in {where}")


def count_bad(array):
    nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    return f"{nan} NaN and {inf} infinite of {array.size} numbers"
