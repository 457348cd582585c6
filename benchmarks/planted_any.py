"""Errors that the backward of any op can have: a factor, a sign, rows left out, a stale cache, a written input.

    ANY = [(kind, label, spoil), ...]           AT_SHAPE, IN_MANY: what is wrong at some sizes alone

spoil(pair) is the forward and the backward of a Pair (planted.py) with the error, or None where the op cannot have it.
(planted_ops.py has what only one op can have.)
"""
import numpy as np


def each(change, arrays):
    return tuple(map(change, arrays)) if isinstance(arrays, tuple) else change(arrays)


def as_tuple(grads):
    return grads if isinstance(grads, tuple) else (grads,)


def arrays_in(tree):
    """Every array of floats inside nested tuples."""
    if isinstance(tree, tuple):
        return [array for part in tree for array in arrays_in(part)]
    return [tree] if isinstance(tree, np.ndarray) and tree.dtype.kind == "f" else []


def gradient(change):
    """change(gradient, pair) in place of one gradient."""
    def spoil(p):
        def backward(dout, cache):
            grads = as_tuple(p.backward(dout, cache))
            changed = change(grads[p.which], p)
            grads = *grads[:p.which], changed, *grads[p.which + 1:]
            return grads if len(grads) > 1 else changed
        return p.forward, backward
    return spoil


def only(change):
    """The same, where one gradient alone is computed from change(dout)."""
    def spoil(p):
        def backward(dout, cache):
            grads, wrong = (as_tuple(p.backward(d, cache)) for d in (dout, each(change, dout)))
            grads = *grads[:p.which], wrong[p.which], *grads[p.which + 1:]
            return grads if len(grads) > 1 else grads[0]
        return p.forward, backward
    return spoil


def upstream(change):
    """All gradients from change(dout)."""
    return lambda p: (p.forward, lambda dout, cache: p.backward(each(change, dout), cache))


def one_element(change):
    def changed(grad, p):
        grad = grad.copy()
        grad.flat[p.place] = change(grad.flat[p.place])
        return grad
    return gradient(changed)


def where_input(hit):
    """A gradient that is 0 for the inputs for which hit(|x|, all |x|) is true."""
    def changed(grad, p):
        size = np.abs(p.inputs[p.names[p.which]])
        return np.where(hit(size), 0, grad)
    return gradient(changed)


def of_another(p):
    """The next gradient in the place of this one."""
    def backward(dout, cache):
        grads = p.backward(dout, cache)
        other = np.resize(grads[(p.which + 1) % len(grads)], grads[p.which].shape)
        return *grads[:p.which], other, *grads[p.which + 1:]
    return (p.forward, backward) if len(p.names) > 1 else None


def swapped(p):
    """Two gradients of one shape have changed places."""
    shapes = [p.inputs[name].shape for name in p.names]
    pairs = [(i, j) for j in range(len(shapes)) for i in range(j) if shapes[i] == shapes[j]]
    if not pairs:
        return None
    order = list(range(len(shapes)))
    i, j = pairs[-1]
    order[i], order[j] = j, i

    def backward(dout, cache):
        grads = p.backward(dout, cache)
        return tuple(grads[k] for k in order)
    return p.forward, backward


def stale(kept):
    """The cache of the first forward, or of the last one, whatever cache is given."""
    def spoil(p):
        caches = []

        def forward(*args):
            out, cache = p.forward(*args)
            caches.append(cache)
            return out, cache
        return forward, lambda dout, cache: p.backward(dout, caches[kept])
    return spoil


def call_by_call(change):
    """change(number of the call, gradients, those of the call before) in place of the gradients."""
    def spoil(p):
        calls = []

        def backward(dout, cache):
            grads = p.backward(dout, cache)
            calls.append(change(len(calls), grads, calls[-1] if calls else None))
            return calls[-1]
        return p.forward, backward
    return spoil


def accumulate(number, grads, before):
    """A gradient buffer that nobody sets to zero."""
    return grads if before is None else combined(np.add, grads, before)


def reuse(number, grads, before):
    """One buffer for the results of all calls."""
    if before is None:
        return each(np.copy, grads)
    return combined(lambda new, old: write(old, new), grads, before)


