"""Results worked out by hand: embedding, GELU, LayerNorm, and the fused residual LayerNorm against its two steps."""
import math

import numpy as np
from cases import every, pair, sample
from tolerances import assert_close, assert_same_bits

from minillm.ops.table import Dims


@every("embedding")
def test_repeated_tokens_add_up(op, backend, dtype):
    forward, backward = pair(op, backend)
    tokens = np.array([[2, 2, 0], [2, 1, 2]])
    wte, wpe = np.arange(8, dtype=dtype).reshape(4, 2), 100 * np.arange(10, dtype=dtype).reshape(5, 2)
    out, cache = forward(tokens, wte, wpe, 1)
    assert out[1, 2].tolist() == [4 + 600, 5 + 700]             # token 2 at position start + 2 = 3
    dwte, dwpe = backward(np.arange(1, 13, dtype=dtype).reshape(2, 3, 2), cache)
    assert dwte.tolist() == [[5, 6], [9, 10], [1 + 3 + 7 + 11, 2 + 4 + 8 + 12], [0, 0]]
    assert dwpe.tolist() == [[0, 0], [8, 10], [12, 14], [16, 18], [0, 0]]


@every("gelu")
def test_gelu_known_values(op, backend, dtype):
    """gelu(0) = 0; far out it is x or 0; at 1 the formula, worked out with `math`."""
    x = np.array([0, 30, -30, 1], dtype)
    out, _ = pair(op, backend)[0](x)
    at_one = 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))
    assert_close("out", out, [0, 30, 0, at_one], f"regrouped {dtype}")


@every("layernorm")
def test_layernorm_is_its_definition(op, backend, dtype):
    """One row of 1, 2, 3, 6: mean 3, variance 3.5; eps counts, so that a row of equal numbers gives the bias."""
    weight, bias = np.array([1, 2, 3, 4], dtype), np.array([5, 6, 7, 8], dtype)
    x = np.array([[1, 2, 3, 6], [7, 7, 7, 7]], dtype)
    out, cache = pair(op, backend)[0](x, weight, bias, 0.5)
    assert_close("out", out, [np.array([-2, -1, 0, 3]) / 2 * weight + bias, bias], f"regrouped {dtype}")
    assert np.isfinite(pair(op, backend)[1](np.ones_like(out), cache)[0]).all()


@every("residual_layernorm")
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
