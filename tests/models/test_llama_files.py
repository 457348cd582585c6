"""Llama and its kin as transformers has them: logits, every gradient, generated tokens and files, on random models."""
import json

import numpy as np
import pytest

from minillm import Llama, LlamaConfig, generate, load_model, select
from minillm.models.rope import scaled_frequencies

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 64}
ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 4, "head_dim": 8}),
    "llama grouped": ("LlamaConfig", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}),
    "llama biases": ("LlamaConfig", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True,
                                     "head_dim": 12}),
    "llama 3": ("LlamaConfig", {"num_key_value_heads": 2, "rope_parameters": ROPE | {
        "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500000.0}}),
    "linear": ("LlamaConfig", {"num_key_value_heads": 2, "rope_parameters": ROPE | {"rope_type": "linear"}}),
    "yarn": ("LlamaConfig", {"num_key_value_heads": 2, "rope_parameters": ROPE | {"rope_type": "yarn"}}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 5}),
    "smollm2": ("LlamaConfig", {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3,
                                "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "pad_token_id": 2,
                                "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}}),
    "tinyllama": ("LlamaConfig", {"num_attention_heads": 8, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "qwen2.5": ("Qwen2Config", {"num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True,
                                "use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1,
                                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}),
    "qwen2 windows": ("Qwen2Config", {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4,
                                      "max_window_layers": 1}),
    "olmo2": ("Olmo2Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "olmo2 grouped": ("Olmo2Config", {"num_key_value_heads": 2, "tie_word_embeddings": True, "attention_bias": True}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma wide": ("GemmaConfig", {"num_key_value_heads": 4, "head_dim": 8, "tie_word_embeddings": False}),
    "gemma2": ("Gemma2Config", {"num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 20,
                                "sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma2 plain": ("Gemma2Config", {"num_key_value_heads": 4, "head_dim": 12, "query_pre_attn_scalar": 12,
                                      "attn_logit_softcapping": None, "final_logit_softcapping": None,
                                      "layer_types": ["full_attention"] * 3}),
}


@pytest.fixture
def all_float64(monkeypatch):
    """transformers computes norms, softmaxes and angles in float32 whatever its model is in: let it not."""
    softmax = torch.nn.functional.softmax

    def widened(function):
        def wide(*args, **named):
            args, values = ([torch.float64 if value is torch.float32 else value for value in some]
                            for some in (args, named.values()))
            return function(*args, **dict(zip(named, values)))
        return wide
    monkeypatch.setattr(torch.Tensor, "to", widened(torch.Tensor.to))
    monkeypatch.setattr(torch, "arange", widened(torch.arange))
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self.double())
    torch.set_default_dtype(torch.float64)                              # of Gemma's sqrt(hidden_size)
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))
    yield
    torch.set_default_dtype(torch.float32)


def theirs_in(directory, name, dtype):
    """A random model of theirs, saved there. Norms and biases are random, too."""
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**SMALL | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return model.eval()


def texts(T=20):
    return np.random.default_rng(0).integers(0, 97, (2, 2, T))


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients(tmp_path, all_float64, name, backend):
    theirs, (tokens, targets) = theirs_in(tmp_path, name, torch.float64), texts()
    ours = load_model(tmp_path, select(backend), np.float64)
    logits = theirs(torch.from_numpy(tokens)).logits
    torch.nn.functional.cross_entropy(logits.reshape(-1, 97), torch.from_numpy(targets).reshape(-1)).backward()
    error = np.abs(ours.forward(tokens)[0] - logits.detach().numpy()).max()
    assert error < 1e-10
    grads = ours.loss_and_grads(tokens, targets)[1]
    for key, parameter in theirs.named_parameters():
        want = parameter.grad.numpy()
        error = np.abs(grads[key] - want).max() / np.abs(want).max()
        assert error <= 1e-6, key
    assert {key for key, _ in theirs.named_parameters()} == set(grads)


@pytest.mark.parametrize("name", MODELS)
def test_float32_and_greedy_tokens(tmp_path, name):
    theirs, (tokens, _) = theirs_in(tmp_path, name, torch.float32), texts()
    ours = load_model(tmp_path)
    logits = theirs(torch.from_numpy(tokens)).logits.detach().numpy()
    error = np.abs(ours.forward(tokens)[0] - logits).max()
    assert error < 2e-5
    prompt = tokens[0, :5].tolist()
    want = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None,
                           pad_token_id=0)[0, 5:].tolist()
    assert generate(ours, prompt, 20, temperature=0) == prompt + want


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_ours(tmp_path, name):
    theirs_in(tmp_path, name, torch.float32)
    ours, (tokens, _) = load_model(tmp_path), texts()
    ours.save_pretrained(tmp_path / "again", eot_token=3)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", attn_implementation="eager")
    assert theirs.config.eos_token_id == 3
    error = np.abs(theirs(torch.from_numpy(tokens)).logits.detach().numpy() - ours.forward(tokens)[0]).max()
    assert error < 2e-5
    assert load_model(tmp_path / "again").config == ours.config


def test_older_files_say_the_same(tmp_path):
    """rope_theta and rope_scaling instead of rope_parameters, `type` instead of rope_type, sizes left out."""
    theirs_in(tmp_path, "llama 3", torch.float32)
    want, path = load_model(tmp_path).config, tmp_path / "config.json"
    settings = json.loads(path.read_text())
    rope = settings.pop("rope_parameters")
    settings |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": {"type": rope.pop("rope_type")} | rope}
    del settings["head_dim"]
    path.write_text(json.dumps(settings))
    assert load_model(tmp_path).config == want


@pytest.mark.parametrize("kind", ["llama3", "linear", "yarn"])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_frequencies(kind, theta):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    rope = {"rope_type": kind, "rope_theta": theta, "factor": 8.0, "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = transformers.LlamaConfig(**SMALL | {"max_position_embeddings": 65536}, head_dim=128, rope_parameters=rope)
    want, size = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    ours = LlamaConfig(head_dim=128, block_size=65536, rope_theta=theta, rope_scaling=tuple(rope.items()))
    frequencies, our_size = scaled_frequencies(ours)
    assert np.abs(frequencies / want.numpy() - 1).max() < 1e-5 and abs(our_size - size) < 1e-7


@pytest.mark.parametrize("change, words", [
    ({"hidden_act": "gelu"}, "hidden_act"), ({"model_type": "gemma3"}, "model_type"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
    ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layer_types"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"), ({"hidden_size": 40}, "tensors"),
    ({"num_hidden_layers": None}, "num_hidden_layers"), ({"num_key_value_heads": 3}, "n_kv_head"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor")])
def test_what_is_not_computed_is_refused_by_name(tmp_path, change, words):
    theirs_in(tmp_path, "llama grouped", torch.float32)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        load_model(tmp_path)


def test_ours_from_nothing(tmp_path):
    """A model of our own that transformers loads, of each shape of its bias and head."""
    for settings in ({}, {"tied": True}, {"qkv_bias": True, "family": "qwen2"}, {"qk_norm": True, "family": "qwen3"}):
        config = LlamaConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, n_inner=48, block_size=64,
                             vocab_size=97, **settings)
        model = Llama(config, seed=1)
        model.save_pretrained(tmp_path)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
        tokens = texts()[0]
        assert np.abs(theirs(torch.from_numpy(tokens)).logits.detach().numpy() - model.forward(tokens)[0]).max() < 2e-5
