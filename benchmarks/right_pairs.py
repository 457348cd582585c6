"""Pairs without an error: what a gradient check must not complain about.

Every op of the table in NumPy and, where built, C++, in float64 and now and then float32, at sizes down to 1, in units
from 1e-6 to 1e8, or with the inputs themselves made that small or as large as the op takes. In turns with them,
elementary functions that are hard to measure: kinks that are hit exactly, ties, slopes of 0, steep, steps, near a pole.
"""
import numpy as np

from minillm.kernels.select import OPS, Dims, choices

from .planted import Pair, right_pair, scaled


def relu_backward(dout, x):
    return dout * (x > 0)


def max_backward(dout, cache):
    """All to the first of the largest."""
    x, best = cache
    dx = np.zeros(x.shape)
    dx[np.arange(len(x)), best] = dout
    return dx


def max_forward(x):
    best = x.real.argmax(axis=1)
    return x[np.arange(len(x)), best], (x, best)


ELEMENTARY = {      # name: (forward, backward, inputs of rng and n)
    "identity": (lambda x: (x * 1, None), lambda dout, _: dout * 1, lambda rng, n: rng.standard_normal(n)),
    "square": (lambda x: (x * x, x), lambda dout, x: 2 * x * dout, lambda rng, n: rng.standard_normal(n)),
    "cube": (lambda x: (x ** 3, x), lambda dout, x: 3 * x * x * dout, lambda rng, n: rng.standard_normal(n)),
    "mean square": (lambda x: ((x * x).mean(), x), lambda dout, x: 2 * x * dout / x.size,
                    lambda rng, n: rng.standard_normal(200 * n)),
    "cumulative sum": (lambda x: (np.cumsum(x), None), lambda dout, _: np.cumsum(dout[::-1])[::-1].copy(),
                       lambda rng, n: rng.standard_normal(n)),
    "exp": (lambda x: (np.exp(x), x), lambda dout, x: np.exp(x) * dout, lambda rng, n: rng.uniform(-20, 20, n)),
    "log": (lambda x: (np.log(x), x), lambda dout, x: dout / x, lambda rng, n: 10 ** rng.uniform(-3, 3, n)),
    "reciprocal": (lambda x: (1 / x, x), lambda dout, x: -dout / x ** 2, lambda rng, n: rng.uniform(0.01, 2, n)),
    "square root": (lambda x: (np.sqrt(x), x), lambda dout, x: dout / (2 * np.sqrt(x)),
                    lambda rng, n: 10 ** rng.uniform(-4, 2, n)),
    "sine, fast": (lambda x: (np.sin(50 * x), x), lambda dout, x: 50 * np.cos(50 * x) * dout,
                   lambda rng, n: rng.standard_normal(n)),
    "tanh, steep": (lambda x: (np.tanh(100 * x), x), lambda dout, x: 100 * dout / np.cosh(100 * x) ** 2,
                    lambda rng, n: rng.uniform(-0.1, 0.1, n)),
    "constant": (lambda x: (np.ones(3) + 0 * x[:1], x), lambda dout, x: np.zeros(x.shape),
                 lambda rng, n: rng.standard_normal(n)),
    "steps": (lambda x: (np.floor(x.real) + 0 * x, x), lambda dout, x: np.zeros(x.shape),
              lambda rng, n: rng.integers(0, 9, n) + rng.uniform(0.2, 0.8, n)),
    "relu": (lambda x: (np.where(x.real > 0, x, 0), x), relu_backward, lambda rng, n: rng.standard_normal(n)),
    "relu at 0": (lambda x: (np.where(x.real > 0, x, 0), x), relu_backward,
                  lambda rng, n: rng.integers(-1, 2, n).astype(float)),
    "absolute at 0": (lambda x: (np.where(x.real > 0, x, -x), x), lambda dout, x: np.sign(x) * dout,
                      lambda rng, n: rng.integers(-1, 2, n).astype(float)),
    "maximum with ties": (max_forward, max_backward, lambda rng, n: rng.integers(0, 3, (n, 3)).astype(float)),
}


def elementary_pair(name, seed, scale=(1, 1)):
    forward, backward, inputs = ELEMENTARY[name]
    rng = np.random.default_rng(seed)
    return scaled(Pair(name, forward, backward, {"x": inputs(rng, int(rng.integers(1, 12)))}, ("x",)), *scale)


def right_runs(count):
    """`count` Pairs, one after the other; each is made from its number alone."""
    ops = [op for op, spec in OPS.items() if spec.kind == "pair"]
    names = [*ops, *ELEMENTARY]
    for number in range(count):
        rng = np.random.default_rng((16, number))
        name, turn = names[number % len(names)], number // len(names)
        scale = units(rng) if turn % 3 else (1, 1)
        yield elementary_pair(name, number, scale) if name in ELEMENTARY else table_pair(name, rng, turn, scale)


def units(rng):
    """From 1e-6 to 1e8 each, their quotient from 1e-12 to 1e12."""
    r, s = 10 ** rng.uniform(-6, 8, 2)
    return (r, s) if 1e-12 <= s / r <= 1e12 else (s, s)


def table_pair(op, rng, turn, scale):
    """An op at a random size; of the pairs in their own units, half have their inputs made smaller or larger."""
    heads = int(rng.integers(1, 4))
    dims = Dims(int(rng.integers(1, 4)), int(rng.integers(1, 10)), heads * int(rng.integers(1, 6)), heads,
                int(rng.integers(2, 18)))
    backends = [choice for choice in choices(op, "float64") if choice in ("numpy", "cpu")]
    dtype = "float32" if turn % 10 == 9 else "float64"
    pair = right_pair(op, dims, int(rng.integers(2 ** 32)), (1, 1) if dtype == "float32" else scale,
                      backends[turn // 2 % len(backends)], dtype)
    if dtype == "float32" or scale != (1, 1) or turn % 2:
        return pair
    size = 10 ** rng.uniform(-6, 1)
    return pair._replace(inputs={name: x * size if name in pair.names else x for name, x in pair.inputs.items()})
