"""gradcheck of float32 pairs: right ones pass within their error bars, one percent is seen; and the printed table."""
import numpy as np
import pytest
from cases import as_tuple, cases, pair, sample

from minillm.gradcheck import GradcheckError, gradcheck
from minillm.ops.table import OPS, Dims

SMALL = Dims(B=2, T=7, C=12, NH=3, V=19)
every_float32_pair = pytest.mark.parametrize("op, backend, dtype", [
    c for c in cases(dtypes=("float32",)) if c.values[1] in ("numpy", "cpu")])


def product_forward(x, y):
    assert x.dtype == y.dtype == np.float32
    return x * y * y, (x, y)


def product_backward(dout, cache):
    assert dout.dtype == np.float32
    x, y = cache
    return dout * y * y, 2 * dout * x * y


def xy():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    return {"x": x, "y": y}


@every_float32_pair
def test_every_op_passes_in_float32(op, backend, dtype):
    forward, backward = pair(op, backend)
    rows = gradcheck(forward, backward, sample(op, dtype, SMALL), samples=40, wrt=OPS[op].differentiable)
    assert all(row.bar < 0.02 * max(1, abs(row.numeric)) for row in rows)


@every_float32_pair
def test_a_gradient_that_is_two_percent_off_is_found(op, backend, dtype):
    forward, backward = pair(op, backend)

    def wrong(dout, cache):
        first, *rest = as_tuple(backward(dout, cache))
        return (1.02 * first, *rest)

    with pytest.raises(GradcheckError, match="FAIL"):
        gradcheck(forward, wrong, sample(op, dtype, SMALL), wrt=OPS[op].differentiable)


def test_the_bar_is_small_and_a_wrong_element_is_named():
    def wrong(dout, cache):
        dx, dy = product_backward(dout, cache)
        dy[2, 1] += 1e-3
        return dx, dy

    rows = gradcheck(product_forward, wrong, xy(), raise_exception=False, rtol=1e-5)
    assert [row.passed for row in rows] == [True, False] and rows[1].index == (2, 1)
    assert all(0 < row.bar < 3e-4 for row in rows)


def test_numbers_large_and_small():
    """The step follows the element's size; a slope of 1e4 is not hidden by its own bar."""
    x = np.array([1e4, -3e3, 2.0, 1e-3], np.float32)
    gradcheck(lambda x: (x * x, x), lambda dout, x: 2 * dout * x, {"x": x})
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: (x * x, x), lambda dout, x: 2.01 * dout * x, {"x": x[:1]})


def test_a_measurement_that_is_not_finite_fails():
    with np.errstate(over="ignore", invalid="ignore"):
        (row,) = gradcheck(lambda x: (np.exp(x), x), lambda dout, x: np.exp(x) * dout, {"x": np.float32([88.72283])},
                           raise_exception=False)
    assert not row.passed


def test_the_complex_step_measures_in_complex128():
    forward, backward = pair("layernorm", "numpy")
    gradcheck(forward, backward, sample("layernorm", "float32", SMALL), method="complex")


def test_a_check_that_passes_prints_its_table(capsys):
    rows = gradcheck(product_forward, product_backward, xy())
    assert capsys.readouterr().out == "".join(f"{row}\n" for row in rows) and str(rows[0]).startswith("ok   x[")
    gradcheck(product_forward, product_backward, xy(), verbose=False)
    gradcheck(product_forward, product_backward, xy(), raise_exception=False)
    assert capsys.readouterr().out == ""
