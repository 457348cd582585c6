"""Cached decoding: rows of different lengths side by side, rolling back, few rows and many; all of it `forward`."""
import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_close, assert_same_bits, same_bits

from minillm.config import GPTConfig
from minillm.kernels import select as registry
from minillm.kernels.select import select
from minillm.models.gpt2 import FEW_TOKENS, GPT
from minillm.models.params import gpt_shapes

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=21, block_size=12, vocab_size=37)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def rough_model(backend="numpy", dtype="float64", config=CONFIG):
    """Far from its initialisation, so that every parameter matters."""
    model = GPT(config, dtype=dtype, ops=select(backend))
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


def some_tokens(B, T, config=CONFIG):
    return np.random.default_rng(0).integers(0, config.vocab_size, (B, T))


@every_backend
def test_rows_of_different_lengths_are_decoded_together(backend):
    """Three prompts read one at a time, then steps for all, some, and in another order."""
    model, tokens = rough_model(backend), some_tokens(3, 10)
    want, cache = model.forward(tokens)[0], model.new_cache(3)
    for row, n in ((1, 5), (0, 2), (2, 3)):
        got = model.decode(tokens[row:row + 1, :n], cache, rows=[row])
        assert_close("prompt", got[0], want[row, :n], "same model")
    assert cache.lengths.tolist() == [2, 5, 3] and cache.length == 5
    for rows in ([0, 1, 2], [2, 0], [0], [1, 2], [2, 1, 0]):
        at = cache.lengths[rows]
        got = model.decode(tokens[rows, at][:, None], cache, rows=rows)
        assert_close(f"rows {rows}", got[:, 0], want[rows, at], "same model")


@every_backend
def test_a_cache_rolls_back(backend):
    """Speculative decoding: wrong tokens are read, dropped, and leave nothing behind."""
    model, tokens = rough_model(backend), some_tokens(2, 9)
    want, cache = model.forward(tokens)[0], model.new_cache(2)
    model.decode(tokens[:, :4], cache)
    model.decode((tokens[:, 4:9] + 1) % 37, cache)
    cache.truncate(4)
    assert_close("after", model.decode(tokens[:, 4:], cache), want[:, 4:], "same model")
    cache.truncate([9, 2])
    assert cache.lengths.tolist() == [9, 2]
    got = model.decode(tokens[1:, 2:7], cache, rows=[1])
    assert_close("one row", got, want[1:, 2:7], "same model")
    cache.reset(0)
    assert_close("reset", model.decode(tokens[:1], cache, rows=[0]), want[:1], "same model")


@every_backend
@pytest.mark.parametrize("T", [1, 5])
def test_last_is_the_last_row(backend, T):
    model, tokens = rough_model(backend), some_tokens(2, T)
    got = model.decode(tokens, model.new_cache(2), last=True)
    assert got.shape == (2, 1, 37)
    assert_close("last", got, model.decode(tokens, model.new_cache(2))[:, -1:], "same model")


@pytest.mark.parametrize("rows, words", [
    ([0], "rows"), ([0, 0], "different rows"), ([0, 3], "different rows"), ([-1, 0], "different rows"),
    ([0.0, 1.0], "rows"), ([[0, 1]], "rows"),
], ids=str)
def test_bad_rows_are_named(rows, words):
    model = rough_model()
    with pytest.raises(ValueError, match=words):
        model.decode(some_tokens(2, 1), model.new_cache(3), rows=rows)


def test_a_full_row_stops_nobody_else():
    model, tokens = rough_model(), some_tokens(2, 12)
    cache = model.new_cache(2)
    model.decode(tokens[:1], cache, rows=[0])
    with pytest.raises(ValueError, match="block_size 12: got 1 tokens from position 12"):
        model.decode(tokens[:, :1], cache)
    assert cache.lengths.tolist() == [12, 0]
    got = model.decode(tokens[1:], cache, rows=[1])
    assert_close("the other", got, model.forward(tokens)[0][1:], "same model")


def test_a_bad_length_is_named():
    cache = rough_model().new_cache(2)
    with pytest.raises(ValueError, match="length must be at least 0"):
        cache.truncate(-1)


# ---- the compiled step --------------------------------------------------------------------------------------------

WIDE = GPTConfig(n_layer=2, n_head=4, n_embd=200, block_size=150, vocab_size=1003)       # of no vector a multiple
compiled_step = pytest.mark.skipif(select().decode_step is None, reason="kernels are not built")


@pytest.fixture
def threads():
    """Tests may change the number of threads; it comes back."""
    kernels = registry._cpp
    before = kernels.max_threads()
    yield kernels.set_threads
    kernels.set_threads(before)


def in_pieces(model, tokens, pieces):
    """Logits of all tokens, read by the cache in pieces of these sizes."""
    cache, ends = model.new_cache(len(tokens)), np.cumsum([0, *pieces])
    return np.concatenate([model.decode(tokens[:, a:b], cache) for a, b in zip(ends, ends[1:])], axis=1)


