"""The matrix product under every kernel: the same bits whatever the threads, the batch and the path; odd sizes; edges."""
import numpy as np
import pytest

from minillm import registry
from minillm.registry import choices, select

KERNELS = registry._cpp
if "cpu" not in choices("linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

DTYPES = ("float32", "float64")
SIZES = [(1, 1, 1), (3, 5, 7), (4, 800, 97), (9, 33, 49), (65, 400, 130), (1030, 17, 51), (40, 3100, 60)]


@pytest.fixture(autouse=True)
def threads():
    """Tests may change the number of threads; it comes back."""
    before = KERNELS.max_threads()
    yield
    KERNELS.set_threads(before)


def arrays(shape, dtype, seed=0):
    N, I, J = shape
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in ((N, I), (I, J), (J,), (N, J))]


def linear(x, weight, bias, dout, backend="cpu"):
    """out, dx, dweight, dbias."""
    ops = select({"linear": backend})
    out, cache = ops.linear_forward(x, weight, bias)
    return out, *ops.linear_backward(dout, cache)


def exact(x, weight, bias, dout):
    x, weight, bias, dout = (a.astype("longdouble") for a in (x, weight, bias, dout))
    return x @ weight + bias, dout @ weight.T, x.T @ dout, dout.sum(0)


@pytest.mark.parametrize("backend", choices("linear"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_size_is_right(shape, dtype, backend):
    """Error per term of the sum: rounding of a sum of n terms of size 1 grows as sqrt(n) at worst."""
    args = arrays(shape, dtype)
    for got, want in zip(linear(*args, backend), exact(*args), strict=True):
        allowed = 4 * np.finfo(dtype).eps * np.sqrt(max(shape)) * np.abs(want).max()
        assert got.dtype == dtype and np.abs(got - want).max() <= allowed


@pytest.mark.parametrize("backend", choices("linear")[1:])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 70, 700), (2, 500, 900), (1100, 40, 30)], ids=str)
def test_threads_do_not_change_a_bit(shape, dtype, backend):
    args, results = arrays(shape, dtype), []
    for n in (1, 2, 3):
        KERNELS.set_threads(n)
        results.append([a.tobytes() for a in linear(*args, backend)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("backend", choices("linear")[1:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_in_every_batch(dtype, backend):
    """Batches of 1 to 4 take the decoding path, larger ones the packed path, with and without edges."""
    x, weight, bias, dout = arrays((1030, 801, 103), dtype)
    out, dx, *_ = linear(x, weight, bias, dout, backend)
    for start, stop in [(0, 1), (5, 7), (9, 12), (100, 104), (200, 205), (1, 9), (17, 300), (1029, 1030)]:
        part, dpart, *_ = linear(x[start:stop], weight, bias, dout[start:stop], backend)
        assert part.tobytes() == out[start:stop].tobytes()
        assert dpart.tobytes() == dx[start:stop].tobytes()


@pytest.mark.parametrize("backend", choices("linear")[1:])
@pytest.mark.parametrize("shape", [(0, 5, 7), (5, 0, 7), (5, 7, 0)], ids=str)
def test_empty_axes(shape, backend):
    args = arrays(shape, "float32")
    for got, want in zip(linear(*args, backend), exact(*args), strict=True):
        np.testing.assert_allclose(got, want.astype("float32"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", choices("linear")[1:])
def test_arrays_with_gaps_are_refused(backend):
    x, weight, bias, dout = arrays((6, 8, 10), "float32")
    ops = select({"linear": backend})
    for name, args in {"x": (x[:, ::2], weight[:4], bias), "weight": (x[:, :4].copy(), weight[::2], bias),
                       "bias": (x, weight[:, :5].copy(), bias[::2])}.items():
        with pytest.raises(ValueError, match=f"{name} must be C-contiguous"):
            ops.linear_forward(*args)
    _, cache = ops.linear_forward(x, weight, bias)
    with pytest.raises(ValueError, match="dout must be C-contiguous"):
        ops.linear_backward(np.repeat(dout, 2, 1)[:, ::2], cache)
