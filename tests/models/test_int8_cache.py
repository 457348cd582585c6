"""The KV cache as int8: the rounding's definition, compiled steps to the bit, rows, windows, groups, draft tokens."""
from dataclasses import replace

import numpy as np
import pytest
from tolerances import assert_same_bits, same_bits

from minillm import GPT, GPTConfig, LlamaConfig, generate, select
from minillm.generation.sampling import Sampling
from minillm.generation.speculative import Lookup, speculative_steps
from minillm.kernels import select as registry
from minillm.models.gemma import Gemma
from minillm.models.kv_cache import KVCache, head_from_int8, head_to_int8
from minillm.models.load import model_class

GPT2 = GPTConfig(n_layer=2, n_head=4, n_embd=200, block_size=150, vocab_size=301)
WIDE = LlamaConfig(n_layer=2, n_head=6, n_kv_head=2, head_dim=40, n_embd=200, n_inner=328, block_size=100,
                   vocab_size=301)
KINDS = {"llama": {}, "qwen3": {"family": "qwen3", "qk_norm": True}, "window": {"family": "mistral", "window": 11},
         "olmo2": {"family": "olmo2", "qk_norm": True},
         "gemma2": {"family": "gemma2", "tied": True, "window": 11, "full_layers": (1,), "attention_cap": 2.0,
                    "logit_cap": 3.0}}
compiled = pytest.mark.skipif(select().llama_step is None, reason="kernels are not built")


def int8(model):
    model.kv_cache = "int8"
    return model


def rough(model):
    model.params.flat[:] += 0.05 * np.random.default_rng(1).standard_normal(model.params.flat.size).astype("float32")
    return int8(model)


def gpt(config=GPT2):
    return rough(GPT(config))


def some_tokens(B, T):
    return np.random.default_rng(0).integers(0, 301, (B, T))


def in_pieces(model, tokens, pieces):
    cache, ends = model.new_cache(len(tokens)), np.cumsum([0, *pieces])
    return np.concatenate([model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


# ---- rounding ----

def test_no_number_is_off_by_more_than_half_a_step():
    sizes = 10.0 ** np.arange(-20, 30)[:, None, None]
    x = (np.random.default_rng(0).standard_normal((50, 3, 64)) * sizes).astype("float32")
    numbers, scales = head_to_int8(x)
    assert numbers.dtype == np.int8 and scales.dtype == np.float32
    assert (np.abs(numbers.astype(int)).max(-1) == 127).all()
    assert (np.abs(head_from_int8(numbers, scales) - x) <= 0.5001 * scales[..., None]).all()


@pytest.mark.parametrize("row, read", [
    ([0.0, -0.0], [0, 0]), ([np.nan, 1], [np.nan, np.nan]), ([np.inf, 1], [np.nan, np.nan]), ([1e-45, -1e-45], [0, 0]),
    ([127, 2.5], [127, 2]), ([127, -3.5], [127, -4]), ([2.6e-43, 1e-45], [1.78e-43, 1e-45]),
], ids=str)
def test_rows_at_the_borders(row, read):
    """Also of a compiled step, which rounds by the same rule: it is below, bit for bit."""
    with np.errstate(all="ignore"):
        assert head_from_int8(*head_to_int8(np.array([row], "float32")))[0] == pytest.approx(
            read, rel=1e-6, abs=1e-46, nan_ok=True)


@compiled
def test_the_compiled_rounding_is_the_written_one_at_every_border():
    """Keys and values are biases here, so that they can be anything."""
    model, C = gpt(), GPT2.n_embd
    rows = np.random.default_rng(3).standard_normal((8, 50)).astype("float32")
    rows[0], rows[1, 7], rows[2, 49], rows[3, 0], rows[4] = 0, np.nan, -np.inf, np.inf, np.arange(50) - 24.5
    rows[4, 0], rows[5], rows[6] = 127, rows[5] * np.float32(1e-44), rows[6] * np.float32(3e37)
    rows[3, 1] = np.nan
    model.params["h.0.attn.c_attn.weight"][:] = 0
    model.params["h.0.attn.c_attn.bias"][C:] = rows.ravel()                     # 4 heads of keys, 4 of values
    cache = model.new_cache(1)
    model.decode(some_tokens(1, 1), cache)
    with np.errstate(all="ignore"):
        numbers, scales = head_to_int8(rows)
    found = [np.concatenate([array[0, 0, :, 0] for array in arrays]) for arrays in (
        (cache.keys, cache.values), (cache.key_scales, cache.value_scales))]
    assert np.array_equal(found[0], numbers) and np.array_equal(found[1], scales, equal_nan=True)
    assert {0, 127, -127} <= {*numbers.ravel().tolist()} and np.isnan(scales).sum() == 2 and np.isinf(scales).sum() == 1


# ---- models ----

MODELS = {"gpt2": gpt, "scaled": lambda: gpt(replace(GPT2, scale_attn_by_inverse_layer_idx=True))} | {
    kind: lambda kind=kind: rough(model_class(config := replace(WIDE, **KINDS[kind]))(config)) for kind in KINDS}


@compiled
@pytest.mark.parametrize("kind", MODELS)
def test_the_compiled_step_is_the_written_one_bit_for_bit(kind):
    model, tokens, results = MODELS[kind](), some_tokens(3, 84), []
    for each in (model, model.on(model.ops._replace())):                # ops without the compiled steps
        cache = each.new_cache(4)
        logits = [each.decode(tokens[:1, :9], cache, rows=[3]), each.decode(tokens[1:, :70], cache, rows=[2, 0]),
                  each.decode(tokens[:, 9:11], cache, rows=[3, 0, 2]),
                  each.decode(tokens[:, 11:14], cache, rows=[0, 2, 3], last=True)]
        results.append([*logits, cache.keys, cache.values, cache.key_scales, cache.value_scales, cache.lengths])
    assert_same_bits(*results)
    assert results[0][4].dtype == np.int8 and results[0][4].any()


@compiled
@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "window"])
def test_logits_do_not_depend_on_how_a_text_is_cut(kind):
    model, tokens = MODELS[kind](), some_tokens(2, 80)
    want = in_pieces(model, tokens, [80])
    for pieces in ([1] * 80, [60] + [1] * 20, [3, 2, 5, 1, 5] * 5):
        assert_same_bits(in_pieces(model, tokens[:, :sum(pieces)], pieces), want[:, :sum(pieces)])
    before = registry._cpp.max_threads()
    try:
        registry._cpp.set_threads(3)
        assert_same_bits(in_pieces(model, tokens[1:], [1] * 80), want[1:])
    finally:
        registry._cpp.set_threads(before)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "gemma"])
