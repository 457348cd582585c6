"""Adapters as PEFT writes them, of every kind that is read: its logits are ours, and what we write again it reads."""
import json

import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm.models.adapted import WEIGHTS, load_adapter, save_adapter
from minillm.models.load import load_model
from minillm.storage.safetensors import read_safetensors

TOKENS = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
GPT2 = [
    {"target_modules": "all-linear"}, {"target_modules": ["c_attn"], "use_rslora": True},
    {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"mlp.c_proj": 5, "attn.c_proj": 2},
     "alpha_pattern": {r"h\.1\.attn\.c_proj": 32}},
    {"target_modules": r".*\.attn\.c_(attn|proj)", "exclude_modules": r".*h\.0\..*"},
    {"target_modules": ["c_attn", "mlp.c_fc"], "layers_to_transform": [1], "layers_pattern": "h"},
    {"target_modules": ["c_fc", "c_proj"], "layers_to_transform": 0, "exclude_modules": ["attn.c_proj"]},
    {"target_modules": ["transformer.h.1.mlp.c_fc"], "alpha_pattern": {"c_fc": 3}, "use_rslora": True},
    {"target_modules": ["c_attn"], "modules_to_save": ["ln_f", "h.0.mlp"], "fan_in_fan_out": True},
]
LLAMA = [
    {"target_modules": "all-linear", "rank_pattern": {"q_proj": 2, "down_proj": 3}, "use_rslora": True},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0]},
    {"target_modules": r"model\.layers\.\d+\.mlp\..*_proj", "alpha_pattern": {"layers.0.mlp.up_proj": 7}},
    {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
]
CASES = [("gpt2", settings) for settings in GPT2] + [("llama", settings) for settings in LLAMA]


def random_model(transformers, family, **more):
    sizes = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0} | more
    if family == "gpt2":
        config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=32, **sizes)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=32, **sizes)
    return transformers.LlamaForCausalLM(config)


def logits_of(torch, model):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.numpy()


@pytest.mark.parametrize("family, settings", CASES, ids=str)
def test_the_logits_are_pefts_and_a_round_trip_keeps_every_bit(tmp_path, family, settings):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    base = random_model(transformers, family)
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
    theirs = peft.get_peft_model(base, config)
    for name, parameter in theirs.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "adapter")
    made = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    want = logits_of(torch, theirs)
    for model in (made.model(), made.merged()):
        assert np.abs(model.forward(TOKENS)[0] - want).max() < 2e-5
    assert np.abs(made.base.forward(TOKENS)[0] - want).max() > 1e-2                     # it does something
    save_adapter(made, tmp_path / "again")
    tensors, again = (read_safetensors(tmp_path / name / WEIGHTS)[0] for name in ("adapter", "again"))
    assert tensors.keys() == again.keys()
    for name, array in tensors.items():
        assert_same_bits(array, again[name])
    fresh = random_model(transformers, family).from_pretrained(tmp_path / "base")
    assert np.array_equal(logits_of(torch, peft.PeftModel.from_pretrained(fresh, tmp_path / "again")), want)


def test_an_adapter_that_peft_saved_with_a_grown_vocabulary(tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    base = random_model(transformers, "gpt2")
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(53)
    theirs = peft.get_peft_model(base, peft.LoraConfig(target_modules=["c_attn"], init_lora_weights=False,
                                                       task_type="CAUSAL_LM"))
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    made = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    assert made.config.vocab_size == made.merged().config.vocab_size == 53
    assert np.abs(made.model().forward(TOKENS)[0] - logits_of(torch, theirs)).max() < 2e-5


@pytest.mark.parametrize("family, modules", [("gpt2", ["wte"]), ("llama", ["embed_tokens"]), ("gpt2", ["lm_head"]),
                                             ("llama", ["embed_tokens", "lm_head"])], ids=str)
def test_what_was_tied_is_untied_where_peft_trained_one_of_the_two(tmp_path, family, modules):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    base = random_model(transformers, family, tie_word_embeddings=True)
    base.save_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear", modules_to_save=modules,
                                                       task_type="CAUSAL_LM"))
    for name, parameter in theirs.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "adapter")
    made = load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    want = logits_of(torch, theirs)
    made.merged().save_pretrained(tmp_path / "merged")
    for model in (made.model(), load_model(tmp_path / "merged")):
        assert np.abs(model.forward(TOKENS)[0] - want).max() < 2e-5 and not model.config.tied
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert np.abs(logits_of(torch, auto) - want).max() < 2e-5


@pytest.mark.parametrize("module", ["lm_head", "wte"])
def test_an_update_of_what_is_no_block_is_refused_by_name(tmp_path, module):
    pytest.importorskip("torch")
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = random_model(transformers, "gpt2")
    base.save_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(base, peft.LoraConfig(target_modules=["c_attn", module], task_type="CAUSAL_LM"))
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(ValueError, match=rf"tensor 'base_model.model.*{module}.lora_[^ ]+ has shape .* nothing there"):
        load_adapter(load_model(tmp_path / "base"), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert module in config["target_modules"]