@compiled_step
@pytest.mark.parametrize("pieces", [[1] * 80, [5] * 16, [60] + [1] * 20, [3, 2, 5, 1, 4] * 5 + [5], [8, 72]], ids=str)
def test_cached_is_uncached_bit_for_bit(pieces):
    """Few tokens take the compiled step, many the training kernels, and `forward` is the training kernels at once."""
    model, tokens = rough_model("cpu", "float32", WIDE), some_tokens(3, 80, WIDE)
    assert_same_bits(in_pieces(model, tokens, pieces), model.forward(tokens)[0])


@compiled_step
def test_the_compiled_step_is_the_written_one_bit_for_bit():
    model, tokens = rough_model("cpu", "float32", WIDE), some_tokens(3, 24, WIDE)
    written = GPT(WIDE, params=model.params, ops=model.ops._replace(decode_step=None))
    results = []
    for each in (model, written):
        cache = each.new_cache(4)
        logits = [each.decode(tokens[:1, :9], cache, rows=[3]), each.decode(tokens[1:, :4], cache, rows=[2, 0]),
                  each.decode(tokens[:, 9:11], cache, rows=[3, 0, 2]),
                  each.decode(tokens[:, 11:14], cache, rows=[0, 2, 3], last=True)]
        results.append([*logits, cache.keys, cache.values, cache.lengths])
    assert_same_bits(*results)


@compiled_step
def test_a_row_is_the_same_in_every_batch_and_thread_count(threads):
    model, tokens = rough_model("cpu", "float32", WIDE), some_tokens(16, 3, WIDE)
    want = in_pieces(model, tokens, [1, 1, 1])
    for n in (1, 2, 3):
        threads(n)
        for rows in (slice(0, 1), slice(3, 5), slice(9, 16)):
            assert_same_bits(in_pieces(model, tokens[rows], [1, 1, 1]), want[rows], rows)


@compiled_step
def test_more_rows_than_one_step_takes():
    assert FEW_TOKENS == registry._cpp.FEW_TOKENS              # without the kernels the model must know it, too
    model, tokens = rough_model("cpu", "float32", WIDE), some_tokens(37, 3, WIDE)
    assert_same_bits(in_pieces(model, tokens, [1] * 3), model.forward(tokens)[0])


@compiled_step
def test_an_op_that_is_replaced_is_not_passed_over():
    """LoRA, tracing and the like put their own functions into the namespace: the shortcut must go."""
    model, tokens = rough_model("cpu", "float32"), some_tokens(1, 1)
    assert select("cpu/bf16").decode_step and not select("numpy").decode_step
    assert not select({"linear": "cpu/1_naive"}).decode_step
    model.ops = model.ops._replace(head=lambda x, wte: np.zeros(3))
    assert model.decode(tokens, model.new_cache(1)).tolist() == [0, 0, 0]


@compiled_step
def test_a_planted_fault_is_seen():
    """The comparisons above would notice one weight in 1.2 million that is off by a thousandth."""
    model, tokens = rough_model("cpu", "float32", WIDE), some_tokens(1, 5, WIDE)
    before = in_pieces(model, tokens, [1] * 5)
    model.params["h.1.mlp.c_proj.weight"][700, 190] += 1e-3
    assert not same_bits(in_pieces(model, tokens, [1] * 5), before)


@compiled_step
@pytest.mark.parametrize("change, words", [
    ({"tokens": np.zeros((17, 1), int)}, "tokens must be 1 to 16"),
    ({"rows": np.array([2])}, r"rows must be in \[0, 1\)"),
    ({"starts": np.array([12])}, r"starts must be in \[0, 12\)"),
    ({"starts": np.array([-1])}, r"starts must be in \[0, 12\)"),
    ({"starts": np.array([11]), "tokens": np.zeros((1, 2), int)}, "block_size 12"),
    ({"weights": []}, "weights must hold"), ({"count": 2}, "count must be 0 to 1"),
    ({"tokens": np.array([[37]])}, r"tokens must be in \[0, 37\)"),
    ({"values": np.zeros((2, 1, 3, 12, 6), "float32")}, "values must have shape"),
    ({"keys": np.zeros((2, 1, 3, 12, 7))}, "keys must have dtype float32"),
    ({"weights": [1.0] * 28}, "must be an array"), ({"weights": [np.zeros((37, 20), "float32")] * 28}, "wte.weight"),
], ids=str)
def test_bad_arguments_of_the_compiled_step_are_named(change, words):
    model = rough_model("cpu", "float32")
    cache = model.new_cache(1)
    good = {"tokens": np.zeros((1, 1), int), "starts": cache.lengths, "rows": np.arange(1), "keys": cache.keys,
            "weights": [model.params[name] for name in gpt_shapes(CONFIG)], "values": cache.values, "eps": 1e-5,
            "count": 1}
    model.ops.decode_step(**good)
    with pytest.raises(ValueError, match=words):
        model.ops.decode_step(**good | change)
