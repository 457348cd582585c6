"""The compiled step of Llama and its kin: the written one's bits, in every batch, window, form and thread count."""
from dataclasses import replace

import numpy as np
import pytest
from tolerances import assert_same_bits, same_bits

from minillm import Llama, LlamaConfig, select
from minillm.kernels import select as registry
from minillm.models.llama import step_names
from minillm.models.load import model_class
from minillm.models.quantized import quantize

pytestmark = pytest.mark.skipif(select().llama_step is None, reason="kernels are not built")
WIDE = LlamaConfig(n_layer=2, n_head=6, n_kv_head=2, head_dim=40, n_embd=200, n_inner=328, block_size=100,
                   vocab_size=301)
KINDS = {"llama": {}, "qwen2": {"family": "qwen2", "qkv_bias": True, "tied": True},
         "qwen3": {"family": "qwen3", "qk_norm": True}, "window": {"family": "mistral", "window": 11},
         "biases": {"o_bias": True, "mlp_bias": True, "qkv_bias": True},
         "olmo2": {"family": "olmo2", "qk_norm": True, "qkv_bias": True, "o_bias": True},
         "gemma": {"family": "gemma", "tied": True},
         "gemma2": {"family": "gemma2", "tied": True, "window": 11, "full_layers": (1,), "query_size": 24.0,
                    "attention_cap": 2.0, "logit_cap": 3.0, "o_bias": True}}


def rough(kind="llama"):
    config = replace(WIDE, **KINDS[kind])
    model = model_class(config)(config, ops=select("cpu"))
    model.params.flat[:] += 0.05 * np.random.default_rng(1).standard_normal(model.params.flat.size).astype("float32")
    return model


def some_tokens(B, T):
    return np.random.default_rng(0).integers(0, WIDE.vocab_size, (B, T))


