"""The CUDA kernels on the emulator: sizes, schedules, NaN, determinism, and a model that trains on them.

The contract of the op pair is tested where all backends are (tests/ops); this is what only GPU kernels have.
"""
import math

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.config import GPTConfig
from minillm.kernels import select as registry
from minillm.kernels.select import select
from minillm.models.gpt2 import GPT
from minillm.train.optim import AdamW

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)

EXACT, TENSOR_CORES = ["1_naive", "2_flash"], ["3_mma", "4_wgmma"]
VARIANTS = EXACT + TENSOR_CORES
exact_variants, tensor_cores, every_variant = (pytest.mark.parametrize("variant", r)
                                               for r in (EXACT, TENSOR_CORES, VARIANTS))
# What a 16-bit P and a 16-bit result cost, as a part of the tensor's norm: half a unit in the last place of 8 or 11
# bits is 2e-3 or 2.4e-4, spread evenly 0.6 of it; twice for P and dS in the gradients.
ROUNDING = {"bfloat16": 3e-3, "float16": 4e-4}
both_masks = pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
# in order; shuffled; + a warp ahead; + copies at once; + by coin; all; any thread, copies at once
SCHEDULES = [0, 8, 9, 10, 12, 31, 42]


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)
    sim.set_capability(90)


def functions(variant):
    return getattr(sim, f"attention_forward_{variant}"), getattr(sim, f"attention_backward_{variant}")


def inputs(B, T, NH, HS, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, 3 * NH * HS)).astype(dtype), rng.standard_normal((B, T, NH * HS)).astype(dtype)


def results(variant, qkv, dout, n_head, causal=True):
    forward, backward = functions(variant)
    out, cache = forward(qkv, n_head, causal)
    return {"out": out, "lse": cache[-1], "dqkv": backward(dout, cache)}


def expected(qkv, dout, n_head, causal=True):
    """In float64, with the T x T matrix."""
    qkv, dout = qkv.astype("float64"), dout.astype("float64")
    q, k, v = reference.attention.split_heads(qkv, n_head)
    S = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        S = np.where(np.tri(S.shape[-1], dtype=bool), S, -np.inf)
    top = S.max(axis=-1, keepdims=True)
    total = np.exp(S - top).sum(axis=-1, keepdims=True)
    P = np.exp(S - top) / total
    return {"out": reference.attention.merge_heads(P @ v), "lse": (top + np.log(total))[..., 0],
            "dqkv": reference.attention_backward(dout, (qkv, n_head, P))}


def bfloat16(x):
    """float32 rounded to bfloat16's 8 bits, ties to even; still float32."""
    bits = x.view("uint32")
    return ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000).astype("uint32").view("float32")


def relative_error(got, want):
    return np.linalg.norm(got.astype("float64") - want) / np.linalg.norm(want)


def check(variant, shape, causal, dtype="float32"):
    qkv, dout = inputs(*shape, dtype=dtype)
    if variant in TENSOR_CORES and dtype == "float32":
        qkv, dout = bfloat16(qkv), bfloat16(dout)
    want = expected(qkv, dout, shape[2], causal)
    for name, got in results(variant, qkv, dout, shape[2], causal).items():
        assert got.dtype == ("float32" if name == "lse" and variant in TENSOR_CORES else dtype)
        if variant in EXACT:
            assert_close(f"{variant} {shape} {name}", got, want[name], f"odd sizes {dtype}")
        elif name == "lse":
            assert_close(f"{variant} {shape} lse", got, want[name], "odd sizes float32")
        else:
            few = 1.5 if got.size < 100 else 1              # errors of few numbers do not average out
            assert relative_error(got, want[name]) <= few * ROUNDING[dtype.replace("float32", "bfloat16")], name


@both_masks
@pytest.mark.parametrize("T", [2, 31, 63, 64, 65, 130])
@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_any_number_of_tokens(T, variant, causal):
    check(variant, (1, T, 1, 32), causal)


