"""The derivative of a backward, the Jacobian of a forward, and the error against the step."""
import numpy as np
import pytest
from cases import pair, sample

from minillm.gradcheck import error_curve, gradcheck, jacobian
from minillm.ops.table import OPS


@pytest.mark.parametrize("op", [op for op, spec in OPS.items() if spec.kind == "pair"])
def test_every_ops_backward_has_a_symmetric_derivative(op):
    rows = gradcheck(*pair(op, "numpy"), sample(op, "float64"), wrt=OPS[op].differentiable, second_order=True)
    assert rows[-1].name == "second order" and rows[-1].passed


def test_a_backward_of_no_function_is_seen():
    """It is right at x, where its factor is 1, and so passes all but the second order."""
    x = np.random.default_rng(0).standard_normal((3, 4))
    far = 1 + (np.arange(12).reshape(3, 4) - 5)

    def backward(dout, cache):
        now = cache
        return 2 * dout * now + far * (now - x).sum()

    rows = gradcheck(lambda x: (x * x, x.copy()), backward, {"x": x}, raise_exception=False, second_order=True)
    second = rows[-1]
    assert rows[0].passed and not second.passed and "symmetric" in second.note


def test_a_jacobian():
    x, weight = np.random.default_rng(0).standard_normal((2, 3, 3))
    got = jacobian(lambda x, w: (x @ w, None), {"x": x, "w": weight}, "x")
    assert np.allclose(got, np.kron(np.eye(3), weight.T), atol=1e-10)


def test_the_error_falls_with_slope_two_and_rises_again():
    curve = error_curve(*pair("gelu", "numpy"), sample("gelu", "float64"), ["x"], "x")
    h, error = (np.array([row[key] for row in curve]) for key in ("h", "error"))
    straight = (h > 1e-4) & (h < 1e-1)
    assert np.polyfit(np.log(h[straight]), np.log(error[straight]), 1)[0] == pytest.approx(2, abs=0.05)
    assert error.min() < 1e-9 and error[-8:].max() > 1e-4
    wrong = error_curve(pair("gelu", "numpy")[0], lambda dout, cache: 2 * pair("gelu", "numpy")[1](dout, cache),
                        sample("gelu", "float64"), ["x"], "x")
    assert min(row["error"] for row in wrong) > 0.1
