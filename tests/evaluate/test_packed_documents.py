"""Short documents share a forward pass: the figures are those of one document at a time, to the last bit."""
import numpy as np
import pytest
from small_models import TOK, model
from tolerances import assert_close

from minillm import GPT, GPTConfig, Llama, LlamaConfig, select
from minillm.evaluate import choice, harness, perplexity
from minillm.kernels.select import choices

TEXTS = [f"{'the hen says moo ' * (i % 7)}cow {i}" for i in range(40)] + ["the cow says cluck " * 30, "h"]
COMPILED = pytest.mark.skipif("cpu" not in choices("linear"), reason="no compiled kernels")


def made(family, backend):
    if family == "gpt2":
        return GPT(GPTConfig(2, 4, 64, 32, TOK.vocab_size), 0, np.float32, select(backend))
    return Llama(LlamaConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=64, block_size=32, vocab_size=TOK.vocab_size,
                             n_inner=96), 0, np.float32, select(backend))


def in_turn(m, monkeypatch, measure):
    """What `measure` gives for all at once, and when each document has a pass of its own."""
    packed = measure(m)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 1)
    return packed, measure(m)


@COMPILED
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("backend", ["cpu", "cpu/bf16"])
def test_bits_per_byte_are_equal_to_the_last_bit(monkeypatch, family, backend):
    packed, alone = in_turn(made(family, backend), monkeypatch, lambda m: perplexity.surprises(m, TOK, TEXTS))
    assert packed == alone and len(packed) == len(TEXTS)


@COMPILED
@pytest.mark.parametrize("backend", ["cpu", "cpu/bf16"])
def test_choices_and_continuations_are_equal_to_the_last_bit(monkeypatch, backend):
    pairs = [(text, f" says {word}") for text in TEXTS for word in ("moo", "cluck", "c")]
    ids = [(TOK.encode(text), TOK.encode(after)) for text, after in pairs]
    for measure in (lambda m: list(choice.scores_of(m, TOK, pairs)), lambda m: harness.continuation_scores(m, ids)):
        with monkeypatch.context() as patch:
            packed, alone = in_turn(made("gpt2", backend), patch, measure)
        assert packed == alone and len(packed) == len(pairs)


def test_on_numpy_they_are_equal_within_a_blas_s_rounding(monkeypatch):
    packed, alone = in_turn(model(block_size=32), monkeypatch, lambda m: perplexity.surprises(m, TOK, TEXTS))
    assert_close("nats", [s.nats for s in packed], [s.nats for s in alone], "same model")


def test_a_pass_holds_many_documents_and_no_more_tokens_than_it_may(monkeypatch):
    m, passes = model(block_size=32), []
    losses = type(m).losses
    monkeypatch.setattr(type(m), "losses", lambda self, tokens, *rest, **more: (
        passes.append((tokens.size, len(more["lengths"]), self.recompute)), losses(self, tokens, *rest, **more))[1])
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 256)
    perplexity.surprises(m, TOK, TEXTS)
    sizes, documents, recomputed = zip(*passes)
    assert max(sizes) <= 256 and max(documents) > 5 and all(recomputed) and not m.recompute
    assert len(passes) <= 1.3 * sum(sizes) / 256 + 1


def test_documents_are_read_as_they_are_needed():
    """Not all texts' ids are in memory at once; the progress tells of each document."""
    read, told = [], []

    def documents():
        for i in range(100):
            read.append(i)
            yield [1] * 100
    losses = perplexity.losses_of(model(block_size=32), documents())
    next(losses)
    assert len(read) <= perplexity.BATCH_TOKENS // 100 + 1
    perplexity.surprises(model(), TOK, TEXTS[:5], lambda done, total, text: told.append((done, total)))
    assert told == [(i, 5) for i in range(1, 6)]
