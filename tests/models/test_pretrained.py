"""Model directories: exact round trips, strict reading of damaged files, transformers both ways."""
import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some_params import CONFIG, random_params
from tolerances import assert_same_bits

from minillm.models.pretrained import read_model, unfollowed_dropout, write_model
from minillm.storage.safetensors import read_safetensors, write_safetensors

# Models

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_round_trip_is_exact(tmp_path, dtype):
    params = random_params(dtype=dtype)
    write_model(tmp_path / "deep" / "run", CONFIG, params, eot_token=3)
    config, loaded = read_model(tmp_path / "deep" / "run", dtype)
    assert config == CONFIG and loaded.flat.flags.writeable
    assert_same_bits(loaded.flat, params.flat)
    assert json.loads((tmp_path / "deep" / "run" / "config.json").read_text())["eos_token_id"] == 3
    assert read_model(tmp_path / "deep" / "run")[1].flat.dtype == np.float32


def test_params_of_another_config_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"wte.weight: expected \(11, 8\), found \(12, 8\)"):
        write_model(tmp_path / "x", CONFIG, random_params(dataclasses.replace(CONFIG, vocab_size=12)))
    assert not (tmp_path / "x").exists()


@pytest.fixture
def saved(tmp_path):
    write_model(tmp_path, CONFIG, random_params())
    return tmp_path


def rewrite(directory, change):
    """Apply `change` to the dict of tensors of a saved model."""
    tensors = dict(read_safetensors(directory / "model.safetensors")[0])
    change(tensors)
    write_safetensors(directory / "model.safetensors", tensors)


def test_buffers_prefixes_and_tied_heads_are_read(saved):
    def change(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["wte.weight"]
        tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 5, 5), bool))
        tensors["h.1.attn.masked_bias"] = np.array(-1e4, np.float32)
    rewrite(saved, change)
    assert_same_bits(read_model(saved)[1].flat, random_params().flat)


def test_shards_are_joined(saved):
    tensors = list(read_safetensors(saved / "model.safetensors")[0].items())
    shards = {"model-1.safetensors": dict(tensors[:5]), "model-2.safetensors": dict(tensors[5:])}
    for name, shard in shards.items():
        write_safetensors(saved / name, shard)
    (saved / "model.safetensors").unlink()
    index = {"weight_map": {tensor: name for name, shard in shards.items() for tensor in shard}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_bits(read_model(saved)[1].flat, random_params().flat)
    index["weight_map"][tensors[0][0]] = "model-2.safetensors"
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"model-2.safetensors.*{tensors[0][0]}"):
        read_model(saved)
    index["weight_map"][tensors[0][0]] = "../model-1.safetensors"
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="weight_map"):
        read_model(saved)


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop("transformer.ln_f.bias"), ["ln_f.bias", "(8,)", "found none"]),
    (lambda t: t.update(rubbish=np.zeros(3)), ["rubbish", "nothing of that name", "(3,)"]),
    (lambda t: t.update({"transformer.ln_f.bias": np.zeros(9)}), ["ln_f.bias", "(8,)", "(9,)"]),
    (lambda t: t.update({"transformer.ln_f.bias": np.zeros(8, np.int64)}), ["ln_f.bias", "int64"]),
    (lambda t: t.update({"lm_head.weight": np.zeros((11, 8))}), ["lm_head.weight", "untied"]),
    (lambda t: t.update({"ln_f.bias": np.zeros(8)}), ["ln_f.bias", "with and without"]),
    (lambda t: t.clear(), ["n_layer"]),
])
def test_wrong_tensors_are_named(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ValueError) as error:
        read_model(saved)
    assert all(word in str(error.value) for word in [str(saved), *words]), error.value


@pytest.mark.parametrize("key, value", [
    ("activation_function", "silu"), ("scale_attn_by_inverse_layer_idx", "yes"), ("add_cross_attention", True),
    ("scale_attn_weights", None), ("n_inner", 31), ("use_rotary", True), ("num_key_value_heads", 1),
    ("model_type", "llama"),
    ("tie_word_embeddings", False),
    ("n_layer", "two"), ("n_layer", 10**12), ("n_head", 3), ("n_positions", 0), ("resid_pdrop", 1.5),
    ("vocab_size", None), ("layer_norm_epsilon", float("nan")), ("quantization_config", {"bits": 4}),
])
def test_configurations_we_do_not_compute_are_named(saved, key, value):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=key) as error:
        read_model(saved)
    assert "config.json" in str(error.value)


def test_harmless_settings_are_accepted(saved):
    path = saved / "config.json"
    stored = json.loads(path.read_text())
    del stored["resid_pdrop"], stored["activation_function"], stored["n_inner"]
    path.write_text(json.dumps(stored | {"n_inner": 32, "attn_pdrop": 0.7, "something_new": [1]}))
    assert read_model(saved)[0].dropout == 0.1   # GPT2Config's own default


