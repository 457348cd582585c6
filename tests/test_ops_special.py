"""What single ops promise beyond the contract of the pair: causality, exact masks, known values, memory."""
import math
import tracemalloc
from inspect import signature

import numpy as np
import pytest
from cases import cases, each, named_grads, normal_like, pair, precision, sample
from tolerances import assert_close, assert_same_bits, same_bits

from minillm import ops as reference
from minillm.ops.dropout import keep_mask, random_bits
from minillm.kernels.select import OPS, Dims, choices


def cases_of(op):
    return [case for case in cases(kinds=("pair", "decode")) if case.values[0] == op]


every_attention = pytest.mark.parametrize("op, backend, dtype", cases_of("attention"))
every_dropout = pytest.mark.parametrize("op, backend, dtype", cases_of("dropout"))
every_cross_entropy = pytest.mark.parametrize("op, backend, dtype", cases_of("cross_entropy"))
every_head = pytest.mark.parametrize("op, backend, dtype", cases_of("linear_cross_entropy"))
every_embedding = pytest.mark.parametrize("op, backend, dtype", cases_of("embedding"))


# ---- attention ----------------------------------------------------------------------------------------------------

def leaks(forward, dtype, size, position, T=9):
    """Does changing token `position` change any bit of an output before it?"""
    args = sample("attention", dtype, Dims(B=2, T=T, C=8, NH=2))
    changed = args["qkv"].copy()
    changed[:, position] = size * np.random.default_rng(5).standard_normal(changed[:, position].shape)
    with np.errstate(all="ignore"):             # a huge q . k may overflow in the row of the changed token itself
        before, after = (forward(qkv, args["n_head"])[0][:, :position] for qkv in (args["qkv"], changed))
    return not same_bits(before, after)


@pytest.mark.parametrize("position", [1, 4, 8])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
@every_attention
def test_no_token_sees_the_future(op, backend, dtype, size, position):
    assert not leaks(pair(op, backend)[0], dtype, size, position)


def test_a_mask_off_by_one_is_seen(monkeypatch):
    """The test above can fail: a mask that shows one future token, and one of large negative numbers, both leak."""
    def off_by_one(S):
        return softmax(np.where(np.tri(*S.shape[-2:], k=1, dtype=bool), S, -np.inf))

    def additive(S):
        return softmax(S - 1e4 * ~np.tri(*S.shape[-2:], dtype=bool))

    def softmax(S):
        P = np.exp(S - S.max(axis=-1, keepdims=True))
        return P / P.sum(axis=-1, keepdims=True)

    for mask, size in ((off_by_one, 1.0), (additive, 1e5)):
        monkeypatch.setattr("minillm.ops.attention.causal_softmax", mask)
        assert leaks(reference.attention_forward, "float64", size, 4), mask.__name__


@every_attention
def test_attention_is_its_definition(op, backend, dtype):
    """Equation 1 of Vaswani et al. 2017 for one query at a time, in float64."""
    args = sample(op, dtype, Dims(B=2, T=6, C=12, NH=3))
    q, k, v = reference.attention.split_heads(args["qkv"].astype("float64"), 3)          # each (B, NH, T, 4)
    want = np.zeros((2, 6, 12))
    for b, head, t in np.ndindex(2, 3, 6):
        weights = np.exp(k[b, head, :t + 1] @ q[b, head, t] / 2)                         # sqrt(4) = 2
        want[b, t, 4 * head:4 * head + 4] = weights @ v[b, head, :t + 1] / weights.sum()
    assert_close("out", pair(op, backend)[0](**args)[0], want, f"reference {precision(backend, dtype)}")


@every_attention
def test_huge_scores_stay_finite(op, backend, dtype):
    """q . k near 1e4: the exponentials overflow unless the maximum is taken out, and the largest score takes all."""
    qkv = np.zeros((1, 3, 3), dtype)
    qkv[0, :, 0], qkv[0, :, 1], qkv[0, :, 2] = 100, [-100, 100, 99], [1, 2, 3]           # q, k, v of one head of size 1
    out, cache = pair(op, backend)[0](qkv, 1)
    assert out.ravel().tolist() == [1, 2, 2]
    assert np.isfinite(pair(op, backend)[1](np.ones_like(out), cache)).all()


@every_attention
def test_first_token_attends_to_itself_alone(op, backend, dtype):
    args = sample(op, dtype)
    out, _ = pair(op, backend)[0](**args)
    assert_close("out[:, 0]", out[:, 0], args["qkv"][:, 0, -out.shape[-1]:], f"regrouped {precision(backend, dtype)}")


