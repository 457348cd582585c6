"""The four norms in CUDA, on the emulator: any width and number of rows, unaligned arrays, schedules, NaN.

The contract of the op pair, gradients and errors are tested where all backends are (tests/ops).
"""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm.kernels import select as registry
from minillm.ops.table import REFERENCE

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)

NORMS = ["layernorm", "residual_layernorm", "rmsnorm", "residual_rmsnorm"]
every_norm = pytest.mark.parametrize("op", NORMS)
every_variant = pytest.mark.parametrize("variant", ["", "_1_naive"], ids=["best", "naive"])
# below and beside four; a row of 4 KB, the last that one warp takes, and one of 4 numbers more; no multiple of four
WIDTHS = [1, 2, 3, 5, 127, 128, 132, 1024, 1027, 1028]


@pytest.fixture(autouse=True)
def as_found():
    yield
    sim.set_schedule(0)
    sim.set_capability(90)


def inputs(op, N, C, dtype="float32"):
    """(arguments of the forward, dout) with a mean that is not small beside the deviation."""
    rng = np.random.default_rng(C + N)
    x, y, dsum, dout = (rng.standard_normal((N, C)).astype(dtype) for _ in range(4))
    weight, bias = (rng.standard_normal(C).astype(dtype) for _ in range(2))
    args = [x + 3, *([y] if "residual" in op else []), weight, *([bias] if "layernorm" in op else [])]
    return args, (dsum, dout) if "residual" in op else dout


def run(op, args, dout, variant="", into=None, module=sim):
    """Every array that the pair returns, and the row statistics."""
    if module is sim:
        forward, backward = (getattr(sim, f"{op}_{way}{variant}") for way in ("forward", "backward"))
    else:
        forward, backward = REFERENCE[f"{op}_forward"], REFERENCE[f"{op}_backward"]
    out, cache = forward(*args)
    grads = backward(dout, cache, into)
    outs = out if isinstance(out, tuple) else (out,)
    return [*outs, *(a.reshape(-1) for a in cache[2:]), *grads]


def widened(value):
    return tuple(map(widened, value)) if isinstance(value, (tuple, list)) else value.astype("float64")


def check(op, N, C, variant=""):
    args, dout = inputs(op, N, C)
    want = run(op, widened(args), widened(dout), module=None)
    for i, (got, wanted) in enumerate(zip(run(op, args, dout, variant), want, strict=True)):
        assert_close(f"{op}{variant} {N}x{C} result {i}", got, wanted, "odd sizes float32")


@every_variant
@every_norm
def test_any_width(op, variant):
    for C in WIDTHS:
        check(op, 6, C, variant)


@every_norm
def test_rows_that_do_not_fit_into_shared_memory(op):
    """On a GPU whose blocks have 99 KB: the backward keeps four rows a team, the forward one of each of four teams."""
    sim.set_capability(86)
    for C in (6400, 6401, 25600):
        check(op, 3, C)


@every_norm
def test_more_rows_than_the_backward_has_blocks(op):
    """512 blocks of four rows take 2048 at a time."""
    check(op, 2053, 3)


@every_norm
def test_a_row_has_the_same_bits_in_every_batch(op):
    args, dout = inputs(op, 9, 36)
    whole = run(op, args, dout)
    row = [a[4:5].copy() if a.ndim == 2 else a for a in args]
    alone = run(op, row, tuple(d[4:5].copy() for d in dout) if isinstance(dout, tuple) else dout[4:5].copy())
    for got, want in zip(alone, whole):
        if got.shape == (1, 36):
            assert_same_bits(got, want[4:5])


@pytest.mark.parametrize("C", [8, 70, 1028])
@every_norm
def test_equal_bits_under_every_schedule(op, C):
    args, dout = inputs(op, 7, C)
    want = run(op, args, dout)
    for seed in (8, 9, 42):
        sim.set_schedule(seed)
        assert_same_bits(run(op, args, dout), want, f"schedule {seed}")


def on_device(array, offset):
    """A copy on the device that begins `offset` numbers behind a multiple of 16 bytes."""
    flat = np.concatenate([np.full(offset, np.nan, array.dtype), array.reshape(-1)])
    return sim.from_numpy(flat)[offset:].reshape(*array.shape)


@pytest.mark.parametrize("C", [8, 20])
@every_norm
def test_unaligned_arrays_of_the_device(op, C):
    """Number by number in place of four at once: the same order of the sums, so the same bits."""
    args, dout = inputs(op, 7, C)
    want = run(op, args, dout)
    for offset in (0, 1, 4):
        there = [on_device(a, offset) for a in args]
        out, cache = getattr(sim, f"{op}_forward")(*there)
        d = tuple(on_device(a, offset) for a in dout) if isinstance(dout, tuple) else on_device(dout, offset)
        grads = getattr(sim, f"{op}_backward")(d, cache)
        outs = out if isinstance(out, tuple) else (out,)
        got = [a.numpy() for a in (*outs, *cache[2:], *grads)]
        assert_same_bits(got, [a.copy() for a in want], f"offset {offset}")


@every_variant
@every_norm
def test_into_is_added_to(op, variant):
    """Also where nothing is to be added: no rows."""
    args, dout = inputs(op, 7, 10)
    fresh = run(op, args, dout, variant)
    n = 2 if "layernorm" in op else 1
    into = tuple(np.full(10, 0.5, "float32") for _ in range(n))
    assert_same_bits(run(op, args, dout, variant, into)[-n:], [a + np.float32(0.5) for a in fresh[-n:]])
    args, dout = inputs(op, 0, 10)
    assert_same_bits(run(op, args, dout, variant)[-n:], [np.zeros(10, "float32")] * n)
    assert_same_bits(run(op, args, dout, variant, tuple(a.copy() for a in into))[-n:], list(into))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@every_variant
@every_norm
def test_a_broken_number_stays_in_its_row(op, variant, value):
    """Rows of three numbers share a warp's loads with nothing else; the sums over rows see it, as they must."""
    args, dout = inputs(op, 6, 3)
    clean = run(op, args, dout, variant)
    args[0][2, 1] = value
    for got, want in zip(run(op, args, dout, variant), clean):
        if got.shape == (6, 3):
            others = np.arange(6) != 2
            assert_same_bits(got[others], want[others])
    assert np.isnan(run(op, args, dout, variant)[1 if "residual" in op else 0][2]).any()
    assert np.isnan(run(op, args, dout, variant)[-1 if "rms" in op else -2]).any()               # dweight
