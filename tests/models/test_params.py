"""The flat buffer of parameters and its named views."""
import math

import numpy as np
import pytest

from minillm.config import GPTConfig
from minillm.models.params import Gradients, Params, gpt_shapes

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=6, block_size=5, vocab_size=11)


def numbered():
    """Params whose every number is its own position in the buffer."""
    params = Params(gpt_shapes(CONFIG), "float64")
    params.flat[:] = np.arange(params.flat.size)
    return params


def test_views_share_and_cover_the_buffer_once():
    params = numbered()
    assert sorted(np.concatenate([x.ravel() for _, x in params.items()]).tolist()) == params.flat.tolist()
    for name, x in params.items():
        assert x.base is params.flat and x.flags.c_contiguous and x.shape == gpt_shapes(CONFIG)[name]
    params["ln_f.bias"][:] = -1
    assert (params.flat == -1).sum() == CONFIG.n_embd


def test_matrices_first_and_each_parameter_is_decayed_or_not():
    params = numbered()
    decayed = {name for name, x in params.items() if np.all(x < params.n_decayed)}
    spared = {name for name, x in params.items() if np.all(x >= params.n_decayed)}
    assert decayed | spared == set(params) and not decayed & spared
    assert decayed == {name for name, x in params.items() if x.ndim == 2}
    assert params.n_decayed == sum(x.size for x in params.views.values() if x.ndim == 2)


def test_sizes_are_gpt2s():
    """GPT-2's smallest model has 124,439,808 parameters."""
    assert sum(math.prod(shape) for shape in gpt_shapes(GPTConfig()).values()) == 124_439_808


def test_copies_are_separate():
    params = numbered()
    zeros, copy = params.zeros_like("float32"), params.astype("float32")
    assert not zeros.flat.any() and zeros.flat.dtype == copy.flat.dtype == "float32"
    assert np.array_equal(copy["wte.weight"], params["wte.weight"]) and copy.n_decayed == params.n_decayed
    copy.flat[:] = 0
    assert params.flat.any() and len(copy) == len(params) and list(copy.keys()) == list(params)


@pytest.mark.parametrize("size", [0, 1, 5, 3_000_000])
def test_a_cleared_buffer_is_zeros_again(size):
    """Large or small, whole pages or not; the views see it, too."""
    params = Params({"a": (size,)}, "float32")
    params.flat[:] = 1
    params.clear()
    assert not params["a"].any()
    params.flat[:] = 2
    assert params.flat.sum() == 2 * size


def test_a_gradient_asked_for_by_name_is_announced(monkeypatch):
    """Its place in the buffer, and only once the buffer lends its memory: after `clear`."""
    grads, announced = Gradients(gpt_shapes(CONFIG), "float64"), []
    monkeypatch.setattr(grads.buffer, "expect", lambda *span: announced.append(slice(*span)))
    assert not grads["ln_f.bias"].any() and announced == []
    grads.buffer.lender = True
    for name in ("wte.weight", "h.1.mlp.c_fc.weight", "ln_f.bias"):
        grads[name][:] = 1
        assert grads.flat[announced[-1]].all() and grads.flat.sum() == grads[name].size
        grads.flat[:] = 0
