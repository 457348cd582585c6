"""Errors planted in backwards that are right: what a gradient check has to find, generated from the op table.

An error is made for each op of the table, each kind of mistake and, in turns, each gradient and scale:

    pair(op) --scaled--> out = s f(x / r), dx = f'(s dout) / r  --spoiled--> the same with one mistake

r and s, from 1e-6 to 1e8, change the units of inputs and output, so a right pair stays right at any scale. The rule by
which an error counts: in two forwards and a few backwards of the pair, some number differs from the right pair's by
more than VISIBLE of the largest in its tensor, or something is written that is not the function's own (`trouble`).
What does not pass it is no error: the sign of a gradient that is 0, a tail where sizes are multiples of 8, a stale
cache in an op whose cache holds no input.
"""
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from minillm.kernels.select import OPS, Dims, functions, select

from .planted_any import ANY, AT_SHAPE, IN_MANY, as_tuple, each, gradient, square
from .planted_ops import OWN

VISIBLE = 1e-9
SCALES = [(1, 1), (1e-6, 1), (1, 1e8), (1, 1), (1e8, 1), (1, 1e-6), (1e-3, 1e4), (1e3, 1e-3), (1e-4, 1e8), (1e6, 1e-6)]
USUAL = Dims(B=2, T=5, C=6, NH=2, V=7)
SHAPES = {"usual": USUAL, "odd C": Dims(2, 3, 5, 1, 9), "T = 1": Dims(3, 1, 6, 2, 7)}
SQUARE = [Dims(1, 6, 6, 1, 6), Dims(1, 6, 2, 1, 6), Dims(1, 8, 2, 1, 5), Dims(1, 5, 3, 1, 7)]
LARGE = {"attention": Dims(4, 32, 264, 4), "embedding": Dims(2, 100, 5, 1, 20_000), "gelu": Dims(8, 50, 63, 1),
         "linear": Dims(1, 4, 160, 1), "mlp": Dims(1, 4, 160, 1), "lora_linear": Dims(16, 100, 64, 1),
         "cross_entropy": Dims(2, 5, 8, 1, 10_000), "distillation_loss": Dims(2, 5, 8, 1, 10_000),
         "linear_cross_entropy": Dims(2, 5, 20, 1, 5000), "dpo_loss": Dims(100, 1000), "grpo_loss": Dims(100, 1000)}


class Pair(NamedTuple):
    """A forward and a backward that belong together, and inputs to try them on."""

    op: str
    forward: Callable
    backward: Callable
    inputs: dict
    names: tuple                # of the inputs with a gradient
    which: int = 0              # the gradient that an error changes
    place: int = 0              # and an element of it that is not 0
    rows: int = 1               # B * T


class Case(NamedTuple):
    """One planted error. `pair()` gives a fresh Pair with it (some errors remember calls), `right()` one without."""

    kind: str
    label: str
    op: str
    scale: tuple
    right: Callable
    spoil: Callable

    def pair(self):
        right = self.right()
        forward, backward = self.spoil(right)
        return right._replace(forward=forward, backward=backward)


# ---- pairs

def right_pair(op, dims=USUAL, seed=0, scale=(1, 1), backend="numpy", dtype="float64"):
    """The Pair of an op of the table, with its inputs and output in other units."""
    inputs = OPS[op].sample(np.random.default_rng(seed), dtype, dims)
    return scaled(Pair(op, *functions_of(op, backend), inputs, OPS[op].differentiable, rows=dims.B * dims.T), *scale)


@cache
def functions_of(op, backend):
    """An op's forward and backward, in one backend."""
    ops = select(dict.fromkeys(OPS, "numpy") | {op: backend})
    return tuple(getattr(ops, name) for name in functions(OPS[op]))


def scaled(pair, r, s):
    """out = s f(x / r), for x of the inputs that have a gradient."""
    which = [name in pair.names for name in pair.inputs]

    def forward(*args):
        out, cache = pair.forward(*(times(x, 1 / r) if d else x for x, d in zip(args, which)))
        return each(lambda part: times(part, s), out), cache

    def backward(dout, cache):
        return each(lambda grad: times(grad, 1 / r), pair.backward(each(lambda part: times(part, s), dout), cache))

    inputs = {name: times(x, r) if d else x for (name, x), d in zip(pair.inputs.items(), which)}
    return pair if r == s == 1 else pair._replace(forward=forward, backward=backward, inputs=inputs)


