"""Faults of gradients: lost, of another mean, of untied weights, where there should be none, of another mask, of a
block that was made again wrongly or not at all."""
import numpy as np
import pytest
from faults import CONFIG, failed, rough_model

from minillm import GPT, select
from minillm.workbench.properties import gradients


def test_lost_accumulation():
    model = rough_model()
    right = model.ops.linear_backward

    def overwriting(dout, cache, into):
        for array in into:
            array[:] = 0
        return right(dout, cache, into)
    model.ops = model.ops._replace(linear_backward=overwriting)
    failed(gradients.accumulation, model, "gradient of h.0.attn.c_attn.weight")
    failed(gradients.rank_invariance, model, "gradient of h.0.attn.c_attn.weight")


def test_a_mean_of_means(monkeypatch):
    right = GPT.loss_and_grads
    monkeypatch.setattr(GPT, "loss_and_grads", lambda self, *args, count=None, **kwargs: right(self, *args, **kwargs))
    failed(gradients.accumulation, rough_model(), "loss")


@pytest.mark.parametrize("op", ["head", "linear_cross_entropy_forward"])
def test_an_untied_head(op):
    model = rough_model()
    other, right = model.params["wte.weight"].copy(), getattr(model.ops, op)
    model.ops = model.ops._replace(**{op: lambda x, wte, *rest: right(x, other, *rest)})
    what = "logits" if op == "head" else "losses"
    failed(gradients.tied_weights, model, f"{what} of token 49 do not follow row 49")


def test_a_copy_of_wte_as_the_head():
    class Untied(GPT):
        def forward(self, tokens):
            x, caches = self.hidden(tokens)
            return self.ops.head(x, self.params["wte.weight"].copy()), caches
    failed(gradients.tied_weights, Untied(CONFIG, ops=select("numpy")), "head: reads another matrix than wte")


@pytest.mark.parametrize("lost, words", [("the head's", "head plus embedding"), ("its own", "no gradient from the")])
def test_a_gradient_of_tied_weights_that_is_lost(lost, words):
    model = rough_model()
    right = model.ops.embedding_backward

    def wrong(dout, cache, into):
        if lost == "the head's":
            into[0][:] = 0
            right(dout, cache, into)
    model.ops = model.ops._replace(embedding_backward=wrong)
    failed(gradients.tied_weights, model, words)


@pytest.mark.parametrize("number, words", [(0, "row 25 of wte"), (1, "row 39 of wpe")])
def test_unused_rows_with_a_gradient(number, words):
    model = rough_model()
    right = model.ops.embedding_backward

    def wrong(dout, cache, into):
        right(dout, cache, into)
        into[number][:] += 1e-12
    model.ops = model.ops._replace(embedding_backward=wrong)
    failed(gradients.unused_tokens, model, words)


def test_ignored_targets_with_a_gradient():
    model = rough_model()
    right = model.ops.linear_cross_entropy_backward
    model.ops = model.ops._replace(linear_cross_entropy_backward=lambda dout, cache, into: (
        right(dout, cache, into)[0] + np.float32(1e-6), None))
    failed(gradients.unused_tokens, model, "all targets ignored")


def test_dropout_without_its_key():
    model, rng = rough_model(), np.random.default_rng(0)
    right = model.ops.dropout_forward
    model.ops = model.ops._replace(dropout_forward=lambda x, p, key: right(x, p, (key[0], 0, key[2])))
    failed(gradients.dropout_determinism, model, "another seed, step or micro-batch")
    model.ops = model.ops._replace(dropout_forward=lambda x, p, key: right(x, p, (int(rng.integers(2 ** 31)), 0, 0)))
    failed(gradients.dropout_determinism, model, "loss: 1 of 1 numbers differ")


@pytest.mark.parametrize("fault, words", [("mask", "numbers differ"), ("nothing", "6 calls of attention in 3 layers")])
def test_recomputation_that_is_not_the_forward(monkeypatch, fault, words):
    """The block is made again with the masks of other sites; or it was kept, so that nothing was tried."""
    model, right = rough_model(), GPT.block_again
    if fault == "mask":
        monkeypatch.setattr(GPT, "block_again", lambda self, ops, drop, i, x: right(
            self, ops, lambda x, site: drop(x, site + 1), i, x))
    else:
        monkeypatch.setattr(GPT, "recompute", property(lambda self: False, lambda self, value: None))
    failed(gradients.recomputation, model, words)
