"""The sum of squares, the one op that turns an array into a number: right where float32 would fail,
in a fixed order."""
import math

import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import select
from minillm.kernels import select as registry

every_reduce = pytest.mark.parametrize("op, backend, dtype", cases(kinds=("reduce",)))


def exact(x):
    return math.fsum(float(v) ** 2 for v in x)


@every_reduce
@settings(derandomize=True, deadline=None, max_examples=20)
@given(size=st.integers(0, 3000), seed=st.integers(0, 99))
def test_agrees_with_exact_summation(op, backend, dtype, size, seed):
    x = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    assert getattr(select({op: backend}), op)(x) == pytest.approx(exact(x), rel=1e-12)


@every_reduce
def test_large_values_do_not_overflow_and_bad_ones_show(op, backend, dtype):
    function = getattr(select({op: backend}), op)
    assert function(np.full(200_000, 1e25, dtype)) == pytest.approx(2e5 * float(np.dtype(dtype).type(1e25)) ** 2,
                                                                    rel=1e-12)
    x = np.ones(70_000, dtype)
    x[66_000] = np.nan
    assert math.isnan(function(x))


@every_reduce
def test_bad_inputs_are_named(op, backend, dtype):
    function = getattr(select({op: backend}), op)
    for _, _, change, words in registry.OPS[op].bad:
        with pytest.raises(ValueError, match=words):
            function(change(np.ones(4, dtype)))
    with pytest.raises(ValueError, match="x must have shape"):
        function(np.ones((2, 2), dtype))


@pytest.mark.skipif(registry._cpp is None, reason="no kernels are built")
def test_threads_change_no_bit():
    x = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)
    results = set()
    threads = registry._cpp.max_threads()
    for n in (1, 2, 3):
        registry._cpp.set_threads(n)
        results.add(registry._cpp.sum_squares(x))
    registry._cpp.set_threads(threads)
    assert len(results) == 1
