"""Ops in CUDA that take each number by itself, softmax and rope, on the emulator: tails, unaligned arrays, infinities.

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

INPUTS = {"gelu": 1, "gelu_exact": 1, "relu_squared": 1, "swiglu": 2, "geglu": 2, "softcap": 1, "residual": 2}
every_op = pytest.mark.parametrize("op", INPUTS)
every_variant = pytest.mark.parametrize("variant", ["", "_1_naive"], ids=["best", "naive"])
EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 1, -1, 12.9, -12.9, 40, -40, 300, -300, 1e20, -1e20, 3e38, -3e38]


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)


def functions(op, variant="", module=sim):
    if module is sim:
        return getattr(sim, f"{op}_forward{variant}"), getattr(sim, f"{op}_backward{variant}")
    return REFERENCE[f"{op}_forward"], REFERENCE[f"{op}_backward"]


def numbers(op, n, dtype="float32"):
    rng = np.random.default_rng(n)
    return [3 * rng.standard_normal(n).astype(dtype) for _ in range(INPUTS[op])], rng.standard_normal(n).astype(dtype)


def run(op, args, dout, variant="", module=sim):
    forward, backward = functions(op, variant, module)
    out, cache = forward(*args, *([2.5] if op == "softcap" else []))
    grads = backward(dout, cache)
    return [out, *(grads if isinstance(grads, tuple) else (grads,))]


@every_variant
@every_op
def test_any_number_of_numbers(op, variant):
    """Tails of one to three; the border of a block of 256 threads, with four numbers each or one."""
    for n in (1, 2, 3, 4, 5, 127, 128, 129, 257, 1023, 1024, 1026):
        args, dout = numbers(op, n)
        want = run(op, [a.astype("float64") for a in args], dout.astype("float64"), module=None)
        for got, wanted in zip(run(op, args, dout, variant), want, strict=True):
            assert_close(f"{op} of {n}", got, wanted, "reference float32")


def test_nothing_is_written_past_the_end():
    """Of a constant: `fill` reads nothing, so what it might store there has no NaN in it."""
    for n in (1, 2, 3, 5, 1026):
        array = sim.zeros((n,), "float32")
        array.fill(1.5)
        assert_same_bits(array.numpy(), np.full(n, 1.5, "float32"))


@every_op
def test_unaligned_arrays_of_the_device(op):
    """Each alone decides nothing: one array that does not begin at 16 bytes is enough to go number by number."""
    args, dout = numbers(op, 131)
    want = run(op, args, dout)
    for offset in (1, 2, 4):
        for moved in range(len(args) + 1):
            there = [sim.from_numpy(np.concatenate([np.full(offset, 9, a.dtype), a]))[offset:] if i == moved
                     else sim.from_numpy(a) for i, a in enumerate((*args, dout))]
            got = [a.numpy() for a in run(op, there[:-1], there[-1])]
            assert_same_bits(got, want, f"{op}: array {moved} from {offset} on")


@every_op
def test_equal_bits_of_both_steps_and_under_every_schedule(op):
    args, dout = numbers(op, 1030)
    want = run(op, args, dout)
    assert_same_bits(run(op, args, dout, "_1_naive"), want)
    for seed in (9, 42):
        sim.set_schedule(seed)
        assert_same_bits(run(op, args, dout), want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_op
def test_large_numbers_give_no_nan(op, dtype):
    """Where the reference overflows in float32 it does not in float64: compared with that."""
    x = np.array(EXTREMES, dtype)
    up = np.full(len(x), 0.5, dtype)
    got = run(op, [x, up][:INPUTS[op]], np.ones_like(x))
    with np.errstate(all="ignore"):
        want = run(op, [a.astype("float64") for a in (x, up)][:INPUTS[op]], np.ones(len(x)), module=None)
        for one, wanted in zip(got, want):
            few = np.abs(x) < 1e10                      # beyond, 0 times infinity in the reference
            assert_close(op, one[few], wanted[few], f"reference {dtype}")
            assert not np.isnan(one).any()


@every_variant
@pytest.mark.parametrize("op", [op for op in INPUTS if op != "residual"])       # whose gradients do not see x
def test_nan_stays_in_its_place(op, variant):
    args, dout = numbers(op, 37)
    for where in (0, 17, 36):
        broken = [a.copy() for a in args]
        broken[0][where] = np.nan
        for got in run(op, broken, dout, variant):
            assert np.flatnonzero(np.isnan(got)).tolist() == [where]


@every_variant
def test_softmax_of_rows_of_any_length(variant):
    """One number; one warp and several; large numbers; a NaN, which spoils its row alone."""
    forward, backward = functions("softmax", variant)
    for V in (1, 2, 31, 65, 513, 1100):
        x, dout = (30 * np.random.default_rng(V).standard_normal((3, V)) for _ in range(2))
        x[0] += 700
        want, kept = REFERENCE["softmax_forward"](x)
        out, cache = forward(x)
        assert_close(f"softmax of {V}", out, want, "odd sizes float64")
        assert_close(f"softmax dx of {V}", backward(dout, cache), REFERENCE["softmax_backward"](dout, kept),
                     "odd sizes float64")
        x[1, V // 2] = np.nan
        broken = forward(x)[0]
        assert np.isnan(broken[1]).all()
        assert_same_bits(broken[::2], out[::2])
        for seed in (9, 42):
            sim.set_schedule(seed)
            assert_same_bits(forward(x)[0], broken)
        sim.set_schedule(0)


@pytest.mark.parametrize("interleaved", [0, 1], ids=["halves", "interleaved"])
@every_variant
def test_rope_of_any_head(variant, interleaved):
    """Heads of 2 to 72 numbers, of which four pairs at once are whole or not; several heads, and more than a block has
    threads for."""
    for half, heads in ((1, 3), (2, 1), (3, 2), (4, 2), (5, 1), (36, 1), (4, 300), (3, 300)):
        rng = np.random.default_rng(half)
        x, dout = (rng.standard_normal((2, 3, heads * 2 * half)) for _ in range(2))
        cos, sin = (f(rng.standard_normal((3, half))) for f in (np.cos, np.sin))
        forward, backward = functions("rope", variant)
        out, cache = forward(x, cos, sin, interleaved)
        want, kept = REFERENCE["rope_forward"](x, cos, sin, interleaved)
        assert_close(f"rope {half}", out, want, "reference float64")
        assert_close(f"rope {half} dx", backward(dout, cache), REFERENCE["rope_backward"](dout, kept),
                     "reference float64")


@pytest.mark.parametrize("interleaved", [0, 1], ids=["halves", "interleaved"])
def test_rope_of_unaligned_arrays(interleaved):
    rng = np.random.default_rng(0)
    x, (cos, sin) = rng.standard_normal((2, 3, 16)), (f(rng.standard_normal((3, 4))) for f in (np.cos, np.sin))
    want, _ = sim.rope_forward(x, cos, sin, interleaved)
    moved = sim.from_numpy(np.concatenate([[9.0], x.reshape(-1)]))[1:].reshape(*x.shape)
    got, _ = sim.rope_forward(moved, sim.from_numpy(cos), sim.from_numpy(sin), interleaved)
    assert_same_bits(got.numpy(), want)
