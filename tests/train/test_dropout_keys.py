"""No two dropout masks of a training run are alike: every step, micro-batch, place in the model and way of training."""
import numpy as np
import pytest
from posttrain.test_dpo import preference_data

from minillm import GPT, GPTConfig, TrainConfig, select
from minillm.models.adapted import LoraModel
from minillm.models.packing import Batch
from minillm.posttrain.distill import distill_step
from minillm.posttrain.dpo import dpo_step
from minillm.train.loop import one_step
from minillm.train.optim import AdamW

CONFIG = TrainConfig(steps=3, accumulate=4, seed=5)
STEPS, SITES = 3 * 4, 2 * 2 + 1                         # micro-batches; dropouts of two blocks and the embedding
WATCHED = {"dropout_forward": (2,), "lora_linear_forward": (7,), "lora_mlp_forward": (12, 13)}     # where keys stand


class Tokens:
    def batch(self, step, micro):
        tokens = np.random.default_rng((step, micro)).integers(0, 20, (2, 9))
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy())


def model_and_keys(dropout=0.1, vocab_size=20):
    """A model, and the list of keys that its ops will be called with."""
    keys = []

    def watched(function, places):
        def call(*args):
            keys.extend(args[place] for place in places)
            return function(*args)
        return call
    ops = select("numpy")
    ops = ops._replace(**{name: watched(getattr(ops, name), places) for name, places in WATCHED.items()})
    return GPT(GPTConfig(2, 2, 8, 32, vocab_size, dropout=dropout), ops=ops), keys


def masks(model, keys, step, data):
    """The keys of a run of three steps with four micro-batches each."""
    optimizer = AdamW(model.params)
    for number in range(CONFIG.steps):
        step(model, optimizer, data, CONFIG, {"step": number})
    assert {key[0] for key in keys} == {CONFIG.seed} and len(set(keys)) == len(keys)
    return len(keys)


def test_pretraining():
    model, keys = model_and_keys()
    assert masks(model, keys, one_step, Tokens()) == STEPS * SITES


def test_distillation():
    model, keys = model_and_keys()
    assert masks(model, keys, distill_step(model_and_keys(0.0)[0]), Tokens()) == STEPS * SITES


@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_adapters_beside_the_models_own(dropout):
    base, keys = model_and_keys(dropout)
    adapter = LoraModel(base, rank=2, dropout=0.2)
    assert masks(adapter, keys, one_step, Tokens()) == STEPS * (4 * 2 + (SITES if dropout else 0))


def test_preferences():
    data = preference_data()
    model, keys = model_and_keys(vocab_size=max(max(pair.chosen.ids) for pair in data.preferences) + 300)
    assert masks(model, keys, dpo_step(), data) == STEPS * SITES