@every_attention
def test_attention_of_equal_keys_is_a_running_mean(op, backend, dtype):
    qkv = sample(op, dtype, Dims(T=6))["qkv"]
    qkv[..., 8:16] = 0                                          # all keys zero: every score is equal
    out, _ = pair(op, backend)[0](qkv, 2)
    mean = np.cumsum(qkv[..., 16:], axis=1) / np.arange(1, 7)[:, None]
    assert_close("out", out, mean, f"regrouped {precision(backend, dtype)}")


@pytest.mark.parametrize("op, backend, dtype", cases_of("attention_decode"))
@pytest.mark.parametrize("new", [1, 3, 7])
def test_decode_is_the_end_of_attention(op, backend, dtype, new):
    args = sample("attention", dtype, Dims(T=7))
    q, k, v = reference.attention.split_heads(args["qkv"], args["n_head"])
    got = pair(op, backend)[0](np.ascontiguousarray(q[:, :, -new:]), np.ascontiguousarray(k), np.ascontiguousarray(v))
    assert_close("out", got, reference.attention_forward(**args)[0][:, -new:], f"reference {dtype}")


# ---- dropout ------------------------------------------------------------------------------------------------------

KEY = (3, 2 ** 40 + 1, 7)
N = 100_000


def five_sigma(p, n=N):
    return 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@every_dropout
def test_dropout_keeps_the_mean(op, backend, dtype, p):
    out, _ = pair(op, backend)[0](np.ones(N, dtype), p, KEY)
    kept = out != 0
    assert abs(kept.mean() - (1 - p)) <= five_sigma(p)
    assert_close("kept values", out[kept], np.full(kept.sum(), 1 / (1 - p), dtype), f"regrouped {dtype}")
    assert abs(out.mean(dtype="float64") - 1) <= five_sigma(p) / (1 - p) + 1e-6


def test_dropout_expectation_is_x():
    """Over many steps the mean of out[i] is x[i], for each element by itself: within 5 deviations."""
    x, p, steps = np.linspace(-2, 2, 64), 0.25, 2000
    mean = sum(reference.dropout_forward(x, p, (0, step, 0))[0] for step in range(steps)) / steps
    assert np.all(np.abs(mean - x) <= 5 * np.abs(x) * math.sqrt(p / (1 - p) / steps) + 1e-12)


@every_dropout
def test_dropout_mask_is_the_same_in_every_backend(op, backend, dtype):
    forward, backward = pair(op, backend)
    x = np.ones((3, 5, 7), dtype)
    out, cache = forward(x, 0.25, KEY)
    mask = keep_mask(x.size, 0.25, KEY).reshape(x.shape)
    assert np.array_equal(out != 0, mask)
    assert np.array_equal(backward(x, cache) != 0, mask)


@pytest.mark.parametrize("other", [(4, KEY[1], 7), (3, KEY[1] + 1, 7), (3, 1, 7), (3, KEY[1], 8), (KEY[1], 3, 7),
                                   (3 + 2 ** 40, KEY[1], 7), (3, KEY[1], 7 + 2 ** 40)])
def test_dropout_masks_of_different_keys_are_independent(other):
    """Seed, step and site all matter, in all their 64 bits: two fair masks agree on half of the elements."""
    agree = (keep_mask(N, 0.5, KEY) == keep_mask(N, 0.5, other)).mean()
    assert abs(agree - 0.5) <= five_sigma(0.5)


def test_dropout_of_an_element_does_not_depend_on_the_size():
    whole = keep_mask(1000, 0.3, KEY)
    for size in (1, 2, 7, 8, 9, 511):
        assert np.array_equal(keep_mask(size, 0.3, KEY), whole[:size])


