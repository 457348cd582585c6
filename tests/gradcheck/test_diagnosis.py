"""A wrong gradient gets a sentence that says how, and no sentence that is not true."""
import numpy as np
import pytest

from minillm import ops
from minillm.gradcheck import gradcheck

RNG = np.random.default_rng(0)
LINEAR = {"x": RNG.standard_normal((6, 5)), "weight": RNG.standard_normal((5, 5)), "bias": RNG.standard_normal(5)}
NORM = {"x": RNG.standard_normal((3, 8)), "weight": RNG.standard_normal(8), "bias": RNG.standard_normal(8)}


def note_of(forward, backward, inputs):
    (row,) = [row for row in gradcheck(forward, backward, inputs, raise_exception=False) if not row.passed]
    return row.note


@pytest.mark.parametrize("position, change, words", [
    (0, lambda g, d, x: 2 * g, "2 times the right gradient"),
    (1, lambda g, d, x: -g, "the sign is wrong"),
    (1, lambda g, d, x: g.T.copy(), "transposed: axes 0 and 1 are exchanged"),
    (2, lambda g, d, x: g / 6, "1/6 (the size of axis 0 of out) times"),
    (1, lambda g, d, x: g * 30, "30 (the number of outputs) times"),
    (0, lambda g, d, x: g / np.sqrt(5), "1/sqrt(5) times"),
    (2, lambda g, d, x: d[0].copy(), "only the first of 6 outputs counts: the sum over a broadcast axis is missing"),
    (2, lambda g, d, x: g - d[3], "index 3 of axis 0 of out is left out of the sum"),
    (1, lambda g, d, x: x[:-1].T @ d[:-1], "index 5 of axis 0 of out is left out of the sum"),
    (0, lambda g, d, x: np.roll(g, 1, 1), "off by one position along axis 1"),
    (0, lambda g, d, x: g * (np.arange(5) < 4), "it is missing, only at index 4 (the last) of axis 1"),
    (1, lambda g, d, x: x.T @ np.ones_like(d), "dout is ignored"),
    (0, lambda g, d, x: d.copy(), "dout itself"),
    (0, lambda g, d, x: g + np.sin(g), "wrong everywhere"),
    (0, lambda g, d, x: g * (1 + 1e-6), "1.000001 times"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_linear_layer(position, change, words):
    def backward(dout, cache):
        grads = list(ops.linear_backward(dout, cache))
        grads[position] = change(grads[position], dout, cache[0])
        return tuple(grads)

    assert words in note_of(ops.linear_forward, backward, LINEAR)


def norm_backward(mean, variance):
    def backward(dout, cache):
        x, weight, centre, rstd = cache
        xhat, g = (x - centre) * rstd, dout * weight
        dx = g - mean * g.mean(-1, keepdims=True) - variance * xhat * (g * xhat).mean(-1, keepdims=True)
        return dx * rstd, *ops.layernorm_backward(dout, cache)[1:]
    return backward


def test_the_terms_of_a_normalisation():
    assert "the mean over axis 1 is not taken off" in note_of(ops.layernorm_forward, norm_backward(0, 1), NORM)
    assert "the variance term over axis 1" in note_of(ops.layernorm_forward, norm_backward(1, 0), NORM)


def test_the_term_of_a_softmax():
    def forward(x):
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return p, p.copy()

    assert "a term along out is missing" in note_of(forward, lambda dout, p: p * dout, {"x": NORM["x"]})


def test_duplicate_indices():
    ids = np.array([1, 4, 1, 2, 4])

    def assigned(dout, cache):
        grad = np.zeros((6, 3))
        grad[ids] += dout
        return grad

    words = note_of(lambda ids, table: (table[ids], None), assigned, {"ids": ids, "table": RNG.standard_normal((6, 3))})
    assert "only the last of duplicate indices counts" in words


def test_exchanged_gradients():
    x, y = RNG.standard_normal((2, 3, 4))
    rows = gradcheck(lambda x, y: (x * y * y, (x, y)), lambda dout, c: (2 * dout * c[0] * c[1], dout * c[1] ** 2),
                     {"x": x, "y": y}, raise_exception=False)
    assert "what is given as the gradient of y is this one's" in rows[0].note


def test_one_element_proves_no_factor():
    def backward(dout, x):
        grad = 2 * dout * x
        grad[2] *= 1.3
        return grad

    assert note_of(lambda x: (x * x, x), backward, {"x": RNG.standard_normal(30)}) == "wrong, at one element of 30"
