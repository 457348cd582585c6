"""What attention promises beyond the contract of the pair: causality, its definition, no overflow, cached decoding."""
import numpy as np
import pytest
from cases import every, pair, precision, sample
from tolerances import assert_close, same_bits

from minillm import ops as reference
from minillm.ops.attention import logsumexps, split_heads
from minillm.ops.table import Dims


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
@every("attention")
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


@every("attention")
def test_attention_is_its_definition(op, backend, dtype):
    """Equation 1 of Vaswani et al. 2017 for one query at a time, in float64."""
    args = sample(op, dtype, Dims(B=2, T=6, C=12, NH=3))
    q, k, v = reference.attention.split_heads(args["qkv"].astype("float64"), 3)          # each (B, NH, T, 4)
    want = np.zeros((2, 6, 12))
    for b, head, t in np.ndindex(2, 3, 6):
        weights = np.exp(k[b, head, :t + 1] @ q[b, head, t] / 2)                         # sqrt(4) = 2
        want[b, t, 4 * head:4 * head + 4] = weights @ v[b, head, :t + 1] / weights.sum()
    assert_close("out", pair(op, backend)[0](**args)[0], want, f"reference {precision(backend, dtype)}")


@every("attention")
def test_huge_scores_stay_finite(op, backend, dtype):
    """q . k near 1e4: the exponentials overflow unless the maximum is taken out, and the largest score takes all."""
    qkv = np.zeros((1, 3, 3), dtype)
    qkv[0, :, 0], qkv[0, :, 1], qkv[0, :, 2] = 100, [-100, 100, 99], [1, 2, 3]           # q, k, v of one head of size 1
    out, cache = pair(op, backend)[0](qkv, 1)
    assert out.ravel().tolist() == [1, 2, 2]
    assert np.isfinite(pair(op, backend)[1](np.ones_like(out), cache)).all()


@every("attention")
def test_first_token_attends_to_itself_alone(op, backend, dtype):
    args = sample(op, dtype)
    out, _ = pair(op, backend)[0](**args)
    assert_close("out[:, 0]", out[:, 0], args["qkv"][:, 0, -out.shape[-1]:], f"regrouped {precision(backend, dtype)}")


@every("attention")
def test_attention_of_equal_keys_is_a_running_mean(op, backend, dtype):
    qkv = sample(op, dtype, Dims(T=6))["qkv"]
    qkv[..., 8:16] = 0                                          # all keys zero: every score is equal
    out, _ = pair(op, backend)[0](qkv, 2)
    mean = np.cumsum(qkv[..., 16:], axis=1) / np.arange(1, 7)[:, None]
    assert_close("out", out, mean, f"regrouped {precision(backend, dtype)}")


@every("attention_decode")
@pytest.mark.parametrize("new", [1, 3, 7])
def test_decode_is_the_end_of_attention(op, backend, dtype, new):
    args = sample("attention", dtype, Dims(T=7))
    q, k, v = reference.attention.split_heads(args["qkv"], args["n_head"])
    got = pair(op, backend)[0](np.ascontiguousarray(q[:, :, -new:]), np.ascontiguousarray(k), np.ascontiguousarray(v))
    assert_close("out", got, reference.attention_forward(**args)[0][:, -new:], f"reference {dtype}")


def test_logsumexps_are_those_of_the_scores():
    """What a kernel keeps of the probabilities, row by row, also where exp overflows."""
    rng = np.random.default_rng(0)
    for n_head, scale in ((1, 1), (2, 1), (3, 300)):
        qkv = scale * rng.standard_normal((2, 5, 3 * n_head * 4))
        q, k, _ = split_heads(qkv, n_head)
        found = logsumexps(qkv, n_head)
        assert found.shape == (2, n_head, 5)
        for b, h, t in np.ndindex(found.shape):
            scores = k[b, h, :t + 1] @ q[b, h, t] / 2                              # sqrt(HS) is 2
            want = scores.max() + np.log(np.exp(scores - scores.max()).sum())
            assert abs(found[b, h, t] - want) <= 1e-12 * max(1, abs(want))
