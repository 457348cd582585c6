"""Models that are pickled or copied: the same logits and losses, apart from each other; own functions are refused."""
import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from tolerances import assert_same_bits

from minillm import GPT, AdamW, GPTConfig, Llama, LlamaConfig, select
from minillm.kernels.device import device_of
from minillm.models.adapted import LoraModel
from minillm.models.gemma import Gemma
from minillm.models.olmo2 import Olmo2
from minillm.models.quantized import in_panels, quantize

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=40)
LLAMA = LlamaConfig(family="qwen3", n_layer=1, n_head=2, n_kv_head=1, head_dim=16, n_embd=32, n_inner=64, block_size=16,
                    vocab_size=40, qk_norm=True)
MODELS = {"gpt2": lambda: GPT(CONFIG), "exact GELU": lambda: GPT(GPTConfig(1, 2, 32, 16, 40, activation="gelu")),
          "numpy": lambda: GPT(CONFIG, dtype="float64", ops=select("numpy")),
          "qwen3": lambda: Llama(LLAMA), "int8": lambda: quantize(GPT(CONFIG)), "int4": lambda: quantize(Llama(LLAMA),
                                                                                                       "int4"),
          "relu": lambda: GPT(GPTConfig(1, 2, 32, 16, 40, activation="relu")),
          "olmo2": lambda: Olmo2(replace(LLAMA, family="olmo2")),
          "gemma2": lambda: quantize(Gemma(replace(LLAMA, family="gemma2", qk_norm=False, tied=True))),
          "bfloat16": lambda: quantize(Llama(LLAMA), "bfloat16"), "adapters": lambda: LoraModel(GPT(CONFIG), rank=2),
          "panels": lambda: in_panels(GPT(CONFIG))}
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 9))
WAYS = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_is_the_same_model(kind, way):
    model = MODELS[kind]()
    again = WAYS[way](model)
    for one, other in ((model, again), (again, WAYS[way](again))):
        assert_same_bits(one.decode(TOKENS, one.new_cache(2)), other.decode(TOKENS, other.new_cache(2)))
        assert_same_bits(one.losses(TOKENS, TOKENS)[0], other.losses(TOKENS, TOKENS)[0])
        assert one.ops.backends == other.ops.backends
        assert (one.ops.decode_step is None) == (other.ops.decode_step is None)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_trained_by_itself(way):
    model = GPT(CONFIG)
    before, again = model.params.flat.copy(), WAYS[way](model)
    _, grads = again.loss_and_grads(TOKENS, TOKENS)
    AdamW(again.params).step(grads)
    assert_same_bits(model.params.flat, before)
    assert not np.array_equal(again.params["h.1.mlp.c_fc.weight"], model.params["h.1.mlp.c_fc.weight"])
    assert np.shares_memory(again.params["wte.weight"], again.params.flat)
    assert list(again.params) == list(model.params) and again.params.n_decayed == model.params.n_decayed


def test_settings_and_a_bf16_copy_go_along():
    model = GPT(CONFIG)
    model.kv_cache, model.known = "int8", 39
    AdamW(model.params).keep_bits()
    again = pickle.loads(pickle.dumps(model))
    assert again.kv_cache == "int8" and again.known == 39 and not again.params.flat.flags.writeable
    assert_same_bits(again.params.bits.flat, model.params.bits.flat)


@pytest.mark.skipif(device_of("cudasim") is None, reason="the emulator is not built")
@pytest.mark.parametrize("way", WAYS)
def test_a_model_on_a_device_stays_there(way):
    model = GPT(GPTConfig(1, 1, 8, 8, 11))
    there = model.on(select("cudasim"), model.params.on(device_of("cudasim")))
    again = WAYS[way](there)
    assert again.params.device is there.params.device and not isinstance(again.params.flat, np.ndarray)
    assert_same_bits(again.params.flat.numpy(), model.params.flat)
    again.params.flat.fill(0.0)
    assert_same_bits(there.params.flat.numpy(), model.params.flat)


def test_functions_of_one_s_own_are_copied_and_not_pickled():
    model = GPT(CONFIG)
    model.ops = model.ops._replace(head=lambda x, wte: np.zeros(3))
    assert copy.deepcopy(model).decode(TOKENS, model.new_cache(2)).tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match="ops with a function of one's own, head, cannot be pickled"):
        pickle.dumps(model)


def test_ops_alone_travel():
    for backend in ("auto", "numpy", {"layernorm": "numpy"}):
        assert pickle.loads(pickle.dumps(select(backend))).backends == select(backend).backends
