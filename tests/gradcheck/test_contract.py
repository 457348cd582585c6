"""What a pair must keep besides its derivative: each clause broken once, each named; and right pairs pass."""
import numpy as np
import pytest

from minillm.gradcheck import ContractError, GradcheckError, assert_gradients, gradcheck

X = np.random.default_rng(0).standard_normal((3, 4))


def square(x):
    return x * x, x


def refused(forward, backward, words, x=X):
    """Raised as both errors, and as failing rows."""
    with pytest.raises(ContractError, match=words) as caught:
        assert_gradients(forward, backward, {"x": x.copy()})
    assert isinstance(caught.value, GradcheckError) and isinstance(caught.value, ValueError)
    rows = gradcheck(forward, backward, {"x": x.copy()}, raise_exception=False)
    assert not all(row.passed for row in rows)


def test_dout_is_not_written():
    def doubled(dout, cache):
        dout *= 2
        return dout

    def erased(dout, x):
        dout[:] = 0
        return dout

    refused(lambda x: (x.copy(), None), doubled, "wrote into dout")
    refused(square, erased, "wrote into dout")


@pytest.mark.parametrize("wrap, unwrap", [
    (lambda a: a, lambda c: c), (lambda a: (1, [a]), lambda c: c[1][0]),
    (lambda a: {"deep": ({"er": a},)}, lambda c: c["deep"][0]["er"])], ids=["array", "list", "dict"])
def test_the_cache_is_not_written(wrap, unwrap):
    def backward(dout, cache):
        x = unwrap(cache)
        grad = 2 * dout * x
        x[:] = 0
        return grad

    refused(lambda x: (x * x, wrap(x.copy())), backward, "wrote into its cache")


def test_an_opaque_cache_is_allowed():
    gradcheck(lambda x: (x * x, iter([x])), lambda dout, cache: 2 * dout * X, {"x": X.copy()})


def test_backward_gives_the_same_answer_twice():
    calls = []

    def alternating(dout, x):
        calls.append(1)
        return dout * x * (2 if len(calls) % 2 else 3)

    refused(square, alternating, "the second time")


def test_the_last_forward_is_not_remembered():
    last = []

    def forward(x):
        last[:] = [x]
        return x * x, None

    refused(forward, lambda dout, cache: 2 * dout * last[0], "uses the last forward instead of its cache")


def test_results_do_not_share_a_buffer():
    out, grad = np.empty_like(X), np.empty_like(X)

    def forward(x):
        np.multiply(x, x, out=out)
        return out, x.copy()

    refused(forward, lambda dout, x: 2 * dout * x, "overwrote the outputs")
    refused(square, lambda dout, x: np.multiply(2 * dout, x, out=grad), "overwrote the gradients")


def test_results_are_no_views_of_inputs_or_cache():
    refused(lambda x: (x.T, None), lambda dout, cache: dout.T.copy(), "out shares memory with the input x")

    def kept(dout, cache):
        return cache["grad"] if (cache["grad"] is not None) else None

    def forward(x):                                    # L = sum(dout * x) has gradient dout: not known here, so
        return np.zeros_like(x), {"grad": np.zeros_like(x)}

    refused(forward, kept, "the gradient of x shares memory with what is held in cache")


def test_dout_may_be_returned():
    gradcheck(lambda x: (x.copy(), None), lambda dout, cache: dout, {"x": X})
    gradcheck(lambda x: (np.exp(x),) * 2, lambda dout, out: dout * out, {"x": X})       # and out be cached


@pytest.mark.parametrize("backward, words", [
    (lambda dout, x: 2 * x * np.clip(dout, -5, 5), "64 times"),
    (lambda dout, x: 2 * x * np.where(np.abs(dout) < 1e-3, 0, dout), "does not shrink with dout"),
    (lambda dout, x: 2 * x * dout + 1e-3, "zero for a dout of zeros"),
    (lambda dout, x: 2 * x * np.abs(dout) * np.sign(dout[0, 0]), "sum of two douts"),
], ids=["clipped", "cut off", "constant", "absolute"])
def test_linear_in_dout(backward, words):
    (row,) = gradcheck(square, backward, {"x": X}, raise_exception=False)
    assert not row.passed


def test_noise_is_called_noise():
    rng = np.random.default_rng(1)
    with pytest.raises(GradcheckError, match="forward is noisy: two calls on the same inputs differ by up to"):
        gradcheck(lambda x: (x * rng.standard_normal(x.shape), x), lambda dout, x: dout, {"x": X})


def test_the_dtype_of_a_gradient():
    with pytest.raises(GradcheckError, match="gradient of x must be float64, as the input is: got float32"):
        gradcheck(square, lambda dout, x: (2 * dout * x).astype("float32"), {"x": X})


@pytest.mark.parametrize("forward, words", [
    (lambda x: [x * x, x], "forward must return a tuple .out, cache.: got a list"),
    (lambda x: x * x, "forward must return a tuple .out, cache.: got a ndarray"),
    (lambda x: (x * x, x, x), "forward must return a tuple .out, cache.: got a tuple of 3"),
    (lambda x: (None, x), "out, the first result of forward, must be an array of floats .*: got a NoneType"),
    (lambda x: (np.arange(3), x), "out, the first result of forward, .*: got an array of int64"),
    (lambda x: ((), x), "at least one array"),
])
def test_results_of_another_form(forward, words):
    with pytest.raises(ValueError, match=words):
        gradcheck(forward, lambda dout, x: dout, {"x": X})
