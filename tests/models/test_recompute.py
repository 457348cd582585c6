"""Activation recomputation: less is kept between forward and backward, and no bit of any gradient changes."""
import numpy as np
import pytest
from cases import BACKENDS

from minillm.config import GPTConfig, TrainConfig
from minillm.kernels.select import choices, select
from minillm.models.adapted import LoraModel
from minillm.models.gpt2 import GPT, Block

CONFIG, KEY = GPTConfig(n_layer=3, n_head=2, n_embd=24, block_size=16, vocab_size=50, dropout=0.2), (3, 5, 1)
ALL = BACKENDS + [backend for backend in ("cpu/bf16",) if backend in choices("linear")]


def model_on(backend):
    """A GPT whose every tensor is rough, with dropout."""
    model = GPT(CONFIG, ops=select(backend))
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


def batch():
    """tokens, targets (2, 16)"""
    return np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 2, 16))


def gradients(model, recompute, micro_batches=1, **settings):
    """(losses, the gradients added up) of micro-batches with keys of their own."""
    model.recompute, grads = recompute, model.params.zeros_like()
    losses = [model.loss_and_grads(*batch(), key=(*KEY[:2], micro), grads=grads, **settings)[0]
              for micro in range(micro_batches)]
    return losses, grads.flat


def same(model, **settings):
    kept, again = gradients(model, False, **settings), gradients(model, True, **settings)
    assert kept[0] == again[0] and np.array_equal(kept[1], again[1])
    assert np.abs(kept[1]).max() > 0


@pytest.mark.parametrize("backend", ALL)
def test_gradients_are_the_same_bits(backend):
    same(model_on(backend))


def test_with_accumulation():
    same(model_on("auto"), micro_batches=3)


def test_in_a_packed_row():
    model = model_on("auto")
    tokens, targets = (array.reshape(1, -1) for array in batch())
    found = []
    for model.recompute in (False, True):
        found.append(model.loss_and_grads(tokens, targets, key=KEY, lengths=[3, 16, tokens.size - 19])[1].flat)
    assert np.array_equal(*found)


def test_with_adapters_and_their_own_dropout():
    """The block is made again with the adapters' weights and masks, not with the base's."""
    adapter = LoraModel(model_on("auto"), rank=2, dropout=0.3)
    for name, view in adapter.params.items():
        view[:] = np.random.default_rng(len(name)).standard_normal(view.shape)
    same(adapter)
    _, (activations, _) = adapter.losses(*batch())
    assert adapter.recompute and all(isinstance(kept, np.ndarray) for kept in activations.blocks)


def test_only_the_input_of_each_block_is_kept():
    model = model_on("auto")
    for model.recompute in (False, True):
        _, (activations, _) = model.losses(*batch())
        kept = activations.blocks
        assert all(isinstance(block, np.ndarray if model.recompute else Block) for block in kept)
        assert len(kept) == model.config.n_layer
    model.hidden_backward(np.ones(activations.shape, np.float32), activations, model.params.zeros_like())
    assert kept == []


def test_another_namespace_keeps_the_choice():
    model = model_on("auto")
    model.recompute = True
    assert model.on(select("numpy")).recompute and not GPT(GPTConfig(n_layer=1, n_embd=12)).recompute


def test_the_setting_is_true_or_false():
    assert TrainConfig(recompute=True).recompute and not TrainConfig().recompute
    with pytest.raises(ValueError, match="recompute must be true or false: got 1"):
        TrainConfig(recompute=1)
