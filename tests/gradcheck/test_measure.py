"""The tolerance comes from the problem: any scale, kinks, badly conditioned functions, functions not analytic."""
import numpy as np
import pytest

from minillm import ops
from minillm.gradcheck import GradcheckError, gradcheck

X = np.random.default_rng(0).standard_normal((3, 4))
SCALES = [1e-12, 1e-6, 1.0, 1e8, 1e12]
every_scale = pytest.mark.parametrize("scale", SCALES)
both_methods = pytest.mark.parametrize("method", ["central", None])


@both_methods
@every_scale
def test_any_size_of_the_input(scale, method):
    gradcheck(lambda x: (x ** 2, x), lambda dout, x: 2 * dout * x, {"x": scale * X}, method=method)
    for factor in (0.0, 2 + 1e-5):
        with pytest.raises(GradcheckError):
            gradcheck(lambda x: (x ** 2, x), lambda dout, x, f=factor: f * dout * x, {"x": scale * X}, method=method)


@both_methods
@every_scale
def test_any_size_of_the_slope(scale, method):
    gradcheck(lambda x: (scale * x, None), lambda dout, _: scale * dout, {"x": X}, method=method)
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: (scale * x, None), lambda dout, _: 0 * dout, {"x": X}, method=method)


@pytest.mark.parametrize("scale", [1e-8, 1e-2, 1e2, 1e8])
def test_the_scale_on_which_a_function_varies_is_found(scale):
    """It may be another than that of x."""
    gradcheck(lambda x: (np.sin(scale * x), x), lambda dout, x: scale * dout * np.cos(scale * x), {"x": X},
              method="central")
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: (np.sin(scale * x), x), lambda dout, x: 1.01 * scale * dout * np.cos(scale * x), {"x": X},
                  method="central")


@both_methods
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1.0])
def test_a_zero_at_one_element_of_a_function_that_is_flat_from_afar(scale, method):
    """Steps of 1 show LayerNorm's saturation, where the gradient is nearly the zero that is claimed."""
    inputs, forward = {"x": scale * X}, lambda x: ops.layernorm_forward(x / scale, X[0], X[1])
    def backward(dout, cache, wrong=False):
        dx = ops.layernorm_backward(dout, cache)[0] / scale
        return np.where(np.abs(X) < np.abs(X).max(), dx, 0) if wrong else dx
    gradcheck(forward, backward, inputs, method=method)
    with pytest.raises(GradcheckError, match="FAIL x"):
        gradcheck(forward, lambda dout, cache: backward(dout, cache, True), inputs, method=method)


def test_a_mean_over_many():
    x = np.random.default_rng(0).standard_normal(200_000)
    gradcheck(lambda x: (np.mean(x ** 2), x), lambda dout, x: 2 * x * dout / x.size, {"x": x})
    with pytest.raises(GradcheckError, match="zero instead of the gradient"):
        gradcheck(lambda x: (np.mean(x ** 2), x), lambda dout, x: 0 * x, {"x": x})


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
def test_rows_far_from_zero(offset):
    """LayerNorm looks flat from as far away as x is; rounding is that of x, not of the output."""
    inputs = {"x": X + offset, "weight": X[0].copy(), "bias": X[1].copy()}
    gradcheck(ops.layernorm_forward, ops.layernorm_backward, inputs)
    with pytest.raises(GradcheckError):
        gradcheck(ops.layernorm_forward, lambda dout, cache: (1.1 * ops.layernorm_backward(dout, cache)[0],
                                                              *ops.layernorm_backward(dout, cache)[1:]), inputs)


def test_functions_that_end_at_zero_or_overflow():
    x = np.array([1e-3, 1.0, 1e5, 1e-9])
    gradcheck(lambda x: (np.log(x), x), lambda dout, x: dout / x, {"x": x})
    gradcheck(lambda x: (np.sqrt(x), x), lambda dout, x: dout / 2 / np.sqrt(x), {"x": x}, method="central")
    gradcheck(lambda x: (np.exp(x), x), lambda dout, x: dout * np.exp(x), {"x": np.linspace(-700, 700, 9)})


def relu(x):
    return np.maximum(x, 0), x


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_a_subgradient_at_a_kink_passes_and_is_counted(slope):
    x = np.array([0.0, 1.0, -1.0, 0.0, 2.0])
    (row,) = gradcheck(relu, lambda dout, x: dout * np.where(x == 0, slope, x > 0), {"x": x})
    assert row.kinks == 2 and "kink" in row.note


@pytest.mark.parametrize("slope", [-0.1, 1.1])
def test_outside_of_both_slopes_is_wrong(slope):
    with pytest.raises(GradcheckError, match=r"FAIL x\[[03]\]"):
        gradcheck(relu, lambda dout, x: dout * np.where(x == 0, slope, x > 0), {"x": np.array([0.0, 1, -1, 0, 2])})


def test_many_kinks_hide_nothing():
    x = np.round(np.random.default_rng(0).standard_normal(3000), 1)                        # zero at a hundred places
    gradcheck(relu, lambda dout, x: dout * (x > 0), {"x": x})
    with pytest.raises(GradcheckError):
        gradcheck(relu, lambda dout, x: dout * (x > 0) + dout * (x > 2.95), {"x": x})


@pytest.mark.parametrize("method", [None, "complex"])
def test_what_is_not_analytic(method):
    """The complex step sees no slope in abs or in .real: neither a right gradient fails nor one of zero passes."""
    def forward(x):
        return np.abs(x) * (1 + 0 * x) + np.real(x) ** 2, x

    (row,) = gradcheck(forward, lambda dout, x: dout * (np.sign(x) + 2 * x), {"x": X}, method=method)
    assert method is None or "not analytic" in row.note
    with pytest.raises(GradcheckError):
        gradcheck(forward, lambda dout, x: 0 * dout, {"x": X}, method=method)


def test_dout_is_not_what_users_draw():
    """x.T @ dout would be symmetric, and a transposed weight gradient right, if dout were equal to x."""
    x = np.random.default_rng(0).standard_normal((5, 5))
    with pytest.raises(GradcheckError, match="transposed"):
        gradcheck(lambda x, w: (x @ w, (x, w)), lambda dout, c: (dout @ c[1].T, dout.T @ c[0]), {"x": x, "w": x + 1})


def test_a_slope_that_float64_loses_beside_1():
    """log(1 + exp(-x)) is 0 from 37 on, for every step that matters; its right slope is no error."""
    def forward(x):
        return np.log(1 + np.exp(-x)), x

    gradcheck(forward, lambda dout, x: -dout / (1 + np.exp(x)), {"x": np.array([100.0, 120.0])}, verbose=False)