@every_variant
def test_one_token(variant):
    """out is v; and softmax of one number is constant, so dq and dk are 0 (of 16-bit variants up to rounding)."""
    qkv, dout = (bfloat16(x) for x in inputs(2, 1, 2, 20))
    got = results(variant, qkv, dout, 2)
    assert_close("out", got["out"], qkv[..., 80:], "regrouped float32")
    assert_close("dv", got["dqkv"][..., 80:], dout, "regrouped float32")
    assert np.abs(got["dqkv"][..., :80]).max() < 3e-6


@both_masks
@every_variant
@pytest.mark.parametrize("HS", [1, 31, 32, 33, 64, 80, 128, 200, 255, 256])
def test_any_head_size(HS, variant, causal):
    check(variant, (1, 19, 1, HS), causal)


@both_masks
@pytest.mark.parametrize("T, HS", [(127, 64), (128, 128), (129, 128), (300, 40), (700, 64), (513, 128)])
def test_rows_longer_than_a_tile(T, HS, causal):
    """Of variant 4 a tile has 128 keys, and the ring has two places: from T = 513 on each is used a third time; in the
    backward 64 queries or 128 keys, and two places or three."""
    check("4_wgmma", (1, T, 1, HS), causal)


@tensor_cores
def test_heads_in_groups(variant):
    """The emulator's share of L2 holds two of these three heads, so the second group has a block without a head."""
    check(variant, (1, 20, 3, 8), True)


@tensor_cores
def test_error_is_that_of_the_numbers_not_of_the_sums(variant):
    """Long rows of scores near 1: against float64 the error stays at bfloat16's rounding, since sums are float32."""
    qkv, dout = (bfloat16(x) for x in inputs(1, 400, 1, 64))
    got, want = results(variant, qkv, dout, 1), expected(qkv, dout, 1)
    HS = 64
    assert relative_error(got["out"], want["out"]) < 2.5e-3
    for i, name in enumerate("qkv"):
        part = slice(i * HS, (i + 1) * HS)
        assert relative_error(got["dqkv"][..., part], want["dqkv"][..., part]) < 4.5e-3, f"d{name}"


@both_masks
@pytest.mark.parametrize("HS", [64, 100, 128, 256])
@tensor_cores
def test_float16(variant, HS, causal):
    check(variant, (1, 35, 2, HS), causal, "float16")


@tensor_cores
def test_bfloat16_arrays_equal_rounded_float32(variant):
    """NumPy has no bfloat16 of its own; that of ml_dtypes goes in and comes out."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    qkv, dout = (bfloat16(x) for x in inputs(1, 35, 2, 64))
    short = results(variant, qkv.astype(ml_dtypes.bfloat16), dout.astype(ml_dtypes.bfloat16), 2)
    for name, got in results(variant, qkv, dout, 2).items():
        assert short[name].dtype == ("float32" if name == "lse" else ml_dtypes.bfloat16)
        assert np.array_equal(short[name].astype("float32"), got), name


@exact_variants
@pytest.mark.parametrize("HS", [20, 64, 128, 256])
def test_float64(HS, variant):
    check(variant, (1, 35, 2, HS), True, "float64")


@every_variant
@pytest.mark.parametrize("shape", [(0, 5, 2, 8), (2, 0, 2, 8)], ids=str)
def test_empty_in_empty_out(variant, shape):
    qkv, dout = inputs(*shape)
    got = results(variant, qkv, dout, shape[2])
    assert got["out"].shape == dout.shape and got["dqkv"].shape == qkv.shape


@both_masks
@pytest.mark.parametrize("HS", [32, 128])
@every_variant
def test_equal_bits_under_every_schedule(variant, HS, causal):
    """No result may depend on which thread comes first, or on when a copy lands."""
    qkv, dout = inputs(1, 70, 2, HS)
    wanted = results(variant, qkv, dout, 2, causal)
    for seed in SCHEDULES[1:3] if variant == "1_naive" else SCHEDULES[1:]:     # which copies nothing
        sim.set_schedule(seed)
        for name, got in results(variant, qkv, dout, 2, causal).items():
            assert_same_bits(got, wanted[name], f"{name} under schedule {seed}")
    assert sim.take_bank_conflicts() == 0


@both_masks
@pytest.mark.parametrize("T, HS", [(290, 64), (530, 128)])
def test_equal_bits_of_long_rows_under_every_schedule(T, HS, causal):
    """Variant 4's copies, matmuls and warpgroups run beside each other as the schedule likes."""
    qkv, dout = inputs(1, T, 1, HS)
    wanted, cache = sim.attention_forward_4_wgmma(qkv, 1, causal)
    gradients = sim.attention_backward_4_wgmma(dout, cache)
    for seed in (*SCHEDULES[1:], 44):
        sim.set_schedule(seed)
        assert_same_bits(sim.attention_forward_4_wgmma(qkv, 1, causal)[0], wanted, f"schedule {seed}")
        if T < 300:                                         # longer ones take seconds
            assert_same_bits(sim.attention_backward_4_wgmma(dout, cache), gradients, f"schedule {seed}, backward")


