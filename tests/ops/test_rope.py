"""Rotary positions: both layouts of pairs, and what they are for."""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import gradcheck
from minillm.kernels.select import choices, select
from minillm.ops import rope_backward, rope_forward


def angles(T, half):
    angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(half) / half)
    return np.cos(angle), np.sin(angle)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_gradients(rng, interleaved):
    cos, sin = angles(4, 3)
    gradcheck(lambda x: rope_forward(x, cos, sin, interleaved), rope_backward, {"x": rng.standard_normal((2, 4, 12))},
              verbose=False)


def test_layouts_are_one_rotation_in_other_places(rng):
    x, (cos, sin) = rng.standard_normal((1, 5, 8)), angles(5, 4)
    moved = x.reshape(1, 5, 2, 4).swapaxes(2, 3).reshape(1, 5, 8)                  # pairs (i, i + 4) to (2 i, 2 i + 1)
    want = rope_forward(x, cos, sin)[0].reshape(1, 5, 2, 4).swapaxes(2, 3).reshape(1, 5, 8)
    assert_close("out", rope_forward(moved, cos, sin, 1)[0], want, "by hand")


def test_products_depend_on_the_distance_only(rng):
    q, k, (cos, sin) = *rng.standard_normal((2, 8)), angles(20, 4)
    Q, K = (rope_forward(np.tile(x, (1, 20, 1)), cos, sin)[0][0] for x in (q, k))
    assert_close("q . k", np.array([Q[t] @ K[t - 3] for t in range(3, 20)]), np.full(17, Q[3] @ K[0]),
                 "by hand")


@pytest.mark.skipif("cpu" not in choices("rope"), reason="no kernels are built")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("half", [1, 3, 16, 17, 64])
def test_the_kernel(rng, dtype, interleaved, half):
    x = rng.standard_normal((2, 40, 6 * half)).astype(dtype)
    cos, sin = (a.astype(dtype) for a in angles(40, half))
    out, cache = select("cpu").rope_forward(x, cos, sin, interleaved)
    want, reference = rope_forward(x, cos, sin, interleaved)
    assert_close("out", out, want, f"reference {dtype}")
    assert_close("dx", select("cpu").rope_backward(x, cache), rope_backward(x, reference),
                 f"reference {dtype}")
    one = select("cpu").rope_forward(np.ascontiguousarray(x[1:, 7:8]), cos[7:8], sin[7:8], interleaved)[0]
    assert_same_bits(one[0], np.ascontiguousarray(out[1, 7:8]))
