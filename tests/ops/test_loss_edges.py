"""The losses of post-training where a naive formula cancels or meets infinity: small KL, certain answers, forbidden
tokens."""
import math

import numpy as np
import pytest
from cases import every, pair, sample
from tolerances import assert_close, assert_same_bits


def kl_alone(backend, back, dtype):
    """loss and slope of grpo_loss where only the KL penalty is left, with beta 1; back = ref_logp - logp."""
    forward, backward = pair("grpo_loss", backend)
    zeros = np.zeros(len(back), dtype)
    losses, cache = forward(zeros, zeros, back.astype(dtype), zeros, beta=1.0)
    return losses, backward(np.ones(len(back), dtype), cache)


@every("grpo_loss")
def test_kl_of_nearly_equal_models_is_right_and_never_negative(op, backend, dtype):
    """x^2 / 2 + x^3 / 6 + ... where exp(x) - x - 1 would be rounding; the slope is -x, not 0."""
    back = np.concatenate([s * np.logspace(-12, -2, 2000) for s in (-1, 1)]).astype(dtype).astype(np.float64)
    losses, slopes = kl_alone(backend, back, dtype)
    assert (losses >= 0).all()
    series = sum(back ** n / math.factorial(n) for n in range(2, 10))
    assert (np.abs(losses - series) < 4 * np.finfo(dtype).eps * np.abs(back)).all()       # a rounding of expm1(x)
    np.testing.assert_allclose(slopes, -np.expm1(back), rtol=1e-6)


@pytest.mark.parametrize("clip", [1.0, 1.5, 100.0])
@every("grpo_loss")
def test_a_wide_clip_only_bounds_the_ratio_above(op, backend, dtype, clip):
    forward, _ = pair(op, backend)
    old, logs = np.zeros(4, dtype), np.log(np.array([1e-3, 0.5, 1.5, 1000], dtype))
    losses, _ = forward(logs, old, logs, np.ones(4, dtype), clip, 0.0)
    assert_close("losses", -losses, np.minimum(np.exp(logs), 1 + clip), f"regrouped {dtype}")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@every("dpo_loss")
def test_a_pair_that_is_learned_still_has_its_slope(op, backend, dtype, smoothing):
    """-s(-z), which is e^-z far out: s(z) - 1 would be 0 in float32 from z = 17 on."""
    forward, backward = pair(op, backend)
    z = np.array([-80, -20, 0, 10, 20, 80], dtype)
    zeros = np.zeros(6, dtype)
    _, cache = forward(z, zeros, zeros, zeros, 1.0, smoothing)
    dchosen, drejected = backward(np.ones(6, dtype), cache)
    right, wrong = (1 / (1 + np.exp(-x.astype(np.float64))) for x in (z, -z))
    np.testing.assert_allclose(dchosen, smoothing * right - (1 - smoothing) * wrong, rtol=1e-5)
    assert_same_bits(drejected, -dchosen)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@every("distillation_loss")
def test_tokens_the_teacher_forbids(op, backend, dtype, temperature):
    """Teacher logits of -inf are the limit of very low ones: no NaN, and gradients push those tokens down."""
    forward, backward = pair(op, backend)
    args = sample(op, dtype) | {"temperature": temperature}
    never, found = np.arange(args["teacher"].shape[1]) % 3 == 1, []
    for forbidden in (-1e4, -np.inf):
        args["teacher"][:, never] = forbidden
        losses, cache = forward(**args)
        found.append([losses, backward(np.ones_like(losses), cache)])
    assert np.isfinite(found[1][0]).all() and np.isfinite(found[1][1]).all()
    assert_same_bits(*found)


@every("distillation_loss")
def test_tokens_that_both_forbid_and_that_only_the_student_does(op, backend, dtype):
    teacher, logits = np.array([[0, 1, -np.inf]] * 2, dtype), np.array([[0, 1, -np.inf], [0, -np.inf, 1]], dtype)
    losses, _ = pair(op, backend)[0](logits, teacher, np.array([0, 0]), 1.0, 1.0)
    assert_close("losses", losses[:1], [0.0], f"regrouped {dtype}")
    assert losses[1] == np.inf
