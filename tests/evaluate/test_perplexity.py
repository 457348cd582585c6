"""Perplexity and bits per byte: numbers that can be worked out by hand, windows that read every token once."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import TOK, model
from tolerances import assert_close

from minillm.evaluate import perplexity


def test_a_uniform_model_has_the_vocabulary_as_perplexity():
    found = perplexity.surprises(model(zero=True), TOK, ["the hen", "says moo and cluck " * 9])
    assert perplexity.perplexity(found) == pytest.approx(TOK.vocab_size)
    tokens, size = sum(s.tokens for s in found), sum(s.bytes for s in found)
    assert perplexity.bits_per_byte(found) == pytest.approx(math.log2(TOK.vocab_size) * tokens / size)
    assert found[0].bytes == 7 and found[0].tokens == len(TOK.encode("the hen"))        # the first token counts


@given(st.integers(1, 100), st.integers(1, 20))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_windows_read_every_token_once_with_half_a_context(length, block_size):
    seen = []
    for start, end, fresh in perplexity.windows(length, block_size):
        assert 0 <= start <= fresh < end <= length and end - start <= block_size
        assert fresh == 0 or fresh - start >= min(block_size - block_size // 2, fresh) - (block_size == 1)
        seen += range(fresh, end)
    assert seen == list(range(length))


def test_long_documents_are_given_their_context():
    m, ids = model(block_size=8), TOK.encode("the hen says cluck and the cow says moo and the hen")
    losses = next(perplexity.losses_of(m, [ids]))
    tokens = np.array(ids)[None]
    assert_close("first", losses[:8], m.losses(tokens[:, :8], tokens[:, 1:9])[0], "same model")
    assert_close("later", losses[8:12], m.losses(tokens[:, 4:12], tokens[:, 5:13])[0][4:], "same model")


def test_nothing_to_read_is_an_error():
    with pytest.raises(ValueError, match="no text"):
        perplexity.surprises(model(), TOK, [])
    with pytest.raises(ValueError, match="empty"):
        perplexity.surprises(model(), TOK, ["hen", ""])