def combined(f, new, old):
    return tuple(map(f, new, old)) if isinstance(new, tuple) else f(new, old)


def write(array, value):
    """Into the array itself; returns it."""
    array[...] = value
    return array


def writes(what, early):
    """Writes the dout, the inputs or the cache that it was given, before its work or after it."""
    def spoil(p):
        def forward(*args):
            out, cache = p.forward(*args)
            return out, (args, cache)

        def backward(dout, cache):
            args, cache = cache
            targets = {"dout": dout, "inputs": args, "cache": cache}[what]
            if early:
                spoilt(targets)
            grads = p.backward(dout, cache)
            if not early:
                grads = each(np.copy, grads)
                spoilt(targets)
            return grads
        cached = arrays_in(p.forward(*p.inputs.values())[1])
        return (forward, backward) if what != "cache" or cached else None
    return spoil


def spoilt(tree):
    for array in arrays_in(tree):
        array *= 2


def forward_writes_its_input(p):
    def forward(*args):
        out, cache = p.forward(*args)
        args[list(p.inputs).index(p.names[p.which])][...] *= 0.5
        return out, cache
    return forward, p.backward


def noisy_forward(p):
    """Another output every time."""
    rng = np.random.default_rng(7)

    def forward(*args):
        out, cache = p.forward(*args)
        return each(lambda part: part * (1 + 1e-6 * rng.standard_normal(part.shape)), out), cache
    return forward, p.backward


def identity_in_place(change):
    """The two that began it: the identity, whose backward writes dout and hands it on."""
    def spoil(p):
        if p.op != "dropout":
            return None

        def forward(x, *rest):
            return x * 1, None

        def backward(dout, cache):
            change(dout)
            return dout
        return forward, backward
    return spoil


def single_precision(p):
    """The backward's work in float32."""
    def narrow(tree):
        if isinstance(tree, tuple):
            return tuple(map(narrow, tree))
        if isinstance(tree, np.dtype):              # that of dout, which an op without cached arrays notes down
            return np.dtype("float32")
        return tree.astype("float32") if isinstance(tree, np.ndarray) and tree.dtype == "float64" else tree

    def backward(dout, cache):
        return each(lambda grad: grad.astype("float32").astype("float64"), p.backward(narrow(dout), narrow(cache)))
    return p.forward, backward


def noise(size):
    def changed(grad, p):
        return grad * (1 + size * np.random.default_rng(5).standard_normal(grad.shape))
    return gradient(changed)


def random_noise(p):
    """Another answer every time."""
    rng = np.random.default_rng(6)
    return p.forward, lambda dout, cache: each(lambda grad: grad * (1 + 1e-3 * rng.standard_normal(grad.shape)),
                                               p.backward(dout, cache))


def tail(grad, p):
    """The last size % 8 elements are not computed."""
    flat = grad.ravel().copy()
    flat[len(flat) - len(flat) % 8:] = 0
    return flat.reshape(grad.shape)


def cancelling(grad, p):
    """Two elements wrong by the same amount, so that their sum is right."""
    flat = grad.ravel().copy()
    other = (p.place + 1) % flat.size
    flat[[p.place, other]] += flat[p.place] * np.array([1, -1])
    return flat.reshape(grad.shape)


def rolled(axis):
    return lambda grad, p: np.roll(grad, 1, axis if axis < grad.ndim else 0)


def transposed(grad, p):
    return grad.swapaxes(-1, -2).reshape(grad.shape) if grad.ndim > 1 else grad


def without(rows):
    """dout with some of its rows set to 0."""
    def change(dout):
        dout = dout.copy()
        dout[rows] = 0
        return dout
    return only(change)


def repeated_row(grad, p):
    """The first row stands in all."""
    return np.broadcast_to(grad[:1], grad.shape).copy()


def square(grad):
    return grad.swapaxes(-1, -2).copy() if grad.ndim > 1 and grad.shape[-1] == grad.shape[-2] else grad