def in_pieces(model, tokens, pieces):
    cache, ends = model.new_cache(len(tokens)), np.cumsum([0, *pieces])
    return np.concatenate([model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


def written(model):
    return model.on(model.ops._replace(llama_step=None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [[1] * 80, [60] + [1] * 20, [3, 2, 5, 1, 5] * 5], ids=len)
def test_cached_is_uncached_bit_for_bit(kind, pieces):
    model, tokens = rough(kind), some_tokens(3, sum(pieces))
    assert model.compiled and not written(model).compiled
    assert_same_bits(in_pieces(model, tokens, pieces), model.forward(tokens)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_step_is_the_written_one_bit_for_bit(kind):
    model, tokens, results = rough(kind), some_tokens(3, 24), []
    for each in (model, written(model)):
        cache = each.new_cache(4)
        logits = [each.decode(tokens[:1, :9], cache, rows=[3]), each.decode(tokens[1:, :4], cache, rows=[2, 0]),
                  each.decode(tokens[:, 9:11], cache, rows=[3, 0, 2]),
                  each.decode(tokens[:, 11:14], cache, rows=[0, 2, 3], last=True)]
        results.append([*logits, cache.keys, cache.values, cache.lengths])
    assert_same_bits(*results)


def test_a_row_is_the_same_in_every_batch_and_thread_count():
    kernels, model, tokens = registry._cpp, rough("qwen3"), some_tokens(16, 3)
    before, want = kernels.max_threads(), in_pieces(model, tokens, [1, 1, 1])
    try:
        for n in (1, 2, 3):
            kernels.set_threads(n)
            for rows in (slice(0, 1), slice(3, 5), slice(9, 16)):
                assert_same_bits(in_pieces(model, tokens[rows], [1, 1, 1]), want[rows], rows)
    finally:
        kernels.set_threads(before)


def test_more_rows_than_one_step_takes():
    model, tokens = rough(), some_tokens(37, 3)
    assert_same_bits(in_pieces(model, tokens, [1] * 3), model.forward(tokens)[0])


def test_padded_ids_stay_impossible_where_logits_are_capped():
    model = rough("gemma2")
    model.known = 290
    logits = model.decode(some_tokens(1, 1), model.new_cache(1))
    assert np.isneginf(logits[..., 290:]).all() and np.abs(logits[..., :290]).max() < 3


@pytest.mark.parametrize("kind, weights", [("olmo2", "int8"), ("gemma2", "int8"), ("gemma2", "bfloat16")])
def test_quantized_kin(kind, weights):
    model, tokens, results = quantize(rough(kind), weights), some_tokens(2, 9), []
    for each in (model, written(model)):
        results.append(np.concatenate([each.decode(tokens, cache := each.new_cache(2)),
                                       each.decode(tokens[:, :1], cache)], axis=1))
    assert model.compiled and not written(model).compiled
    assert_same_bits(*results)


@pytest.mark.parametrize("weights", ["int8", "bfloat16", "int4"])
def test_a_long_prompt_of_quantized_weights_is_read_in_chunks(weights):
    """With the bits of the written path, which would dequantize every matrix; in integers there is nothing to
    dequantize."""
    model, tokens = quantize(rough("qwen2"), weights, arithmetic="float"), some_tokens(2, 50)
    assert quantize(rough("qwen2"), weights).chunked_prefill == (weights == "bfloat16")
    assert model.chunked_prefill and not rough().chunked_prefill
    cache, other = model.new_cache(2), written(model).new_cache(2)
    assert_same_bits(model.decode(tokens, cache, last=True), written(model).decode(tokens, other, last=True))
    assert_same_bits(cache.keys, other.keys)


def test_an_op_that_is_replaced_is_not_passed_over():
    model = rough()
    assert select("cpu/bf16").llama_step and not select("numpy").llama_step
    assert not select({"rope": "numpy"}).llama_step
    model.ops = model.ops._replace(head=lambda x, head: np.zeros(3))
    assert model.decode(some_tokens(1, 1), model.new_cache(1)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", step_names(replace(WIDE, qk_norm=True, qkv_bias=True)))
def test_a_planted_fault_is_seen(name):
    """Every tensor is read: a number that is off by a hundredth changes the logits."""
    model = Llama(replace(WIDE, qk_norm=True, qkv_bias=True), ops=select("cpu"))
    tokens = np.arange(5)[None]
    if name not in model.params:
        return
    before = in_pieces(model, tokens, [1] * 5)
    model.params[name].reshape(-1)[3] += 1e-2
    assert not same_bits(in_pieces(model, tokens, [1] * 5), before)


@pytest.mark.parametrize("change, words", [
    ({"tokens": np.zeros((17, 1), int)}, "tokens must be 1 to 16"),
    ({"rows": np.array([2])}, r"rows must be in \[0, 1\)"),
    ({"starts": np.array([100])}, r"starts must be in \[0, 100\)"),
    ({"starts": np.array([99]), "tokens": np.zeros((1, 2), int)}, "block_size 100"),
    ({"weights": []}, "weights must hold the embedding"), ({"count": 2}, "count must be 0 to 1"),
    ({"tokens": np.array([[301]])}, r"tokens must be in \[0, 301\)"), ({"n_head": 5}, "divides 5"),
    ({"n_head": 0}, "at least 1"), ({"inner": 329}, "gate_proj"), ({"n_head": 8}, "q_proj"),
    ({"cos": np.zeros((100, 16), "float32")}, "cos must have shape"), ({"windows": np.zeros(1, int)}, "windows"),
    ({"values": np.zeros((2, 1, 2, 100, 32), "float32")}, "values must have shape"),
], ids=str)
def test_bad_arguments_are_named(change, words):
    model = rough()
    cache = model.new_cache(1)
    good = {"tokens": np.zeros((1, 1), int), "starts": cache.lengths, "rows": np.arange(1), "keys": cache.keys,
            "values": cache.values, "weights": [model.params.get(name) for name in step_names(WIDE)], "eps": 1e-6,
            "count": 1, "cos": model.cos, "sin": model.sin, "n_head": 6, "inner": 328, "windows": np.zeros(2, int)}
    model.ops.llama_step(**good)
    with pytest.raises(ValueError, match=words):
        model.ops.llama_step(**good | change)
