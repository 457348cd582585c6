"""gradcheck finds right gradients right and wrong ones wrong, and names the tensor and the element."""
import dataclasses

import numpy as np
import pytest
from tolerances import TOLERANCES

from minillm import ops
from minillm.gradcheck import GradcheckError, as_dict, check_model, gradcheck

CENTRAL, COMPLEX = TOLERANCES["central"].both, TOLERANCES["complex"].both
both_methods = pytest.mark.parametrize("method", ["central", "complex"])


def product_forward(x, y):
    return x * y * y, (x, y)


def product_backward(dout, cache):
    x, y = cache
    return dout * y * y, 2 * dout * x * y


def xy(shape=(3, 4)):
    x, y = np.random.default_rng(0).standard_normal((2, *shape))
    return {"x": np.array(x), "y": np.array(y)}        # np.array: a scalar becomes an array without axes


@both_methods
def test_right_gradients_pass_by_name(method):
    rows = gradcheck(product_forward, product_backward, xy(), method=method, **TOLERANCES[method].both)
    assert [(row.name, row.checked, row.passed) for row in rows] == [("x", 12, True), ("y", 12, True)]


@both_methods
def test_right_gradients_pass_by_position(method):
    rows = gradcheck(product_forward, product_backward, list(xy().values()), method=method)
    assert [row.name for row in rows] == ["input0", "input1"]


def test_other_inputs_are_passed_through():
    """Integers, strings and None keep their place; only float64 arrays are differentiated."""
    def forward(tokens, x, flag, scale):
        assert flag == "on" and scale is None and tokens.dtype.kind == "i"
        return x[tokens], (tokens, x.shape)

    def backward(dout, cache):
        dx = np.zeros(cache[1])
        np.add.at(dx, cache[0], dout)
        return dx

    inputs = {"tokens": np.array([1, 1, 0]), "x": np.array([3.0, 4.0]), "flag": "on", "scale": None}
    assert [row.name for row in gradcheck(forward, backward, inputs)] == ["x"]


def test_none_leaves_an_input_out():
    rows = gradcheck(product_forward, lambda dout, cache: (None, product_backward(dout, cache)[1]), xy())
    assert [row.name for row in rows] == ["y"]


@both_methods
@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 3)], ids=str)
def test_any_number_of_axes(shape, method):
    gradcheck(product_forward, product_backward, xy(shape), method=method)


@both_methods
def test_the_worst_element_is_reported(method):
    """One element of dy is off by 0.25: the row has its index, both values and the error."""
    def backward(dout, cache):
        dx, dy = product_backward(dout, cache)
        dy[2, 1] += 0.25
        return dx, dy

    rows = gradcheck(product_forward, backward, xy(), method=method, raise_exception=False)
    assert [row.passed for row in rows] == [True, False]
    worst = rows[1]
    assert worst.index == (2, 1) and all(type(i) is int for i in worst.index)
    assert worst.analytic - worst.numeric == pytest.approx(0.25, abs=1e-7)
    assert worst.error == pytest.approx(0.25, abs=1e-7)
    assert as_dict(worst) == dataclasses.asdict(worst)
    with pytest.raises(GradcheckError, match=r"FAIL y\[2, 1\]") as caught:
        gradcheck(product_forward, backward, xy(), method=method)
    assert isinstance(caught.value, AssertionError) and caught.value.rows[1].index == (2, 1)


def test_worst_is_relative_to_the_size_of_the_element():
    """0.01 is nothing for a gradient of 1000, and everything for one of 0.001."""
    scale = np.array([1e3, 1e-3])
    rows = gradcheck(lambda x: (x * scale, None), lambda dout, _: dout * scale + 0.01, {"x": np.ones(2)},
                     raise_exception=False)
    assert rows[0].index == (1,) and not rows[0].passed


def test_what_is_not_analytic_is_measured_by_differences():
    """The complex step sees no slope in abs: that is said, and no wrong gradient."""
    def forward(x):
        return np.abs(x) + 0 * x, x

    def backward(dout, x):
        return dout * np.sign(x)

    gradcheck(forward, backward, {"x": np.array([2.0, -3.0])}, **CENTRAL)
    (row,) = gradcheck(forward, backward, {"x": np.array([2.0, -3.0])}, method="complex", **COMPLEX)
    assert "not analytic" in row.note
    with pytest.raises(GradcheckError):
        gradcheck(forward, lambda dout, x: 0 * dout, {"x": np.array([2.0, -3.0])}, method="complex", **COMPLEX)


def test_complex_step_sees_errors_that_central_differences_cannot():
    """A relative error of 1e-9 in the gradient."""
    def backward(dout, cache):
        return tuple((1 + 1e-9) * g for g in product_backward(dout, cache))

    gradcheck(product_forward, backward, xy(), **CENTRAL)
    with pytest.raises(GradcheckError):
        gradcheck(product_forward, backward, xy(), method="complex", **COMPLEX)


def test_big_tensors_are_sampled():
    calls = []

    def forward(x):
        calls.append(1)
        return x.sum(keepdims=True), x.shape

    rows = gradcheck(forward, lambda dout, shape: np.full(shape, dout), {"x": np.ones((200, 300))}, samples=7)
    assert rows[0].checked == 7 and rows[0].directions == 6 and len(calls) < 40
    assert gradcheck(forward, lambda dout, shape: np.full(shape, dout), {"x": np.ones(3)}, samples=7)[0].checked == 3


