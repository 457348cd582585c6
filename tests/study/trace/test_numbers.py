"""Numbers of a record: as few digits as give the float32 back, and cuts of what is too large."""
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.study.trace.numbers import cut_of, shortest, statistics


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_the_digits_are_numpys_and_give_the_number_back(values):
    array = np.array(values, np.float32)
    written = json.loads(json.dumps(shortest(array)))
    assert np.array_equal(np.array(written, np.float32), array)
    assert [float(str(x)) for x in array] == written


def test_few_digits():
    assert shortest(np.array([0.1, 1 / 3, 1e-5, 16777216], np.float32)) == [0.1, 0.33333334, 1e-05, 16777216.0]
    assert shortest(np.array([3, -1])) == [3, -1]


def test_small_arrays_are_whole_and_large_ones_cut():
    cut = cut_of((2, 3, 4), 24)
    assert cut.whole and cut.places.tolist() == [*range(24)]
    cut = cut_of((2, 3, 4), 9, rows=[5, 1], cols=[3])
    assert not cut.whole and cut.rows == [0, 1, 5] and cut.cols == [0, 1, 3]
    assert cut.places.tolist() == [0, 1, 3, 4, 5, 7, 20, 21, 23]
    assert cut_of((1000,), 64).size == 64


@pytest.mark.parametrize("shape", [(1000, 300), (5, 70, 40), (100_000,)])
def test_a_cut_is_no_larger_than_it_may_be(shape):
    for most in (16, 64, 256, 4096):
        assert cut_of(shape, most, range(50), range(50)).size <= most


def test_statistics():
    found = statistics(np.array([[3, -4]], np.float32), True)
    assert found["norm"] == 5 and found["mean"] == -0.5 and (found["min"], found["max"]) == (-4, 3)
    assert sum(found["histogram"]["counts"]) == 2
    assert math.isclose(statistics(np.full(1000, 1e20, np.float32), False)["norm"], math.sqrt(1000) * 1e20,
                        rel_tol=1e-6)
