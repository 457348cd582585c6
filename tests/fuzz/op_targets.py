"""Every op of the table, in every variant that is built: hostile arrays, numbers and caches, and equal answers."""

import re

import numpy as np
from cases import as_tuple, pair, sample, supported

from minillm.kernels.select import choices
from minillm.ops.table import OPS, Dims

from . import mutations as m
from .targets import target

FEW = (0, 1, 2, 3, 5, 8, 17)
# What a kernel may refuse and the reference need not: it copies nothing and knows two dtypes. TypeError: of a number.
OF_KERNELS = (r"contiguous|aligned|must be (float32|float64|C-)|dtype (float|uint16)|cannot be of type|writeable|"
              "side by side")
NUMBERS = (-1, 0, 1, 2, 3, 2**31, 2**62, 2**64, -(2**63), 0.5, 1.0, 1e-300, 1e300, float("nan"), float("inf"), -0.0)


def draw_case(rng):
    """(op, backend, dtype, arguments, whether their numbers are as they were)."""
    op = rng.choice(sorted(OPS))
    backend = rng.choice(choices(op))
    dtype = rng.choice([dtype for dtype in ("float32", "float64") if dtype in supported(op, backend)])
    heads = rng.choice((1, 2, 3))
    dims = Dims(
        rng.choice(FEW), rng.choice(FEW), heads * rng.choice((1, 2, 4, 8, 16)), heads, rng.choice((1, 2, 7, 33))
    )
    args, tame = sample(op, dtype, dims, rng.randrange(10**6)), True
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(sorted(args))
        if isinstance(args[name], np.ndarray):
            kind = rng.random()
            change = rng.choice(sorted((m.LAYOUTS if kind < 0.5 else m.ARRAYS).items()))[1]
            tame &= kind < 0.5
            args[name] = rng.choice(m.OBJECTS) if kind > 0.95 else attempt(change, args[name])
        else:
            args[name], tame = rng.choice((*NUMBERS, *m.OBJECTS)), False
    return op, backend, dtype, args, tame


def attempt(change, array):
    try:
        with np.errstate(all="ignore"):
            return change(array)
    except (ValueError, TypeError, OverflowError, IndexError):  # no such change to this array
        return array


def everything(op, backend, args):
    """All results: the output and the gradients for a dout of ones; of an update the arrays that it writes."""
    functions = pair(op, backend)
    with np.errstate(all="ignore"):
        if OPS[op].kind == "update":
            args = {
                name: np.array(value) if isinstance(value, np.ndarray) and name in "wmv" else value
                for name, value in args.items()
            }
            functions[0](**args)
            return [args[name] for name in "wmv" if name in args]           # Muon has no second moment
        result = functions[0](**args)
        if len(functions) == 1:
            return [np.asarray(result)]
        out, cache = result
        dout = tuple(map(np.ones_like, out)) if isinstance(out, tuple) else np.ones_like(out)
        return [*as_tuple(out), *as_tuple(functions[1](dout, cache))]


def outcome(op, backend, args):
    """Results, or the error: one that names an argument. A number of a wrong type may be a TypeError."""
    try:
        return everything(op, backend, args)
    except (ValueError, TypeError) as error:
        names = "|".join((*args, "dout", "dsum", "block_size", "cached", "cache"))
        assert re.search(rf"\b({names})\b", str(error)), f"{op} on {backend} names no argument: {error!r}"
        wrong_type = any(not isinstance(value, np.ndarray) or value.dtype == object for value in args.values())
        assert isinstance(error, ValueError) or wrong_type or "cannot be of type" in str(error), repr(error)
        return error


@target()
def ops(folder):
    def draw(rng):
        op, backend, dtype, args, tame = draw_case(rng)

        def run():
            got, want = outcome(op, backend, args), outcome(op, "numpy", args)
            what = f"{op} on {backend}: {got!r:.300}\nreference: {want!r:.300}\n{args!r:.1500}"
            if isinstance(got, Exception) or isinstance(want, Exception):
                refused = isinstance(got, Exception) and (
                    isinstance(want, Exception) or re.search(OF_KERNELS, str(got))
                )
                assert refused, what
                return
            assert [a.shape for a in got] == [a.shape for a in want], what
            if tame:
                compare(got, want, backend, dtype, what)

        return sum(value.nbytes for value in args.values() if isinstance(value, np.ndarray)), run

    return draw


def compare(got, want, backend, dtype, what):
    rough = 0.1 if backend.endswith(("bf16", "amx", "mma", "wgmma")) else 2e-4 if dtype == "float32" else 1e-9
    for one, two in zip(got, want):
        scale = max(1.0, np.abs(two).max(initial=0))
        assert (np.abs(one - two) <= rough * scale).all(), what


@target()
def caches(folder):
    def draw(rng):
        op = rng.choice(sorted(name for name, spec in OPS.items() if spec.kind == "pair"))
        backend = rng.choice(choices(op))
        dtype = rng.choice([dtype for dtype in ("float32", "float64") if dtype in supported(op, backend)])
        forward, backward = pair(op, backend)
        out, cache = forward(**sample(op, dtype))
        other = pair(op, backend)[0](**sample(op, dtype, Dims(*(rng.choice((1, 2, 3)) for _ in range(2)), 8, 2, 5)))[1]
        cache = changed(rng, cache, other)
        dout = tuple(map(np.ones_like, out)) if isinstance(out, tuple) else np.ones_like(out)
        if rng.random() < 0.3:
            dout = (
                attempt(rng.choice(sorted((m.LAYOUTS | m.ARRAYS).items()))[1], dout)
                if isinstance(dout, np.ndarray)
                else rng.choice((dout[::-1], dout[:1], (None, None), None, (dout[0], None), 3))
            )

        def run():
            try:
                with np.errstate(all="ignore"):
                    backward(dout, cache)
            except (ValueError, TypeError) as error:
                assert isinstance(error, ValueError) or "dout" in str(error), (
                    f"{op} on {backend}: {error!r}\n{cache!r:.1500}"
                )

        return 10**5, run

    return draw


def changed(rng, cache, other):
    """One item, or more, is another: hostile, of another call, or twice."""
    items = list(cache)
    for _ in range(rng.choice((1, 1, 2, 3))):
        i = rng.randrange(len(items))
        kind = rng.random()
        if isinstance(items[i], tuple) and items[i] and kind < 0.8:
            items[i] = changed(
                rng, items[i], other[i % len(other)] if isinstance(other[i % len(other)], tuple) else other
            )
        elif isinstance(items[i], np.ndarray) and kind < 0.6:
            items[i] = attempt(rng.choice(sorted((m.LAYOUTS | m.ARRAYS).items()))[1], items[i])
        else:
            items[i] = rng.choice(
                (other[i % len(other)], rng.choice(items), rng.choice(m.OBJECTS), rng.choice(NUMBERS))
            )
    return tuple(items) if rng.random() < 0.95 else tuple(items[:-1])
