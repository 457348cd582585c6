"""Cached decoding: rows of different lengths side by side, rolling back, few rows and many; all of it `forward`."""
import numpy as np
import pytest
from cases import BACKENDS
from tolerances import assert_close

from minillm.config import GPTConfig
from minillm.model import GPT
from minillm.registry import select

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


@pytest.mark.parametrize("rows, words", [([0], "rows"), ([0, 0], "different rows"), ([0, 3], "different rows"),
                                         ([-1, 0], "different rows"), ([0.0, 1.0], "rows"), ([[0, 1]], "rows")], ids=str)
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