def test_wgmma_needs_its_gpu():
    """And what it cannot do variant 3 does: heads of more than 128."""
    qkv, dout = inputs(1, 20, 1, 64)
    assert_same_bits(results("4_wgmma", *inputs(1, 20, 1, 160), 1), results("3_mma", *inputs(1, 20, 1, 160), 1))
    mma, wgmma = (results(variant, *inputs(1, 150, 1, 64, "float16"), 1)["dqkv"] for variant in TENSOR_CORES)
    assert not np.array_equal(mma, wgmma)                   # their sums have other orders
    cache = sim.attention_forward_4_wgmma(qkv, 1)[1]
    sim.set_capability(86)
    for call in (lambda: sim.attention_forward_4_wgmma(qkv, 1), lambda: sim.attention_backward_4_wgmma(dout, cache)):
        with pytest.raises(RuntimeError, match=r"need a GPU of compute capability 9.0 .H100, H200.: this has 8.6"):
            call()


def test_the_default_takes_the_best_variant():
    qkv = inputs(1, 150, 1, 64, "float16")[0]
    assert np.array_equal(sim.attention_forward(qkv, 1)[0], sim.attention_forward_4_wgmma(qkv, 1)[0])
    sim.set_capability(80)
    assert np.array_equal(sim.attention_forward(qkv, 1)[0], sim.attention_forward_3_mma(qkv, 1)[0])