def philox(counter, key):
    """Philox 4x64-10 of Salmon et al. 2011, in plain integers: four 64-bit words."""
    c, (k0, k1), mask = list(counter), key, 2 ** 64 - 1
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k0, b & mask, (a >> 64) ^ c[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c


def test_dropout_bits_are_philox():
    """Block b of eight elements encrypts (b + 1, step, site, 0) under (seed, 0), low half of each word first."""
    seed, step, site = KEY
    words = [word for b in range(3) for word in philox((b + 1, step, site, 0), (seed, 0))]
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    assert random_bits(21, KEY).tolist() == halves[:21]


# ---- cross-entropy ------------------------------------------------------------------------------------------------

@every_cross_entropy
def test_cross_entropy_by_hand(op, backend, dtype):
    """Logits log 1, log 2, log 5 are the probabilities 1/8, 2/8, 5/8."""
    forward, backward = pair(op, backend)
    logits = np.log(np.array([[1, 2, 5]] * 3)).astype(dtype)
    losses, cache = forward(logits, np.array([2, 0, -1]))
    assert_close("losses", losses, [math.log(8 / 5), math.log(8), 0], f"regrouped {dtype}")
    dlogits = backward(np.array([1, 2, 3], dtype), cache)
    want = np.array([[1, 2, -3], [-14, 4, 10], [0, 0, 0]]) / 8
    assert_close("dlogits", dlogits, want, f"regrouped {dtype}")


@pytest.mark.parametrize("ignore_index", [-1, -100, 2])
@every_cross_entropy
def test_ignored_rows_are_exactly_zero(op, backend, dtype, ignore_index):
    forward, backward = pair(op, backend)
    logits = sample(op, dtype, Dims(B=3, T=5))["logits"]
    targets = np.arange(15) % 7
    targets[[0, 4, 14]] = ignore_index
    losses, cache = forward(logits, targets, ignore_index)
    dlogits = backward(np.ones(15, dtype), cache)
    ignored = targets == ignore_index
    assert np.all(losses[ignored] == 0) and np.all(losses[~ignored] > 0)
    assert np.all(dlogits[ignored] == 0) and np.all(np.abs(dlogits[~ignored]).sum(axis=1) > 0)


@every_cross_entropy
def test_huge_logits_stay_finite(op, backend, dtype):
    forward, backward = pair(op, backend)
    logits = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4], [-1e4, -1e4, -1e4]], dtype)
    losses, cache = forward(logits, np.array([0, 2, 1]))
    assert_close("losses", losses, [0, 2e4, math.log(3)], f"regrouped {dtype}")
    dlogits = backward(np.ones(3, dtype), cache)
    assert_close("dlogits", dlogits, [[0, 0, 0], [1, 0, -1], [1 / 3, -2 / 3, 1 / 3]], f"huge logits {dtype}")


@every_cross_entropy
def test_dlogits_of_a_row_sum_to_zero(op, backend, dtype):
    forward, backward = pair(op, backend)
    losses, cache = forward(**sample(op, dtype, Dims(V=33)))
    sums = backward(np.ones_like(losses), cache).sum(axis=1)
    assert_close("sums", sums, np.zeros_like(sums), f"regrouped {dtype}")


# ---- the chunked head ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
@every_head
def test_chunks_change_nothing(op, backend, dtype, rows):
    """The fused op is linear (weight wte.T, no bias) followed by cross_entropy, on each side of a chunk's edge."""
    rng = np.random.default_rng(rows)
    x, wte = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, 6), (11, 6)))
    targets, dout = rng.integers(-1, 11, rows), rng.standard_normal(rows).astype(dtype)
    forward, backward = pair(op, backend)
    losses, cache = forward(x, wte, targets)
    dx, dwte = backward(dout, cache)
    logits, linear_cache = reference.linear_forward(x, wte.T.copy(), np.zeros(11, dtype))
    want, loss_cache = reference.cross_entropy_forward(logits, targets)
    want_dx, dweight, _ = reference.linear_backward(reference.cross_entropy_backward(dout, loss_cache), linear_cache)
    for name, got, right in (("losses", losses, want), ("dx", dx, want_dx), ("dwte", dwte, dweight.T)):
        assert_close(name, got, right, f"reference {precision(backend, dtype)}")


@pytest.mark.parametrize("backend", choices("linear_cross_entropy"))
def test_all_logits_are_never_in_memory(backend):
    """4096 x 2000 float32 logits would be 33 MB; a chunk of 256 rows is 2 MB, and a handful of them are alive."""
    N, V, C = 4096, 2000, 8
    rng = np.random.default_rng(0)
    x, wte = (rng.standard_normal(shape).astype("float32") for shape in ((N, C), (V, C)))
    forward, backward = pair("linear_cross_entropy", backend)
    tracemalloc.start()
    losses, cache = forward(x, wte, rng.integers(0, V, N))
    backward(np.ones_like(losses), cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N * V * 4 / 3, f"peak {peak / 1e6:.1f} MB"


# ---- embedding, GELU, LayerNorm -----------------------------------------------------------------------------------

@every_embedding
def test_repeated_tokens_add_up(op, backend, dtype):
    forward, backward = pair(op, backend)
    tokens = np.array([[2, 2, 0], [2, 1, 2]])
    wte, wpe = np.arange(8, dtype=dtype).reshape(4, 2), 100 * np.arange(10, dtype=dtype).reshape(5, 2)
    out, cache = forward(tokens, wte, wpe, 1)
    assert out[1, 2].tolist() == [4 + 600, 5 + 700]             # token 2 at position start + 2 = 3
    dwte, dwpe = backward(np.arange(1, 13, dtype=dtype).reshape(2, 3, 2), cache)
    assert dwte.tolist() == [[5, 6], [9, 10], [1 + 3 + 7 + 11, 2 + 4 + 8 + 12], [0, 0]]
    assert dwpe.tolist() == [[0, 0], [8, 10], [12, 14], [16, 18], [0, 0]]


@pytest.mark.parametrize("op, backend, dtype", cases_of("gelu"))
def test_gelu_known_values(op, backend, dtype):
    """gelu(0) = 0; far out it is x or 0; at 1 the formula, worked out with `math`."""
    x = np.array([0, 30, -30, 1], dtype)
    out, _ = pair(op, backend)[0](x)
    at_one = 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))
    assert_close("out", out, [0, 30, 0, at_one], f"regrouped {dtype}")


