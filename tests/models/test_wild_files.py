"""GPT-2 directories as found: names with prefixes, masks of any type, aliases of settings, what editors leave."""
import json
import struct

import numpy as np
import pytest

from minillm import GPT, GPTConfig, load_model
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
