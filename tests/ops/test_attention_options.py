"""Attention sinks and the soft-cap of scores: by their definitions, every gradient, kernels beside their blocks."""
from math import exp, sqrt, tanh

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import gradcheck
from minillm.kernels.select import choices, select
from minillm.models.packing import apart
from minillm.ops import attention_decode, grouped_attention_backward, grouped_attention_forward

kernels = pytest.mark.skipif("cpu" not in choices("grouped_attention"), reason="no kernels are built")
OPTIONS = {"sinks": (True, 0.0), "softcap": (False, 0.8), "both": (True, 0.8)}
options = pytest.mark.parametrize("with_sinks, softcap", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sample(rng, T, n_head=4, n_kv_head=2, HS=5, B=2, dtype="float64"):
    """q, k, v and sinks."""
    arrays = [rng.standard_normal((B, T, heads * HS)).astype(dtype) for heads in (n_head, n_kv_head, n_kv_head)]
    return *arrays, rng.standard_normal(n_head).astype(dtype)


def by_definition(q, k, v, n_head, window, sinks, softcap):
    """One number after the other."""
    out, HS = np.zeros(q.shape), q.shape[2] // n_head
    group = n_head * HS // k.shape[2]
    for b, t, h in np.ndindex(len(q), q.shape[1], n_head):
        at, g = slice(h * HS, h * HS + HS), slice(h // group * HS, h // group * HS + HS)
        seen = range(max(0, t - window + 1) if window else 0, t + 1)
        scores = [float(q[b, t, at] @ k[b, s, g]) / sqrt(HS) for s in seen]
        weights = [exp(softcap * tanh(score / softcap) if softcap else score) for score in scores]
        total = sum(weights) + (exp(sinks[h]) if sinks is not None else 0)
        out[b, t, at] = sum(w / total * v[b, s, g] for w, s in zip(weights, seen))
    return out


@options
@pytest.mark.parametrize("window", [0, 3])
def test_definition(rng, with_sinks, softcap, window):
    q, k, v, sinks = sample(rng, 6)
    given = (4, window, sinks if with_sinks else None, softcap)
    assert_close("out", grouped_attention_forward(q, k, v, *given)[0], by_definition(q, k, v, *given), "by hand")


@pytest.mark.parametrize("method", ["complex", "central"])
@options
@pytest.mark.parametrize("window", [0, 3])
def test_gradients(rng, with_sinks, softcap, window, method):
    q, k, v, sinks = sample(rng, 5)
    backends = ["numpy"] if method == "complex" else [b for b in ("numpy", "cpu") if b in choices("grouped_attention")]
    for ops in map(select, backends):
        def forward(q, k, v, sinks=None, ops=ops):
            return ops.grouped_attention_forward(q, k, v, 4, window, sinks, softcap)
        inputs = {"q": q, "k": k, "v": v} | ({"sinks": sinks} if with_sinks else {})
        rows = gradcheck(forward, ops.grouped_attention_backward, inputs, method=method, verbose=False)
        assert [row.name for row in rows] == list(inputs)


def test_what_changes_nothing(rng):
    """A sink of -inf takes no weight, and a cap far above all scores bounds nothing."""
    q, k, v, sinks = sample(rng, 7)
    plain = grouped_attention_forward(q, k, v, 4)[0]
    out, cache = grouped_attention_forward(q, k, v, 4, sinks=np.full(4, -np.inf))
    assert_close("out", out, plain, "by hand")
    assert not grouped_attention_backward(plain, cache)[3].any()
    assert np.abs(grouped_attention_forward(q, k, v, 4, softcap=1e6)[0] - plain).max() < 1e-9


@kernels
@options
@pytest.mark.parametrize("backend, dtype", [("cpu", "float32"), ("cpu", "float64"), ("cpu/bf16", "float32")])
@pytest.mark.parametrize("T, window", [(1, 0), (64, 0), (130, 0), (130, 65), (200, 70), (65, 3)])
def test_kernels(rng, T, window, backend, dtype, with_sinks, softcap):
    q, k, v, sinks = sample(rng, T, dtype=dtype)
    given = (4, window, sinks if with_sinks else None, softcap)
    dout, ops = rng.standard_normal(q.shape).astype(dtype), select(backend)
    out, cache = ops.grouped_attention_forward(q, k, v, *given)
    want, reference = grouped_attention_forward(q, k, v, *given)
    tolerance = "reference bfloat16" if "bf16" in backend else f"reference {dtype}"
    assert_close("out", out, want, tolerance)
    found, wanted = ops.grouped_attention_backward(dout, cache), grouped_attention_backward(dout, reference)
    assert len(found) == len(wanted) == 3 + with_sinks
    for name, got, right in zip(("dq", "dk", "dv", "dsinks"), found, wanted):
        assert_close(name, got, right, tolerance)


@kernels
@options
@pytest.mark.parametrize("new, window", [(1, 0), (7, 0), (1, 100), (7, 65)])
def test_decoding_repeats_the_bits(rng, new, window, with_sinks, softcap):
    q, k, v, sinks = sample(rng, 150, HS=8, dtype="float32")
    given = (window, sinks if with_sinks else None, softcap)
    whole = select("cpu").grouped_attention_forward(q, k, v, 4, *given)[0]
    heads = [np.ascontiguousarray(x.reshape(2, 150, -1, 8).swapaxes(1, 2)) for x in (q, k, v)]
    newest = np.ascontiguousarray(heads[0][:, :, -new:])
    assert_same_bits(select("cpu").attention_decode(newest, heads[1], heads[2], *given), whole[:, -new:])
    assert_close("numpy", attention_decode(newest, heads[1], heads[2], *given), whole[:, -new:], "reference float32")


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_packed_documents_share_the_sinks(rng, backend):
    q, k, v, sinks = sample(rng, 9, B=1)
    ops, lengths, dout = select(backend), [2, 4, 3], rng.standard_normal(q.shape)
    packed = apart(ops, lengths)
    out, cache = packed.grouped_attention_forward(q, k, v, 4, 3, sinks=sinks, softcap=0.8)
    grads, shares = packed.grouped_attention_backward(dout, cache), []
    for begin, end in ((0, 2), (2, 6), (6, 9)):
        one, left = grouped_attention_forward(*(x[:, begin:end] for x in (q, k, v)), 4, 3, sinks, 0.8)
        assert_close("out", out[:, begin:end], one, "regrouped float64")
        shares.append(grouped_attention_backward(dout[:, begin:end], left))
    for name, grad, parts in zip(("dq", "dk", "dv"), grads, zip(*shares)):
        assert_close(name, grad, np.concatenate(parts, 1), "regrouped float64")
    assert_close("dsinks", grads[3], sum(share[3] for share in shares), "regrouped float64")


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("change, words", [
    ({"sinks": np.zeros(3)}, "sinks"), ({"sinks": np.zeros(4, "float32")}, "sinks"),
    ({"sinks": np.zeros((4, 1))}, "sinks"),
    ({"softcap": -1.0}, "softcap"), ({"softcap": float("nan")}, "softcap"), ({"window": -1}, "window")])
def test_bad_options(rng, backend, change, words):
    q, k, v, _ = sample(rng, 3)
    ops = select(backend)
    heads = [np.ascontiguousarray(x.reshape(2, 3, -1, 5).swapaxes(1, 2)) for x in (q, k, v)]
    for call in (lambda: ops.grouped_attention_forward(q, k, v, 4, **change),
                 lambda: ops.attention_decode(*heads, **change)):
        with pytest.raises(ValueError, match=words):
            call()
