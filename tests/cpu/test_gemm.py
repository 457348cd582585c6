"""The matrix product under the kernels: the same bits whatever the threads, the batch and the path; odd sizes."""
import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm.kernels import select as registry
from minillm.kernels.select import choices, select

KERNELS = registry._cpp
if "cpu" not in choices("linear"):
    pytest.skip("kernels are not built", allow_module_level=True)

DTYPES = ("float32", "float64")
IMPLEMENTATIONS = [(backend, dtype) for dtype in DTYPES for backend in choices("linear", dtype)
                   if not backend.startswith("cuda")]                   # tests/cuda/test_matmul.py has those
every_implementation = pytest.mark.parametrize("backend, dtype", IMPLEMENTATIONS)
every_kernel = pytest.mark.parametrize("backend, dtype", [case for case in IMPLEMENTATIONS if case[0] != "numpy"])
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


@every_implementation
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_size_is_right(shape, dtype, backend):
    """Error per term of the sum: rounding of a sum of n terms of size 1 grows as sqrt(n) at worst. Rounding of operands
    to bfloat16 does not grow: it is a share of each term."""
    args = arrays(shape, dtype)
    for got, want in zip(linear(*args, backend), exact(*args), strict=True):
        eps = 2 ** -9 if backend.endswith(("/bf16", "amx")) else np.finfo(dtype).eps * np.sqrt(max(shape))
        allowed = 4 * eps * np.abs(want).max()
        assert got.dtype == dtype and np.abs(got - want).max() <= allowed


@every_kernel
@pytest.mark.parametrize("shape", [(300, 70, 700), (2, 500, 900), (1100, 40, 30)], ids=str)
def test_threads_do_not_change_a_bit(shape, dtype, backend):
    args, results = arrays(shape, dtype), []
    for n in (1, 2, 3):
        KERNELS.set_threads(n)
        results.append(linear(*args, backend))
        assert_same_bits(results[-1], results[0])


@every_kernel
def test_a_row_is_the_same_in_every_batch(dtype, backend):
    """Batches of 1 to 16 take the decoding path, larger ones the packed path, with and without edges."""
    x, weight, bias, dout = arrays((1030, 801, 103), dtype)
    out, dx, *_ = linear(x, weight, bias, dout, backend)
    for start, stop in [(0, 1), (5, 7), (9, 12), (100, 104), (200, 205), (1, 9), (17, 300), (1029, 1030)]:
        part, dpart, *_ = linear(x[start:stop], weight, bias, dout[start:stop], backend)
        assert_same_bits([part, dpart], [out[start:stop], dx[start:stop]], f"rows {start} to {stop}")


@pytest.mark.parametrize("backend", choices("linear"))
@pytest.mark.parametrize("shape", [(0, 5, 7), (5, 0, 7), (5, 7, 0), (17, 0, 7), (0, 17, 7), (17, 7, 0)], ids=str)
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


def head(x, wte, targets, dout, backend="cpu"):
    """losses, dx, dwte."""
    ops = select({"linear_cross_entropy": backend})
    losses, cache = ops.linear_cross_entropy_forward(x, wte, targets)
    return losses, *ops.linear_cross_entropy_backward(dout, cache)


def head_arrays(N, V, C, dtype):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, V, N)
    targets[::7] = -1
    return [rng.standard_normal((N, C)).astype(dtype), rng.standard_normal((V, C)).astype(dtype), targets,
            rng.standard_normal(N).astype(dtype)]


@pytest.mark.parametrize("dtype, allowed", [("float32", 3e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("shape", [(1100, 900, 20), (1030, 65_200, 3)], ids=["kept_logits", "logits_made_again"])
def test_head_over_many_tiles(shape, dtype, allowed):
    """More than one block of rows and one tile of vocabulary; of 1030 x 65200 logits those of 1024 rows are kept."""
    args = head_arrays(*shape, dtype)
    for got, want in zip(head(*args), head(*args, backend="numpy"), strict=True):
        assert np.abs(got - want).max() <= allowed * max(1, np.abs(want).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [7, 2100, 65_600], ids=["one_tile", "tiles", "made_again"])
def test_head_keeps_its_digits_next_to_large_logits(V, dtype):
    """Logits near 1e4, 8 apart or less: in float32 they are multiples of 2^-10, and a logsumexp rounded to that would
    show in every probability. Products are exact here: integers times powers of two, so only the softmax can err."""
    N = 30 if V < 65_600 else 1030
    rng = np.random.default_rng(0)
    x = np.ones((N, 2), dtype)
    wte = np.stack([np.full(V, 10_000), rng.integers(-32, 33, V) / 8], axis=1).astype(dtype)
    targets, dout = rng.integers(0, V, N), np.ones(N, dtype)
    losses, dx, dwte = head(x, wte, targets, dout)
    z = wte.sum(axis=1, dtype="longdouble")                                         # every row is the same
    logsum = np.log(np.exp(z - z.max()).sum())
    dz_sum = N * np.exp(z - z.max() - logsum) - np.bincount(targets, minlength=V)   # over rows, x is 1
    eps = np.finfo(dtype).eps
    assert np.abs(losses - (logsum + (z.max() - z[targets]))).max() <= 8 * eps * np.log(V)
    assert np.abs(dwte - dz_sum[:, None]).max() <= (20 + 4 * np.sqrt(N)) * eps * np.abs(dz_sum).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_head_is_the_same_in_every_batch_and_thread_count(dtype):
    """N = 1100 of V = 16400 are made again in the backward, the part of 40 rows keeps its logits: same bits."""
    x, wte, targets, dout = head_arrays(1100, 16_400, 5, dtype)
    losses, dx, dwte = head(x, wte, targets, dout)
    part, dpart, _ = head(x[1000:1040], wte, targets[1000:1040], dout[1000:1040])
    assert_same_bits([part, dpart], [losses[1000:1040], dx[1000:1040]])
    KERNELS.set_threads(1)
    assert_same_bits(head(x, wte, targets, dout), (losses, dx, dwte))


def mlp(dtype, rows, backend="cpu"):
    """out, then the gradients, of the first rows of one fixed batch."""
    rng = np.random.default_rng(0)
    x, w1, b1, w2, b2, dout = (rng.standard_normal(s).astype(dtype) / 4
                               for s in ((1100, 20), (20, 90), (90,), (90, 30), (30,), (1100, 30)))
    ops = select({"mlp": backend})
    out, cache = ops.mlp_forward(x[rows], w1, b1, w2, b2)
    return out, *ops.mlp_backward(dout[rows], cache)


@pytest.mark.parametrize("dtype, allowed", [("float32", 3e-6), ("float64", 1e-14)])
def test_mlp_over_many_pieces(dtype, allowed):
    for got, want in zip(mlp(dtype, slice(None)), mlp(dtype, slice(None), "numpy"), strict=True):
        assert np.abs(got - want).max() <= allowed * max(1, np.abs(want).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_is_the_same_in_every_batch_and_thread_count(dtype):
    all_rows = mlp(dtype, slice(None))
    for part in (slice(3, 4), slice(1000, 1040), slice(0, 3)):
        out, dx, *_ = mlp(dtype, part)
        assert_same_bits([out, dx], [all_rows[0][part], all_rows[1][part]], part)
    KERNELS.set_threads(1)
    assert_same_bits(mlp(dtype, slice(None)), all_rows)