@pytest.mark.parametrize("what", ["q", "k", "v"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@every_variant
def test_nan_touches_only_what_depends_on_it(variant, value, what):
    """Token 40 of the first head broken: rows before it keep their bits; so do the second head and other sequences."""
    qkv, dout = inputs(2, 70, 2, 8)
    clean = results(variant, qkv, dout, 2)
    qkv[0, 40, {"q": 0, "k": 16, "v": 32}[what] + 3] = value
    broken = results(variant, qkv, dout, 2)
    touched = slice(40, 41) if what == "q" else slice(40, None)
    expect = np.zeros(clean["out"].shape, bool)
    expect[0, touched, 3 if what == "v" else slice(0, 8)] = True
    bad = ~np.isfinite(broken["out"])
    if what == "v" or np.isnan(value):                      # an infinite score may be -inf, which is just not seen
        assert np.array_equal(bad, expect)
    assert_same_bits(broken["out"][~expect], clean["out"][~expect])
    same = np.isfinite(broken["dqkv"])
    assert same[1].all() and same[0].reshape(70, 3, 2, 8)[:, :, 1].all()
    assert same[0, :40, :8].all()                           # dq of the rows before
    if what == "q":
        assert same[0, 41:].all()                           # and what only later queries see


@both_masks
@every_variant
def test_scores_far_below_zero(variant, causal):
    """exp(0 - lse), past the last key or query, is infinite there, and reaches nothing."""
    qkv, dout = inputs(1, 20, 1, 64)
    got = results(variant, qkv + np.repeat(np.float32([6, -6, 0]), 64), dout, 1, causal)
    assert got["lse"].max() < -100 and all(np.isfinite(x).all() for x in got.values())


@every_variant
def test_nan_dout_touches_only_what_depends_on_it(variant):
    """dout of row 40 broken: dq of that row, dk and dv of the rows up to it."""
    qkv, dout = inputs(1, 70, 1, 8)
    dout[0, 40, 3] = np.nan
    bad = np.isnan(results(variant, qkv, dout, 1)["dqkv"][0]).reshape(70, 3, 8)
    dq, dk, dv = bad.swapaxes(0, 1)
    assert dq[40].all() and not np.delete(dq, 40, axis=0).any()
    assert dk[:41].all() and not dk[41:].any()
    assert dv[:41, 3].all() and not dv[41:].any() and not np.delete(dv, 3, axis=1).any()


@pytest.mark.parametrize("variant, dtype, words", [
    ("1_naive", "float16", "qkv must be float32 or float64: got float16"),
    ("2_flash", "int64", "qkv must be float32 or float64: got int64"),
    ("3_mma", "float64", "qkv must be float32 or float16 or bfloat16: got float64"),
    ("4_wgmma", "float64", "qkv must be float32 or float16 or bfloat16: got float64"),
])
def test_dtypes_of_the_variants(variant, dtype, words):
    with pytest.raises(ValueError, match=words):
        functions(variant)[0](inputs(1, 3, 2, 4)[0].astype(dtype), 2)


@pytest.mark.parametrize("change, words", [
    (lambda a: {**a, "qkv": a["qkv"].astype("int32")},
     "qkv must be float32 or float64 or float16 or bfloat16: got int32"),
    (lambda a: {**a, "n_head": 5}, "qkv must have a last axis of 3 . n_head . HS: got 24 with n_head=5"),
    (lambda a: {"qkv": np.zeros((1, 1, 3 * 257), "float32"), "n_head": 1}, "at most 256 numbers a head: got 257"),
])
def test_errors_name_the_argument(change, words):
    with pytest.raises(ValueError, match=words):
        sim.attention_forward(**change({"qkv": inputs(1, 3, 2, 4)[0], "n_head": 2}))


def test_seconds_of_the_last_call():
    sim.attention_forward(inputs(1, 9, 2, 4)[0], 2)
    assert set(sim.last_seconds()) == {"in", "kernels", "out"} and sim.last_seconds()["kernels"] > 0


def trained(backend, steps=2):
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=23), seed=0, ops=select(backend))
    optimizer = AdamW(model.params, lr=1e-2)
    losses = []
    for step in range(steps):
        tokens = np.random.default_rng(step).integers(0, 23, (2, 13))
        loss, grads = model.loss_and_grads(tokens[:, :-1], tokens[:, 1:])
        optimizer.step(grads)
        losses.append(loss)
    return losses, model.params.flat


@pytest.mark.parametrize("choice", ["cudasim", *(f"cudasim/{variant}" for variant in VARIANTS)])
def test_a_model_trains_on_it(choice):
    """Two steps of a small GPT: losses and weights equal the reference's within float32 rounding."""
    losses, weights = trained({"attention": choice})
    wanted_losses, wanted = trained("numpy")
    if choice[8:] in TENSOR_CORES:                          # bfloat16 inside
        assert np.abs(np.array(losses) - wanted_losses).max() < 1e-3
        return
    assert_close("losses", np.array(losses), np.array(wanted_losses), "odd sizes float32")
    # AdamW divides by |gradient|, so that a gradient near zero turns rounding into a step of the order of lr.
    assert np.abs(weights - wanted).max() < 2e-3 and np.median(np.abs(weights - wanted)) < 1e-6
    assert losses[1] != losses[0]
