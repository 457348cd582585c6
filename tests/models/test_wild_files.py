"""GPT-2 directories as found: names with prefixes, masks of any type, aliases of settings, what editors leave."""
import json
import struct

import numpy as np
import pytest

from minillm import GPT, GPTConfig, Tokenizer, load_model
from minillm.models.load import load
from minillm.storage.safetensors import read_safetensors, write_safetensors

MODEL = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=6, vocab_size=300), seed=1)
TOKENS = np.array([[5, 0, 299, 17, 4, 4]])


@pytest.fixture
def saved(tmp_path):
    MODEL.save_pretrained(tmp_path)
    return tmp_path


def same(directory):
    return np.array_equal(load_model(directory).forward(TOKENS)[0], MODEL.forward(TOKENS)[0])


def rewritten(directory, change):
    path = directory / "model.safetensors"
    tensors = {name: np.array(array) for name, array in read_safetensors(path)[0].items()}
    write_safetensors(path, change(tensors), {"format": "pt"})


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers(saved, prefix):
    rewritten(saved, lambda tensors: {prefix + name: array for name, array in tensors.items()})
    assert same(saved)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "float32"])
def test_masks_saved_as_weights(saved, dtype):
    mask = np.tril(np.ones((1, 1, 6, 6))).astype(dtype)
    rewritten(saved, lambda tensors: tensors | {f"transformer.h.{i}.attn.bias": mask for i in range(2)}
              | {"transformer.h.0.attn.masked_bias": np.array(1).astype(dtype)})
    assert same(saved)


def test_metadata_of_null(saved):
    path = saved / "model.safetensors"
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.dumps(json.loads(raw[8:8 + length]) | {"__metadata__": None}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length:])
    assert same(saved)


def test_a_byte_order_mark(saved):
    path = saved / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert same(saved)


@pytest.mark.parametrize("names", [{"n_embd": "hidden_size", "n_layer": "num_hidden_layers",
                                    "n_head": "num_attention_heads", "n_positions": "max_position_embeddings"},
                                   {"n_positions": "n_ctx"}])
def test_aliases(saved, names):
    path = saved / "config.json"
    settings = json.loads(path.read_text())
    settings.pop("n_ctx")
    path.write_text(json.dumps({names.get(key, key): value for key, value in settings.items()}))
    assert same(saved)


def test_a_pad_token_that_was_added_without_resizing(saved):
    """transformers loads such a directory, and its users never feed the token: here its text is ordinary text."""
    known = Tokenizer.train(["the cat sat on the mat. " * 20], 300, stop_early=True)
    first = [f"<|{i}|>" for i in range(300 - known.vocab_size)]
    known.with_special_tokens([*first, "<|pad|>", "<|more|>"]).save(saved)
    with pytest.warns(UserWarning, match=r"no embedding for <\|pad\|>, <\|more\|> of its tokenizer"):
        model, tokenizer = load(saved)
    assert tokenizer.vocab_size == model.config.vocab_size == 300 and "<|0|>" in tokenizer.special_tokens
    ids = tokenizer.encode("a <|pad|>", "all")
    assert max(ids) < 300 and tokenizer.decode(ids) == "a <|pad|>" and model.forward(np.array([ids[:6]]))
    known.with_special_tokens(first).save(saved)
    assert load(saved)[1].vocab_size == 300


def test_other_tokens_without_rows_are_an_error(saved):
    Tokenizer.train([" ".join(f"word{i} {chr(97 + i)}mno" for i in range(26)) * 9], 320).save(saved)
    with pytest.raises(ValueError, match="the tokenizer has 3.. ids, the model only 300"):
        load(saved)


@pytest.mark.parametrize("settings", [
    {"use_cache": False, "summary_type": "cls_index", "task_specific_params": {"text-generation": {"max_length": 50}},
     "transformers_version": "4.9", "_name_or_path": "gpt2", "torch_dtype": "float16", "id2label": {"0": "A"},
     "gradient_checkpointing": True, "reorder_and_upcast_attn": True, "pad_token_id": 299, "something_new": [1],
     "position_embedding_type": "absolute", "rope_scaling": None, "n_inner": None, "embd_pdrop": 0.3}])
def test_settings_that_change_nothing(saved, settings):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert same(saved)


@pytest.mark.parametrize("key, value", [
    ("alibi", True), ("rope_theta", 10000.0), ("rotary_dim", 64), ("num_key_value_heads", 2), ("sliding_window", 4),
    ("attn_logit_softcapping", 30.0), ("qk_layernorm", True), ("num_experts", 8), ("parallel_attn", True),
    ("position_embedding_type", "relative_key"), ("multi_query", True), ("activation_function", "quick_gelu"),
    ("activation_function", "tanh"), ("add_cross_attention", True), ("pruned_heads", {"0": [1]})])
def test_settings_that_are_not_computed_are_named(saved, key, value):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"config.json.*{key}"):
        load_model(saved)
