"""The optimizer: which parameters are decayed, how far a step goes; the global norm and clipping."""
import math

import numpy as np
import pytest
from models.test_params import numbered
from tolerances import assert_close

from minillm import GPT, GPTConfig, TrainConfig
from minillm.models.params import Params
from minillm.train.loop import update
from minillm.train.optim import AdamW, clip_grad_norm, clip_scale, global_norm


def test_optimizer_decays_matrices_only():
    params = numbered()
    params.flat[:] = 1
    AdamW(params, lr=0.5, weight_decay=0.1).step(params.zeros_like())
    for name, x in params.items():
        assert_close(name, x, np.full(x.shape, 0.95 if x.ndim == 2 else 1.0), "by hand")


def test_first_step_moves_by_the_learning_rate():
    """After one step mhat / sqrt(vhat) is the sign of the gradient."""
    params = numbered()
    start, grads = params.flat.copy(), params.zeros_like()
    grads.flat[:] = np.where(np.arange(start.size) % 2, 3.0, -0.001)
    optimizer = AdamW(params, lr=0.25, eps=0.0, weight_decay=0.0)
    optimizer.step(grads, scale=0.5)
    assert_close("w", params.flat, start - 0.25 * np.sign(grads.flat), "by hand")
    optimizer.step(grads, lr=0.0)
    assert_close("w", params.flat, start - 0.25 * np.sign(grads.flat), "by hand")
    assert optimizer.steps == 2


@pytest.mark.parametrize("size", [10, 2 ** 16 - 1, 2 ** 16, 200_001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_global_norm(size, dtype):
    grads = Params({"a": (size,)}, dtype)
    grads.flat[:] = np.random.default_rng(0).standard_normal(size)
    assert global_norm(grads) == pytest.approx(np.linalg.norm(grads.flat.astype("float64")), rel=1e-6)


def test_global_norm_of_large_float32_numbers():
    """1e20 fits into float32, its square does not; a small buffer gets this right."""
    with np.errstate(over="ignore"):
        for size in (100, 2 ** 17):
            grads = Params({"a": (size,)})
            grads.flat[:] = 1e20
            assert global_norm(grads) == pytest.approx(1e20 * math.sqrt(size), rel=1e-6)


@pytest.mark.parametrize("max_norm, factor", [(1.0, 0.2), (5.0, 1.0), (10.0, 1.0), (0.0, 1.0)])
def test_clipping(max_norm, factor):
    grads = Params({"a": (2,), "b": (1, 1)}, "float64")
    grads.flat[:] = [0.0, 3.0, 4.0]
    assert clip_grad_norm(grads, max_norm) == 5.0
    assert_close("grads", grads.flat, factor * np.array([0.0, 3.0, 4.0]), "by hand")
    assert clip_scale(5.0, max_norm) == pytest.approx(factor)


@pytest.mark.parametrize("above", [1 - 1e-6, 1, 1 + 1e-12, 1.001, 1.02, 1.05, 1.1, 2, 1e9])
@pytest.mark.parametrize("max_norm", [0.5, 1.0, 1e-3])
def test_no_norm_is_above_the_bound(max_norm, above):
    """However little it was: to the bound if above it, untouched if not."""
    norm = above * max_norm
    assert norm * clip_scale(norm, max_norm) == pytest.approx(max_norm * min(above, 1), rel=1e-15)
    assert above > 1 or clip_scale(norm, max_norm) == 1.0


@pytest.mark.parametrize("above", [0.9, 1.01, 1.04, 1.06, 3])
def test_a_step_takes_the_clipped_gradient(above):
    """After one step the first moment is (1 - beta1) times the gradient that was used."""
    model = GPT(GPTConfig(1, 1, 4, 4, 7), dtype=np.float64)
    tokens = np.random.default_rng(0).integers(0, 7, (2, 5))
    _, grads = model.loss_and_grads(tokens[:, :-1], tokens[:, 1:])
    optimizer, norm = AdamW(model.params), global_norm(grads)
    optimizer.grads.flat[:] = grads.flat
    update(model, optimizer, TrainConfig(clip=norm / above), {"step": 0}, 1.0, 8, 0.0)
    assert np.linalg.norm(optimizer.m.flat) / (1 - 0.9) == pytest.approx(norm / max(1, above), rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [10, 2 ** 17])
def test_clipping_refuses_what_is_not_finite(value, size):
    grads = Params({"a": (size,)})
    grads.flat[5] = value
    with pytest.raises(ValueError, match="grads must be finite"):
        clip_grad_norm(grads, 1.0)
    assert not grads.flat[:5].any()