def times(x, factor):
    """x itself where the factor is 1, so that what is one array stays one."""
    return x if factor == 1 else x * factor


def normal_like(out, seed=1):
    rng = np.random.default_rng(seed)
    return each(lambda part: rng.standard_normal(part.shape).astype(part.dtype), out)


# ---- the list

def planted():
    """Every Case that counts, in a fixed order."""
    return [case for case in numbered() if counts(case)]


def numbered():
    """All, with scales and gradients in turns."""
    number = 0
    for op in (op for op, spec in OPS.items() if spec.kind == "pair"):
        for kind, label, dims, spoil in errors_of(op):
            yield made(kind, label, op, dims, number, spoil)
            number += 1


def errors_of(op):
    """(kind, label, dims, spoil) of an op."""
    for kind, label, spoil in ANY:
        yield kind, label, USUAL, spoil
    for dims in SQUARE:
        yield "transposed", "square", dims, gradient(lambda g, p: square(g))
    for shape, label, spoil in AT_SHAPE:
        yield "one shape", f"{shape}: {label}", SHAPES[shape], spoil
    for kind, wrong in OWN.get(op, ()):
        for shape, dims in (SHAPES | ({"10**5": LARGE[op]} if kind == "dropped duplicates" else {})).items():
            yield kind, f"{getattr(wrong, '__name__', 'part')} at {shape}", dims, wrong
    for label, spoil in IN_MANY:
        yield "one of 10**5", label, LARGE.get(op, Dims(8, 50, 250, 1)), spoil


def made(kind, label, op, dims, number, spoil):
    scale = SCALES[number % len(SCALES)]
    own = any(spoil is wrong for _, wrong in OWN.get(op, ()))
    names = OPS[op].differentiable
    which = number % len(names)
    if kind == "one of 10**5":
        inputs = right_pair(op, dims).inputs
        which = int(np.argmax([inputs[name].size for name in names]))

    @cache
    def place():                    # when it is asked for: most who list the errors look at few of them
        return visible_element(right_pair(op, dims), which)

    def right():
        return right_pair(op, dims, scale=scale)._replace(which=which, place=place())

    def spoiled(p):
        if not own:
            return spoil(p)
        wrong = scaled(right_pair(op, dims)._replace(backward=spoil), *scale)
        return wrong.forward, wrong.backward
    return Case(kind, f"{label}, {names[which]}", op, scale, right, spoiled)


def visible_element(pair, which):
    """An element of a gradient of ordinary size: the 60th of 100 in order, of those that are not 0."""
    out, cache = pair.forward(*pair.inputs.values())
    size = np.abs(as_tuple(pair.backward(normal_like(out), cache))[which]).ravel()
    order = np.argsort(size)
    order = order[size[order] > 0]
    return int(order[len(order) * 3 // 5]) if len(order) else 0


def counts(case):
    """Does the rule of this file's first lines see the error?"""
    right = case.right()
    try:
        forward, backward = case.spoil(right)
    except TypeError:               # None: the op cannot have it
        return False
    return trouble((forward, backward), right)


def trouble(wrong, right):
    """Whether a pair differs from the right one in two forwards and four backwards, or writes what it is given."""
    seen = [answers(*wrong, right), answers(right.forward, right.backward, right)]
    return any(differs(a, b) for a, b in zip(*seen))


def answers(forward, backward, pair):
    """Arrays that a right pair gives, and that it leaves as they are."""
    first = {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in pair.inputs.items()}
    second = {name: x * 1.01 if name in pair.names else x for name, x in first.items()}
    out, cache = forward(*first.values())
    _, later = forward(*second.values())
    dout = normal_like(out)
    found, held = [], []
    for d, c in ((dout, cache), (dout, cache), (normal_like(out, 2), later), (each(lambda a: 2 * a, dout), cache)):
        held.append(backward(d, c))
        found += [grad.copy() for grad in as_tuple(held[-1])]
    found += [grad for grads in held for grad in as_tuple(grads)]       # as they are after all calls
    return [*found, *as_tuple(out), *as_tuple(dout), *(first[name] for name in pair.names)]


def differs(a, b):
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return True
    with np.errstate(invalid="ignore"):
        return not (np.abs(a - b) <= VISIBLE * np.abs(b).max(initial=0)).all()
