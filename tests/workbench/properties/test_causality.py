"""Leaks planted in each layer are found, and the layer is named."""
import numpy as np
import pytest
from faults import CONFIG, L, attention_with, failed, found, planted, rough_model, with_kernels

from minillm import GPT, select
from minillm.workbench.properties import causality

every_layer = pytest.mark.parametrize("i", range(L))


LEAKS = {           # fault: (op, what it does, calls in a layer, which of them, the layer that is named)
    "mask off by one": ("attention_forward", attention_with(lambda T: np.tri(T, k=1, dtype=bool)), 1, 0,
                        "h.{i}.attn (attention)"),
    "no mask": ("attention_forward", attention_with(lambda T: np.ones((T, T), bool)), 1, 0, "h.{i}.attn (attention)"),
    "queries see the last token": ("linear_forward", lambda x, w, b, out: out + x[:, -1:].mean(), 2, 0,
                                   "h.{i}.attn.c_attn (linear)"),
    "projection over time": ("linear_forward", lambda x, w, b, out: out[:, ::-1].copy(), 2, 1,
                             "h.{i}.attn.c_proj (linear)"),
    "LayerNorm over time": ("residual_layernorm_forward",
                            lambda *args: (args[-1][0], args[-1][1] - args[-1][1].mean(1)), 2, 0,
                            "h.{i}.ln_2 (residual_layernorm)"),
    "mlp mixes tokens": ("mlp_forward", lambda x, *args: args[-1] + 1e-3 * np.roll(args[-1], -1, axis=1), 1, 0,
                         "h.{i}.mlp.c_fc (mlp)"),
}


@every_layer
@pytest.mark.parametrize("fault", LEAKS)
def test_a_leak_is_named_by_its_layer(fault, i):
    op, wrong, calls, call, layer = LEAKS[fault]
    result = failed(causality.causal, planted(rough_model(), op, wrong, calls * i + call, calls * L), "leak")
    assert result.layer == layer.format(i=i) and f"first in {result.layer}: the output at " in result.figure


@with_kernels
def test_a_leak_of_one_bit_between_compiled_kernels():
    def last_bit(qkv, n_head, out):
        if qkv[0, 20, 0] > 0:
            out[0, 19, 5] = np.nextafter(out[0, 19, 5], np.float32(9))
        return out
    model = planted(rough_model("cpu"), "attention_forward", last_bit, 1, L)
    result = failed(causality.causal, model, "the output at 19 changes")
    assert result.layer == "h.1.attn (attention)"


def test_leaks_at_both_ends():
    def next_token(tokens, wte, wpe, out):
        return wte[np.roll(tokens, -1)] + wpe[:tokens.shape[1]]

    def backwards(*args):
        return tuple(array[:, ::-1].copy() for array in args[-1])
    assert failed(causality.causal, planted(rough_model(), "embedding_forward", next_token)).layer == "embedding"
    model = planted(rough_model(), "residual_layernorm_forward", backwards, 2 * L - 1, 2 * L)
    assert failed(causality.causal, model).layer == "ln_f (residual_layernorm)"
    model = rough_model()
    model.ops = model.ops._replace(head=lambda x, wte: x[:, ::-1] @ wte.T)
    assert failed(causality.causal, model).layer == "head"
    model = planted(rough_model(), "linear_cross_entropy_forward", lambda *args: args[-1] + args[-1].mean())
    assert failed(causality.causal, model).layer == "linear_cross_entropy"


def test_a_leak_in_the_models_own_code():
    """No op gives it away, only the logits do."""
    class Peeking(GPT):
        def forward(self, tokens):
            logits, cache = super().forward(tokens)
            return logits + logits[:, ::-1], cache
    assert failed(causality.causal, Peeking(CONFIG, ops=select("numpy"))).layer == "logits"


def test_a_blind_model_is_no_proof():
    model = rough_model()
    model.params.flat[:] = 0
    failed(causality.causal, model, "blind")


@pytest.mark.parametrize("by", [1, -1])
def test_shifted_positions(by):
    def shifted(tokens, wte, wpe, out):
        return wte[tokens] + np.roll(wpe, by, axis=0)[:tokens.shape[1]]
    model = planted(rough_model(), "embedding_forward", shifted)
    assert failed(causality.positions, model, "of wpe reaches").layer == "embedding"
    assert found(causality.causal, model).passed
