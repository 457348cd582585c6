"""Settings that a family's config.json has no word for are refused by name; all others come back, also elsewhere."""
from dataclasses import replace

import numpy as np
import pytest

from minillm import LlamaConfig, load_model
from minillm.models.llama_files import ARCHITECTURES
from minillm.models.load import FAMILIES, fresh_config
from minillm.models.quantized import quantize

SMALL = {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "n_inner": 40, "block_size": 16, "vocab_size": 40}
CHANGES = [{"window": 5, "full_layers": ()}, {"window": 5, "full_layers": (0,)}, {"attention_cap": 0.5},
           {"logit_cap": 0.5}, {"query_size": 1.0}, {"mlp_bias": True}, {"o_bias": True}, {"qkv_bias": True},
           {"o_bias": True, "qkv_bias": True}, {"tied": False}, {"head_dim": 10}, {"pad_token": 3}, {"norm_eps": 0.1},
           {"rope_theta": 50.0}, {"rope_scaling": (("factor", 4.0), ("rope_type", "linear"))}]
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 16))
every_family = pytest.mark.parametrize("family", ARCHITECTURES)


def configs_of(family):
    """The family's own configuration, and each with something changed."""
    own = fresh_config(SMALL | {"family": family})
    return [replace(own, **change) for change in [{}, {"qk_norm": not own.qk_norm}, *CHANGES]]


def saved(config, directory):
    """A model of it whose every tensor matters, saved there; None where that is refused."""
    model = FAMILIES[config.family](config)
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    try:
        model.save_pretrained(directory)
    except ValueError as error:
        said = str(error).split()
        assert said[0] in vars(LlamaConfig()) and config.family + "," in said and not directory.exists()
        return None
    return model


@every_family
def test_a_file_says_what_was_saved_or_none_is_written(family, tmp_path):
    refused = 0
    for i, config in enumerate(configs_of(family)):
        if model := saved(config, tmp_path / str(i)):
            assert load_model(tmp_path / str(i)).config == model.config
        refused += model is None
    assert refused == {"llama": 8, "mistral": 9, "qwen2": 7, "qwen3": 7, "olmo2": 9, "gemma": 9, "gemma2": 4}[family]


@every_family
def test_transformers_reads_it_so(family, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    for i, config in enumerate(configs_of(family)):
        if model := saved(config, tmp_path / str(i)):
            theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / str(i), attn_implementation="eager")
            with torch.no_grad():
                want = theirs(torch.tensor(TOKENS)).logits.numpy()
            assert np.abs(model.forward(TOKENS)[0] - want).max() < 1e-4 * max(1, np.abs(want).max()), config


@pytest.mark.parametrize("values, words", [
    ({"qk_norm": True}, "^qk_norm must be False in family llama, whose config.json cannot say otherwise: got True"),
    ({"window": 8}, "^window must be 0 in family llama"),
    ({"logit_cap": 3.0}, "^logit_cap must be 0.0 in family llama"),
    ({"family": "qwen3"}, "^qk_norm must be True in family qwen3"),
    ({"qkv_bias": True}, "^qkv_bias and o_bias must be alike in family llama, .* attention_bias for both: got True")])
def test_what_cannot_be_said_is_named(values, words, tmp_path):
    config = LlamaConfig(**SMALL | {"head_dim": 8} | values)
    for model in (FAMILIES[config.family](config), quantize(FAMILIES[config.family](config))):
        with pytest.raises(ValueError, match=words):
            model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