def test_it_is_near_the_float_cache_and_smaller(kind):
    config = replace(WIDE, family="gemma", tied=True)
    model = rough(Gemma(config)) if kind == "gemma" else MODELS[kind]()
    tokens = some_tokens(1, 60)
    near, cache = model.decode(tokens, model.new_cache(1)), model.new_cache(1)
    model.kv_cache = "float"
    exact, floats = model.decode(tokens, model.new_cache(1)), model.new_cache(1)
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()
    size = sum(array.nbytes for array in (cache.keys, cache.values, cache.key_scales, cache.value_scales))
    head = model.config.head_dim
    assert size == (floats.keys.nbytes + floats.values.nbytes) * (head + 4) // (4 * head)


@compiled
def test_a_planted_fault_is_seen():
    model, tokens = gpt(), some_tokens(1, 20)
    results = []
    for change in (0, 1):
        cache = model.new_cache(1)
        model.decode(tokens[:, :19], cache)
        cache.values[1, 0, 2, 7, 3] += change
        results.append(model.decode(tokens[:, 19:], cache))
    assert not same_bits(*results)


@compiled                                   # of NumPy alone, a BLAS has other sums in another batch
def test_a_row_is_copied_rolled_back_and_emptied():
    model, tokens = gpt(), some_tokens(2, 30)
    want, cache = in_pieces(model, tokens[:1], [20, 10]), model.new_cache(2)
    model.decode(tokens[:1, :20], cache, rows=[0])
    model.decode(tokens[1:, :25], cache, rows=[1])
    cache.copy(0, 1, 20)                                                # as the server does with a common prefix
    cache.truncate([20, 20])
    assert_same_bits(model.decode(tokens[:1, 20:], cache, rows=[1]), want[:, 20:])
    cache.reset(1)
    assert_same_bits(model.decode(tokens[:1], cache, rows=[1]), want)


@compiled
def test_draft_tokens_change_nothing():
    model, ids = gpt(), [1, 2, 3, 1, 2, 3, 1, 2]
    plain = generate(model, ids, 30, temperature=0)
    found = [step.token for step in speculative_steps(model, Lookup(301), ids, 30, Sampling(0))]
    assert found == plain[-30:]


@compiled
@pytest.mark.parametrize("change, words", [
    ({"value_scales": None}, "values must have dtype float32"),
    ({"key_scales": np.zeros((2, 1, 4, 149), "float32")}, "key_scales must have shape"),
    ({"key_scales": np.zeros((2, 1, 4, 150))}, "key_scales must have dtype float32"),
    ({"keys": np.zeros((2, 1, 4, 150, 50), "float32")}, "keys must have dtype int8"),
    ({"values": np.zeros((2, 1, 4, 150, 50), "float32"), "value_scales": None}, "value_scales must be there"),
], ids=str)
def test_bad_arguments_of_the_compiled_step_are_named(change, words):
    model = gpt()
    cache = model.new_cache(1)
    good = {"tokens": np.zeros((1, 1), int), "starts": cache.lengths, "rows": np.arange(1), "keys": cache.keys,
            "weights": [model.params[name] for name in model.names], "values": cache.values, "eps": 1e-5, "count": 1,
            "key_scales": cache.key_scales, "value_scales": cache.value_scales}
    model.ops.decode_step(**good)
    with pytest.raises(ValueError, match=words):
        model.ops.decode_step(**good | change)


def test_a_form_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="kv_cache must be one of float, int8: got 'int4'"):
        KVCache(GPT2, 1, np.float32, "int4")
