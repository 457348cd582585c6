"""Gradient checkers, ours and others', each with its default settings, on one Pair of NumPy functions.

A checker is called with a Pair and returns None, or in a line what it complains about; any exception is a complaint.
The others get the pair as their own kind of function: `torch.autograd.Function`, or `jax.custom_vjp` over
`jax.pure_callback`, in float64.
"""
import logging
import signal
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from minillm.gradcheck import gradcheck

from .planted_any import as_tuple, each

SECONDS, BYTES = 20, 1e9            # of the CPU, and of memory: a check that needs more has not found anything


def minillm(pair):
    gradcheck(pair.forward, pair.backward, pair.inputs, wrt=pair.names, verbose=False)


def torch(pair):
    """torch.autograd.gradcheck, which compares whole Jacobians."""
    import torch
    outs = pair.forward(*fresh(pair).values())[0]
    jacobian = 2 * 8 * sum(pair.inputs[name].size for name in pair.names) * sum(out.size for out in as_tuple(outs))
    if jacobian > BYTES:
        raise MemoryError(f"its Jacobians need {jacobian / 1e9:.0f} GB")

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arrays):
            out, ctx.kept = pair.forward(*filled(pair, [array.numpy() for array in arrays]))
            return each(torch.from_numpy, out)

        @staticmethod
        def backward(ctx, *douts):
            douts = tuple(dout.numpy() for dout in douts)
            grads = pair.backward(douts if len(douts) > 1 else douts[0], ctx.kept)
            return each(torch.from_numpy, grads)

    leaves = [torch.from_numpy(x.copy()).requires_grad_() for name, x in pair.inputs.items() if name in pair.names]
    torch.autograd.gradcheck(Function.apply, leaves)


def jax(pair):
    """jax.test_util.check_grads in reverse mode, which compares one random direction."""
    import jax
    from jax.test_util import check_grads
    jax.config.update("jax_enable_x64", True)
    logging.getLogger("jax._src.callback").disabled = True          # of every complaint a traceback
    shapes = [jax.ShapeDtypeStruct(pair.inputs[name].shape, float) for name in pair.inputs if name in pair.names]
    out_shapes = each(lambda out: jax.ShapeDtypeStruct(out.shape, float), pair.forward(*fresh(pair).values())[0])
    caches = []

    def forward(*arrays):
        out, cache = pair.forward(*filled(pair, list(map(np.asarray, arrays))))
        caches.append(cache)
        return out, np.int64(len(caches) - 1)

    def backward(number, dout):
        return as_tuple(pair.backward(each(np.asarray, dout), caches[int(number)]))

    def call(*arrays):
        return jax.pure_callback(forward, (out_shapes, jax.ShapeDtypeStruct((), int)), *arrays)

    function = jax.custom_vjp(lambda *arrays: call(*arrays)[0])
    function.defvjp(call, lambda number, dout: jax.pure_callback(backward, tuple(shapes), number, dout))
    check_grads(function, [x for name, x in fresh(pair).items() if name in pair.names], order=1, modes=["rev"])


def fresh(pair):
    return {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in pair.inputs.items()}


def filled(pair, arrays):
    """All arguments, from those that have a gradient."""
    arrays = iter(arrays)
    return [next(arrays) if name in pair.names else x for name, x in pair.inputs.items()]


CHECKERS = {"minillm": minillm, "torch": torch, "jax": jax}


def installed():
    return {name: check for name, check in CHECKERS.items() if find_spec(name)}


def complaint(check, pair):
    """None, or what a checker says, or why it did not come to an end."""
    try:
        with limit(SECONDS), np.errstate(all="ignore"):
            check(pair)
    except (TimeoutError, MemoryError) as error:
        return f"gave up: {error}"
    except Exception as error:              # whatever it is, somebody would look at the pair
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def limit(seconds):
    def stop(*_):
        raise TimeoutError(f"after {seconds} s of the CPU")
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