@pytest.mark.parametrize("rates, words", [
    ({"resid": 0.2, "embd": 0.2, "attn": 0.0}, ""), ({"resid": 0.0, "embd": 0, "attn": None}, ""),
    ({"resid": 0.2, "embd": 0.2, "attn": 0.3}, "0.2, .* not followed: attn_pdrop 0.3, for attention drops nothing"),
    ({"resid": 0.2, "embd": 0.1, "attn": 0}, "0.2, .* not followed: embd_pdrop 0.1, for the embedding has the same"),
    ({"resid": 0.0, "embd": 0.1, "attn": 0.1}, "0, .* not followed: embd_pdrop 0.1, .*; attn_pdrop 0.1,"),
    ({}, "0.1, .* not followed: attn_pdrop 0.1, for")], ids=str)
def test_dropout_that_training_does_not_follow_is_said(saved, rates, words):
    """Keys that are absent mean 0.1, as in transformers."""
    path = saved / "config.json"
    settings = {key: value for key, value in json.loads(path.read_text()).items() if not key.endswith("_pdrop")}
    path.write_text(json.dumps(settings | {f"{name}_pdrop": rate for name, rate in rates.items()}))
    assert read_model(saved)[0].dropout == rates.get("resid", 0.1)
    assert re.match(f"dropout +{words}", unfollowed_dropout(saved)) if words else unfollowed_dropout(saved) == ""
    path.write_text(json.dumps(settings | {"model_type": "qwen3"}))
    assert unfollowed_dropout(saved) == unfollowed_dropout(saved / "model.gguf") == ""


def test_missing_and_corrupt_files_are_named(saved):
    with pytest.raises(FileNotFoundError, match="nowhere.config.json"):
        read_model(saved / "nowhere")
    stored = (saved / "config.json").read_text()
    for text in ("", stored[:40], "[1, 2]", "\x00"):
        (saved / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            read_model(saved)
    (saved / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="config.json: missing n_layer, n_head"):
        read_model(saved)
    (saved / "config.json").write_text(stored)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        read_model(saved)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(place=st.integers(0, 10**6), flips=st.lists(st.integers(1, 255), min_size=1, max_size=3))
def test_flipped_config_bytes_never_crash(tmp_path_factory, place, flips):
    directory = tmp_path_factory.getbasetemp() / "flipped_config"
    write_model(directory, CONFIG, random_params())
    damaged = bytearray((directory / "config.json").read_bytes())
    for i, flip in enumerate(flips):
        damaged[(place + i) % len(damaged)] ^= flip
    (directory / "config.json").write_bytes(damaged)
    try:
        read_model(directory)
    except ValueError as error:
        assert "config.json" in str(error) or str(directory) in str(error)


# transformers

def test_transformers_reads_ours(saved):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model, report = transformers.GPT2LMHeadModel.from_pretrained(saved, output_loading_info=True)
    assert not any(report.values()), report
    state, params = model.state_dict(), random_params()
    assert torch.equal(state.pop("lm_head.weight"), state["transformer.wte.weight"])
    assert {name.removeprefix("transformer.") for name in state} == set(params)
    for name, array in params.items():
        assert np.array_equal(state["transformer." + name].numpy(), array), name
    ours = model.config
    assert (ours.n_layer, ours.n_head, ours.n_embd, ours.n_positions, ours.vocab_size) == (2, 2, 8, 5, 11)
    assert (ours.resid_pdrop, ours.embd_pdrop, ours.attn_pdrop, ours.layer_norm_epsilon) == (0.25, 0.25, 0.25, 1e-6)
    assert ours.activation_function == "gelu_new" and ours.tie_word_embeddings


@pytest.mark.parametrize("cls, options", [("GPT2LMHeadModel", {}), ("GPT2LMHeadModel", {"max_shard_size": "2KB"}),
                                          ("GPT2Model", {})])
def test_we_read_transformers(tmp_path, cls, options):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=5, vocab_size=11, resid_pdrop=0.25,
                                     layer_norm_epsilon=1e-6, bos_token_id=0, eos_token_id=0)
    model = getattr(transformers, cls)(config)
    model.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors").exists() != bool(options)   # the small limit did make shards
    loaded_config, params = read_model(tmp_path)
    state = {name.removeprefix("transformer."): tensor.numpy() for name, tensor in model.state_dict().items()}
    assert loaded_config == CONFIG
    assert state.keys() - {"lm_head.weight"} == set(params)
    assert all(np.array_equal(params[name], state[name]) for name in params)