@pytest.mark.parametrize("op, backend, dtype", cases_of("layernorm"))
def test_layernorm_is_its_definition(op, backend, dtype):
    """One row of 1, 2, 3, 6: mean 3, variance 3.5; eps counts, so that a row of equal numbers gives the bias."""
    weight, bias = np.array([1, 2, 3, 4], dtype), np.array([5, 6, 7, 8], dtype)
    x = np.array([[1, 2, 3, 6], [7, 7, 7, 7]], dtype)
    out, cache = pair(op, backend)[0](x, weight, bias, 0.5)
    assert_close("out", out, [np.array([-2, -1, 0, 3]) / 2 * weight + bias, bias], f"regrouped {dtype}")
    assert np.isfinite(pair(op, backend)[1](np.ones_like(out), cache)[0]).all()


DATA = ("x", "y", "qkv", "logits")                  # differentiable arguments that are not parameters
WITH_PARAMETERS = [op for op, spec in OPS.items() if spec.kind == "pair"
                   and "into" in signature(getattr(reference, f"{op}_backward")).parameters]


def run(op, backend, dtype):
    """(backward, dout, cache, {gradient's name: array}) of a sample of the op."""
    forward, backward = pair(op, backend)
    out, cache = forward(**sample(op, dtype))
    rng = np.random.default_rng(3)
    dout = each(lambda array: normal_like(array, rng), out)
    return backward, dout, cache, named_grads(op, backward(dout, cache))


@pytest.mark.parametrize("op, backend, dtype", [case for op in WITH_PARAMETERS for case in cases_of(op)])
def test_backward_adds_into_arrays_it_is_given(op, backend, dtype):
    """Gradients of parameters can be added to the caller's buffer; the sum is the same, and the others are."""
    backward, dout, cache, fresh = run(op, backend, dtype)
    into = tuple(np.full_like(grad, 0.5) for name, grad in fresh.items() if name[1:] not in DATA)
    got = named_grads(op, backward(dout, cache, into=into))
    for name, grad in got.items():
        if name[1:] in DATA:
            assert_same_bits(grad, fresh[name], name)
        else:
            assert any(grad is array for array in into), name
            assert_close(name, grad, fresh[name] + 0.5, f"regrouped {precision(backend, dtype)}")
    with pytest.raises(ValueError, match="into"):
        backward(dout, cache, into=tuple(np.ascontiguousarray(array[:-1]) for array in into))
    with pytest.raises(ValueError, match="into"):
        backward(dout, cache, into=into[:-1])


@pytest.mark.parametrize("op, backend, dtype", [case for op in WITH_PARAMETERS for case in cases_of(op)])
def test_what_nobody_wants_is_not_there_and_changes_nothing(op, backend, dtype):
    """None in place of one gradient, or of all: the others keep every bit."""
    backward, dout, cache, grads = run(op, backend, dtype)
    parameters = {name: grad for name, grad in grads.items() if name[1:] not in DATA}

    def into(unwanted):
        return tuple(None if name in unwanted else np.full_like(grad, 0.5) for name, grad in parameters.items())
    whole = named_grads(op, backward(dout, cache, into=into([])))
    for names in [*([name] for name in parameters), list(parameters)]:
        for name, grad in named_grads(op, backward(dout, cache, into=into(names))).items():
            assert (grad is None) == (name in names), name
            if grad is not None:
                assert_same_bits(grad, whole[name], name)


# ---- the stream and its LayerNorm ---------------------------------------------------------------------------------

@pytest.mark.parametrize("op, backend, dtype", cases_of("residual_layernorm"))
def test_fused_is_addition_then_layernorm(op, backend, dtype):
    """The same bits as the two steps apart, forward and backward; dsum may be left out."""
    args, dims = sample(op, dtype, Dims(3, 7, 72, 3)), (3, 7, 72)
    x, y, *rest = args.values()
    dsum, dout = np.random.default_rng(1).standard_normal((2, *dims)).astype(dtype)
    (s, out), cache = pair(op, backend)[0](**args)
    forward, backward = pair("layernorm", backend)
    want, norm_cache = forward(x + y, *rest)
    assert_same_bits([s, out], [x + y, want])
    ds, dweight, dbias = backward(dout, norm_cache)
    dx, dy, *got = pair(op, backend)[1]((dsum, dout), cache)
    assert dx is dy
    assert_same_bits([dx, *got], [ds + dsum, dweight, dbias])
    assert_same_bits(pair(op, backend)[1]((None, dout), cache)[0], ds)
