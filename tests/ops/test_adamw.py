"""AdamW's update against the paper, written out number by number, in every backend; and against torch."""
import math

import numpy as np
import pytest
from cases import cases, pair, sample
from tolerances import assert_close, assert_same_bits

from minillm.kernels.select import Dims, select
from minillm.models.params import Params
from minillm.train.optim import AdamW

ADAMW = [case for case in cases(kinds=("update",)) if case.values[0] == "adamw"]
every_update = pytest.mark.parametrize("op, backend, dtype", ADAMW)
EVERY_SIZE = [Dims(C=1), Dims(C=7), Dims(C=40)]         # 12 * C * C numbers: below, between and above SIMD widths


def literal(w, grad, m, v, step, lr, beta1, beta2, eps, weight_decay, n_decayed, scale):
    """Algorithm 2 of Loshchilov & Hutter 2019, one Python float at a time -> w, m, v."""
    rows = []
    for i, (theta, g, first, second) in enumerate(zip(*(map(float, a) for a in (w, grad, m, v)))):
        g *= scale
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * g ** 2
        corrected, spread = first / (1 - beta1 ** step), second / (1 - beta2 ** step)
        decay = weight_decay * theta if i < n_decayed else 0.0
        rows.append((theta - lr * (corrected / (math.sqrt(spread) + eps) + decay), first, second))
    return np.array(rows).T


@pytest.mark.parametrize("dims", EVERY_SIZE, ids=lambda d: f"C={d.C}")
@pytest.mark.parametrize("changes", [{}, {"step": 1}, {"step": 10_000}, {"scale": 1.0, "eps": 1e-3}, {"beta1": 0.0}],
                         ids=str)
@every_update
def test_update_is_the_paper(op, backend, dtype, changes, dims):
    args = sample(op, dtype, dims) | changes
    want = literal(**args)
    assert pair(op, backend)[0](**args) is None
    for name, expected in zip(("w", "m", "v"), want):
        assert args[name].dtype == dtype
        assert_close(name, args[name], expected, f"regrouped {dtype}")


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.0), (0.9, 1e-9)], ids=str)
@every_update
def test_a_small_gradient_after_a_huge_one(op, backend, dtype, betas):
    """Moments that forget must not cancel to 0: v + (g^2 - v) would, and m / (0 + eps) explodes."""
    w, m, v = (np.zeros(40, dtype) for _ in range(3))
    for step, size in ((1, 1e6), (2, 1.0)):
        grad = np.full(40, size, dtype)
        want = literal(w, grad, m, v, step, 0.01, *betas, 1e-8, 0.0, 0, 1.0)
        pair(op, backend)[0](w, grad, m, v, step, 0.01, *betas)
    for name, expected, found in zip(("w", "m", "v"), want, (w, m, v)):
        assert_close(name, found, expected, f"regrouped {dtype}")
    if betas == (0, 0):
        np.testing.assert_allclose(w, -0.02, rtol=1e-6)         # the sign of the gradient, twice; it was -100


@every_update
def test_only_the_first_numbers_decay(op, backend, dtype):
    """With no gradient and no moments, w moves by decay alone: exactly the first n_decayed."""
    w = np.full(1001, 2.0, dtype)
    zeros = np.zeros((3, 1001), dtype)
    pair(op, backend)[0](w, *zeros, 1, 0.5, 0.9, 0.95, 1e-8, 0.1, 503, 1.0)
    assert_close("decayed", w[:503], np.full(503, 1.9), f"regrouped {dtype}")
    assert np.all(w[503:] == 2)


@every_update
def test_gradient_is_untouched_and_update_repeats(op, backend, dtype):
    first, second = (sample(op, dtype, Dims(C=40)) for _ in range(2))
    first["grad"].flags.writeable = False
    for args in (first, second):
        pair(op, backend)[0](**args)
    assert_same_bits(first, second)


@every_update
def test_scale_is_a_scaled_gradient(op, backend, dtype):
    scaled, clipped = (sample(op, dtype) for _ in range(2))
    clipped["grad"] *= 0.5
    pair(op, backend)[0](**scaled | {"scale": 0.5})
    pair(op, backend)[0](**clipped | {"scale": 1.0})
    for name in ("w", "m", "v"):
        assert_same_bits(scaled[name], clipped[name], name)


@every_update
def test_nan_reaches_the_weights(op, backend, dtype):
    args = sample(op, dtype)
    args["grad"][5] = np.nan
    pair(op, backend)[0](**args)
    assert np.flatnonzero(np.isnan(args["w"])).tolist() == [5]


