"""Attention with shared heads of keys and values, and with a window: what the generated tests do not show."""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import gradcheck
from minillm.kernels.select import choices, select
from minillm.ops import attention_forward, grouped_attention_backward, grouped_attention_forward

kernels = pytest.mark.skipif("cpu" not in choices("grouped_attention"), reason="no kernels are built")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sample(rng, n_head, n_kv_head, T, HS=4, B=2, dtype="float64"):
    return [rng.standard_normal((B, T, heads * HS)).astype(dtype) for heads in (n_head, n_kv_head, n_kv_head)]


@pytest.mark.parametrize("n_head, n_kv_head", [(1, 1), (4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize("window", [0, 1, 3, 100])
def test_gradients(rng, n_head, n_kv_head, window):
    q, k, v = sample(rng, n_head, n_kv_head, 5)
    gradcheck(lambda q, k, v: grouped_attention_forward(q, k, v, n_head, window), grouped_attention_backward,
              {"q": q, "k": k, "v": v}, verbose=False)


def test_as_many_heads_of_keys_is_plain_attention(rng):
    qkv = rng.standard_normal((2, 7, 24))
    q, k, v = np.split(qkv, 3, axis=-1)
    assert_close("out", grouped_attention_forward(q, k, v, 4)[0], attention_forward(qkv, 4)[0], "by hand")


def test_shared_heads_are_heads_repeated(rng):
    q, k, v = sample(rng, 6, 2, 7)
    repeated = [np.repeat(x.reshape(2, 7, 2, 4), 3, axis=2).reshape(2, 7, 24) for x in (k, v)]
    assert_close("out", grouped_attention_forward(q, k, v, 6)[0], grouped_attention_forward(q, *repeated, 6)[0],
                 "by hand")


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_window_is_what_its_rows_alone_would_give(rng, window):
    """Query t with its last `window` tokens as the whole sequence."""
    q, k, v = sample(rng, 4, 2, 9)
    out = grouped_attention_forward(q, k, v, 4, window)[0]
    for t in range(9):
        seen = slice(max(0, t - window + 1), t + 1)
        alone = grouped_attention_forward(q[:, seen], k[:, seen], v[:, seen], 4)[0]
        assert_close(f"out at {t}", out[:, t], alone[:, -1], "by hand")


@kernels
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T, window", [(1, 1), (64, 64), (130, 1), (130, 63), (130, 64), (130, 65), (130, 129),
                                       (200, 70), (65, 3)])
def test_the_kernel_with_windows_beside_its_blocks(rng, T, window, dtype):
    q, k, v = sample(rng, 4, 2, T, HS=5, dtype=dtype)
    dout = rng.standard_normal(q.shape).astype(dtype)
    ops = select("cpu")
    out, cache = ops.grouped_attention_forward(q, k, v, 4, window)
    want, reference = grouped_attention_forward(q, k, v, 4, window)
    assert_close("out", out, want, f"reference {dtype}")
    for name, got, right in zip(("dq", "dk", "dv"), ops.grouped_attention_backward(dout, cache),
                                grouped_attention_backward(dout, reference)):
        assert_close(name, got, right, f"reference {dtype}")


@kernels
@pytest.mark.parametrize("window", [0, 1, 65, 100])
@pytest.mark.parametrize("new", [1, 7])
def test_decoding_repeats_the_bits(rng, window, new):
    q, k, v = sample(rng, 4, 2, 150, HS=8, dtype="float32")
    ops = select("cpu")
    whole = ops.grouped_attention_forward(q, k, v, 4, window)[0]
    heads = [np.ascontiguousarray(x.reshape(2, 150, -1, 8).swapaxes(1, 2)) for x in (q, k, v)]
    newest = np.ascontiguousarray(heads[0][:, :, -new:])
    assert_same_bits(ops.attention_decode(newest, heads[1], heads[2], window), whole[:, -new:])


@kernels
def test_one_row_does_not_depend_on_the_rest(rng):
    q, k, v = sample(rng, 4, 2, 140, HS=8, dtype="float32")
    ops = select("cpu")
    long = ops.grouped_attention_forward(q, k, v, 4, 70)[0]
    short = ops.grouped_attention_forward(*(np.ascontiguousarray(x[:1, :100]) for x in (q, k, v)), 4, 70)[0]
    assert_same_bits(short[0], np.ascontiguousarray(long[0, :100]))


@pytest.mark.parametrize("widths, n_head, words", [((24, 9, 9), 6, "k must have"), ((24, 20, 20), 6, "k must have"),
                                                   ((24, 8, 12), 6, "v must"), ((25, 8, 8), 6, "q must have")])
def test_widths_that_are_no_heads(rng, widths, n_head, words):
    arrays = [rng.standard_normal((1, 3, width)) for width in widths]
    for ops in filter(None, ("numpy", "cpu" if "cpu" in choices("grouped_attention") else None)):
        with pytest.raises(ValueError, match=words):
            select(ops).grouped_attention_forward(*arrays, n_head)
