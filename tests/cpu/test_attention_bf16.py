"""Attention whose products are in bfloat16: what its blocks, pairs and padding must not change."""
import numpy as np
import pytest
from test_bf16 import KERNELS, relative, rounded, runs_here
from tolerances import assert_same_bits

from minillm.kernels.select import select
from minillm.ops.attention import attention_backward, attention_forward, logsumexps

OPS = select("cpu/bf16")


def sample(T, HS, B=1, NH=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, 3 * NH * HS), "float32"), rng.standard_normal((B, T, NH * HS), "float32")


@pytest.mark.parametrize("T, HS", [(1, 1), (2, 3), (63, 16), (64, 64), (65, 20), (130, 7), (200, 80), (129, 128)])
def test_error_is_that_of_rounding_p_and_its_slope(T, HS):
    """Against float64 on the rounded qkv. Each number of P, of out in D, of dS and of dout is off by 2^-9 at most."""
    qkv, dout = sample(T, HS)
    out, cache = OPS.attention_forward(qkv, 2)
    exact = rounded(qkv).astype("float64")
    want, saved = attention_forward(exact, 2)
    assert relative(out, want) < 2 ** -9
    assert relative(cache[3], logsumexps(exact, 2)) < 3e-6
    assert relative(OPS.attention_backward(dout, cache), attention_backward(dout.astype("float64"), saved)) < 2 ** -8


@pytest.mark.parametrize("T, HS", [(70, 5), (130, 64)])
def test_the_instruction_does_what_float_arithmetic_does(T, HS):
    if not runs_here("dot"):
        pytest.skip("this machine or build lacks VDPBF16PS")
    qkv, dout = sample(T, HS, B=2)
    for one, other in zip(*(KERNELS.attention_of_pairs(qkv, 2, dout, way) for way in (True, False)), strict=True):
        assert_same_bits(one, other)


def test_a_row_does_not_depend_on_what_follows():
    qkv, _ = sample(150, 24)
    whole = OPS.attention_forward(qkv, 2)[0]
    for T in (1, 2, 31, 64, 67, 149):
        assert_same_bits(OPS.attention_forward(np.ascontiguousarray(qkv[:, :T]), 2)[0], whole[:, :T])


@pytest.mark.parametrize("position", [1, 2, 3, 5, 64, 66, 67])
def test_a_later_nan_reaches_no_earlier_row(position):
    """Of a pair of keys, the one that a row does not see is not multiplied by its probability of 0."""
    qkv, _ = sample(70, 10)
    broken = qkv.copy()
    broken[:, position] = np.nan
    rows = slice(0, position)
    assert_same_bits(OPS.attention_forward(broken, 2)[0][:, rows], OPS.attention_forward(qkv, 2)[0][:, rows])
    assert np.isnan(OPS.attention_forward(broken, 2)[0][:, position:]).all()
