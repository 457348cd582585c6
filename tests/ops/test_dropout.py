"""Dropout: the mean stays, and the mask is a pure function of its key, the same in every backend."""
import math

import numpy as np
import pytest
from cases import every, pair
from tolerances import assert_close

from minillm import ops as reference
from minillm.kernels.select import choices, select
from minillm.ops.dropout import keep_mask, random_bits

KEY = (3, 2 ** 40 + 1, 7)
N = 100_000


def five_sigma(p, n=N):
    return 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@every("dropout")
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


@every("dropout")
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


def test_a_number_is_kept_from_exactly_p_on():
    """u >= p, also where u is p to the last bit; so p = 0 keeps all, and every backend counts alike."""
    bits = random_bits(50, KEY)
    for at in range(50):
        p = float(bits[at]) / 2 ** 32
        mask = keep_mask(50, p, KEY)
        assert mask[at] and np.array_equal(mask, bits >= bits[at])
        for backend in choices("dropout"):
            out = select({"dropout": backend}).dropout_forward(np.ones(50, "float32"), p, KEY)[0]
            assert np.array_equal(out != 0, mask), backend