@every_update
def test_optimizer_agrees_with_torch(op, backend, dtype):
    """Ten steps on Params: a matrix that decays and a vector that does not, as two parameter groups in torch."""
    torch = pytest.importorskip("torch")
    rng, ops = np.random.default_rng(0), select({"adamw": backend})
    params, grads = (Params({"b": (5,), "w": (3, 5)}, dtype) for _ in range(2))
    params.flat[:] = rng.standard_normal(20)
    theirs = {name: torch.tensor(params[name].copy(), requires_grad=True) for name in ("w", "b")}
    torch_adamw = torch.optim.AdamW([{"params": [theirs["w"]], "weight_decay": 0.1},
                                     {"params": [theirs["b"]], "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.95))
    ours = AdamW(params, lr=0.01, ops=ops)
    for _ in range(10):
        grads.flat[:] = rng.standard_normal(20)
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(grads[name].copy())
        torch_adamw.step()
        ours.step(grads)
    for name, tensor in theirs.items():
        assert_close(name, params[name], tensor.detach().numpy(), f"reference {dtype}")


@every_update
@pytest.mark.parametrize("size", [1, 7, 16, 33, 20_001])
def test_nothing_is_written_beyond_the_arrays(op, backend, dtype, size):
    """Each array stands between two guards; a kernel that runs over the end by one vector would change them."""
    guarded = {name: np.full(size + 64, 7, dtype) for name in ("w", "grad", "m", "v")}
    inside = {name: array[32:-32] for name, array in guarded.items()}
    getattr(select({op: backend}), f"{op}_update")(**inside, step=1, lr=0.1, n_decayed=size // 2, weight_decay=0.1)
    assert not np.array_equal(inside["w"], np.full(size, 7, dtype))
    for name, array in guarded.items():
        assert (array[:32] == 7).all() and (array[-32:] == 7).all(), name


# ---- the copy of w in bfloat16 ----

every_float32 = pytest.mark.parametrize("op, backend, dtype", [case for case in ADAMW if case.values[2] == "float32"])
SPECIAL = np.array([0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x00008000, 0x00018000, 0x007FFFFF, 0x807F8000,
                    0x007F7FFF, 0x00800000, 0x3F808000, 0x3F818000, 0xBF808001, 0x3F807FFF, 0x3FFFFFFF, 0x7F7FFFFF,
                    0xFF7FFFFF, 0x7F7F7FFF, 0xFF7F8000, 0x7F800000, 0xFF800000], "uint32").view("float32")


def nearest_bits(x):
    """The bfloat16 next to each float32, found by comparing distances in float64; of two, the even one.

    Of the two neighbours one has the float's upper half as its bits, the other is one further from zero; beyond the
    largest number stands 2^128, which counts as infinity.
    """
    size = np.abs(x[np.isfinite(x)]).astype("float64")
    low = (np.abs(x[np.isfinite(x)]).view("uint32") >> 16).astype("uint16")
    below, above = (np.where(bits == 0x7F80, 2.0 ** 128, as_floats(bits).astype("float64")) for bits in (low, low + 1))
    up = (above - size < size - below) | ((above - size == size - below) & (low % 2 == 1))
    bits = (x.view("uint32") >> 16).astype("uint16")
    bits[np.isfinite(x)] += up
    return bits


def as_floats(bits):
    return (bits.astype("uint32") << 16).view("float32")


def random_floats(size):
    """Every exponent and sign: random bits, but no NaN."""
    floats = np.random.default_rng(0).integers(0, 2 ** 32, size, "uint32").view("float32")
    return np.where(np.isnan(floats), 1, floats).astype("float32")


@pytest.mark.parametrize("w", [SPECIAL, random_floats(1), random_floats(33), random_floats(40_003)], ids=len)
@every_float32
def test_bits_are_w_rounded_to_nearest_even(op, backend, dtype, w):
    """With no gradient, moments and decay, w stays as it is: tiny, huge, infinite, negative. Two guards around bits."""
    before, w, guarded = w, w.copy(), np.full(len(w) + 64, 7, "uint16")
    pair(op, backend)[0](w, *np.zeros((3, len(w)), dtype), 1, 0.1, bits=guarded[32:-32])
    assert_same_bits([w, guarded[32:-32]], [before, nearest_bits(w)])
    assert (guarded[:32] == 7).all() and (guarded[-32:] == 7).all()


@pytest.mark.parametrize("dims", EVERY_SIZE, ids=lambda d: f"C={d.C}")
@every_float32
def test_bits_are_of_the_updated_w_and_change_nothing(op, backend, dtype, dims):
    with_bits, without = (sample(op, dtype, dims) for _ in range(2))
    with_bits["grad"][-1] = without["grad"][-1] = np.nan
    bits = np.zeros(len(without["w"]), "uint16")
    pair(op, backend)[0](**with_bits, bits=bits)
    pair(op, backend)[0](**without)
    assert_same_bits(with_bits, without)
    assert_same_bits(bits[:-1], nearest_bits(with_bits["w"][:-1]))
    assert np.isnan(as_floats(bits[-1:]))


@pytest.mark.parametrize("bits, words", [
    (np.zeros(768, "int16"), "bits must have dtype uint16: got int16"),
    (np.zeros(767, "uint16"), "bits must have shape"),
    (np.zeros((768, 1), "uint16"), "bits must have shape"), ([0] * 768, "bits must be None or an array of uint16"),
    (np.zeros(768, "float32"), "bits must have dtype uint16")],
    ids=["int16", "shorter", "two axes", "a list", "floats"])
@every_float32
def test_wrong_bits_are_named_before_anything_is_written(op, backend, dtype, bits, words):
    args, untouched = sample(op, dtype), sample(op, dtype)
    with pytest.raises(ValueError, match=words):
        pair(op, backend)[0](**args, bits=bits)
    assert_same_bits(args, untouched)


@every_update
def test_bits_of_float64_are_refused(op, backend, dtype):
    args = sample(op, dtype)
    if dtype == "float64":
        with pytest.raises(ValueError, match="bits are of a float32 w: got a w of float64"):
            pair(op, backend)[0](**args, bits=np.zeros(args["w"].size, "uint16"))
    pair(op, backend)[0](**args, bits=None)
