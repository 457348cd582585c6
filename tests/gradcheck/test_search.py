"""Sparse errors: one wrong element among very many is found and named, at few forwards."""
import numpy as np
import pytest

from minillm.gradcheck import GradcheckError, gradcheck

N = 200_000
BIG = np.random.default_rng(0).standard_normal(N)


def square(x):
    return x * x, x


def right(dout, x):
    return 2 * dout * x


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_one_element_of_many(seed, samples):
    place = int(np.random.default_rng(seed).integers(N))

    def wrong(dout, x):
        grad = right(dout, x)
        grad[place] *= 1.5
        return grad

    with pytest.raises(GradcheckError, match=rf"FAIL x\[{place}\]"):
        gradcheck(square, wrong, {"x": BIG}, samples=samples, seed=seed)


def test_one_element_of_a_million_in_a_loss_of_one_number():
    x = np.random.default_rng(1).standard_normal((1000, 1000))

    def wrong(dout, x):
        grad = 2 * dout * x
        grad[500, 77] *= 2
        return grad

    with pytest.raises(GradcheckError, match=r"FAIL x\[500, 77\]"):
        gradcheck(lambda x: (np.square(x).sum(), x), wrong, {"x": x})


def test_a_row_of_500():
    def wrong(dout, x):
        grad = right(dout, x)
        grad[1000:1500] = 0
        return grad

    with pytest.raises(GradcheckError):
        gradcheck(square, wrong, {"x": BIG}, samples=5)


@pytest.mark.parametrize("seed", range(3))
def test_a_dropped_duplicate_index(seed):
    ids, table = np.random.default_rng(2).integers(0, 20_000, 300), np.ones((20_000, 4))

    def assigned(dout, cache):
        grad = np.zeros_like(table)
        grad[ids] += dout
        return grad

    assert len(set(ids)) < len(ids)
    with pytest.raises(GradcheckError):
        gradcheck(lambda table: (table[ids], None), assigned, {"table": table}, samples=5, seed=seed)


def test_the_right_one_passes_at_few_forwards():
    calls = []

    def forward(x):
        calls.append(1)
        return square(x)

    (row,) = gradcheck(forward, right, {"x": BIG})
    assert row.checked == 16 and row.directions == 6 and len(calls) < 80