def test_the_seed_decides():
    def backward(dout, cache):
        return tuple(g + 1 for g in product_backward(dout, cache))

    def run(seed):
        return gradcheck(product_forward, backward, xy((9, 9)), samples=2, seed=seed, raise_exception=False)

    assert run(0) == run(0) and run(0) != run(1)


# ---- what must be refused -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("inputs, words", [
    ({"x": np.ones(3, "float32"), "y": np.ones(3)}, "x must be float64 .* got float32"),
    ({"x": np.ones(3), "y": np.ones(3, "float16")}, "y must be float64"),
    ({"x": 3, "y": np.arange(3)}, "at least one float64 array"),
    ([], "at least one float64 array"),
])
def test_inputs_that_cannot_be_checked(inputs, words):
    with pytest.raises(ValueError, match=words):
        gradcheck(product_forward, product_backward, inputs)


@pytest.mark.parametrize("backward, words", [
    (lambda dout, cache: dout, "must return 2 gradients .x, y.: got 1"),
    (lambda dout, cache: (dout, dout, dout), "must return 2 gradients .*: got 3"),
    (lambda dout, cache: (dout, dout.T), r"gradient of y must have shape \(3, 4\): got \(4, 3\)"),
    (lambda dout, cache: (dout[0], dout), r"gradient of x must have shape \(3, 4\): got \(4,\)"),
])
def test_wrong_number_or_shape_of_gradients(backward, words):
    with pytest.raises(ValueError, match=words):
        gradcheck(product_forward, backward, xy())


def test_unknown_method():
    with pytest.raises(ValueError, match="method must be one of central, complex: got 'forward'"):
        gradcheck(product_forward, product_backward, xy(), method="forward")


def test_writing_into_an_input_is_caught():
    def writing_backward(dout, cache):
        grads = product_backward(dout, cache)
        cache[1][0, 0] += 1
        return grads

    def writing_forward(x, y):
        x *= 2
        return product_forward(x, y)

    with pytest.raises(ValueError, match="y was written"):
        gradcheck(product_forward, writing_backward, xy())
    with pytest.raises(ValueError, match="x was written"):
        gradcheck(writing_forward, product_backward, xy())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_fails(value):
    def backward(dout, cache):
        dx, dy = product_backward(dout, cache)
        dx[1, 2] = value
        return dx, dy

    rows = gradcheck(product_forward, backward, xy(), raise_exception=False)
    assert not rows[0].passed and rows[0].index == (1, 2) and rows[1].passed


def test_a_measurement_that_is_not_finite_fails():
    """exp at the edge of overflow: the numeric derivative is inf, which confirms nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = gradcheck(lambda x: (np.exp(x), x), lambda dout, x: 0 * x, {"x": np.array([709.78271289338397])},
                         raise_exception=False)
    assert not rows[0].passed


def test_zero_atol_hides_nothing():
    """Element 0 has no gradient and passes; element 1 is wrong and must be reported."""
    slope = np.array([0.0, 1.0])
    with np.errstate(invalid="ignore"):
        rows = gradcheck(lambda x: (slope * x, None), lambda dout, _: 2 * slope * dout, {"x": np.ones(2)}, atol=0.0,
                         raise_exception=False)
    assert not rows[0].passed and rows[0].index == (1,)


def test_zero_rtol_is_allowed():
    gradcheck(product_forward, product_backward, xy(), rtol=0.0)


# ---- check_model on functions small enough to see through ---------------------------------------------------------

@both_methods
def test_check_model_names_the_tensor(method):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((30, 40)), "b": rng.standard_normal(40)}

    def loss(p):
        return (p["w"] ** 3).sum() + (p["b"] ** 2).sum()

    right = {"w": 3 * params["w"] ** 2, "b": 2 * params["b"]}
    rows = check_model(loss, right, params, method=method)
    assert [row.name for row in rows] == ["w", "w (direction)", "b", "b (direction)"] and all(r.passed for r in rows)
    assert [row.checked for row in rows] == [8, 2, 8, 2]
    rows = check_model(loss, right | {"w": 2 * params["w"] ** 2}, params, method=method)
    assert [row.passed for row in rows] == [False, False, True, True]


def test_a_direction_sees_the_element_that_samples_miss():
    """One wrong element of 40,000: eight samples miss it, a direction does not."""
    params = {"w": np.random.default_rng(0).standard_normal((200, 200))}
    wrong = 2 * params["w"]
    wrong[137, 11] += 1
    element, direction = check_model(lambda p: (p["w"] ** 2).sum(), {"w": wrong}, params, method="complex")
    assert element.passed and not direction.passed and direction.index == ()


def test_public_ops_pass_with_the_default_settings():
    x, weight, bias = np.random.default_rng(0).standard_normal((3, 4, 4))
    gradcheck(ops.linear_forward, ops.linear_backward, {"x": x, "weight": weight, "bias": bias[0]})


def test_wrt_leaves_constants_out():
    """A backward with a gradient for x alone, where y is an array of floats, too."""
    def backward(dout, cache):
        return product_backward(dout, cache)[0]

    (row,) = gradcheck(product_forward, backward, xy(), wrt=["x"])
    assert row.name == "x"
    with pytest.raises(ValueError, match="wrt must name arrays of floats among the inputs \\(x, y\\): got 'z'"):
        gradcheck(product_forward, backward, xy(), wrt=["z"])
