"""What works for a Llama works for OLMo 2 and Gemma, which share its class: quantized weights, adapters and files."""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import LlamaConfig, generate, load_model
from minillm.models.adapted import LoraModel
from minillm.models.load import FAMILIES

TINY = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "head_dim": 6, "n_embd": 16, "n_inner": 20, "block_size": 32,
        "vocab_size": 23}
KIN = {"olmo2": {"qk_norm": True}, "gemma": {"tied": True},
       "gemma2": {"tied": True, "window": 3, "full_layers": (1,), "attention_cap": 2.0, "logit_cap": 3.0,
                  "query_size": 5.0, "pad_token": 4}}
TOKENS = np.random.default_rng(0).integers(0, 23, (2, 9))
every_family = pytest.mark.parametrize("family", KIN)


def model_of(family, dtype="float32"):
    model = FAMILIES[family](LlamaConfig(**TINY, family=family, **KIN[family]), dtype=dtype)
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


@every_family
def test_files_come_back(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert type(again) is type(model) and again.config == model.config
    assert_same_bits(again.forward(TOKENS)[0], model.forward(TOKENS)[0])


@every_family
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_quantized_weights(family, weights, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    small = load_model(tmp_path, weights=weights)
    assert 0 < np.abs(small.forward(TOKENS)[0] - model.forward(TOKENS)[0]).max() < 0.2
    assert abs(small.losses(TOKENS, TOKENS)[0] - model.losses(TOKENS, TOKENS)[0]).mean() < 0.05
    assert len(generate(small, [1, 2, 3], 4, temperature=0)) == 7


@every_family
def test_an_adapter_and_its_gradients(family):
    made = LoraModel(model_of(family, "float64"), rank=3, alpha=6.0)
    made.params.flat[:] += 0.05 * np.random.default_rng(2).standard_normal(made.params.flat.size)
    losses = made.losses(TOKENS, TOKENS)[0]
    assert_close("merged", made.merged().losses(TOKENS, TOKENS)[0], losses, "same model")
    grads = made.loss_and_grads(TOKENS, TOKENS)[1]
    for name, view in made.params.items():
        place = tuple(size // 2 for size in view.shape)
        kept, ends = view[place], []
        for step in (1e-6, -1e-6):
            view[place] = kept + step
            ends.append(made.losses(TOKENS, TOKENS)[0].mean())
        view[place] = kept
        assert_close(name, grads[name][place], (ends[0] - ends[1]) / 2e-6, "central")