ANY = [   # kind, label, spoil
    ("factor", "2", gradient(lambda g, p: 2 * g)), ("factor", "1/2", gradient(lambda g, p: g / 2)),
    ("factor", "n", gradient(lambda g, p: g * p.rows)), ("factor", "1/n", gradient(lambda g, p: g / p.rows)),
    ("factor", "1.001", gradient(lambda g, p: 1.001 * g)), ("sign", "-1", gradient(lambda g, p: -g)),
    ("sign", "|.|", gradient(lambda g, p: np.abs(g))),
    ("dropped term", "zero", gradient(lambda g, p: 0 * g)),
    ("dropped term", "mean", gradient(lambda g, p: g - g.mean(axis=-1, keepdims=True))),
    ("off by one", "first axis", gradient(rolled(0))), ("off by one", "last axis", gradient(rolled(-1))),
    ("off by one", "second axis", gradient(rolled(1))), ("off by one", "dout", upstream(lambda d: np.roll(d, 1, 0))),
    ("transposed", "reshaped", gradient(transposed)),
    ("missing rows", "first row only", without(slice(1, None))), ("missing rows", "last row", without(-1)),
    ("missing sum", "first row repeated", gradient(repeated_row)),
    ("another's gradient", "resized", of_another), ("another's gradient", "swapped", swapped),
    ("vector tail", "n % 8", gradient(tail)),
    ("one element", "doubled", one_element(lambda v: 2 * v)), ("one element", "0", one_element(lambda v: 0.0)),
    ("one element", "NaN", one_element(lambda v: np.nan)), ("one element", "cancelling", gradient(cancelling)),
    ("stale cache", "last forward's", stale(-1)), ("stale cache", "first forward's", stale(0)),
    ("dout", "ones", upstream(np.ones_like)), ("dout", "squared", upstream(np.square)),
    ("dout", "absolute", upstream(np.abs)), ("dout", "sign", upstream(np.sign)),
    ("dout", "clipped", upstream(lambda d: np.clip(d, -1, 1))), ("dout", "not linear", upstream(lambda d: d + d ** 3)),
    ("dout", "offset", upstream(lambda d: d + 1)), ("dout", "centred", upstream(lambda d: d - d.mean())),
    ("writes", "dout early", writes("dout", True)), ("writes", "dout late", writes("dout", False)),
    ("writes", "inputs", writes("inputs", False)), ("writes", "cache early", writes("cache", True)),
    ("writes", "cache late", writes("cache", False)), ("writes", "forward writes its input", forward_writes_its_input),
    ("writes", "dout doubled and returned", identity_in_place(lambda d: write(d, 2 * d))),
    ("writes", "dout zeroed and returned", identity_in_place(lambda d: write(d, 0 * d))),
    ("call by call", "alternating", call_by_call(lambda i, g, _: each(lambda grad: grad * (1 + i % 2), g))),
    ("call by call", "right once", call_by_call(lambda i, g, _: each(lambda grad: grad * (not i), g))),
    ("call by call", "accumulated", call_by_call(accumulate)), ("call by call", "one buffer", call_by_call(reuse)),
    ("call by call", "random", random_noise), ("call by call", "noisy forward", noisy_forward),
    ("form", "float32", gradient(lambda g, p: g.astype("float32"))),
    ("form", "an axis more", gradient(lambda g, p: g[None])),
    ("some values", "large", where_input(lambda x: x >= np.quantile(x, 0.95))),
    ("some values", "small", where_input(lambda x: x <= np.quantile(x, 0.05))),
    ("noise", "1e-4", noise(1e-4)), ("precision", "float32", single_precision),
]
AT_SHAPE = [   # shape, label, spoil: what is wrong at such a size alone
    ("odd C", "last column", gradient(lambda g, p: np.where(np.arange(g.shape[-1]) < g.shape[-1] // 2 * 2, g, 0))),
    ("odd C", "halves of C/2", gradient(lambda g, p: np.roll(g, g.shape[-1] // 2, -1))),
    ("T = 1", "0", gradient(lambda g, p: 0 * g)), ("T = 1", "not divided", gradient(lambda g, p: g * p.rows)),
    ("T = 1", "first row only", without(slice(1, None))),
]
IN_MANY = [("doubled", one_element(lambda v: 2 * v)), ("0", one_element(lambda v: 0.0)), ("row", without(-1))]
